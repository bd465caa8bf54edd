"""Members who scan, are merged and separated, without a database; and by whom each fact of them came.

The facts are kept in the simplest form there is, minute by minute, and independently of `rules.replay`: what
a member is to have after a merge was undone is told by going through those that came through himself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from chassis.errors import Refused
from svc_members.rules import binding, bitemporal, correction, merge
from svc_members.rules.binding import Cause, Decision, Outcome, Policy, Row, Scan, Snatch
from svc_members.rules.correction import Correction
from svc_members.rules.merge import Merged
from svc_members.rules.replay import Away, Record
from tests.unit.member_rows import MINUTE, NOON, Recorder, Written, believed

ALWAYS: Final = Policy(snatch=Snatch.ALWAYS, pool_claim=True)
PROTECTED: Final = Policy(pool_claim=True)
STORES: Final = {"ann": "east", "bea": "west", "cat": "east"}
SLOTS: Final = 80
"""Minutes of which a life's timelines are compared; the last stands for ever after."""

Holder = tuple[str, str] | None
"""Guide and store; None: nobody."""


@dataclass
class Member:
    """A member, and what the laws below know of him."""

    written: Written
    created: int
    merged_into: str = ""
    absorbed: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Who was merged into him: since which fact, and of which minutes what comes through them is his."""


@dataclass
class Made:
    """A merge that was made."""

    merged: Merged
    survivor: str
    other: str
    undone_times: tuple[datetime, datetime] | None = None
    """When it was recorded that it is undone: with the survivor, and with the other."""


@dataclass
class Fact:
    """What became known of some minutes: through whom, and whose he was in them."""

    through: str
    holders: dict[int, Holder]


class Life:
    """Members who scan, are merged and separated; beside their rows, every fact through whom it came."""

    def __init__(self, names: str) -> None:
        recorder = Recorder()
        self.members = {name: Member(Written(recorder), place) for place, name in enumerate(names)}
        self.merges: list[Made] = []
        self.facts: list[Fact] = []
        self.minute = 2
        self._ids = 0

    @property
    def now(self) -> datetime:
        return NOON + self.minute * MINUTE

    def rows(self, name: str) -> tuple[Row, ...]:
        return self.members[name].written.rows

    def next_id(self) -> str:
        self._ids += 1
        return f"row-{self._ids}"

    def answering(self, name: str) -> str:
        """Who answers for somebody."""
        while self.members[name].merged_into:
            name = self.members[name].merged_into
        return name

    # ---- what happens -------------------------------------------------------------------------------

    def happens(self, through: str, decide: Callable[[tuple[Row, ...], str, str], Decision]) -> None:
        """Something that comes through somebody. `decide` gets rows, the origin, and an id for new rows."""
        name = self.answering(through)
        before = self.slots(name)
        decision = decide(self.rows(name), "" if name == through else through, self.next_id())
        if decision.added or decision.superseded:
            self.members[name].written.write(decision)
            self._note(name, before)

    def scans(self, through: str, guide: str, *, age: int = 0, policy: Policy = ALWAYS) -> None:
        """A guide's code, some minutes ago."""

        def decide(rows: tuple[Row, ...], origin: str, next_id: str) -> Decision:
            time = self.now - age * MINUTE
            scan = Scan(guide, STORES[guide], "", time, False, origin, self._not_before(through))
            return binding.scan(rows, scan, policy, next_id)

        self.happens(through, decide)

    def _not_before(self, through: str) -> datetime | None:
        """An identity that a merge gave to another has been his since the merge."""
        made = [made for made in self.merges if not made.undone_times and through in made.merged.origin_ids]
        return max((one.merged.time for one in made), default=None)

    def scans_store(self, through: str, store: str) -> None:
        """A store's code."""

        def decide(rows: tuple[Row, ...], origin: str, next_id: str) -> Decision:
            return binding.scan(rows, Scan("", store, "", self.now, False, origin), ALWAYS, next_id)

        self.happens(through, decide)

    def lapses(self, through: str) -> None:
        """The binding of whoever answers for him runs out."""
        self.happens(through, lambda rows, _, next_id: binding.end(rows, self.now, Cause.LAPSED, next_id))

    def resigns(self, through: str, *, age: int = 0) -> None:
        """His guide leaves."""

        def decide(rows: tuple[Row, ...], _: str, next_id: str) -> Decision:
            current = binding.standing(rows)
            guide = current.guide_id if current else ""
            return binding.resign(rows, guide or "nobody", self.now - age * MINUTE, next_id)

        self.happens(through, decide)

    def is_handed_over(self, through: str, taker: str) -> None:
        """He accepts another guide."""

        def decide(rows: tuple[Row, ...], _: str, next_id: str) -> Decision:
            current = binding.standing(rows)
            taken = Scan(taker, STORES[taker], "", self.now, False)
            giver = current.guide_id if current else "nobody"
            return binding.hand_over(rows, giver, taken, PROTECTED, resigned=not giver, next_id=next_id)

        self.happens(through, decide)

    def claims(self, through: str, guide: str) -> None:
        """A guide claims him out of her pool, where he is in it."""

        def decide(rows: tuple[Row, ...], origin: str, next_id: str) -> Decision:
            claim = Scan(guide, STORES[guide], "", self.now, False, origin)
            try:
                return binding.claim(rows, claim, PROTECTED, next_id)
            except Refused:
                return Decision(Outcome.KEPT, binding.standing(rows))

        self.happens(through, decide)

    def is_corrected(self, through: str, guide: str, ages: tuple[int, int]) -> None:
        """The past is said to have been otherwise. `guide` empty: nobody's. The second age 0: still."""
        begin, end = self.now - max(ages) * MINUTE, self.now - min(ages) * MINUTE
        if begin == end:
            return
        ends = end if min(ages) else None
        whole = Correction(guide, STORES.get(guide, ""), begin, ends, f"mistake {self.next_id()}")
        name = through
        since: datetime | None = None
        while True:
            merged_into = self.members[name].merged_into
            made = next((one for one in self.merges if one.other == name and not one.undone_times), None)
            until: datetime | None = made.merged.time if made else None
            if part := whole.within(since, until):
                self._corrected(name, replace(part, origin_id="" if name == through else through))
            if made is None:
                return
            name, since = merged_into, until

    def _corrected(self, name: str, part: Correction) -> None:
        before = self.slots(name)
        decision = correction.correct(self.rows(name), part, PROTECTED, self.next_id())
        self.members[name].written.write(decision)
        self._note(name, before)

    def merge(self, one: str, two: str) -> None:
        """Makes two members one, where they are two."""
        one, two = self.answering(one), self.answering(two)
        if one == two:
            return
        survivor, other = sorted((one, two), key=lambda name: self.members[name].created)
        ours, theirs = self.members[survivor], self.members[other]
        self.minute += 1
        begin = max([self.now, *(made.merged.time + MINUTE for made in self.merges)])
        made = merge.merge(
            ours.written.rows, theirs.written.rows, other, begin, (self.next_id(), self.next_id())
        )
        assert made.time == begin, "nothing else begins or ends at that time"
        before = self.slots(survivor)
        recorded = ours.written.write(made.survivor), theirs.written.write(made.other)
        fact = len(self.facts)
        self._note(survivor, before)
        origins = frozenset({other, *theirs.absorbed})
        ours.absorbed |= dict.fromkeys(origins, (fact, (begin - NOON) // MINUTE))
        theirs.merged_into = survivor
        self.merges.append(Made(Merged(made.time, origins, *recorded, {}), survivor, other))
        self.minute += 1

    def undo(self, number: int) -> None:
        """Undoes a merge, unless its survivor was merged himself, and checks what each has then."""
        if not self.merges:
            return
        made = self.merges[number % len(self.merges)]
        if made.undone_times or self.members[made.survivor].merged_into:
            return
        stays = {
            one: standing.merged.survivor_recorded_time
            for standing in self.merges
            if standing.survivor == made.survivor and not standing.undone_times and standing is not made
            for one in standing.merged.origin_ids
        }
        survivor, other = self.members[made.survivor], self.members[made.other]
        parted = merge.separate(
            self.record(made.survivor),
            self.record(made.other),
            replace(made.merged, stays=stays),
            (self.next_id(), self.next_id()),
        )
        made.undone_times = survivor.written.write(parted.survivor), other.written.write(parted.other)
        for one in made.merged.origin_ids:
            del survivor.absorbed[one]
        other.merged_into = ""

    def record(self, name: str) -> Record:
        """All that was recorded of somebody."""
        aways, separated = [], []
        for made in self.merges:
            if made.undone_times and made.other == name:
                merged, (end_time, back_time) = made.merged, made.undone_times
                left_time, begin_time = merged.other_recorded_time, merged.survivor_recorded_time
                survivor = self.record(made.survivor)
                aways.append(Away(merged.time, left_time, back_time, survivor, begin_time, end_time))
            if made.undone_times and made.survivor == name:
                separated.append(made.undone_times[0])
        return Record(name, self.rows(name), aways, frozenset(separated))

    # ---- what is to be -------------------------------------------------------------------------------

    def slots(self, name: str) -> list[Holder]:
        """Whose a member is believed to be in each minute."""
        return [_holder(found) for found in self._found(name)]

    def _found(self, name: str) -> list[Row | None]:
        rows = believed(self.rows(name))
        return [bitemporal.found(rows, NOON + minute * MINUTE, None) for minute in range(SLOTS)]

    def _note(self, name: str, before: list[Holder]) -> None:
        """Notes what became known by a write, and through whom: as new rows say, or those that ended."""
        found, was = self._found(name), self._through_before
        facts: dict[str, dict[int, Holder]] = {}
        ending: set[str] = set()
        for minute, row in enumerate(found[: self._until(name)]):
            if row is not None:
                ending = set()
                if _holder(row) != before[minute] or (row.origin_id or name) != was(name, minute):
                    facts.setdefault(row.origin_id or name, {})[minute] = _holder(row)
                continue
            if before[minute] is not None:
                ending.add(was(name, minute))
            for through in ending:
                facts.setdefault(through, {})[minute] = None
        self.facts += [Fact(through, holders) for through, holders in facts.items()]

    def _until(self, name: str) -> int:
        """Until which minute somebody's rows are told with himself: until he was merged."""
        made = [one.merged.time for one in self.merges if one.other == name and not one.undone_times]
        return (made[0] - NOON) // MINUTE if made else SLOTS

    def _through_before(self, name: str, minute: int) -> str:
        """Through whom it came whose a member was in a minute, before the last write."""
        [*_, (_, rows)] = [*self.members[name].written.known[:-1]] or [(NOON, ())]
        row = bitemporal.found(rows, NOON + minute * MINUTE, None)
        return (row.origin_id or name) if row else ""

    def expected(self, name: str) -> list[Holder]:
        """Whose a member was in each minute, by the facts that came through him or one of his."""
        slots: dict[int, Holder] = dict.fromkeys(range(SLOTS))
        since = {name: (0, 0), **self.members[name].absorbed}
        for place, fact in enumerate(self.facts):
            first, begin = since.get(fact.through, (len(self.facts), 0))
            if first <= place:
                slots |= {minute: one for minute, one in fact.holders.items() if begin <= minute}
        return list(slots.values())

    def check(self) -> None:
        """What holds whatever happened."""
        for name, member in self.members.items():
            member.written.check_known()
            if not member.merged_into:
                assert self.slots(name) == self.expected(name), name


def _holder(row: Row | None) -> Holder:
    return (row.guide_id, row.store_id) if row else None
