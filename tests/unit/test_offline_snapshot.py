"""Snapshots end, never go back, and are gone from every door before an erasure is called complete."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Conflict, DaogouError
from svc_vision.rules import offline_snapshot as rules
from svc_vision.rules.door_policy import FactorKind
from svc_vision.rules.offline_snapshot import (
    CLOCK_ERROR_MAX,
    LIFE_DEFAULT,
    DoorIssues,
    DoorSnapshot,
    ErasureState,
    Manifest,
    Revocations,
    Usable,
)

NOON = datetime(2026, 3, 9, 1, tzinfo=UTC)
"""A Monday, 09:00 in Shanghai."""
MILLISECOND = timedelta(milliseconds=1)
HOUR = timedelta(hours=1)
RECORDS = {"ann": b"hash of ann", "bea": b"hash of bea"}
STORED = frozenset(RECORDS.values())


def manifest(version: int = 8, revocation: int = 0, life: timedelta = LIFE_DEFAULT) -> Manifest:
    """A manifest for the front door with Ann and Bea in it."""
    return Manifest("front", version, revocation, NOON, NOON + life, RECORDS)


HELD = DoorSnapshot("front").taken(manifest(), STORED)

# ---- the door's side --------------------------------------------------------------------------------


def test_a_snapshot_is_live_for_its_life_by_a_trusted_clock() -> None:
    """The example of the module, to the millisecond, and a little before its issue for clocks that differ."""
    for trusted, usable in (
        (NOON - CLOCK_ERROR_MAX - MILLISECOND, Usable.NOT_YET),
        (NOON - CLOCK_ERROR_MAX, Usable.LIVE),
        (NOON + LIFE_DEFAULT - MILLISECOND, Usable.LIVE),
        (NOON + LIFE_DEFAULT, Usable.EXPIRED),
        (None, Usable.NO_TRUSTED_TIME),
    ):
        assert HELD.usable(trusted) is usable
        assert HELD.knows("ann", trusted) is (usable is Usable.LIVE)
    assert not HELD.knows("cat", NOON)
    assert DoorSnapshot("front").usable(NOON) is Usable.NONE


@pytest.mark.parametrize(
    ("offered", "reason"),
    [
        (replace(manifest(9), door_id="back"), "SNAPSHOT_FOREIGN"),
        (manifest(9, life=timedelta(hours=72) + MILLISECOND), "SNAPSHOT_LIFE_OUT_OF_RANGE"),
        (manifest(9, life=timedelta(0)), "SNAPSHOT_LIFE_OUT_OF_RANGE"),
        (manifest(8), "SNAPSHOT_NOT_NEWER"),
        (manifest(7), "SNAPSHOT_NOT_NEWER"),
        (replace(manifest(9), records={**RECORDS, "cat": b"hash of cat"}), "SNAPSHOT_INCOMPLETE"),
    ],
)
def test_a_door_takes_no_snapshot_but_the_next_whole_one(offered: Manifest, reason: str) -> None:
    with pytest.raises(DaogouError) as refused:
        HELD.taken(offered, STORED)
    assert refused.value.reason == reason
    assert HELD.taken(manifest(9, life=timedelta(hours=72)), STORED).version == 9


def test_renewal_asks_for_the_records_that_changed() -> None:
    """Bea's new picture travels; Ann's stays where it is."""
    renewal = replace(manifest(9), records={**RECORDS, "bea": b"hash of bea today"})
    assert HELD.missing(renewal, STORED) == {b"hash of bea today"}


def test_whoever_is_revoked_is_forgotten_at_once_and_comes_back_by_no_older_manifest() -> None:
    """Version 9 was made before Ann was revoked with number 1, and comes after."""
    after = HELD.revoked(Revocations(0, 1, frozenset({"ann"})))
    assert (after.knows("ann", NOON), after.knows("bea", NOON)) == (False, True)
    with pytest.raises(Conflict) as conflict:
        after.taken(manifest(9, revocation=0), STORED)
    assert conflict.value.reason == "SNAPSHOT_BEFORE_REVOCATION"
    assert after.version == 8


def test_revocations_after_a_gap_count_but_are_not_acknowledged() -> None:
    """Number 2 is missing: Bea's is obeyed, and the door still says 1."""
    first = HELD.revoked(Revocations(0, 1, frozenset()))
    gap = first.revoked(Revocations(2, 3, frozenset({"bea"})))
    assert (gap.revocation_sequence, gap.knows("bea", NOON)) == (1, False)
    assert gap.revoked(Revocations(1, 3, frozenset({"ann", "bea"}))).revocation_sequence == 3
    assert gap.revoked(Revocations(0, 1, frozenset())).revocation_sequence == 1


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.frozensets(st.sampled_from(FactorKind))),
    st.frozensets(st.sampled_from("abcdef")),
)
def test_neither_pins_nor_codes_travel_and_faces_only_by_consent(
    people: dict[str, frozenset[FactorKind]], agreed: frozenset[str]
) -> None:
    """And nobody is in it for nothing."""
    found = rules.travelling(people, agreed)
    for person, kinds in people.items():
        may = {
            one for one in kinds if one is FactorKind.CARD or (one is FactorKind.FACE and person in agreed)
        }
        assert found.get(person, frozenset()) == may
        assert (person in found) == bool(may)


