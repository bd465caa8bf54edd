"""Decodes pictures in a child process, so that a hostile one ends the child and not the service.

A child starts with the first picture and stays; one that dies, or takes too long, is replaced at the next.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import threading
import time
from typing import Final

import numpy as np

from chassis.errors import Invalid
from svc_vision.recognition import images
from svc_vision.recognition.alignment import Frame

DECODE_S_MAX: Final = 5.0
"""For one picture. The largest honest one takes half a second."""
# What Python needs to find its modules. Nothing else: the service's own environment holds secrets.
_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LC_ALL")
# Numpy's threads would reserve, on a machine of many cores, more memory than the child may have.
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}
_PIECE_BYTES: Final = 1 << 20


class ImageDecoder:
    """One child process. Calls from several threads wait for each other."""

    def __init__(self, *, decode_s_max: float = DECODE_S_MAX) -> None:
        self._decode_s_max = decode_s_max
        self._turn = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def decode(self, content: bytes) -> Frame:
        """The picture as RGB, uint8 (height, width, 3), upright.

        Raises: Invalid with one of the reasons of images.decoded; or IMAGE_UNDECODABLE when the decoder died
        of it, IMAGE_TOO_SLOW when it did not come to an end.
        """
        images.check_bytes(content)
        with self._turn:
            # The first child may have died of something else; the picture is to blame when a fresh one does
            # too.
            for _ in range(2):
                try:
                    return _asked(self._running(), content, time.monotonic() + self._decode_s_max)
                except TimeoutError:
                    self._end()
                    raise Invalid("IMAGE_TOO_SLOW", f"not decoded within {self._decode_s_max:g} s") from None
                except (EOFError, BrokenPipeError):
                    self._end()
            raise Invalid("IMAGE_UNDECODABLE", "the decoder did not survive it")

    def close(self) -> None:
        """End the child."""
        with self._turn:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "svc_vision.recognition.image_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _ONE_THREAD,
            )
        return self._child

    def _end(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        with contextlib.suppress(BrokenPipeError):  # of what was still to be written
            self._child.communicate()
        self._child.wait()
        self._child = None


def _asked(child: subprocess.Popen[bytes], content: bytes, until: float) -> Frame:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(struct.pack("<I", len(content)) + content)
    child.stdin.flush()
    pipe = child.stdout.fileno()
    if _read(pipe, 1, until)[0] == 0:
        width, height = struct.unpack("<II", _read(pipe, 8, until))
        pixels = _read(pipe, width * height * 3, until)
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
    (length,) = struct.unpack("<I", _read(pipe, 4, until))
    reason, _, message = _read(pipe, length, until).decode().partition("\n")
    raise Invalid(reason, message)


def _read(pipe: int, count: int, until: float) -> bytearray:
    """Exactly so many bytes, unbuffered: what waits in a buffer would not be seen by select.

    Raises: TimeoutError, EOFError.
    """
    read = bytearray()
    while len(read) < count:
        ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError
        piece = os.read(pipe, min(count - len(read), _PIECE_BYTES))
        if not piece:
            raise EOFError
        read += piece
    return read
