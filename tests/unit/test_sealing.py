"""Sealed values: shut to everyone without the key, and in any other place than their own."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from chassis.sealing import KeyRing, Sealer, key_bytes

OLD, NEW, INDEX = b"1" * 32, b"2" * 32, b"i" * 32
SEALER = Sealer(KeyRing("k1", {"k1": OLD}), INDEX)


@given(st.binary(max_size=500), st.text(max_size=50))
def test_a_value_opens_as_it_was_sealed(value: bytes, context: str) -> None:
    """In the context that it was sealed for."""
    assert SEALER.opened(SEALER.sealed(value, context), context) == value


def test_a_value_opens_in_its_own_context_alone() -> None:
    """Copied into another member's document it stays shut."""
    sealed = SEALER.sealed(b"13812345678", "brand|member-1")
    with pytest.raises(InvalidTag):
        SEALER.opened(sealed, "brand|member-2")


def test_a_value_does_not_open_with_another_key_of_the_same_name() -> None:
    """Whoever stole the database has not the key."""
    with pytest.raises(InvalidTag):
        Sealer(KeyRing("k1", {"k1": NEW}), INDEX).opened(SEALER.sealed(b"value", "context"), "context")


@given(st.data())
def test_a_changed_value_does_not_open(data: st.DataObject) -> None:
    """Not a single bit of it can be turned."""
    sealed = bytearray(SEALER.sealed(b"13812345678", "context"))
    place = data.draw(st.integers(1 + len("k1"), len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidTag):
        SEALER.opened(bytes(sealed), "context")


def test_after_a_rotation_old_values_open_and_new_ones_are_sealed_anew() -> None:
    """Keys change without a day on which everything is written again."""
    rotated = Sealer(KeyRing("k2", {"k1": OLD, "k2": NEW}), INDEX)
    before, after = SEALER.sealed(b"value", "context"), rotated.sealed(b"value", "context")
    assert rotated.opened(before, "context") == b"value"
    assert Sealer(KeyRing("k2", {"k2": NEW}), INDEX).opened(after, "context") == b"value"
    with pytest.raises(KeyError):
        Sealer(KeyRing("k2", {"k2": NEW}), INDEX).opened(before, "context")


def test_the_same_value_sealed_twice_looks_different() -> None:
    """Else equal numbers could be seen without the key."""
    assert SEALER.sealed(b"value", "context") != SEALER.sealed(b"value", "context")


@given(st.text(), st.text())
def test_a_blind_index_is_stable_and_tells_values_apart(one: str, other: str) -> None:
    """What is looked up tomorrow is found where it was put today."""
    assert SEALER.blind_index(one) == SEALER.blind_index(one)
    assert (SEALER.blind_index(one) == SEALER.blind_index(other)) == (one == other)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", SEALER.blind_index(one))


def test_a_blind_index_needs_its_key_and_survives_a_rotation_of_the_others() -> None:
    """Sealing keys come and go; members are found where they were."""
    rotated = Sealer(KeyRing("k2", {"k2": NEW}), INDEX)
    assert rotated.blind_index("13812345678") == SEALER.blind_index("13812345678")
    other = Sealer(KeyRing("k1", {"k1": OLD}), b"j" * 32)
    assert other.blind_index("13812345678") != SEALER.blind_index("13812345678")


def text_of(key: bytes) -> str:
    """A key as key files write it."""
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def test_a_key_file_is_read_with_and_without_padding(tmp_path: Path) -> None:
    """As tools differ."""
    path = tmp_path / "keys.json"
    keys = {"k1": text_of(OLD), "k2": base64.urlsafe_b64encode(NEW).decode()}
    path.write_text(json.dumps({"current": "k2", "keys": keys, "index": text_of(INDEX)}), encoding="ascii")
    sealer = Sealer.from_file(path)
    assert sealer.opened(SEALER.sealed(b"value", "context"), "context") == b"value"
    assert sealer.blind_index("value") == SEALER.blind_index("value")
    assert KeyRing.from_file(path).current == "k2"


GOOD = {"current": "k1", "keys": {"k1": text_of(OLD)}, "index": text_of(INDEX)}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        "null",
        "7",
        json.dumps({**GOOD, "current": "k9"}),
        json.dumps({**GOOD, "keys": {}}),
        json.dumps({**GOOD, "keys": {"k1": text_of(OLD[:31])}}),
        json.dumps({**GOOD, "keys": {"k1": 7}}),
        json.dumps({**GOOD, "keys": {"k1": "日本"}}),
        json.dumps({**GOOD, "keys": ["k1"]}),
        json.dumps({key: value for key, value in GOOD.items() if key != "index"}),
        json.dumps({**GOOD, "index": "short"}),
        json.dumps({**GOOD, "index": 7}),
        json.dumps({**GOOD, "index": None}),
    ],
)
def test_a_key_file_of_another_form_is_named_and_not_shown(content: str, tmp_path: Path) -> None:
    """At the start of the service, in words, and without a byte of a key."""
    path = tmp_path / "keys.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        Sealer.from_file(path)
    assert text_of(OLD)[:8] not in str(error.value)


def test_a_key_has_32_bytes() -> None:
    """No shorter key is stretched and no longer one cut in silence."""
    assert key_bytes(text_of(OLD)) == OLD
    for length in (0, 16, 31, 33, 64):
        with pytest.raises(ValueError, match="32 bytes"):
            key_bytes(text_of(os.urandom(length)))
