"""Pictures as arrays: any image file, decoded with limits, as 256 x 256 x 3 in [0, 1].

The size and the range are those of Webster, "A Reproducible Extraction of Training Images from
Diffusion Models" (arXiv 2305.08694). How a picture of another shape gets there is ours: the shorter
side is resized to 256 and the middle of the longer one kept, as training sets of diffusion models
are cut; transparent pixels are laid on white; an animation counts as its first frame; the
orientation that a camera has noted is applied.
"""

from __future__ import annotations

import io
import warnings
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["MAX_BYTES", "MAX_PIXELS", "SIDE", "PictureError", "read_picture"]

SIDE = 256
# Of Pillow's formats those of pictures: others run programs (EPS), or hold files in files (ICO).
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MAX_BYTES = 64 << 20  # of a file
MAX_PIXELS = 64_000_000  # of a picture: 256 MB decoded with alpha

_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class PictureError(ValueError):
    """A file that is no usable picture. ``reason`` is one of a few words that are counted.

    Attributes
    ----------
    reason : str
        ``empty``, ``too large`` (bytes or pixels), ``not an image``, ``broken``.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def read_picture(content: bytes, side: int = SIDE) -> np.ndarray:
    """Decode an image file.

    Parameters
    ----------
    content : bytes
        The file: AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TGA, TIFF or WebP.
    side : int
        Pixels of each side of the result.

    Returns
    -------
    float32 array, shape (side, side, 3)
        RGB, each in [0, 1].

    Raises
    ------
    PictureError
        An empty, broken or too large file, or none of an image. The size in pixels is read from
        the header, before memory is taken.
    """
    if not content:
        raise PictureError("empty", "the file has 0 bytes.")
    if len(content) > MAX_BYTES:
        raise PictureError(
            "too large", f"the file has {len(content):,} bytes; at most {MAX_BYTES:,} are read."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow: bombs are counted here
            with Image.open(io.BytesIO(content), formats=_formats()) as image:
                _check_size(image)
                image.seek(0)
                pixels = _as_rgb(ImageOps.exif_transpose(image))
                cut = ImageOps.fit(pixels, (side, side), Image.Resampling.LANCZOS)
                return np.asarray(cut, np.float32) / np.float32(255)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("not an image", "its format is none of those that are read.") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise PictureError("too large", str(error) or "it does not fit into memory.") from error
    except Exception as error:  # decoders raise what they like: OSError, SyntaxError, struct.error
        raise PictureError("broken", f"{type(error).__name__}: {error}") from error


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that this Pillow has been built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(
            "too large", f"it has {width} x {height} pixels; at most {MAX_PIXELS:,} are decoded."
        )
    if not width or not height:
        raise PictureError("broken", f"it has {width} x {height} pixels.")


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BITS:
        values = np.asarray(image).astype(np.float64) / 257  # 65,535 becomes 255
        return Image.fromarray(np.clip(values.round(), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.clip(np.asarray(image), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")
