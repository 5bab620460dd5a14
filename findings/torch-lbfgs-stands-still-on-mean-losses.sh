#!/usr/bin/env bash
# torch 2.14.1, torch.optim.LBFGS without a line search, its default.
#
# L-BFGS learns the curvature from pairs of a step s and the change y of the gradient along it. PyTorch keeps a pair only if
# y * s is above 1e-10, a number that no argument changes and that does not depend on the scale of the loss. A mean over N
# pixels has gradients of about 1/N, so the first steps are about as short, and y * s is about 2 / N². From some size on no
# pair is ever kept, and each step is one of gradient descent, 1/N long. Nothing is raised or warned of, and none of the
# tolerances stops the loop. The same loss times N, which has the same minimum, is solved in a few steps, and so is the mean
# with line_search_fn="strong_wolfe", whose steps are longer.
#
# Seen: `mse_loss` between a grey image [3, side, side] and random values, max_iter=100; loss before, after, evaluations.
# Side 128: mean 0.0830, 2e-7, 3. Side 192: mean 0.0832, 0.0829, 100; mean times N 0.0832, 1e-18, 4; mean with strong_wolfe
# 0.0832, 7e-15, 7. Side 512: mean 0.08329, 0.08325, 100; mean times N 0.0833, 1e-27, 5; with strong_wolfe 0.0833, 3e-15, 9.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import torch
from torch.nn.functional import mse_loss


def solve(side, times, **options):
    """Return mean squared errors before and after, and the number of evaluations of the loss."""
    torch.manual_seed(0)
    target = torch.rand(3, side, side)
    image = torch.full_like(target, 0.5).requires_grad_()
    optimizer = torch.optim.LBFGS([image], max_iter=100, **options)
    before, evaluations = mse_loss(image, target).item(), []

    def closure():
        optimizer.zero_grad()
        loss = mse_loss(image, target) * times
        loss.backward()
        evaluations.append(loss.item())
        return loss

    optimizer.step(closure)
    return before, mse_loss(image, target).item(), len(evaluations)


seen = {}
for side in (128, 192, 512):
    for name, times, options in (
        ("mean", 1, {}),
        ("mean times N", 3 * side * side, {}),
        ("mean, strong_wolfe", 1, {"line_search_fn": "strong_wolfe"}),
    ):
        seen[side, name] = solve(side, times, **options)
        print(side, name, *(f"{x:.6g}" for x in seen[side, name]))
for (side, name), (before, after, evaluations) in seen.items():
    if name == "mean" and side > 128:
        assert after > 0.99 * before and evaluations == 100
    else:
        assert after < 1e-6 and evaluations < 10
P
