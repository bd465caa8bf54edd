"""Page tokens: the id after which the next page begins, opaque to callers."""

from __future__ import annotations

import base64
import binascii

from chassis.errors import Invalid
from chassis.ids import is_id


def page_token(last_id: str) -> str:
    """The token of the page that begins after an id."""
    return base64.urlsafe_b64encode(last_id.encode()).rstrip(b"=").decode()


def opened_page_token(token: str) -> str:
    """The id after which the page begins; empty: from the start. Raises: Invalid PAGE_TOKEN_INVALID."""
    if not token:
        return ""
    try:
        last_id = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except (binascii.Error, ValueError):
        last_id = ""
    if not is_id(last_id):
        raise Invalid("PAGE_TOKEN_INVALID", "this page_token was not given by this method")
    return last_id
