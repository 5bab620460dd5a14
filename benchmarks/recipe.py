"""Paint a pair with changes of the notebook's recipe: seconds, memory, losses and the picture of each.

python benchmarks/recipe.py [--size 512] [--rounds 2] [--before DIR] [--out DIR] PHOTO PAINTING ROW ...

Each run has a process of its own, and the rows take turns, so that a slow minute meets all of them.
`--before` adds a checkout of this repository at commit 3b4f745, the second edition, with the arguments
that its notebook gave at up to 512 pixels, and without the bfloat16 that it took where a CPU has it.
"""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def load_definitions(root):
    """Return the definitions of the notebook in a checkout of this repository."""
    spec = importlib.util.spec_from_file_location("definitions", root / "tests" / "definitions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load_definitions()


def weight_places(places):
    """Return a change of the weights of places, which are `places` of the lengths [1, 1, h, w] there."""

    def change(nst, vgg):
        make_targets = nst.make_targets

        def with_places(*arguments):
            content, style = make_targets(*arguments)
            s = {k: places(P.norm(dim=1, keepdim=True)) for k, (P, _) in content.items()}
            return {k: (P, s[k] / (s[k] * P.square()).mean()) for k, (P, _) in content.items()}, style

        nst.make_targets = with_places

    return change


def change_schedule(
    steps=(0, 50, 16, 6), noise=(3, 3, 3, 0), weights=(6, 6, 12, 1), counts=(5, 5, 5, 3)
):
    """Return a change of steps, noise, weights of the content and layers of style at each size."""

    def change(nst, vgg):
        rows = zip((8, 4, 2, 1), steps, noise, weights, counts, strict=True)
        nst.schedule = [(*row, nst.STYLE_LAYERS[:count]) for *row, count in rows if row[1]]

    return change


def mirror(nst, vgg):
    for layer in vgg:
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "reflect"


def average(nst, vgg):
    for index, layer in enumerate(vgg):
        if isinstance(layer, torch.nn.MaxPool2d):
            vgg[index] = torch.nn.AvgPool2d(2)


def match_by(change):
    """Return a change of `match_colours`: what `change` makes of two covariances multiplies colours."""

    def match_colours(image, reference):
        x, r = (i.double().flatten(2)[0] for i in (image, reference))  # [3, places]
        matched = change(torch.cov(x), torch.cov(r)) @ (x - x.mean(1, keepdim=True))
        return (matched + r.mean(1, keepdim=True)).view(image.shape).clamp(0, 1).float()

    return lambda nst, vgg: setattr(nst, "match_colours", match_colours)


def power(covariance, exponent):
    e, V = torch.linalg.eigh(covariance)
    return (V * e.clamp(min=1e-4) ** exponent) @ V.T


def transport_at_each_size(nst, vgg):
    """Transport the colours of each size, so that the next begins with those of the painting."""
    optimize, match_colours, paintings = nst.optimize, nst.match_colours, []

    def match_and_keep(image, reference):
        paintings.append(reference)
        return match_colours(image, reference)

    def optimize_and_transport(*arguments, **knobs):
        for image, losses in optimize(*arguments, **knobs):
            yield image, losses
        if len(arguments[2][1]) == len(nst.STYLE_LAYERS):  # the last size has fewer layers of style
            yield nst.transport_colours(image, paintings[0]), losses

    nst.match_colours, nst.optimize = match_and_keep, optimize_and_transport


def with_means(nst, vgg):
    """Leave the means of the channels in the Gram matrices, as Gatys et al. do."""
    nst.gram_matrix = lambda x: x.flatten(2) @ x.flatten(2).mT / x[0, 0].numel()


def sharp_painting(nst, vgg):
    """Make the targets of the painting as it is, and not of a blurred one."""
    nst.TF = types.SimpleNamespace(**vars(nst.TF))
    blur = nst.TF.gaussian_blur
    nst.TF.gaussian_blur = lambda image, kernel, *sigma: image if sigma else blur(image, kernel)


ROWS = {
    "notebook": lambda nst, vgg: None,
    "with-means": with_means,
    "mirrored-padding": mirror,
    "average-pooling": average,
    "all-places-alike": weight_places(torch.ones_like),
    "squares": weight_places(torch.square),
    "sharp-painting": sharp_painting,
    "from-an-eighth": change_schedule(steps=(40, 30, 16, 6)),
    "no-noise": change_schedule(noise=(0, 0, 0, 0)),
    "twice-the-steps": change_schedule(steps=(0, 100, 32, 12)),
    "half-the-content": change_schedule(weights=(3, 3, 6, 0.5)),
    "twice-the-content": change_schedule(weights=(12, 12, 24, 2)),
    "twice-the-content-at-full-size": change_schedule(weights=(6, 6, 12, 2)),
    "three-layers-at-half-size": change_schedule(counts=(5, 5, 3, 3)),
    "all-layers-at-full-size": change_schedule(counts=(5, 5, 5, 5)),
    "matched-red-green-blue": match_by(lambda x, r: (r.diag() / x.diag().clamp(min=1e-4)).sqrt().diag()),
    "matched-covariance": match_by(lambda x, r: power(r, 0.5) @ power(x, -0.5)),
    "transport-at-each-size": transport_at_each_size,
    "no-transport": lambda nst, vgg: setattr(nst, "transport_colours", lambda image, reference: image),
    "transported-start": lambda nst, vgg: setattr(nst, "match_colours", nst.transport_colours),
}


def paint(row, root, size, photo, painting, path):
    """Paint in this process, and print what was measured as a line of JSON."""
    nst = load_definitions(root)
    vgg, nst.schedule = nst.load_vgg19(), getattr(nst, "SCHEDULE", None)
    pictures = nst.load_image(photo, size), nst.load_image(painting, round(1.5 * size))
    start = time.perf_counter()
    if row == "before":
        steps = nst.stylize(vgg, *pictures, num_steps=nst.choose_steps(size))
        image, losses = nst.run(steps)[0], {}
    else:
        ROWS[row](nst, vgg)
        for image, losses in nst.stylize(vgg, *pictures, schedule=nst.schedule):
            pass
    seconds = time.perf_counter() - start
    nst.to_picture(image).save(path)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "GiB": memory, "dtype": str(vgg[0].weight.dtype), **losses}))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("photo", type=Path)
    parser.add_argument("painting", type=Path)
    parser.add_argument("rows", nargs="+", choices=list(ROWS), metavar="ROW")
    parser.add_argument("--child", choices=[*ROWS, "before"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    rows = ["before"] * bool(a.before) + a.rows
    a.out.mkdir(parents=True, exist_ok=True)

    def file(row):
        return a.out / f"{a.photo.stem}-in-{a.painting.stem}-{a.size}-{row}.png"

    if a.child:
        root = a.before if a.child == "before" else ROOT
        return paint(a.child, root, a.size, a.photo, a.painting, file(a.child))
    measured = {row: [] for row in rows}
    for _ in range(a.rounds):
        for row in rows:
            child = subprocess.run(
                [sys.executable, __file__, "--child", row, *sys.argv[1:]],
                stdout=subprocess.PIPE,
                check=True,
            )
            measured[row].append(json.loads(child.stdout.splitlines()[-1]))
            print(row, measured[row][-1], flush=True)
    first = rows[0]
    for row, runs in measured.items():
        seconds, memory = (statistics.median(r[key] for r in runs) for key in ("seconds", "GiB"))
        by = [statistics.median(r[key] for r in measured[first]) for key in ("seconds", "GiB")]
        print(f"{row}: {seconds:.1f} s ({seconds / by[0]:.2f}), {memory:.2f} GiB ({memory / by[1]:.2f})")


if __name__ == "__main__":
    main()
