"""Pictures from strangers: each fault has its reason, none takes the service or a neighbour with it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from chassis.errors import Invalid
from svc_vision.recognition import image_child, images
from svc_vision.recognition.decoder import ImageDecoder

Picture = NDArray[np.uint8]
NOISE: Picture = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def decoder() -> Iterator[ImageDecoder]:
    made = ImageDecoder()
    yield made
    made.close()


def encoded(picture: NDArray[Any], file_format: str = "PNG", **how: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, file_format, **how)
    return stream.getvalue()


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG that says it is so large, whatever it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def reason_of(decoder: ImageDecoder, content: bytes) -> str:
    with pytest.raises(Invalid) as refused:
        decoder.decode(content)
    return refused.value.reason


def memory_peak_bytes(pid: int) -> int:
    """The most that a process has held since it began."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def child_of(decoder: ImageDecoder) -> int:
    assert decoder._child is not None
    return decoder._child.pid


def test_pictures_are_decoded_to_the_byte(decoder: ImageDecoder) -> None:
    assert (decoder.decode(encoded(NOISE)) == NOISE).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_common_kind_of_picture_becomes_rgb(decoder: ImageDecoder, mode: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(stream, "JPEG" if mode in {"L", "CMYK"} else "PNG")
    assert decoder.decode(stream.getvalue()).shape == NOISE.shape


def test_a_phones_picture_is_turned_upright(decoder: ImageDecoder) -> None:
    """It is kept lying, with a note which side is up; a face on its side is not found."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, :48] = 255
    seen = decoder.decode(encoded(stripes, "JPEG", exif=exif, quality=95))
    assert seen.shape == (96, 64, 3)
    assert seen[:40].min() > 200
    assert seen[56:].max() < 50


BAD = {
    "nothing": (b"", "IMAGE_EMPTY"),
    "text": (b"<html>not found</html>" * 9, "NOT_AN_IMAGE"),
    "of another format": (encoded(NOISE, "GIF"), "NOT_AN_IMAGE"),
    "of a format that allocates when opened": (encoded(NOISE, "WEBP"), "NOT_AN_IMAGE"),
    "cut off": (encoded(NOISE, "JPEG")[:3000], "IMAGE_BROKEN"),
    "cut off within the header": (encoded(NOISE)[:20], "IMAGE_BROKEN"),
    "of rubbish behind the header": (png(100, 100, b"rubbish" * 100), "IMAGE_BROKEN"),
    "of 40 megapixels": (encoded(np.zeros((5000, 8000, 3), np.uint8)), "IMAGE_TOO_MANY_PIXELS"),
    "of 2,500 megapixels": (png(50_000, 50_000, b""), "IMAGE_TOO_MANY_PIXELS"),
    "of the largest size that can be written": (png(2**31 - 1, 2**31 - 1, b""), "IMAGE_TOO_MANY_PIXELS"),
    "a decompression bomb": (encoded(np.zeros((4000, 6000, 3), np.uint8)), "IMAGE_BOMB"),
    "of ten pixels": (encoded(NOISE[:10, :10]), "IMAGE_TOO_SMALL"),
    "of 16 bits": (encoded(NOISE[:, :, 0].astype(np.uint16)), "IMAGE_COLOURS_UNSUPPORTED"),
    "of too many bytes": (b"\xff\xd8\xff" + bytes(images.BYTES_MAX), "IMAGE_BYTES_TOO_MANY"),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_each_bad_picture_has_its_own_reason_and_the_next_is_decoded(
    decoder: ImageDecoder, content: bytes, reason: str
) -> None:
    assert reason_of(decoder, content) == reason
    assert (decoder.decode(encoded(NOISE)) == NOISE).all()


def test_what_a_header_announces_is_refused_before_memory_is_taken(decoder: ImageDecoder) -> None:
    """A few bytes that speak of 24 megapixels, ten times."""
    decoder.decode(encoded(NOISE))
    before = memory_peak_bytes(child_of(decoder))
    for _ in range(10):
        assert reason_of(decoder, BAD["a decompression bomb"][0]) == "IMAGE_BOMB"
        assert reason_of(decoder, BAD["of 40 megapixels"][0]) == "IMAGE_TOO_MANY_PIXELS"
    assert memory_peak_bytes(child_of(decoder)) - before < 8 << 20


def test_the_largest_picture_fits_into_the_childs_memory(decoder: ImageDecoder) -> None:
    """Also one that must be turned, which takes it twice."""
    exif = Image.Exif()
    exif[0x0112] = 6
    blocks = np.random.default_rng(2).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    seen = decoder.decode(encoded(blocks.repeat(10, 0).repeat(10, 1), "JPEG", exif=exif))
    assert seen.shape == (5000, 5000, 3)


def test_a_decoder_that_dies_between_two_pictures_is_replaced(decoder: ImageDecoder) -> None:
    decoder.decode(encoded(NOISE))
    os.kill(child_of(decoder), signal.SIGKILL)
    assert (decoder.decode(encoded(NOISE)) == NOISE).all()


def test_a_picture_that_takes_too_long_is_given_up() -> None:
    """Its decoder is stopped in the middle; the next picture gets a new one."""
    decoder = ImageDecoder(decode_s_max=1.0)
    try:
        decoder.decode(encoded(NOISE))
        os.kill(child_of(decoder), signal.SIGSTOP)
        begun = time.monotonic()
        assert reason_of(decoder, encoded(NOISE)) == "IMAGE_TOO_SLOW"
        assert time.monotonic() - begun < 3
        assert (decoder.decode(encoded(NOISE)) == NOISE).all()
    finally:
        decoder.close()


def test_a_picture_that_kills_every_decoder_is_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one is tried, since the first may have died of something else."""
    dying, started = tmp_path / "python", tmp_path / "started"
    dying.write_text(f"#!/bin/sh\necho one >> {started}\n", encoding="utf-8")
    dying.chmod(0o755)
    decoder = ImageDecoder()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(dying))
        assert reason_of(decoder, encoded(NOISE)) == "IMAGE_UNDECODABLE"
    assert started.read_text(encoding="utf-8") == "one\none\n"
    assert (decoder.decode(encoded(NOISE)) == NOISE).all()
    decoder.close()


