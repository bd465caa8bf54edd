"""Whose member somebody becomes by a scan, at the edges; `test_binding_machine` does the rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chassis.errors import Refused
from svc_members.rules import binding, bitemporal
from svc_members.rules.binding import Cause, Outcome, Policy, Row, Scan, Snatch

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
DAY = timedelta(days=1)


def scan(guide: str, time: datetime, *, store: str = "east", by_herself: bool = False) -> Scan:
    """A guide's code scanned at a time; without a guide, a store's."""
    return Scan(guide, store, "spring", time, by_herself)


def first(policy: Policy = Policy(), guide: str = "ann", *, store: str = "east") -> tuple[Row, ...]:  # noqa: B008
    """The rows of a member whom a guide's code, or a store's, bound at noon."""
    decision = binding.scan((), scan(guide, NOON, store=store), policy, "m.1")
    return recorded((), decision, NOON)


def recorded(rows: tuple[Row, ...], decision: binding.Decision, time: datetime) -> tuple[Row, ...]:
    """The rows after a decision was written at a time."""
    ended = [
        replace(row, superseded_time=time) if row.binding_id in decision.superseded else row for row in rows
    ]
    return (*ended, *(replace(row, recorded_time=time) for row in decision.added))


def test_a_second_guides_scan_a_minute_later_does_not_steal_him() -> None:
    """By the default policy he is protected for 90 days."""
    rows = first()
    decision = binding.scan(rows, scan("bea", NOON + timedelta(minutes=1)), Policy(), "m.2")
    assert decision.outcome is Outcome.KEPT
    assert decision.standing == rows[0]
    assert (decision.superseded, decision.added) == ((), ())


@pytest.mark.parametrize(
    ("after", "outcome"),
    [(90 * DAY - MILLISECOND, Outcome.KEPT), (90 * DAY, Outcome.SNATCHED), (91 * DAY, Outcome.SNATCHED)],
)
def test_protection_ends_at_its_end(after: timedelta, outcome: Outcome) -> None:
    """`protected_until_time` is the first moment at which another guide's scan takes him."""
    decision = binding.scan(first(), scan("bea", NOON + after), Policy(), "m.2")
    assert decision.outcome is outcome


def test_a_snatch_ends_one_row_where_the_next_begins() -> None:
    """Whose he was before stays known; the row that said otherwise is kept, superseded."""
    taken_time = NOON + 100 * DAY
    rows = first()
    decision = binding.scan(rows, scan("bea", taken_time), Policy(), "m.2")
    ended, taken = decision.added
    assert decision.superseded == (rows[0].binding_id,)
    assert (ended.guide_id, ended.valid_from_time, ended.valid_to_time) == ("ann", NOON, taken_time)
    assert ended.cause is Cause.SNATCHED
    assert (taken.guide_id, taken.valid_from_time, taken.valid_to_time) == ("bea", taken_time, None)
    assert taken.protected_until_time == taken_time + 90 * DAY

    after = recorded(rows, decision, taken_time)
    for moment, guide in [(NOON, "ann"), (taken_time - MILLISECOND, "ann"), (taken_time, "bea")]:
        found = bitemporal.found(after, moment, None)
        assert found is not None
        assert found.guide_id == guide
    believed_then = bitemporal.found(after, taken_time + DAY, taken_time - MILLISECOND)
    assert believed_then is not None
    assert believed_then.guide_id == "ann", "nobody knew better the day before"


def test_before_the_first_scan_he_was_nobodys() -> None:
    """And before it was recorded, nobody knew that he was hers."""
    rows = first()
    assert bitemporal.found(rows, NOON - MILLISECOND, None) is None
    assert bitemporal.found(rows, NOON, NOON - MILLISECOND) is None
    assert bitemporal.found(rows, NOON, NOON) == rows[0]
    assert bitemporal.found((), NOON, None) is None


def test_under_never_the_first_guide_keeps_him_for_ever() -> None:
    """Also when the brand's policy changes later: a new policy moves no standing binding."""
    rows = first(Policy(snatch=Snatch.NEVER, protection_days=1))
    later = scan("bea", NOON + 3000 * DAY)
    assert rows[0].protected_until_time is None
    assert binding.scan(rows, later, Policy(snatch=Snatch.NEVER), "m.2").outcome is Outcome.KEPT
    assert binding.scan(rows, later, Policy(), "m.2").outcome is Outcome.KEPT