def test_templates_shrink_beyond_two_thousand_people() -> None:
    assert [rules.is_int8(people) for people in (0, 2000, 2001)] == [False, False, True]


# ---- the service's side -----------------------------------------------------------------------------


def test_an_erasure_waits_for_the_doors_that_hold_her() -> None:
    """The example of the rule: A acknowledges, B is never heard of again."""
    doors = {door: DoorIssues(door).issue(RECORDS, 11, NOON, LIFE_DEFAULT)[0].revoking(12) for door in "AB"}

    def state(now: datetime) -> rules.Erasure:
        return rules.erasure(doors.values(), "ann", 12, now)

    assert state(NOON) == rules.Erasure(ErasureState.ERASED_PENDING_DOORS, ("A", "B"))
    doors["A"] = doors["A"].acknowledged(1, 12)
    over = NOON + LIFE_DEFAULT + CLOCK_ERROR_MAX
    assert state(over - MILLISECOND) == rules.Erasure(ErasureState.ERASED_PENDING_DOORS, ("B",))
    assert state(over) == rules.Erasure(ErasureState.COMPLETE)


def test_a_door_that_has_taken_a_later_snapshot_without_her_holds_her_no_more() -> None:
    """Behind the acknowledged version nothing is live; the one that is acknowledged may be."""
    door, _ = DoorIssues("A").issue(RECORDS, 0, NOON, LIFE_DEFAULT)
    door, _ = door.issue({"bea": b"hash of bea"}, 0, NOON, LIFE_DEFAULT)
    door = door.revoking(1)
    assert door.acknowledged(1, 0).holds("ann", 1, NOON)
    assert not door.acknowledged(2, 0).holds("ann", 1, NOON)
    assert door.acknowledged(2, 0).holds("bea", 1, NOON)


def test_a_door_that_was_not_told_of_a_revocation_is_waited_for() -> None:
    """Its next manifest might have her in it still."""
    assert DoorIssues("A").holds("ann", 1, NOON)
    with pytest.raises(Conflict) as conflict:
        DoorIssues("A").revoking(1).issue(RECORDS, 0, NOON, LIFE_DEFAULT)
    assert conflict.value.reason == "SNAPSHOT_BEFORE_REVOCATION"


def test_what_is_known_of_a_doors_snapshots_is_bounded() -> None:
    """A door that renews every hour for a year has those of the last day on record."""
    door = DoorIssues("A")
    for hour in range(24 * 365):
        door, _ = door.issue(RECORDS, 0, NOON + hour * HOUR, LIFE_DEFAULT)
    assert (door.version, len(door.issued)) == (24 * 365, 25)


