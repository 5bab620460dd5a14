#!/usr/bin/env bash
# imageio 2.38.1 with Pillow 13.0.0, imageio.v3.imwrite of a GIF.
#
# `duration` may be a list with one entry for each frame. With a single frame and a list of one entry, writing fails: the list
# reaches the part of Pillow that writes a GIF of one picture, and is divided by ten there. A number is accepted for the same
# frame, and the list is accepted for two frames, even for two equal ones, which are stored as one with the sum of durations.
# A program that collects frames in a loop meets this when the loop ends after its first step.
#
# Seen: one frame, [200]: TypeError (unsupported operand type(s) for /: 'list' and 'int'); one frame, 200: written;
# two equal frames, [100, 200]: one frame of 300 ms.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet imageio==2.38.1 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import imageio.v3 as iio
import numpy as np
from PIL import Image

black = np.zeros((32, 32, 3), np.uint8)
try:
    iio.imwrite("one.gif", [black], duration=[200], loop=0)
except TypeError as error:
    print("one frame, [200]:", error)
else:
    raise SystemExit("one frame with a list of durations is written now")
iio.imwrite("one.gif", [black], duration=200, loop=0)
iio.imwrite("two.gif", [black, black], duration=[100, 200], loop=0)
for name in ("one.gif", "two.gif"):
    with Image.open(name) as gif:
        print(name, gif.n_frames, gif.info["duration"])
        assert gif.n_frames == 1
        assert gif.info["duration"] == {"one.gif": 200, "two.gif": 300}[name]
P
