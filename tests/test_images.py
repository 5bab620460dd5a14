"""Pictures become tensors: upright, on white, in sRGB; and colours are matched."""

import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image, ImageCms

RED, BLUE = (220, 40, 40), (30, 60, 200)


def halves(size=(80, 48)):
    """A picture whose left half is red and whose right half is blue."""
    picture = Image.new("RGB", size, BLUE)
    picture.paste(RED, (0, 0, size[0] // 2, size[1]))
    return picture


def colours(image, row, column):
    return (255 * image[0, :, row, column]).round().int().tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(nst, tmp_path, orientation):
    """The file holds what a camera stores, whose EXIF says how to turn it back."""
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    picture = halves() if stored is None else halves().transpose(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "photograph.png", exif=exif)
    image = nst.load_image(tmp_path / "photograph.png", 48)
    assert image.shape == (1, 3, 48, 80)
    assert colours(image, 5, 5) == list(RED)
    assert colours(image, 5, 75) == list(BLUE)


def test_the_short_side_gets_the_size_and_the_optimiser_accepts_the_memory(nst, tmp_path):
    halves((60, 90)).save(tmp_path / "upright.png")
    image = nst.load_image(tmp_path / "upright.png", 40)
    assert image.shape == (1, 3, 60, 40)
    assert image.is_contiguous()
    assert image.dtype == torch.float32


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_lie_on_white(nst, tmp_path, mode):
    picture = Image.new("RGBA", (64, 64), (200, 200, 200, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 32, 64))
    picture.convert(mode).save(tmp_path / "cut-out.png")
    image = nst.load_image(tmp_path / "cut-out.png", 64)
    assert colours(image, 32, 5) == [255, 255, 255]
    assert colours(image, 32, 60) == [200, 200, 200]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_colours_are_converted_to_srgb(nst, tmp_path, mode):
    """A profile that exchanges red and blue must change the pixels; for grey it changes nothing."""
    sRGB = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = [132 + 12 * i for i in range(int.from_bytes(sRGB[128:132]))]
    red, blue = (next(e for e in entries if sRGB[e : e + 4] == name) for name in (b"rXYZ", b"bXYZ"))
    sRGB[red : red + 4], sRGB[blue : blue + 4] = b"bXYZ", b"rXYZ"
    picture = Image.new("RGB", (64, 64), RED)
    picture = picture.quantize(2) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / "file.png", icc_profile=bytes(sRGB))
    found = colours(nst.load_image(tmp_path / "file.png", 64), 9, 9)
    expected = picture.convert("RGB").getpixel((0, 0))[::-1]
    assert found == pytest.approx(expected, abs=3)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_profile_of_grey_is_used(nst, tmp_path, mode):
    """In linear grey, which some scanners write, 100 of 255 is as light as 168 in sRGB."""
    white = b"XYZ \0\0\0\0" + bytes.fromhex("0000f6d600010000 0000d32d")
    curve = b"curv" + bytes(8)  # no entries: output is input
    tags = b"wtpt" + bytes([0, 0, 0, 156, 0, 0, 0, 20]) + b"kTRC" + bytes([0, 0, 0, 176, 0, 0, 0, 12])
    header = bytearray(128)
    header[4:36] = b"\0\0\0\0\x02\x40\0\0mntrGRAYXYZ " + bytes(12)
    header[36:40], header[68:80] = b"acsp", bytes.fromhex("0000f6d6000100000000d32d")
    profile = bytes(header) + bytes([0, 0, 0, 2]) + tags + white + curve
    profile = len(profile).to_bytes(4) + profile[4:]
    Image.new(mode, (64, 64), 100 if mode == "L" else (100, 255)).save(
        tmp_path / "g.png", icc_profile=profile
    )
    assert colours(nst.load_picture(tmp_path / "g.png", 64), 9, 9) == pytest.approx([168] * 3, abs=2)


def test_heic_files_open(nst, tmp_path):
    pillow_heif.from_pillow(halves((64, 64))).save(tmp_path / "phone.heic", quality=95)
    image = nst.load_image(tmp_path / "phone.heic", 64)
    assert colours(image, 32, 8) == pytest.approx(RED, abs=12)
    assert colours(image, 32, 56) == pytest.approx(BLUE, abs=12)


def test_what_is_no_picture_is_said_to_be_none(nst, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(OSError, match=r"text\.jpg"):
        nst.load_image(tmp_path / "text.jpg", 64)


def test_pictures_come_back_clamped(nst):
    image = torch.tensor([-0.2, 0.0, 100.4 / 255, 1.3]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    picture = nst.to_picture(image)
    assert [picture.getpixel((x, 0))[0] for x in range(4)] == [0, 0, 100, 255]


def test_every_byte_survives_the_way_there_and_back(nst, tmp_path):
    picture = Image.frombytes("RGB", (16, 16), bytes(i for i in range(256) for _ in range(3)))
    picture.save(tmp_path / "all.png")
    assert nst.to_picture(nst.load_image(tmp_path / "all.png", 16)).tobytes() == picture.tobytes()


def test_gifs_keep_their_order_and_rest_on_the_last_frame(nst, tmp_path, monkeypatch):
    monkeypatch.setattr(nst.shutil, "which", lambda name: None)
    frames = [Image.new("RGB", (60, 40), (80 * i, 0, 0)) for i in range(3)]
    page = nst.save_gif(tmp_path / "run.gif", frames, "red")
    with Image.open(tmp_path / "run.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (3, (60, 40), 0)
        seen = []
        for number in range(3):
            gif.seek(number)
            seen.append((gif.info["duration"], gif.convert("RGB").getpixel((9, 9))[0]))
    assert [duration for duration, _ in seen] == [120, 120, 2000]
    assert [red for _, red in seen] == pytest.approx([0, 80, 160], abs=4)
    assert 'src="data:image/gif;base64,R0lG' in page.data
    assert 'alt="red"' in page.data


def test_matched_colours_have_the_mean_and_spread_of_the_reference(nst):
    generator = torch.Generator().manual_seed(0)
    image = 0.5 + 0.05 * torch.randn(1, 3, 40, 50, generator=generator)
    scale, shift = (torch.tensor(x).view(1, 3, 1, 1) for x in ([0.05, 0.02, 0.08], [0.4, 0.5, 0.6]))
    reference = shift + scale * torch.randn(1, 3, 30, 30, generator=generator)
    reference += 0.05 * torch.randn(1, 1, 30, 30, generator=generator)  # the light
    (red, green, blue), (r, g, b) = nst.match_colours(image, reference)[0], reference[0]
    assert [x.mean().item() for x in (red, green, blue)] == pytest.approx([0.4, 0.5, 0.6], abs=0.01)
    assert (red + green + blue).std().item() == pytest.approx((r + g + b).std().item(), rel=0.01)
    assert (red + green - 2 * blue).std().item() == pytest.approx((r + g - 2 * b).std().item(), rel=0.01)
    assert (red - green).std().item() == pytest.approx((r - g).std().item(), rel=0.01)


def test_an_empty_photograph_stays_nearly_flat_and_gets_the_mean_colour(nst, random_image):
    """Its noise would be blown up to the full spread of the painting, and no noise at all to nan."""
    noise = 0.001 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    reference = random_image(1) * 0.2 + 0.4
    for empty in (0.5 + noise, torch.zeros(1, 3, 64, 64)):
        matched = nst.match_colours(empty, reference)
        assert torch.allclose(matched.mean((2, 3)), reference.mean((2, 3)), atol=0.02)
        assert matched.std() < 0.3 * reference.std()


def test_transported_colours_have_the_whole_distribution(nst):
    """Three colours with nothing between them: mean and spread would give greys, this does not."""
    reference = torch.zeros(1, 3, 32, 32)
    for channel, (first, last) in enumerate([(0, 12), (12, 22), (22, 32)]):
        reference[:, channel, :, first:last] = 0.9
    image = torch.rand(1, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    found = nst.transport_colours(image, reference)[0].flatten(1).T
    distance = torch.cdist(found, 0.9 * torch.eye(3))
    assert distance.amin(1).mean() < 0.01
    shares = [(distance.argmin(1) == number).float().mean().item() for number in range(3)]
    assert shares == pytest.approx([12 / 32, 10 / 32, 10 / 32], abs=0.02)


def test_areas_have_the_colours_of_areas_of_the_reference(nst, random_image):
    """Seen from some distance, where specks mix, the distributions agree too."""
    generator = torch.Generator().manual_seed(0)
    image = 0.2 * random_image(0, 128, 128) + 0.3 + 0.2 * torch.rand(1, 3, 128, 128, generator=generator)
    reference = random_image(1, 128, 128)
    transported = nst.transport_colours(image, reference)
    found, expected = (
        nst.TF.gaussian_blur(x, 5).flatten(2).sort(2).values for x in (transported, reference)
    )
    assert (found - expected).abs().mean() < 0.02
    fine, coarse = transported, nst.TF.gaussian_blur(transported, 5)
    assert (fine - coarse).std() > 0.05  # as much as in the image


@pytest.mark.parametrize("side", [256, 512])
def test_transport_does_not_blow_faint_grain_up(nst, side):
    """Two flat areas with grain, in black and white: pixels alone would give specks everywhere."""
    generator = torch.Generator().manual_seed(0)
    image = 0.5 + 0.01 * torch.randn(1, 3, side, side, generator=generator)
    reference = torch.rand(1, 1, side, side, generator=generator).round().expand(1, 3, side, side)
    transported = nst.transport_colours(image, reference)
    assert (transported - nst.TF.gaussian_blur(transported, 5)).std() < 0.03


def test_transport_keeps_the_order_of_greys(nst):
    image = torch.linspace(0.2, 0.5, 48 * 48).view(1, 1, 48, 48).expand(1, 3, 48, 48)
    reference = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).expand(1, 3, 64, 64)
    transported = nst.transport_colours(image, reference)
    expected = torch.nn.functional.interpolate(reference, (48, 48), mode="nearest")
    assert torch.allclose(
        transported.flatten(2).sort(2).values, expected.flatten(2).sort(2).values, atol=5e-3
    )
    assert (transported[0, 0].flatten().diff() >= -1e-4).all()


def test_kept_colours_change_lightness_only(nst, random_image):
    photograph = 0.4 + 0.2 * random_image(0)
    image = 0.4 + 0.2 * random_image(1)
    kept = nst.keep_colours(image, photograph)
    weights = torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
    assert torch.allclose((kept * weights).sum(1), (image * weights).sum(1), atol=2e-3)
    assert torch.allclose(kept[:, 0] - kept[:, 1], photograph[:, 0] - photograph[:, 1], atol=1e-5)


def test_a_huge_photograph_is_decoded_small(nst, tmp_path, monkeypatch):
    """A JPEG of 24 megapixels reaches the conversion of colours with a quarter of them, upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((6000, 4000)).convert("RGB").save(tmp_path / "huge.jpg", exif=exif)
    converted, convert = [], Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda x, *a, **k: converted.append(x.size) or convert(x, *a, **k)
    )
    image = nst.load_image(tmp_path / "huge.jpg", 512)
    assert image.shape == (1, 3, 768, 512)
    assert max(max(size) for size in converted) <= 3000
    assert image[..., 0].mean() > image[..., -1].mean() + 0.9  # its bottom has come to the left


def check(load, path, message):
    with pytest.raises(OSError if "be used" in message else AssertionError, match=message) as error:
        load(path, 64)
    assert path.name in str(error.value)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.heic", "a.webp", "zeros.png"])
def test_a_broken_file_is_an_error_with_its_name_and_what_to_do(nst, tmp_path, name):
    """Half a file, of which Pillow and pillow-heif say so in three kinds of errors, without the name."""
    Image.fromarray(np.random.randint(0, 255, (96, 96, 3), np.uint8)).save(tmp_path / name)
    stored = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(stored[: len(stored) // 2] + bytes(999 * ("zeros" in name)))
    for load in (nst.load_image, nst.load_picture):
        check(load, tmp_path / name, "(?s)can't be used: .*Check the file")


def test_a_broken_profile_is_an_error_with_the_name_of_the_file(nst, tmp_path):
    halves((64, 64)).save(tmp_path / "odd.png", icc_profile=b"no profile" * 20)
    check(nst.load_image, tmp_path / "odd.png", "can't be used: ")


@pytest.mark.parametrize("kind", ["uint16", "float32", "int32"])
def test_more_than_8_bits_are_an_error_and_not_a_white_or_black_picture(nst, tmp_path, kind):
    Image.fromarray(np.full((64, 64), 3000, kind)).save(tmp_path / "scan.tiff")
    check(nst.load_image, tmp_path / "scan.tiff", "can't be used: transparent, or over 8 bits")


@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 16), (9, 18), (1, 16), (1, 18)])
def test_wide_colours_given_by_numbers_are_an_error_and_not_flat_or_dark(
    nst, tmp_path, primaries, transfer
):
    """Display P3, and the two kinds of HDR, PQ and HLG."""
    numbers = {"color_primaries": primaries, "transfer_characteristics": transfer}
    file = pillow_heif.from_pillow(halves((64, 64)))
    file.save(tmp_path / "hdr.heic", matrix_coefficients=1, full_range_flag=1, **numbers)
    check(nst.load_picture, tmp_path / "hdr.heic", "is not sRGB")


def test_a_profile_goes_before_the_numbers(nst, tmp_path, monkeypatch):
    """A file may have both; pillow-heif writes one of them only, so the numbers are added here."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    halves((64, 64)).save(tmp_path / "phone.png", icc_profile=profile)
    open_file = Image.open

    def open_with_numbers(path):
        picture = open_file(path)
        picture.info["nclx_profile"] = {"color_primaries": 12, "transfer_characteristics": 13}
        return picture

    monkeypatch.setattr(nst.Image, "open", open_with_numbers)
    assert colours(nst.load_picture(tmp_path / "phone.png", 64), 32, 8) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("kind", [1, 5])  # a small copy; one that is a mask as well
def test_a_preview_is_an_error_and_not_a_tiny_picture(nst, tmp_path, kind):
    """As cameras write DNG, and scanners TIFF: first a small copy, then the photograph."""
    preview, photograph = halves((16, 12)), halves((160, 120))
    path = tmp_path / "camera.tiff"
    preview.save(path, save_all=True, append_images=[photograph], tiffinfo={254: kind})
    check(nst.load_picture, path, "is a preview")
    photograph.save(tmp_path / "scan.tiff", save_all=True, append_images=[preview])
    assert nst.load_picture(tmp_path / "scan.tiff", 120).shape == (1, 3, 120, 160)
    exif = Image.Exif()
    exif[254] = 1  # in a JPEG it says nothing
    photograph.save(tmp_path / "edited.jpg", exif=exif)
    assert nst.load_picture(tmp_path / "edited.jpg", 120).shape == (1, 3, 120, 160)


def test_a_tiny_picture_is_an_error_and_not_a_blur(nst, tmp_path):
    halves((200, 63)).save(tmp_path / "icon.png")
    check(nst.load_picture, tmp_path / "icon.png", "has \\(200, 63\\) pixels")
    halves((64, 64)).save(tmp_path / "small.png")
    assert nst.load_picture(tmp_path / "small.png", 64).shape == (1, 3, 64, 64)


def test_a_fourth_byte_of_zeros_is_an_error_and_not_a_white_picture(nst, tmp_path):
    """Programs that know no transparency write such TGA files with 32 bits."""
    Image.new("RGBA", (64, 64), (*RED, 0)).save(tmp_path / "old.tga")
    check(nst.load_image, tmp_path / "old.tga", "can't be used: transparent, or over 8 bits")
    Image.new("LA", (64, 64), (90, 0)).save(tmp_path / "grey.png")
    check(nst.load_image, tmp_path / "grey.png", "can't be used: transparent, or over 8 bits")
    Image.new("RGBA", (64, 64), (*RED, 9)).save(tmp_path / "faint.tga")
    assert nst.load_image(tmp_path / "faint.tga", 64).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L", "1"])
def test_usual_pictures_pass_and_come_as_colours(nst, tmp_path, mode):
    Image.new("RGB", (64, 64), (200, 200, 200)).convert(mode, dither=0).save(tmp_path / "picture.tiff")
    found = colours(nst.load_picture(tmp_path / "picture.tiff", 64), 9, 9)
    assert found == ([255] * 3 if mode == "1" else [200] * 3)


@pytest.mark.parametrize("suffix", [".avif", ".webp"])
def test_what_the_web_serves_opens(nst, tmp_path, suffix):
    halves((64, 64)).save(tmp_path / f"web{suffix}", quality=95)
    image = nst.load_picture(tmp_path / f"web{suffix}", 64)
    assert colours(image, 32, 8) == pytest.approx(RED, abs=12)
    assert colours(image, 32, 56) == pytest.approx(BLUE, abs=12)