# ---- a world in which messages take their time -------------------------------------------------------


class World:
    """One door, one service, a network that delays, repeats and reorders; two people who may be erased.

    The door's clock is wrong by up to two minutes, and untrusted after a start until it is set.
    """

    def __init__(self, seed: int) -> None:
        self.die = random.Random(seed)
        self.now = NOON
        self.error = timedelta(seconds=self.die.uniform(-120, 120))
        self.trusted = True
        self.door = DoorSnapshot("front")
        self.issues = DoorIssues("front")
        self.head = 0
        self.revoked: dict[str, int] = {}
        self.read: tuple[dict[str, bytes], int] | None = None
        self.manifests: list[Manifest] = []
        self.pushed: list[Revocations] = []
        self.acknowledgements: list[tuple[int, int]] = []
        self.complete: set[str] = set()

    def reads_people(self) -> None:
        """The first half of making a manifest, which may be old when the second comes. Some may not enter."""
        may = [who for who in RECORDS if who not in self.revoked and self.die.random() < 0.7]
        self.read = {who: RECORDS[who] for who in may}, self.head

    def makes_a_manifest(self) -> None:
        if self.read is not None:
            life = self.die.choice([HOUR, LIFE_DEFAULT, timedelta(hours=72)])
            with suppress(DaogouError):
                self.issues, made = self.issues.issue(*self.read, self.now, life)
                self.manifests.append(made)

    def erases(self) -> None:
        person = self.die.choice(sorted(RECORDS))
        if person not in self.revoked:
            self.head += 1
            self.revoked[person] = self.head
            self.issues = self.issues.revoking(self.head)
            self.pushed.append(Revocations(self.head - 1, self.head, frozenset({person})))

    def manifest_arrives(self) -> None:
        if self.manifests:
            with suppress(DaogouError):
                self.door = self.door.taken(self.die.choice(self.manifests[-4:]), STORED)

    def revocation_arrives(self) -> None:
        if self.pushed:
            self.door = self.door.revoked(self.die.choice(self.pushed))

    def door_acknowledges(self) -> None:
        self.acknowledgements.append((self.door.version, self.door.revocation_sequence))

    def acknowledgement_arrives(self) -> None:
        if self.acknowledgements:
            self.issues = self.issues.acknowledged(*self.die.choice(self.acknowledgements))

    def door_starts_anew(self) -> None:
        self.trusted = False

    def door_is_told_the_time(self) -> None:
        self.trusted = True

    def time_passes(self) -> None:
        self.now += self.die.choice([timedelta(seconds=119), HOUR, timedelta(hours=23, minutes=59)])

    def watched(self) -> None:
        """Once an erasure was called complete, no door knows her, whatever arrives later."""
        for person, sequence in self.revoked.items():
            found = rules.erasure([self.issues], person, sequence, self.now)
            if found.state is ErasureState.COMPLETE:
                self.complete.add(person)
        time = self.now + self.error if self.trusted else None
        known = {person for person in RECORDS if self.door.knows(person, time)}
        assert not known & self.complete, f"the door still knows {known & self.complete}"
        assert not (known and not self.trusted), "the door decides without knowing the time"
        held = self.door.manifest
        if known and held is not None:
            assert self.now + self.error < held.issue_time + timedelta(hours=72)

    def lives(self, steps: int) -> bool:
        """Goes some steps; whether any erasure was complete in the end."""
        choices: list[tuple[int, Callable[[], None]]] = [
            (3, self.reads_people),
            (3, self.makes_a_manifest),
            (2, self.erases),
            (4, self.manifest_arrives),
            (3, self.revocation_arrives),
            (2, self.door_acknowledges),
            (3, self.acknowledgement_arrives),
            (1, self.door_starts_anew),
            (2, self.door_is_told_the_time),
            (1, self.time_passes),
        ]
        for step in self.die.choices([one for _, one in choices], [one for one, _ in choices], k=steps):
            step()
            self.watched()
        return bool(self.complete)