def test_under_always_the_last_scan_wins() -> None:
    """A millisecond later, and back again."""
    always = Policy(snatch=Snatch.ALWAYS)
    rows = first(always)
    for number, guide in enumerate(["bea", "ann", "bea"], start=1):
        moment = NOON + number * MILLISECOND
        decision = binding.scan(rows, scan(guide, moment), always, f"m.{number + 1}")
        assert decision.outcome is Outcome.SNATCHED
        rows = recorded(rows, decision, moment)
    standing = binding.standing(rows)
    assert standing is not None
    assert standing.guide_id == "bea"


def test_a_shorter_protection_does_not_open_what_was_promised() -> None:
    """The 90 days were the policy of the day on which she bound him."""
    rows = first(Policy(protection_days=90))
    decision = binding.scan(rows, scan("bea", NOON + 10 * DAY), Policy(protection_days=1), "m.2")
    assert decision.outcome is Outcome.KEPT


def test_protection_for_ever_has_no_end() -> None:
    """-1 days."""
    rows = first(Policy(protection_days=binding.FOR_EVER))
    decision = binding.scan(rows, scan("bea", NOON + 3000 * DAY), Policy(), "m.2")
    assert decision.outcome is Outcome.KEPT


def test_a_repeated_scan_changes_nothing() -> None:
    """Also by the guide herself, and after protection ended."""
    rows = first()
    for again in (scan("ann", NOON), scan("ann", NOON + 100 * DAY), scan("ann", NOON, by_herself=True)):
        decision = binding.scan(rows, again, Policy(), "m.2")
        assert (decision.outcome, decision.standing) == (Outcome.ALREADY_BOUND, rows[0])
        assert decision.added == ()


def test_a_guide_cannot_become_her_own_member() -> None:
    """Unless the brand allows it."""
    with pytest.raises(Refused) as refused:
        binding.scan((), scan("ann", NOON, by_herself=True), Policy(), "m.1")
    assert refused.value.reason == "SELF_BINDING"
    allowed = binding.scan((), scan("ann", NOON, by_herself=True), Policy(self_binding=True), "m.1")
    assert allowed.outcome is Outcome.BOUND


def test_a_member_who_becomes_a_guide_stays_with_whom_he_was() -> None:
    """Scanning her own code gives her nothing while the earlier guide's binding stands."""
    with pytest.raises(Refused) as refused:
        binding.scan(first(), scan("bea", NOON + DAY, by_herself=True), Policy(), "m.2")
    assert refused.value.reason == "SELF_BINDING"


def test_a_scan_delivered_late_does_not_reach_back() -> None:
    """Bea's scan of 11:00 arrives after Ann's of noon was recorded: Ann's hour is not taken from her."""
    always = Policy(snatch=Snatch.ALWAYS)
    rows = first(always)
    decision = binding.scan(rows, scan("bea", NOON - timedelta(hours=1)), always, "m.2")
    after = recorded(rows, decision, NOON + DAY)
    assert bitemporal.found(after, NOON - MILLISECOND, None) is None
    for row in decision.added:
        assert row.valid_from_time >= NOON


def test_a_store_code_binds_to_the_pool_and_any_guide_takes_him_from_there() -> None:
    """Nobody need be protected from a pool, whatever the policy says of guides."""
    rows = first(Policy(snatch=Snatch.NEVER), guide="")
    assert rows[0].guide_id == ""
    decision = binding.scan(rows, scan("bea", NOON + MILLISECOND), Policy(snatch=Snatch.NEVER), "m.2")
    assert decision.outcome is Outcome.BOUND
    assert decision.standing is not None
    assert decision.standing.guide_id == "bea"


def test_a_store_code_takes_nobody_from_a_guide_or_from_another_pool() -> None:
    """He stays where he is, though his guide's protection is long over."""
    for guide, store in [("ann", "east"), ("", "east")]:
        rows = first(guide=guide, store=store)
        west = scan("", NOON + 100 * DAY, store="west")
        assert binding.scan(rows, west, Policy(snatch=Snatch.ALWAYS), "m.2").outcome is Outcome.KEPT


def test_two_standing_rows_are_refused_as_the_mistake_they_are() -> None:
    """Better an alarm than a commission paid to one of two at random."""
    rows = first()
    with pytest.raises(ValueError, match="2 standing rows"):
        binding.standing((*rows, replace(rows[0], binding_id="m.9")))
