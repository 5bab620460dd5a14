"""Loading, showing and saving pictures."""

import shutil
import types

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


def test_round_trip_keeps_every_pixel(nst, picture):
    path, pixels = picture
    assert np.array_equal(nst.to_pil(nst.load_image(path)), pixels)


def test_every_8_bit_value_survives(nst):
    values = torch.arange(256).repeat(3, 1, 1).unsqueeze(0) / 255
    assert np.array_equal(np.asarray(nst.to_pil(values))[0, :, 0], np.arange(256))


def test_short_side_becomes_image_size(nst, picture):
    for path in (picture[0], str(picture[0])):
        image = nst.load_image(path, 80)
        assert image.shape == (1, 3, 80, 120)
        assert image.dtype == torch.float32
        assert 0 <= image.min() <= image.max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
@pytest.mark.parametrize("size", [(33, 47), (500, 40)])
def test_any_mode_and_shape_becomes_rgb(nst, tmp_path, mode, size):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, size).save(path)
    image = nst.load_image(path, 64)
    assert image.shape[:2] == (1, 3)
    assert min(image.shape[2:]) == 64


def test_photograph_on_its_side_is_turned_upright(nst, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "side.jpg", exif=exif)
    assert nst.load_image(tmp_path / "side.jpg").shape == (1, 3, 60, 40)


def test_to_pil_clamps_and_does_not_stretch(nst):
    image = torch.tensor([-1.0, 0.25, 0.5, 2.0]).repeat(1, 3, 1, 1)
    assert np.asarray(nst.to_pil(image))[0, :, 0].tolist() == [0, 64, 128, 255]


def test_missing_file(nst, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg.*give a picture's path"):
        nst.load_image(tmp_path / "nowhere.jpg")


def test_not_an_image(nst, tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.jpg is not an image.*give a JPEG or PNG"):
        nst.load_image(tmp_path / "text.jpg")


def test_truncated_image(nst, picture, tmp_path):
    (tmp_path / "half.png").write_bytes(picture[0].read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"half\.png is not an image"):
        nst.load_image(tmp_path / "half.png")


def test_too_small_for_five_poolings(nst, tmp_path):
    Image.new("RGB", (100, 31)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png is \(100, 31\) pixels: give 32 x 32 or more"):
        nst.load_image(tmp_path / "small.png", 256)


@pytest.mark.parametrize("image_size", [0, -1, 31, "256", 8193, 64.5, 64.0])
def test_unusable_image_size(nst, picture, image_size):
    with pytest.raises(ValueError, match=f"image_size is {image_size!r}: give a whole number"):
        nst.load_image(picture[0], image_size)


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
    return [Image.fromarray(generator.integers(0, 256, (s, s, 3), dtype=np.uint8)) for s in (16, 16, 32, 32)]


def test_gif_repeats_and_rests(nst, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(nst.shutil, "which", lambda name: None)
    nst.save_gif(frames, tmp_path / "a.gif")
    assert gif_facts(tmp_path / "a.gif") == ((192, 192), 0, [120, 120, 120, 17 * 120])
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.skipif(not shutil.which("gifsicle"), reason="install gifsicle (apt install gifsicle) to test compression")
def test_gifsicle_makes_the_gif_smaller(nst, frames, tmp_path, monkeypatch):
    nst.save_gif(frames, tmp_path / "small.gif")
    monkeypatch.setattr(nst.shutil, "which", lambda name: None)
    nst.save_gif(frames, tmp_path / "large.gif")
    assert gif_facts(tmp_path / "small.gif") == gif_facts(tmp_path / "large.gif")
    assert (tmp_path / "small.gif").stat().st_size < (tmp_path / "large.gif").stat().st_size


def test_gif_of_one_frame_and_of_a_very_tall_one(nst, tmp_path):
    nst.save_gif([Image.new("RGB", (32, 6200))], tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.size == (1, 192)


def test_without_imageio_there_is_a_sentence_and_no_gif(nst, frames, tmp_path, capsys):
    nst.find_spec = lambda name: None
    nst.save_gif(frames, tmp_path / "a.gif")
    assert "imageio is not installed" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_failed_gif_leaves_the_earlier_one(nst, frames, tmp_path):
    (tmp_path / "a.gif").write_bytes(b"earlier")

    def fail(path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError("disk full")

    nst.import_module = lambda name: types.SimpleNamespace(imwrite=fail)
    with pytest.raises(OSError, match="disk full"):
        nst.save_gif(frames, tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes() == b"earlier"
