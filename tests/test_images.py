"""Loading, showing and saving pictures."""

import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torchvision.transforms import functional as TF


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


def test_round_trip_keeps_every_pixel(nst, picture):
    path, pixels = picture
    assert np.array_equal(nst.to_picture(nst.load_image(path, 40)), pixels)


def test_every_8_bit_value_survives(nst):
    values = torch.arange(256).repeat(3, 1, 1).unsqueeze(0) / 255
    assert np.array_equal(np.asarray(nst.to_picture(values))[0, :, 0], np.arange(256))


def test_short_side_becomes_image_size(nst, picture):
    for path in (picture[0], str(picture[0])):
        image = nst.load_image(path, 80)
        assert image.shape == (1, 3, 80, 120)
        assert image.dtype == torch.float32
        assert 0 <= image.min() <= image.max() <= 1


@pytest.mark.parametrize("name", ["my photo.png", "café 写真 🐈.png", "a'b&c;(d).png", "no-ending"])
def test_any_name(nst, picture, tmp_path, name):
    (tmp_path / name).write_bytes(picture[0].read_bytes())
    assert nst.load_image(str(tmp_path / name), 40).shape == (1, 3, 40, 60)


@pytest.mark.parametrize("size", [(640, 64), (64, 640), (48, 33)])
def test_any_aspect_ratio(nst, tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.jpg")
    scale = 64 / min(size)
    assert nst.load_image(tmp_path / "a.jpg", 64).shape[2:] == (
        int(scale * size[1]),
        int(scale * size[0]),
    )


def colour_of(nst, path):
    """The colour that a picture of one colour is loaded as, in 0…255."""
    return (
        nst.load_image(path, 40)
        .mul(255)
        .round()
        .to(torch.uint8)
        .flatten(2)[0]
        .unique(dim=1)
        .squeeze(1)
        .tolist()
    )


ONE_COLOUR = {
    "grey": (Image.new("L", (48, 40), 100), [100, 100, 100]),
    "grey of 16 bits": (
        Image.fromarray(np.full((40, 48), 100 * 257, dtype=np.uint16)),
        [100, 100, 100],
    ),
    "black and white": (Image.new("1", (48, 40), 1), [255, 255, 255]),
    "palette": (Image.new("RGB", (48, 40), (10, 200, 90)).quantize(), [10, 200, 90]),
    "transparent": (Image.new("RGBA", (48, 40), (10, 200, 90, 0)), [255, 255, 255]),
    "half transparent": (Image.new("RGBA", (48, 40), (255, 0, 0, 51)), [255, 204, 204]),
    "opaque": (Image.new("RGBA", (48, 40), (10, 200, 90, 255)), [10, 200, 90]),
    "half transparent grey": (Image.new("LA", (48, 40), (0, 51)), [204, 204, 204]),
}


@pytest.mark.parametrize("name", ONE_COLOUR)
def test_any_mode_has_the_colour_that_a_viewer_shows(nst, tmp_path, name):
    picture, colour = ONE_COLOUR[name]
    picture.save(tmp_path / "a.png")
    assert colour_of(nst, tmp_path / "a.png") == colour


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_transparent_colour(nst, tmp_path, mode):
    Image.new("RGB", (48, 40)).convert(mode).save(
        tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0
    )
    with Image.open(tmp_path / "a.png") as file:
        assert file.has_transparency_data
    assert colour_of(nst, tmp_path / "a.png") == [255, 255, 255]


def test_transparent_grey_of_16_bits(nst, tmp_path):
    Image.fromarray(np.full((40, 48), 100 * 257, dtype=np.uint16)).save(
        tmp_path / "a.png", transparency=100 * 257
    )
    with Image.open(tmp_path / "a.png") as file:
        assert file.info["transparency"] == 100 * 257
    assert colour_of(nst, tmp_path / "a.png") == [255, 255, 255]
    assert nst.load_image(tmp_path / "a.png", 40, "black").max() == 0  # in a mask


@pytest.mark.parametrize(("mode", "size"), [("RGB", (48, 40)), ("RGBA", (41, 33))])
def test_heic(nst, tmp_path, mode, size):
    Image.new(mode, size, (200, 40, 90)).save(tmp_path / "IMG_1.HEIC", "heif", quality=100)
    assert (tmp_path / "IMG_1.HEIC").read_bytes()[4:8] == b"ftyp"
    assert colour_of(nst, tmp_path / "IMG_1.HEIC") == pytest.approx([200, 40, 90], abs=4)


def test_heic_is_turned_upright(nst, random_image, tmp_path):
    upright = nst.to_picture(random_image(0, 40, 60))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    upright.transpose(TURNS[6]).save(tmp_path / "a.heic", "heif", exif=exif.tobytes(), quality=100)
    loaded = nst.load_image(tmp_path / "a.heic", 40)
    assert loaded.shape == (1, 3, 40, 60)
    assert (loaded - TF.to_tensor(upright)).abs().mean() < 0.02


def test_without_pillow_heif_only_heic_is_refused(tmp_path, picture):
    """In a process of its own, because a reader that was registered once stays."""
    heic = tmp_path / "a.heic"
    Image.fromarray(picture[1]).save(heic, "heif")
    code = f"""if True:
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        sys.modules["pillow_heif"] = None  # as if it were not installed
        from definitions import load_definitions
        nst = load_definitions()
        print(list(nst.load_image({str(picture[0])!r}, 40).shape))
        nst.load_image({str(heic)!r}, 40)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[1, 3, 40, 60]\n"
    assert "ValueError" in done.stderr
    assert "give a complete JPEG or PNG" in done.stderr


def test_cmyk(nst, tmp_path):
    Image.new("CMYK", (48, 40), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = colour_of(nst, tmp_path / "a.jpg")
    assert red > 250
    assert green < 5
    assert blue < 5


@pytest.fixture
def swapped_profile():
    """An ICC profile whose red and green primaries are those of sRGB exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_colours_become_srgb(nst, tmp_path, swapped_profile, ending):
    lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(
        ending, {}
    )
    Image.new("RGB", (48, 40), (200, 40, 90)).save(
        tmp_path / f"a.{ending}", icc_profile=swapped_profile, **lossless
    )
    assert colour_of(nst, tmp_path / f"a.{ending}") == pytest.approx([40, 200, 90], abs=3)


def test_colours_of_a_turned_transparent_picture_become_srgb(nst, tmp_path, swapped_profile):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGBA", (40, 48), (255, 0, 0, 51)).save(
        tmp_path / "a.png", icc_profile=swapped_profile, exif=exif
    )
    assert colour_of(nst, tmp_path / "a.png") == pytest.approx([204, 255, 204], abs=3)
    assert nst.load_image(tmp_path / "a.png", 40).shape == (1, 3, 40, 48)


