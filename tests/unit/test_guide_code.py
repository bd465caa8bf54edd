"""Guide codes: whole ones open, and nothing else does."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Invalid, Refused
from svc_members.rules import guide_code
from svc_members.rules.guide_code import GuideCode

KEY = b"k" * 32
OTHER_KEY = b"o" * 32
ids = st.binary(min_size=10, max_size=10)
# Whole seconds that four bytes can count.
seconds = st.datetimes(datetime(2020, 1, 1), datetime(2106, 1, 1)).map(  # noqa: DTZ001 - made aware below
    lambda time: time.replace(microsecond=0, tzinfo=UTC)
)
codes = st.builds(
    GuideCode,
    epoch=st.integers(0, 2**32 - 1),
    brand=ids,
    store=ids,
    guide=ids,
    campaign=st.from_regex(guide_code.CAMPAIGN, fullmatch=True),
    issue_time=seconds,
    expire_time=seconds,
    nonce=st.binary(min_size=guide_code.NONCE_BYTES, max_size=guide_code.NONCE_BYTES),
)
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
CODE = GuideCode(0, b"brand-----", b"store-----", b"guide-----", "spring.2026", NOON, NOON, b"nonce!")


def reason_of(text: str) -> str:
    """Why a text does not open."""
    with pytest.raises(Invalid) as invalid:
        guide_code.opened(text, {1: KEY})
    return invalid.value.reason


@given(codes, st.integers(0, 255))
def test_a_code_opens_as_it_was_made(code: GuideCode, key_number: int) -> None:
    """Every id, time and campaign comes back."""
    assert guide_code.opened(guide_code.signed(code, key_number, KEY), {key_number: KEY}) == code


@given(codes)
def test_a_code_is_at_most_120_url_safe_characters(code: GuideCode) -> None:
    """It must fit into a QR that a cheap phone reads."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,120}", guide_code.signed(code, 1, KEY))


@given(codes, st.data())
def test_a_truncated_code_is_malformed(code: GuideCode, data: st.DataObject) -> None:
    """Whoever copied half of it hears that part is missing, not that he forged it."""
    text = guide_code.signed(code, 1, KEY)
    assert reason_of(text[: data.draw(st.integers(0, len(text) - 1))]) == "GUIDE_CODE_MALFORMED"


def test_every_single_flipped_bit_is_found() -> None:
    """Of the ids, the times, the campaign and the signature alike."""
    raw = base64.urlsafe_b64decode(guide_code.signed(CODE, 1, KEY) + "==")
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        text = base64.urlsafe_b64encode(flipped).rstrip(b"=").decode()
        assert reason_of(text) in {"GUIDE_CODE_FORGED", "GUIDE_CODE_MALFORMED"}, f"bit {bit}"


def test_every_single_changed_character_is_found() -> None:
    """Also in the last one, some of whose bits say nothing."""
    text = guide_code.signed(CODE, 1, KEY)
    for place, old in enumerate(text):
        for new in "A9_-+/=é|":
            if new != old:
                assert reason_of(text[:place] + new + text[place + 1 :]).startswith("GUIDE_CODE_")


@given(codes)
def test_a_code_signed_with_another_key_is_forged(code: GuideCode) -> None:
    """Also under a key number that is ours."""
    assert reason_of(guide_code.signed(code, 1, OTHER_KEY)) == "GUIDE_CODE_FORGED"
    assert reason_of(guide_code.signed(code, 2, KEY)) == "GUIDE_CODE_FORGED"


def test_a_code_signed_before_the_keys_were_rotated_still_opens() -> None:
    """Thousands of printed codes outlive a key; a key that was taken out ends them."""
    old = guide_code.signed(CODE, 1, KEY)
    assert guide_code.opened(old, {1: KEY, 2: OTHER_KEY}) == CODE
    with pytest.raises(Invalid) as invalid:
        guide_code.opened(old, {2: OTHER_KEY})
    assert invalid.value.reason == "GUIDE_CODE_FORGED"


@given(st.text())
def test_any_other_text_is_malformed(text: str) -> None:
    """A till that sends the wrong field gets an answer, not a failure."""
    assert reason_of(text) == "GUIDE_CODE_MALFORMED"


@pytest.mark.parametrize("around", [" {}", "{}\n", "{}=", "{}==", "https://daogou.example/s/{}"])
def test_a_code_with_something_around_it_is_malformed(around: str) -> None:
    """One code has one text: what is counted or blocked by its text cannot be dodged by another."""
    assert reason_of(around.format(guide_code.signed(CODE, 1, KEY))) == "GUIDE_CODE_MALFORMED"


def test_a_code_expires_at_its_time() -> None:
    """A millisecond before it still binds. It counts when it was scanned, not when we hear of it."""
    guide_code.check_valid(CODE, NOON - timedelta(milliseconds=1), epoch=0)
    for moment in (NOON, NOON + timedelta(days=1)):
        with pytest.raises(Refused) as refused:
            guide_code.check_valid(CODE, moment, epoch=0)
        assert refused.value.reason == "GUIDE_CODE_EXPIRED"


def test_a_code_of_an_earlier_epoch_is_revoked() -> None:
    """Raising the guide's epoch ends every code she showed before, at once."""
    with pytest.raises(Refused) as refused:
        guide_code.check_valid(CODE, NOON - timedelta(days=1), epoch=1)
    assert refused.value.reason == "GUIDE_CODE_REVOKED"
