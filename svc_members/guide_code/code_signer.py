"""Signs guide codes with the service's keys, opens them again, and draws them as QR."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import segno

from chassis.errors import Invalid
from chassis.ids import id_of_bytes
from chassis.sealing import KeyRing
from svc_members.rules import guide_code
from svc_members.rules.guide_code import GuideCode

SAID_KEPT: Final = 10_000
"""Codes of which it is remembered what they say: each is scanned by many, and never says anything else."""


class CodeSigner:
    """Holds the keys. Key ids in the file are numbers from 0 to 255; the current one signs, all open."""

    def __init__(self, ring: KeyRing, link_base: str) -> None:
        self._keys = {int(kid): key for kid, key in ring.keys.items()}
        self._key_number = int(ring.current)
        self._link_base = link_base
        self._said = lru_cache(SAID_KEPT)(self._said_by)

    def signed(self, code: GuideCode) -> str:
        """The code as text."""
        return guide_code.signed(code, self._key_number, self._keys[self._key_number])

    def opened(self, brand_id: str, text: str) -> GuideCode:
        """What a code says.

        Raises: Invalid GUIDE_CODE_MALFORMED, GUIDE_CODE_FORGED, GUIDE_CODE_OF_ANOTHER_BRAND.
        """
        code, its_brand_id = self._said(text)
        if its_brand_id != brand_id:
            raise Invalid("GUIDE_CODE_OF_ANOTHER_BRAND", "the code is of another brand")
        return code

    def _said_by(self, text: str) -> tuple[GuideCode, str]:
        code = guide_code.opened(text, self._keys)
        return code, id_of_bytes(code.brand)

    def link(self, text: str) -> str:
        """The address that a QR holds."""
        return f"{self._link_base}{text}"

    def drawn(self, text: str) -> tuple[str, bytes]:
        """The link as a QR, error correction M: an SVG document, and a PNG picture of 8 pixels a module."""
        code = segno.make(self.link(text), error="m", micro=False)
        png = io.BytesIO()
        code.save(png, kind="png", scale=8, border=4)
        return code.svg_inline(scale=4, border=4), png.getvalue()