def grey_profile():
    """Return an ICC profile of linear grey: the smallest that the standard allows."""
    white = b"XYZ \0\0\0\0" + struct.pack(
        ">3i", *(round(65536 * value) for value in (0.9642, 1, 0.8249))
    )
    tags = {b"wtpt": white, b"kTRC": b"curv\0\0\0\0" + struct.pack(">I", 0)}
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">2I", 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(">4x4xI4s4s4s12x4s", 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp").ljust(
        68, b"\0"
    )
    body = (header + white[8:]).ljust(128, b"\0") + table + data
    return struct.pack(">I", len(body)) + body[4:]


def test_grey_of_another_gamma_becomes_srgb(nst, tmp_path):
    """A linear 100 of 255 is 0.392; sRGB writes that as 1.055 * 0.392 ** (1 / 2.4) - 0.055."""
    Image.new("L", (48, 40), 100).save(tmp_path / "a.png", icc_profile=grey_profile())
    expected = 255 * (1.055 * (100 / 255) ** (1 / 2.4) - 0.055)
    assert colour_of(nst, tmp_path / "a.png") == pytest.approx([expected] * 3, abs=2)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA"])
@pytest.mark.parametrize("profile", [b"junk", "LAB", "sRGB"])
def test_a_profile_that_does_not_fit_is_ignored(nst, tmp_path, mode, profile):
    if profile == "sRGB":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    elif profile == "LAB":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    path = tmp_path / "a.tif"
    Image.new(mode, (48, 40)).save(path)
    without = colour_of(nst, path)
    Image.new(mode, (48, 40)).save(path, icc_profile=profile)
    assert colour_of(nst, path) == without


ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_photograph_is_turned_upright(nst, random_image, tmp_path, orientation, ending, mode):
    """Stored turned by the inverse of what `orientation` asks for; loaded, it is upright again."""
    upright = nst.to_picture(random_image(0, 40, 60)).convert(mode)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = upright.transpose(TURNS[orientation]) if orientation > 1 else upright
    stored.save(
        tmp_path / f"a.{ending}", exif=exif, **({"lossless": True} if ending == "webp" else {})
    )
    loaded = nst.load_image(tmp_path / f"a.{ending}", 40)
    assert loaded.shape == (1, 3, 40, 60)
    error = (loaded - TF.to_tensor(upright.convert("RGB"))).abs().mean()
    assert error < (0.02 if ending == "jpg" else 1e-6)