def test_the_child_knows_no_secret_and_can_write_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URI", "mongodb://user:password@database")
    decoder = ImageDecoder()
    try:
        decoder.decode(encoded(NOISE))
        process = Path(f"/proc/{child_of(decoder)}")
        assert b"password" not in process.joinpath("environ").read_bytes()
        limits = process.joinpath("limits").read_text(encoding="ascii")
    finally:
        decoder.close()
    soft = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert soft["Max file size"] == soft["Max core file size"] == "0"
    assert soft["Max address space"] == str(image_child.MEMORY_MAX_BYTES)


@settings(max_examples=150)
@given(st.binary(max_size=300), st.integers(0, 2000), st.sampled_from(["JPEG", "PNG"]))
def test_damage_anywhere_is_a_reason_or_a_picture(damage: bytes, at: int, file_format: str) -> None:
    """Never another error: of this very process nothing else may come."""
    whole = encoded(NOISE, file_format)
    content = whole[:at] + damage + whole[at + len(damage) :]
    with contextlib.suppress(Invalid):
        assert images.decoded(content).dtype == np.uint8


@pytest.mark.parametrize("count", [0, 67_499, 67_501, 150 * 150, 160 * 160 * 3])
def test_a_crop_of_the_wrong_size_is_refused(count: int) -> None:
    with pytest.raises(Invalid) as refused:
        images.crop(bytes(count), 150)
    assert refused.value.reason == "CROP_SIZE_WRONG"


def test_a_crop_is_taken_as_it_is() -> None:
    content = bytes(number % 251 for number in range(150 * 150 * 3))
    assert images.crop(content, 150).tobytes() == content