def broken_by_anything() -> str | None:
    """What goes wrong in two thousand lives, if anything does. The same lives on every run."""
    for seed in range(2000):
        try:
            World(seed).lives(60)
        except AssertionError as broken:
            return str(broken)
    return None


def test_whoever_is_erased_completely_is_known_to_no_door() -> None:
    """Whatever arrives late, twice or out of order; and erasures do come to their end."""
    assert broken_by_anything() is None
    assert sum(World(seed).lives(60) for seed in range(100)) > 50


issue, taken, revoked = DoorIssues.issue, DoorSnapshot.taken, DoorSnapshot.revoked
may_be_live, acknowledged, usable = DoorIssues.may_be_live, DoorIssues.acknowledged, DoorSnapshot.usable


def _versions_go_back(self: DoorSnapshot, offered: Manifest, stored: frozenset[bytes]) -> DoorSnapshot:
    return taken(replace(self, version=0), offered, stored)


def _older_than_revocations(self: DoorSnapshot, offered: Manifest, stored: frozenset[bytes]) -> DoorSnapshot:
    return replace(
        taken(replace(self, revocation_sequence=0), offered, stored),
        revocation_sequence=self.revocation_sequence,
    )


def _gaps_acknowledged(self: DoorSnapshot, told: Revocations) -> DoorSnapshot:
    return revoked(self, replace(told, after_sequence=0))


def _not_forgotten(self: DoorSnapshot, told: Revocations) -> DoorSnapshot:
    return replace(revoked(self, told), manifest=self.manifest)


def _old_readings_issued(
    self: DoorIssues, records: dict[str, bytes], sequence: int, now: datetime, life: timedelta
) -> tuple[DoorIssues, Manifest]:
    after, made = issue(replace(self, revocation_floor=0), records, sequence, now, life)
    return replace(after, revocation_floor=self.revocation_floor), made


def _clocks_agree(self: DoorIssues, now: datetime) -> tuple[rules.Issued, ...]:
    return tuple(one for one in may_be_live(self, now) if now < one.expire_time)


def _acknowledged_is_gone(self: DoorIssues, now: datetime) -> tuple[rules.Issued, ...]:
    return tuple(one for one in may_be_live(self, now) if one.version > self.acknowledged_version)


def _latest_alone(self: DoorIssues, now: datetime) -> tuple[rules.Issued, ...]:
    return may_be_live(self, now)[-1:]


def _any_time_is_trusted(self: DoorSnapshot, trusted: datetime | None) -> Usable:
    return usable(self, trusted or (self.manifest.issue_time if self.manifest else NOON))


def _never_expired(self: DoorSnapshot, trusted: datetime | None) -> Usable:
    found = usable(self, trusted)
    return Usable.LIVE if found is Usable.EXPIRED else found


FAULTS: dict[str, tuple[object, str, object]] = {
    "versions go back": (DoorSnapshot, "taken", _versions_go_back),
    "manifests of before a revocation": (DoorSnapshot, "taken", _older_than_revocations),
    "gaps are acknowledged": (DoorSnapshot, "revoked", _gaps_acknowledged),
    "the revoked are not forgotten": (DoorSnapshot, "revoked", _not_forgotten),
    "old readings are issued": (DoorIssues, "issue", _old_readings_issued),
    "all clocks agree": (DoorIssues, "may_be_live", _clocks_agree),
    "what is acknowledged is gone": (DoorIssues, "may_be_live", _acknowledged_is_gone),
    "the latest manifest is the only one": (DoorIssues, "may_be_live", _latest_alone),
    "any time is trusted": (DoorSnapshot, "usable", _any_time_is_trusted),
    "snapshots never end": (DoorSnapshot, "usable", _never_expired),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrong)
    assert broken_by_anything() is not None, f"nobody notices: {fault}"