# Turned on its side, and with an entry that says "resolution" and holds no number:
# Pillow can read the one, and cannot write the other back.
BROKEN_EXIF = bytes.fromhex(
    "4578696600004d4d002a000000080006010200020000000600000056011200030000000100060000"
    "011a0005000000010000005c013200020000000b00000064016900040000000100000070"
    "8825000400000001000001690000880000000043616e6f6e00000000480000000132303230"
    "3a30313a30310000000190030002000000050000008205000000323032300000000100010002"
    "000000024e00000000000000"
)


@pytest.mark.parametrize("exif", [BROKEN_EXIF, BROKEN_EXIF[:40], b"Exif\0\0junk"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_malformed_exif_in_a_sound_picture(nst, random_image, tmp_path, exif):
    upright = nst.to_picture(random_image(0, 40, 60))
    stored = upright.transpose(TURNS[6]) if exif == BROKEN_EXIF else upright
    stored.save(tmp_path / "a.jpg", exif=exif)
    loaded = nst.load_image(tmp_path / "a.jpg", 40)
    assert loaded.shape == (1, 3, 40, 60)
    assert (loaded - TF.to_tensor(upright)).abs().mean() < 0.02


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_first_frame_of_an_animation(nst, tmp_path, ending):
    first, second = Image.new("RGB", (48, 40), (200, 0, 0)), Image.new("RGB", (48, 40), (0, 0, 200))
    lossless = {"lossless": True} if ending == "webp" else {}
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=[second], **lossless)
    assert colour_of(nst, tmp_path / f"a.{ending}") == [200, 0, 0]


@pytest.mark.parametrize(("size", "image_size"), [((1000, 700), 64), ((48, 40), 64)])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_larger_and_a_smaller_original_look_the_same(
    nst, tmp_path, random_image, size, image_size, ending
):
    """Decoded at a fraction of its size or at all of it: close to a plain scaling."""
    original = nst.to_picture(random_image(0, 64, 64)).resize(size, Image.Resampling.BICUBIC)
    original.save(tmp_path / f"a.{ending}", **({"quality": 95} if ending == "jpg" else {}))
    loaded = nst.load_image(tmp_path / f"a.{ending}", image_size)
    scaled = original.resize((loaded.shape[3], loaded.shape[2]), Image.Resampling.LANCZOS)
    assert (loaded - TF.to_tensor(scaled)).abs().mean() < 0.02


MEASURE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
sys.path.insert(0, {tests!r})
from definitions import load_definitions

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

nst = load_definitions()
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far, which is the parent's too
before = kilobytes("VmRSS")
print(list(nst.load_image({path!r}, 256).shape), kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the memory is read from Linux")
def test_48_megapixels_take_little_memory(tmp_path):
    path = tmp_path / "large.jpg"
    Image.effect_noise((800, 600), 50).convert("RGB").resize((8000, 6000)).save(path)
    code = MEASURE.format(tests=str(Path(__file__).parent), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shape, kilobytes = done.stdout.rsplit(" ", 1)
    assert shape == "[1, 3, 256, 341]"
    assert int(kilobytes) < 100e3


def test_to_picture_clamps_and_does_not_stretch(nst):
    image = torch.tensor([-1.0, 0.25, 0.5, 2.0]).repeat(1, 3, 1, 1)
    assert np.asarray(nst.to_picture(image))[0, :, 0].tolist() == [0, 63, 127, 255]


REFUSALS = {
    "nowhere.jpg": (FileNotFoundError, "in .*: give a path, not an address"),
    "folder": (FileNotFoundError, "in .*: give a path, not an address"),
    "empty.jpg": (ValueError, "cannot be read"),
    "text.jpg": (ValueError, "cannot be read .*: give a complete JPEG or PNG"),
    "truncated.png": (ValueError, "cannot be read .*truncated.*: give a complete"),
    "truncated.jpg": (ValueError, "cannot be read .*truncated.*: give a complete"),
    "photo.heic": (ValueError, "cannot be read .*: give a complete JPEG or PNG"),
    "bomb.png": (ValueError, "cannot be read .*exceeds limit.*of at most 178 megapixels"),
    "float.tif": (ValueError, "cannot be read .*pixels are of type F"),
    "small.png": (ValueError, r"\(100, 31\) pixels: give 32 x 32 or more"),
    "strip.png": (ValueError, r"\(672, 32\) pixels: .* no strip beyond 20 : 1"),
}


@pytest.fixture
def refused(tmp_path, picture):
    """A folder with a file of each name in REFUSALS but the first."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "truncated.png").write_bytes(picture[0].read_bytes()[:2000])
    Image.fromarray(picture[1]).save(tmp_path / "truncated.jpg")
    (tmp_path / "truncated.jpg").write_bytes((tmp_path / "truncated.jpg").read_bytes()[:1500])
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    Image.new("1", (300, 200)).save(tmp_path / "bomb.png")
    Image.new("F", (40, 40), 0.5).save(tmp_path / "float.tif")
    Image.new("RGB", (100, 31)).save(tmp_path / "small.png")
    Image.new("1", (21 * 32, 32)).save(tmp_path / "strip.png")
    return tmp_path


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_the_file_and_what_to_do(nst, refused, name, monkeypatch):
    if name == "bomb.png":
        monkeypatch.setattr(nst.Image, "MAX_IMAGE_PIXELS", 29_999)  # Pillow refuses twice as many
    error, message = REFUSALS[name]
    with pytest.raises(error, match=f"{name}' .*{message}") as raised:
        nst.load_image(refused / name, 256)
    assert type(raised.value) is error


def test_a_panorama_is_fine_and_a_huge_size_is_not(nst, tmp_path):
    Image.new("1", (20 * 32, 32)).save(tmp_path / "panorama.png")
    assert nst.load_image(tmp_path / "panorama.png", 64).shape == (1, 3, 64, 1280)
    with pytest.raises(ValueError, match="has over 60 megapixels: give a smaller size"):
        nst.load_image(tmp_path / "panorama.png", 2000)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_is_no_fault_of_the_file_is_not_blamed_on_it(nst, picture, monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(nst.Image, "open", fail)
    with pytest.raises(error):
        nst.load_image(picture[0], 40)


def test_a_file_that_may_not_be_read_is_not_blamed_on_its_format(nst, picture, monkeypatch):
    def refuse(path, *args):
        raise PermissionError(13, "Permission denied", path)

    nst.open = refuse
    with pytest.raises(PermissionError, match=r"Permission denied.*picture\.png"):
        nst.load_image(picture[0], 40)


def gif_facts(path):
    with Image.open(path) as gif:
        durations = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            durations.append(gif.info["duration"])
        return gif.size, gif.info["loop"], durations


@pytest.fixture
def frames():
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (s, s, 3), dtype=np.uint8))
        for s in (16, 16, 32, 32)
    ]


def test_gif_repeats_and_rests(nst, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(nst.shutil, "which", lambda name: None)
    nst.save_gif(frames, tmp_path / "a.gif")
    assert gif_facts(tmp_path / "a.gif") == ((160, 160), 0, [120, 120, 120, 2000])
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.skipif(
    not shutil.which("gifsicle"),
    reason="install gifsicle (apt install gifsicle) to test compression",
)
def test_gifsicle_makes_the_gif_smaller(nst, frames, tmp_path, monkeypatch):
    nst.save_gif(frames, tmp_path / "small.gif")
    monkeypatch.setattr(nst.shutil, "which", lambda name: None)
    nst.save_gif(frames, tmp_path / "large.gif")
    assert gif_facts(tmp_path / "small.gif") == gif_facts(tmp_path / "large.gif")
    assert (tmp_path / "small.gif").stat().st_size < (tmp_path / "large.gif").stat().st_size


def test_gif_of_a_very_tall_picture(nst, tmp_path):
    nst.save_gif(
        [Image.new("RGB", (32, 6200), colour) for colour in ("red", "blue")], tmp_path / "a.gif"
    )
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.size == (1, 160)


def test_failed_gif_leaves_the_earlier_one(nst, frames, tmp_path, monkeypatch):
    (tmp_path / "a.gif").write_bytes(b"earlier")

    def fail(self, path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        nst.save_gif(frames, tmp_path / "a.gif")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.gif": b"earlier"}


@pytest.mark.parametrize("failures", [2, 5, "folder"])
def test_what_cannot_be_replaced_gets_a_name_beside_it(nst, tmp_path, monkeypatch, failures):
    """On Windows a file that a viewer shows cannot be replaced; a folder nowhere."""
    path, image, replace, calls = tmp_path / "a.png", torch.zeros(1, 3, 8, 8), Path.replace, []
    if failures == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"earlier")

        def busy(self, target):
            calls.append(target)
            if len(calls) <= failures:
                raise PermissionError("in use")
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", busy)
    saved = nst.save_image(image, path)
    assert Image.open(saved).size == (8, 8)
    if failures == 2:
        assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    else:
        assert set(tmp_path.iterdir()) == {path, saved}
        assert saved.stem.startswith("a-")
        assert path.is_dir() if failures == "folder" else path.read_bytes() == b"earlier"


def test_a_name_may_be_a_string(nst, tmp_path):
    assert nst.save_image(torch.zeros(1, 3, 8, 8), str(tmp_path / "a.png")) == tmp_path / "a.png"


def test_saving_many_times_at_once_loses_nothing(nst, tmp_path):
    """Two notebooks may write into one folder."""
    pictures = [torch.full((1, 3, 16, 16), value / 100) for value in range(60)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda image: nst.save_image(image, tmp_path / "a.png"), pictures))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert Image.open(tmp_path / "a.png").size == (16, 16)


def test_a_row_has_all_pictures_side_by_side(nst, tmp_path):
    red, blue = torch.zeros(1, 3, 16, 24), torch.zeros(1, 3, 16, 10)
    red[:, 0], blue[:, 2] = 1, 1
    nst.save_row([red, blue], str(tmp_path / "new folder" / "row.png"))
    row = Image.open(tmp_path / "new folder" / "row.png")
    assert row.size == (24 + 8 + 10 + 8, 16)
    places = {0: (255, 0, 0), 23: (255, 0, 0), 24: (255, 255, 255), 32: (0, 0, 255)}
    assert {x: row.getpixel((x, 8)) for x in places} == places
