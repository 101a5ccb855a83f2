"""Any picture becomes 256 x 256 x 3 in [0, 1], or is refused with one of a few reasons."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dask_dedup.verbatim import pictures
from dask_dedup.verbatim.pictures import PictureError, read_picture


def _file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _flat(mode: str, colour: object, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (_flat("RGB", (255, 0, 51)), (1, 0, 0.2)),
        (_flat("L", 102), (0.4, 0.4, 0.4)),
        (_flat("1", 1), (1, 1, 1)),
        (_flat("LA", (0, 0)), (1, 1, 1)),  # transparent: white
        (_flat("RGBA", (255, 0, 0, 255)), (1, 0, 0)),
        (_flat("RGBA", (0, 0, 0, 51)), (0.8, 0.8, 0.8)),
        (_flat("I;16", 65535), (1, 1, 1)),
        (_flat("I;16", 26214), (0.4, 0.4, 0.4)),
        (_flat("P", 0), (0, 0, 0)),
    ],
    ids=["RGB", "L", "1", "LA", "RGBA", "half", "white16", "grey16", "P"],
)
def test_read_picture_of_a_mode_gives_its_colour(image: Image.Image, expected: tuple) -> None:
    picture = read_picture(_file(image))
    assert picture.shape == (256, 256, 3) and picture.dtype == np.float32
    np.testing.assert_allclose(picture, np.broadcast_to(expected, picture.shape), atol=1e-6)


def test_read_picture_of_cmyk_gives_rgb() -> None:
    picture = read_picture(_file(_flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=100))
    np.testing.assert_allclose(picture[128, 128], (1, 0, 0), atol=0.02)


def test_read_picture_of_a_palette_with_transparency_is_on_white() -> None:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert read_picture(_file(image, transparency=1)).min() == 1


def test_read_picture_of_its_own_size_is_unchanged() -> None:
    values = np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)
    picture = read_picture(_file(Image.fromarray(values)))
    np.testing.assert_array_equal(picture, values.astype(np.float32) / np.float32(255))


def test_read_picture_keeps_the_middle_of_the_longer_side() -> None:
    values = np.zeros((256, 512, 3), np.uint8)
    values[:, 128:384] = 255
    assert read_picture(_file(Image.fromarray(values))).min() == 1


def test_read_picture_applies_the_orientation_of_a_camera() -> None:
    values = np.zeros((256, 256, 3), np.uint8)
    values[:128] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture = read_picture(_file(Image.fromarray(values), exif=exif))
    assert picture[:128].max() == 0 and picture[128:].min() == 1


def test_read_picture_of_an_animation_is_its_first_frame() -> None:
    first, second = _flat("RGB", (255, 255, 255)), _flat("RGB", (0, 0, 0))
    content = _file(first, "GIF", save_all=True, append_images=[second])
    assert read_picture(content).min() == 1


def _png_of(width: int, height: int) -> bytes:
    """Return a PNG that says it has so many pixels, and holds none."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "not an image"),
        (_file(_flat("RGB", 0, (200, 200)), "JPEG")[:300], "broken"),
        (_file(_flat("RGB", 0), "EPS"), "not an image"),  # Pillow would run Ghostscript
        (_file(_flat("RGB", 0), "ICO"), "not an image"),
        (_png_of(100_000, 100_000), "too large"),
        (_png_of(12_000, 9_000), "too large"),
    ],
    ids=["empty", "page", "cut", "program", "container", "bomb", "large"],
)
def test_read_picture_that_is_none_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(PictureError) as refused:
        read_picture(content)
    assert refused.value.reason == reason


def test_read_picture_of_too_many_bytes_is_not_decoded() -> None:
    with pytest.raises(PictureError, match="too large: the file has 67,108,865 bytes"):
        read_picture(bytes(pictures.MAX_BYTES + 1))


@pytest.mark.parametrize("name", ["BMP", "JPEG2000", "PPM", "TGA", "TIFF", "WEBP", "AVIF"])
def test_read_picture_of_each_format(name: str) -> None:
    Image.init()
    if name not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {name}")
    picture = read_picture(_file(_flat("RGB", (200, 100, 50)), name))
    np.testing.assert_allclose(picture[128, 128] * 255, (200, 100, 50), atol=4)
