"""What must not go wrong in silence: broken files, odd pictures, a crash while saving."""

import io
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

CASES = 600  # of each format
SECONDS = 60  # that reading one file may take before it counts as a hang; it takes milliseconds


def broken(data, generator):
    """Return `data` cut off somewhere, or with some bits flipped, mostly near the beginning."""
    if generator.random() < 0.3:
        return data[: generator.randrange(len(data))]
    flipped = bytearray(data)
    for _ in range(generator.choice([1, 2, 5, 20])):
        end = generator.choice([64, 256, len(data)])
        flipped[generator.randrange(min(end, len(data)))] ^= 1 << generator.randrange(8)
    return bytes(flipped)


@pytest.fixture
def no_hang():
    """A function that lets the test fail after some seconds; `load_image` lets it through."""

    def give_up(*_):
        pytest.fail("reading one file took too long")

    if not hasattr(signal, "SIGALRM"):
        yield lambda seconds: None
        return
    before = signal.signal(signal.SIGALRM, give_up)
    yield signal.alarm
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore")  # of Pillow, about what it reads
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "gif", "heic", "avif"])
def test_broken_files_are_read_or_refused(nst, random_image, tmp_path, no_hang, ending):
    generator = random.Random(ending)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture = nst.to_picture(random_image(0, 48, 64))
    picture.save(file, {"jpg": "jpeg", "heic": "heif"}.get(ending, ending), exif=exif.tobytes())
    outcomes = {"read": 0, "refused": 0}
    for _ in range(CASES):
        path = tmp_path / f"broken.{ending}"
        path.write_bytes(broken(file.getvalue(), generator))
        no_hang(SECONDS)
        try:
            image = nst.load_image(path, 32)
        except ValueError as error:
            assert path.name in str(error)
            outcomes["refused"] += 1
        else:
            assert image.shape[:2] == (1, 3)
            assert min(image.shape[2:]) == 32
            assert 0 <= image.min() <= image.max() <= 1
            outcomes["read"] += 1
        no_hang(0)
    assert min(outcomes.values()) > 0  # some are read, some refused


MODES = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "jpg": ["L", "RGB", "CMYK"],
    "webp": ["RGB", "RGBA"],
}
MODES |= {
    "gif": ["1", "L", "P", "RGB", "RGBA"],
    "tif": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "LAB"],
}
MODES |= {"bmp": ["1", "L", "P", "RGB", "RGBA"]}


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from([(ending, mode) for ending, modes in MODES.items() for mode in modes]),
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    image_size=st.integers(32, 96),
    orientation=st.integers(1, 8),
    seed=st.integers(0, 2**16),
)
def test_any_picture_is_read_or_refused(nst, tmp_path, kind, size, image_size, orientation, seed):
    ending, mode = kind
    width, height = size
    noise = random.Random(seed).randbytes(width * height * 4)
    picture = Image.frombytes("RGBA", size, noise)
    picture = Image.new(mode, size, 1) if mode in ("I;16", "LAB") else picture.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"a.{ending}", **({} if ending in ("gif", "bmp") else {"exif": exif}))
    if min(size) < 32:
        with pytest.raises(ValueError, match="give 32 x 32 or more"):
            nst.load_image(tmp_path / f"a.{ending}", image_size)
        return
    image = nst.load_image(tmp_path / f"a.{ending}", image_size)
    if orientation >= 5 and ending not in ("gif", "bmp"):
        width, height = height, width
    assert min(image.shape[2:]) == image_size
    for found, side in zip(image.shape[2:], (height, width), strict=True):
        assert (
            abs(found - image_size * side / min(size)) < 2 + 0.05 * found
        )  # a JPEG may be decoded at a fraction
    assert image.dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1


KILL = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from definitions import load_definitions
nst = load_definitions()
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
nst.save_safely(lambda unfinished: unfinished.write_bytes(b"complete"), Path({path!r}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_kill_between_write_and_rename_leaves_the_earlier_file(nst, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"earlier")
    code = KILL.format(tests=str(Path(__file__).parent), path=str(path))
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"earlier"
    (left,) = [file for file in tmp_path.glob("*/*")]
    assert left.read_bytes() == b"complete"
    nst.save_safely(lambda unfinished: unfinished.write_bytes(b"later"), path)
    assert path.read_bytes() == b"later"
