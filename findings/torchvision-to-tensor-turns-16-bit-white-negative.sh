#!/usr/bin/env bash
# torchvision 0.29.1 with torch 2.14.1 and Pillow 13.0.0.
#
# A 16-bit grey picture has mode I;16 in Pillow. `torchvision.transforms.functional.to_tensor`, the older of two ways to make
# a tensor of it, returns it as int16 without a word, although the values are unsigned: the brighter half of the picture
# becomes negative, white is -1, and nothing is scaled to 0..1. `transforms.v2.functional.to_image` returns the same picture as
# uint16, and to_dtype(..., torch.float32, scale=True) scales it correctly to 0..1.
#
# Seen for 0, 32767, 32768, 65535: to_tensor int16 0, 32767, -32768, -1; to_image uint16 0, 32767, 32768, 65535.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as old
from torchvision.transforms.v2 import functional as new

values = [0, 32767, 32768, 65535]
picture = Image.fromarray(np.array([values], dtype=np.uint16))
assert picture.mode == "I;16"
tensor, image = old.to_tensor(picture), new.to_image(picture)
print("to_tensor", tensor.dtype, tensor.flatten().tolist())
print("to_image", image.dtype, image.flatten().tolist())
assert (tensor.dtype, tensor.flatten().tolist()) == (torch.int16, [0, 32767, -32768, -1])
assert (image.dtype, image.flatten().tolist()) == (torch.uint16, values)
scaled = new.to_dtype(image, torch.float32, scale=True).flatten().tolist()
assert scaled[0] == 0 and abs(scaled[2] - 0.5) < 1e-4 and scaled[3] == 1
P
