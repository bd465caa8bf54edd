"""Rows that go to the history: what is decided without them is what would be decided with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from svc_members.rules import binding
from svc_members.rules.binding import ROWS_KEPT, Cause, Decision, Policy, Row, Scan, Snatch
from svc_members.rules.correction import Correction, correct
from tests.unit.member_lives import STORES
from tests.unit.member_rows import MINUTE, NOON, Recorder, Written, believed, check_apart

ALWAYS: Final = Policy(snatch=Snatch.ALWAYS)


class Stored:
    """A member as the database has him: some rows in his document, the others apart."""

    def __init__(self) -> None:
        self.whole = Written(Recorder())
        self.in_document: frozenset[str] = frozenset()
        self.history_end: datetime | None = None

    @property
    def document(self) -> tuple[Row, ...]:
        """The rows of his document."""
        return tuple(row for row in self.whole.rows if row.binding_id in self.in_document)

    def write(self, decision: Decision) -> None:
        """Pushes rows out and writes, as the store does."""
        pushed = binding.pushed_out(self.document, decision)
        ends = [row.valid_to_time for row in pushed if row.superseded_time is None and row.valid_to_time]
        self.history_end = max([*ends, *([self.history_end] if self.history_end else [])], default=None)
        standing = binding.standing(self.whole.rows)
        assert standing not in pushed
        assert not {row.binding_id for row in pushed} & set(decision.superseded)
        gone = {row.binding_id for row in pushed}
        self.in_document = (self.in_document - gone) | {row.binding_id for row in decision.added}
        self.whole.write(decision)
        assert len(self.in_document) <= ROWS_KEPT + 3, "about as many as are kept"

    def scanned(self, guide: str, time: datetime, next_id: str) -> Decision:
        """What a scan does, told from his document alone."""
        scan = Scan(guide, STORES[guide], "", time, False, not_before=self.history_end)
        return binding.scan(self.document, scan, ALWAYS, next_id)


happenings = st.tuples(
    st.sampled_from(["scan", "scan", "scan", "lapse", "correct"]),
    st.sampled_from(sorted(STORES)),
    st.integers(0, 40),
)


def happens(stored: Stored, number: int, what: tuple[str, str, int]) -> None:
    """One thing a minute: a scan so many minutes late, a lapse, or a correction of the last of them."""
    kind, guide, ago = what
    now, next_id = NOON + number * MINUTE, f"row-{number}"
    if kind == "scan":
        stored.write(stored.scanned(guide, now - ago * MINUTE, next_id))
    elif kind == "lapse":
        stored.write(binding.end(stored.document, now, Cause.LAPSED, next_id))
    else:
        ends = now - ago // 2 * MINUTE
        nobodys = Correction("", "", now - ago * MINUTE, ends, "a mistake")
        if ago > 1:
            stored.write(correct(stored.whole.rows, nobodys, ALWAYS, next_id))


@given(st.lists(happenings, max_size=40))
def test_no_scan_however_late_reaches_back_into_what_was_pushed_out(
    what: list[tuple[str, str, int]],
) -> None:
    """Nor does one after a correction of it: no two rows hold at one time, and every answer stays."""
    stored = Stored()
    for number, one in enumerate(what):
        happens(stored, number, one)
    check_apart(believed(stored.whole.rows))
    stored.whole.check_known()


@given(st.lists(happenings.filter(lambda what: what[0] != "correct"), max_size=40), st.integers(0, 60))
def test_a_scan_is_decided_without_the_history_as_it_would_be_with_it(
    what: list[tuple[str, str, int]], ago: int
) -> None:
    """Whatever was pushed out is needed for nothing."""
    stored = Stored()
    for number, one in enumerate(what):
        happens(stored, number, one)
    time = NOON + (len(what) - ago) * MINUTE
    scan = Scan("dan", "west", "", time, False)
    with_history = binding.scan(stored.whole.rows, scan, ALWAYS, "next")
    alone = binding.scan(stored.document, replace(scan, not_before=stored.history_end), ALWAYS, "next")
    assert alone == with_history


def test_a_correction_of_all_that_the_document_says_leaves_the_history_its_time() -> None:
    """The document then has no row that is believed; a scan as old as the history begins behind it."""
    stored = Stored()
    for number in range(20):
        happens(stored, number, ("scan", sorted(STORES)[number % 3], 0))
    happens(stored, 20, ("lapse", "ann", 0))
    first = min(row.valid_from_time for row in stored.document if row.superseded_time is None)
    nobodys = Correction("", "", first, NOON + 21 * MINUTE, "a mistake")
    stored.write(correct(stored.whole.rows, nobodys, ALWAYS, "corrected"))
    assert believed(stored.document) == []
    stored.write(stored.scanned("cat", NOON + MINUTE, "late"))
    [late] = believed(stored.document)
    assert late.valid_from_time == first


@given(st.lists(happenings, min_size=12, max_size=40))
def test_what_is_believed_no_more_goes_before_what_is(what: list[tuple[str, str, int]]) -> None:
    """What stands, and what ended last, stays; few rows stay together."""
    stored = Stored()
    for number, one in enumerate(what):
        happens(stored, number, one)
        rows = stored.document
        pushed = binding.pushed_out(rows, stored.scanned("cat", NOON + timedelta(days=9), "next"))
        stays = [row for row in rows if row not in pushed]
        if any(row.superseded_time is None for row in pushed):
            assert all(row.superseded_time is None for row in stays)
        ended = [row for row in rows if row.superseded_time is None and row.valid_to_time]
        if ended:
            assert max(ended, key=lambda row: row.valid_to_time or NOON) in stays
        assert not pushed or len(rows) >= ROWS_KEPT - 1
