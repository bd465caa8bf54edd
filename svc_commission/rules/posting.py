"""Why an amount was posted: what a statement groups a month's postings by."""

from __future__ import annotations

import enum


class PostingKind(enum.StrEnum):
    """What a posting does for whom it is posted.

    CONFIRMED is two postings that cancel: what leaves HELD arrives in PAYABLE. All others change what is
    owed in sum.
    """

    EARNED = "EARNED"
    CLAWED_BACK = "CLAWED_BACK"
    CONFIRMED = "CONFIRMED"
    ADJUSTED = "ADJUSTED"
    POOL_SHARED = "POOL_SHARED"
    OPENING_BALANCE = "OPENING_BALANCE"
    WRITTEN_OFF = "WRITTEN_OFF"
    PAID_OUT = "PAID_OUT"
