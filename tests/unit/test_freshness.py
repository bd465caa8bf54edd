"""A gallery finds nobody who was revoked 45 s ago or more, however cut off its process is."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from svc_vision.rules import freshness
from svc_vision.rules.freshness import Due, Lease, Renewal


@pytest.mark.parametrize(
    ("age_ms", "due"),
    [
        (0, Due.NOTHING),
        (14_999, Due.NOTHING),
        (15_000, Due.RENEW),
        (44_999, Due.RENEW),
        (45_000, Due.DROP),
        (10**9, Due.DROP),
    ],
)
def test_a_lease_is_renewed_after_15_seconds_and_over_after_45(age_ms: int, due: Due) -> None:
    assert Lease(1_000, 7).due(1_000 + age_ms) is due


def test_a_renewal_names_whom_to_take_out_and_counts_from_before_the_read() -> None:
    found = freshness.renewed(Lease(0, 7), 15_000, 9, {8: "ann", 9: "bea"})
    assert found == Renewal(Lease(15_000, 9), frozenset({"ann", "bea"}))
    assert freshness.renewed(Lease(0, 7), 15_000, 7, {}) == Renewal(Lease(15_000, 7))


@pytest.mark.parametrize(
    ("head", "revocations"),
    [(9, {9: "bea"}), (9, {8: "ann"}), (6, {}), (0, {})],
    ids=["one is missing", "the last is missing", "went back", "all are gone"],
)
def test_a_gallery_that_cannot_know_is_dropped(head: int, revocations: Mapping[int, str]) -> None:
    """A log that was cut, or a database restored from a copy: nothing is guessed."""
    assert freshness.renewed(Lease(0, 7), 15_000, head, revocations) == Renewal(None)


def test_a_read_that_began_earlier_changes_nothing() -> None:
    """Two reads overtook each other."""
    for head in (6, 7, 9):
        assert freshness.renewed(Lease(15_000, 7), 14_999, head, {}) == Renewal(Lease(15_000, 7))


# ---- a process whose reads are slow, fail and overtake each other ------------------------------------

PEOPLE = [f"person-{number}" for number in range(8)]


def searched_too_long(seed: int) -> list[str]:
    """Who was found 45 s after her revocation, or later, in ten minutes of a process's life."""
    die = random.Random(seed)
    revoked: dict[int, tuple[int, str]] = {}
    gallery, lease = set(PEOPLE), Lease(0, 0)
    held = True
    reads: list[tuple[int, int, int, dict[int, str]]] = []
    found = []
    now_ms = 0
    while now_ms < 600_000:
        now_ms += die.choice([1, 500, 3000, 14_999])
        left = [one for one in PEOPLE if one not in {who for _, who in revoked.values()}]
        if left and die.random() < 0.03:
            revoked[len(revoked) + 1] = (now_ms, die.choice(left))
        due = lease.due(now_ms)
        if held and due is Due.DROP:
            held = False
        if not held and die.random() < 0.3:
            # Loaded anew, from a read that begins now.
            gallery = set(PEOPLE) - {who for _, who in revoked.values()}
            lease, held, reads = Lease(now_ms, len(revoked)), True, []
        if held and due is Due.RENEW and die.random() < 0.5:
            after = {
                number: who for number, (_, who) in revoked.items() if number > lease.revocation_sequence
            }
            reads.append((now_ms + die.choice([1, 4000, 40_000]), now_ms, len(revoked), after))
        for read in [one for one in reads if one[0] <= now_ms]:
            reads.remove(read)
            renewal = freshness.renewed(lease, *read[1:])
            gallery -= renewal.revoked
            held = held and renewal.lease is not None
            lease = renewal.lease or lease
        if held and lease.due(now_ms) is not Due.DROP:
            found += [who for since, who in revoked.values() if who in gallery and now_ms - since >= 45_000]
    return found


def found_by_anybody() -> list[str]:
    """The same hundred processes on every run."""
    return [who for seed in range(100) for who in searched_too_long(seed)]


def test_whoever_was_revoked_45_seconds_ago_is_found_by_no_search() -> None:
    assert found_by_anybody() == []


renewed, due_now = freshness.renewed, Lease.due


def _from_the_end_of_the_read(lease: Lease, asked_ms: int, head: int, told: Mapping[int, str]) -> Renewal:
    found = renewed(lease, asked_ms, head, told)
    return Renewal(found.lease and Lease(asked_ms + 40_000, head), found.revoked)


def _gaps_passed_over(lease: Lease, asked_ms: int, head: int, told: Mapping[int, str]) -> Renewal:
    return Renewal(Lease(asked_ms, head), frozenset())


def _older_reads_count(lease: Lease, asked_ms: int, head: int, told: Mapping[int, str]) -> Renewal:
    return Renewal(
        Lease(lease.asked_ms + 15_000, max(head, lease.revocation_sequence)), frozenset(told.values())
    )


def _never_dropped(self: Lease, now_ms: int) -> Due:
    found = due_now(self, now_ms)
    return Due.RENEW if found is Due.DROP else found


FAULTS: dict[str, tuple[object, str, object]] = {
    "counted from the end of the read": (freshness, "renewed", _from_the_end_of_the_read),
    "nobody is taken out": (freshness, "renewed", _gaps_passed_over),
    "every read counts as a new one": (freshness, "renewed", _older_reads_count),
    "dropped a minute later": (freshness, "DROP_MS", 105_000),
    "never dropped": (Lease, "due", _never_dropped),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrong)
    assert found_by_anybody(), f"nobody notices: {fault}"
