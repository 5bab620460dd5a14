#!/usr/bin/env python3
"""Is a result as sharp as what it was made of, and free of a pixel grid? Compares power spectra.

    python benchmarks/picture_quality.py RESULT CONTENT STYLE [STYLE_SHORT_SIDE]

STYLE_SHORT_SIDE is the short side in pixels at which the style was loaded (default: 1.5 times the
result's; never more than the file has). The content is scaled to the result's size. Three figures
of lightness, over spatial frequencies in cycles a pixel:

grid       0.26 to 0.42: power along the two axes over power along the diagonals, relative to the
           same ratio of the style. Brush strokes have no reason to follow the pixel grid: 1 is
           right; over 2 the eye sees a mesh.
sharpness  0.26 to 0.42: power relative to the style's. 1 is as sharp as the painting, under 0.4 it
           looks blurred. A style much smoother than the photograph gives more than 1.
grain      above 0.42: power relative to that of style or content, whichever has more. Over 1.5 it
           looks noisy.
"""

import sys

import numpy as np
from PIL import Image


def bands(path, short_side=None):
    picture = Image.open(path).convert("RGB").convert("L")
    if short_side and short_side < min(picture.size):
        scale = short_side / min(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
        )
    values = np.asarray(picture, float) / 255
    values = (
        (values - values.mean())
        * np.hanning(values.shape[0])[:, None]
        * np.hanning(values.shape[1])
    )
    power = np.abs(np.fft.fft2(values)) ** 2 / values.size
    fy, fx = (
        np.abs(np.fft.fftfreq(values.shape[0]))[:, None],
        np.abs(np.fft.fftfreq(values.shape[1]))[None],
    )
    frequency, along_axis = np.hypot(fy, fx), np.abs(np.arctan2(fy, fx) - np.pi / 4) > np.pi / 8
    fine, finest = (
        (frequency >= 0.26) & (frequency < 0.42),
        (frequency >= 0.42) & (frequency < 0.55),
    )
    return (
        power[fine & along_axis].mean() / power[fine & ~along_axis].mean(),
        power[fine].mean(),
        power[finest].mean(),
    )


def quality(result, content, style, style_short_side=None):
    """Return {"grid", "sharpness", "grain"} of a result, given the files that it was made of."""
    short_side = min(Image.open(result).size)
    r, c, s = (
        bands(result),
        bands(content, short_side),
        bands(style, style_short_side or round(1.5 * short_side)),
    )
    return {"grid": r[0] / s[0], "sharpness": r[1] / s[1], "grain": r[2] / max(s[2], c[2])}


if __name__ == "__main__":
    result, content, style, *rest = sys.argv[1:]
    figures = quality(result, content, style, *map(int, rest))
    print(result.rsplit("/", 1)[-1], *(f"{name} {value:.2f}" for name, value in figures.items()))
