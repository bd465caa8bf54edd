"""The process that decodes strangers' pictures, and may die of one: `decoder.py` starts it and talks to it.

It knows no secret: it is given no environment to speak of, opens no connection, and can write no file. In:
the length of a picture (4 bytes, little-endian) and the picture. Out: a byte; 0 is followed by width, height
(4 bytes each) and the pixels, 1 by the length and the text of a reason and what is wrong, separated by a line
end.
"""

from __future__ import annotations

import resource
import struct
import sys
from typing import BinaryIO, Final

from chassis.errors import Invalid
from svc_vision.recognition import images

MEMORY_MAX_BYTES: Final = 1 << 30
"""Four copies of the largest picture, and Python."""


def confine() -> None:
    """Take from this process what decoding does not need."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
    for useless in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(useless, (0, 0))


def answered(content: bytes) -> bytes:
    """The reply to one picture."""
    try:
        frame = images.decoded(content)
    except Invalid as error:
        said = f"{error.reason}\n{error.message}".encode()
        return struct.pack("<BI", 1, len(said)) + said
    return struct.pack("<BII", 0, frame.shape[1], frame.shape[0]) + frame.tobytes()


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until nobody asks any more."""
    while len(head := requests.read(4)) == 4:
        replies.write(answered(requests.read(*struct.unpack("<I", head))))
        replies.flush()


if __name__ == "__main__":
    confine()
    serve(sys.stdin.buffer, sys.stdout.buffer)
