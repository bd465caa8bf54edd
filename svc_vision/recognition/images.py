"""Pictures and crops from outside, into arrays: what is wrong with one is told with a reason of its own.

Everything that can be known from a picture's header is checked before any of it is decoded. Still the
decoders are C and the picture is a stranger's, so that only the process of image_child.py calls `decoded`;
services ask decoder.py. Crops that doors send are plain bytes and need no decoder.
"""

from __future__ import annotations

import io
import warnings
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from chassis.errors import Invalid
from svc_vision.recognition.alignment import Frame

BYTES_MAX: Final = 16 << 20
PIXELS_MAX: Final = 25_000_000
SIDE_MIN_PX: Final = 32
# What phones, browsers and cameras send. Pillow would read forty more formats, and WebP's already when
# opened.
_FORMATS: Final = ("JPEG", "PNG")
_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"})
# Of 8 x 8 pixels of one colour JPEG keeps 6 bits at least: 85 pixels a byte. PNG keeps 4,000 of an empty
# picture; nothing that a camera saw is so empty.
_PIXELS_PER_BYTE_MAX: Final = 200


def decoded(content: bytes) -> Frame:
    """The picture as RGB, uint8 (height, width, 3), turned upright as its camera says.

    Raises: Invalid IMAGE_EMPTY, IMAGE_BYTES_TOO_MANY, NOT_AN_IMAGE, IMAGE_TOO_MANY_PIXELS, IMAGE_BOMB,
    IMAGE_TOO_SMALL, IMAGE_COLOURS_UNSUPPORTED, IMAGE_BROKEN.
    """
    check_bytes(content)
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            warnings.simplefilter("ignore")  # what is odd in a picture is judged here, not printed
            _check_header(image, len(content))
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        raise Invalid("NOT_AN_IMAGE", "neither a JPEG nor a PNG picture") from None
    except Image.DecompressionBombError:
        raise Invalid("IMAGE_TOO_MANY_PIXELS", f"more than {PIXELS_MAX:,} pixels") from None
    except Invalid:
        raise
    except Exception as error:  # noqa: BLE001  of a damaged picture the decoders raise whatever comes to them
        raise Invalid(
            "IMAGE_BROKEN", f"begins as a picture and cannot be decoded: {type(error).__name__}"
        ) from None


def check_bytes(content: bytes) -> None:
    """What is wrong with a picture before anybody looks into it.

    Raises: Invalid IMAGE_EMPTY, IMAGE_BYTES_TOO_MANY.
    """
    if not content:
        raise Invalid("IMAGE_EMPTY", "no bytes")
    if len(content) > BYTES_MAX:
        raise Invalid("IMAGE_BYTES_TOO_MANY", f"{len(content):,} bytes; {BYTES_MAX:,} at most")


def _check_header(image: Image.Image, size_bytes: int) -> None:
    width, height = image.size
    if width * height > PIXELS_MAX:
        raise Invalid("IMAGE_TOO_MANY_PIXELS", f"{width} x {height} pixels; {PIXELS_MAX:,} at most")
    if width * height > _PIXELS_PER_BYTE_MAX * size_bytes:
        raise Invalid("IMAGE_BOMB", f"{width} x {height} pixels in {size_bytes:,} bytes: no camera saw that")
    if min(width, height) < SIDE_MIN_PX:
        raise Invalid("IMAGE_TOO_SMALL", f"{width} x {height} pixels; {SIDE_MIN_PX} at least each way")
    if image.mode not in _MODES:
        raise Invalid(
            "IMAGE_COLOURS_UNSUPPORTED", f"colours are kept as {image.mode}; 8 bits a channel are read"
        )


def crop(content: bytes, side_px: int) -> Frame:
    """A crop as doors send it: RGB bytes, row by row, of a square of the model's size.

    Raises: Invalid CROP_SIZE_WRONG.
    """
    wanted = side_px * side_px * 3
    if len(content) != wanted:
        raise Invalid(
            "CROP_SIZE_WRONG", f"{len(content):,} bytes; {side_px} x {side_px} pixels in RGB are {wanted:,}"
        )
    return np.frombuffer(content, np.uint8).reshape(side_px, side_px, 3)
