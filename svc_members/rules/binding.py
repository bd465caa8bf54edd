"""Whose member somebody is: what a scan does to his rows, and what the rows say of any moment.

A member's bindings are rows with two time axes (`rules.bitemporal`). The times at which rows are recorded
come from the database and are put in by the store.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from chassis.errors import Refused
from svc_members.rules import bitemporal

FOR_EVER: Final = -1
PROTECTION_DAYS_DEFAULT: Final = 90
ROWS_KEPT: Final = 8
"""Rows of a member that are kept where they are decided on; older ones stand apart."""
KNOWN_AT_AGE_LEAST: Final = timedelta(seconds=5)


class Snatch(enum.StrEnum):
    """When another guide may take over a member."""

    NEVER = "NEVER"
    AFTER_PROTECTION = "AFTER_PROTECTION"
    ALWAYS = "ALWAYS"


class RenewOn(enum.StrEnum):
    """What begins a binding's validity anew."""

    NONE = "NONE"
    PURCHASE = "PURCHASE"
    CONTACT = "CONTACT"


class Cause(enum.StrEnum):
    """Why a row was recorded."""

    SCAN = "SCAN"
    SNATCHED = "SNATCHED"
    CLAIM = "CLAIM"
    LAPSED = "LAPSED"
    RESIGNED = "RESIGNED"
    HANDOVER = "HANDOVER"
    IMPORT = "IMPORT"
    MERGED = "MERGED"
    SEPARATED = "SEPARATED"
    CORRECTED = "CORRECTED"
    ERASED = "ERASED"


class Outcome(enum.StrEnum):
    """What became of a member."""

    BOUND = "BOUND"
    ALREADY_BOUND = "ALREADY_BOUND"
    KEPT = "KEPT"
    SNATCHED = "SNATCHED"
    ENDED = "ENDED"
    HANDED_OVER = "HANDED_OVER"
    LOST = "LOST"
    MERGED = "MERGED"
    SEPARATED = "SEPARATED"
    CORRECTED = "CORRECTED"


@dataclass(frozen=True, slots=True)
class Policy:
    """How a brand binds. Days are of 24 hours; FOR_EVER never ends.

    `protection_days` count from the binding's beginning, `validity_days` from the last activity that
    `renew_on` names.
    """

    snatch: Snatch = Snatch.AFTER_PROTECTION
    protection_days: int = PROTECTION_DAYS_DEFAULT
    self_binding: bool = False
    pool_claim: bool = False
    validity_days: int = FOR_EVER
    renew_on: RenewOn = RenewOn.NONE

    def protected_until(self, scanned_time: datetime) -> datetime | None:
        """When the protection of a binding made at the scan ends. None: never."""
        if self.protection_days == FOR_EVER or self.snatch is Snatch.NEVER:
            return None
        if self.snatch is Snatch.ALWAYS:
            return scanned_time
        return scanned_time + timedelta(days=self.protection_days)


@dataclass(frozen=True, slots=True)
class Row:
    """One bitemporal row. `guide_id` empty: the pool of the store, which nobody need be protected from.

    `recorded_time` None: not written yet. `protected_until_time` None: for ever. `origin_id`: the merged
    member through whose id or identity it came; empty: the member's own. `reason`: of a correction.
    `since_time`: when the binding began that this row goes on with; None: with the row.
    """

    binding_id: str
    guide_id: str
    store_id: str
    valid_from_time: datetime
    valid_to_time: datetime | None
    recorded_time: datetime | None
    superseded_time: datetime | None
    protected_until_time: datetime | None
    cause: Cause
    campaign: str
    origin_id: str = ""
    reason: str = ""
    since_time: datetime | None = None

    @property
    def begin_time(self) -> datetime:
        """When the binding began, wherever the row does."""
        return self.since_time or self.valid_from_time


@dataclass(frozen=True, slots=True)
class Scan:
    """A code, scanned. `guide_id` empty: a store's. The guide may be the customer herself: `by_herself`.

    `origin_id`: as of the row that it makes. `not_before`: no row that it makes begins earlier.
    """

    guide_id: str
    store_id: str
    campaign: str
    scanned_time: datetime
    by_herself: bool
    origin_id: str = ""
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a member: rows to supersede, by id, and rows to add. Neither: nothing changes.

    `standing` is the row that stands afterwards; None: he is nobody's.
    """

    outcome: Outcome
    standing: Row | None
    superseded: tuple[str, ...] = ()
    added: tuple[Row, ...] = ()


def standing(rows: Sequence[Row]) -> Row | None:
    """The row that binds him now, if any. Raises: ValueError if there are two."""
    return bitemporal.standing(rows)


def scan(rows: Sequence[Row], scanned: Scan, policy: Policy, next_id: str) -> Decision:
    """What a scan does to a member's rows.

    A store's code binds whoever is nobody's to the store's pool, and moves nobody else; from a pool any
    guide's scan takes him. `next_id` begins the ids of added rows: the caller makes it unique within the
    brand.

    Raises: Refused SELF_BINDING.
    """
    current = standing(rows)
    if current is not None and current.guide_id == scanned.guide_id and _same_pool(current, scanned):
        return Decision(Outcome.ALREADY_BOUND, current)
    if scanned.by_herself and not policy.self_binding:
        raise Refused("SELF_BINDING", "a guide cannot become her own member in this brand")
    if current is None:
        first = _bound(rows, scanned, policy, scanned.scanned_time, next_id)
        return Decision(Outcome.BOUND, first, (), (first,))
    # Of two guides' scans the later made wins, whichever was delivered last.
    made_earlier = bool(current.guide_id) and scanned.scanned_time < current.begin_time
    time = max(scanned.scanned_time, current.valid_from_time)
    if not scanned.guide_id or made_earlier or not _may_snatch(current, policy, time):
        return Decision(Outcome.KEPT, current)
    taken = _bound(rows, scanned, policy, time, f"{next_id}b")
    outcome = Outcome.SNATCHED if current.guide_id else Outcome.BOUND
    return taken_over(current, taken, outcome, Cause.SNATCHED if current.guide_id else Cause.SCAN, next_id)


def claim(rows: Sequence[Row], claimed: Scan, policy: Policy, next_id: str) -> Decision:
    """What a guide's claim of a member of her store's pool does. `scanned_time` is when she claims.

    Raises: Refused POOL_CLAIM_OFF, MEMBER_NOT_IN_POOL, SELF_BINDING.
    """
    if not policy.pool_claim:
        raise Refused("POOL_CLAIM_OFF", "guides of this brand do not claim members of the pool")
    current = standing(rows)
    if current is not None and current.guide_id == claimed.guide_id:
        return Decision(Outcome.ALREADY_BOUND, current)
    if current is None or current.guide_id or current.store_id != claimed.store_id:
        raise Refused("MEMBER_NOT_IN_POOL", "the member is not in the pool of the guide's store")
    if claimed.by_herself and not policy.self_binding:
        raise Refused("SELF_BINDING", "a guide cannot become her own member in this brand")
    time = max(claimed.scanned_time, current.valid_from_time)
    taken = replace(_bound(rows, claimed, policy, time, f"{next_id}b"), cause=Cause.CLAIM)
    return taken_over(current, taken, Outcome.BOUND, Cause.CLAIM, next_id)


def imported(bound: Scan, policy: Policy, next_id: str) -> Decision:
    """The binding that a new member brings from another system. `scanned_time` is since when he has it."""
    row = replace(_bound((), bound, policy, bound.scanned_time, next_id), cause=Cause.IMPORT)
    return Decision(Outcome.BOUND, row, (), (row,))


def end(rows: Sequence[Row], now: datetime, cause: Cause, next_id: str) -> Decision:
    """What a lapse or an erasure does: the standing row ends now, never earlier, and nobody has him."""
    current = standing(rows)
    if current is None:
        return Decision(Outcome.ENDED, None)
    return Decision(
        Outcome.ENDED,
        None,
        (current.binding_id,),
        (ended(current, max(now, current.valid_from_time), cause, f"{next_id}a"),),
    )


def resign(rows: Sequence[Row], guide_id: str, resign_time: datetime, next_id: str) -> Decision:
    """What a guide's resignation does to a member of hers: from then on he is in her store's pool."""
    current = standing(rows)
    if current is None or current.guide_id != guide_id:
        return Decision(Outcome.KEPT, current)
    time = max(resign_time, current.valid_from_time)
    pool = replace(
        current,
        binding_id=f"{next_id}b",
        guide_id="",
        valid_from_time=time,
        recorded_time=None,
        protected_until_time=time,
        cause=Cause.RESIGNED,
        campaign="",
        reason="",
        since_time=None,
    )
    return taken_over(current, pool, Outcome.ENDED, Cause.RESIGNED, next_id)


def hand_over(
    rows: Sequence[Row], giver_id: str, taker: Scan, policy: Policy, *, resigned: bool, next_id: str
) -> Decision:
    """What an accepted offer does. `taker.scanned_time` is when it was accepted: her row begins then.

    Outcome LOST where the member is by now neither with the giver nor, if she `resigned`, in the pool
    that her resignation left him to.
    """
    current = standing(rows)
    if current is not None and current.guide_id == taker.guide_id:
        return Decision(Outcome.HANDED_OVER, current)
    if current is None or not (_left_by_resignation(current) if resigned else current.guide_id == giver_id):
        return Decision(Outcome.LOST, current)
    time = max(taker.scanned_time, current.valid_from_time)
    taken = replace(
        _bound(rows, taker, policy, time, f"{next_id}b"),
        cause=Cause.HANDOVER,
        origin_id=taker.origin_id or current.origin_id,
    )
    return taken_over(current, taken, Outcome.HANDED_OVER, Cause.HANDOVER, next_id)


def pushed_out(rows: Sequence[Row], decision: Decision) -> list[Row]:
    """The rows that go to the history when a decision is written: all but the last `ROWS_KEPT` or so.

    Those that are believed no more go first, then those that ended longest ago: what stands, and what
    ended last, is needed to decide. What the decision supersedes waits for its time to be known.
    """
    excess = len(rows) + len(decision.added) - ROWS_KEPT
    if excess <= 0:
        return []
    stands = standing(rows)
    may_go = [row for row in rows if row != stands and row.binding_id not in decision.superseded]
    may_go.sort(key=lambda row: (row.superseded_time is None, row.valid_to_time or row.valid_from_time))
    if may_go and may_go[-1].superseded_time is None:
        may_go.pop()
    return may_go[:excess]


def ended(current: Row, time: datetime, cause: Cause, binding_id: str) -> Row:
    """The row that replaces one which ended. `cause` says why it did."""
    return replace(current, binding_id=binding_id, valid_to_time=time, recorded_time=None, cause=cause)


def _left_by_resignation(current: Row) -> bool:
    # Of a row that a merge brought or gave back, the cause is that, whatever it was before.
    return not current.guide_id and current.cause in (Cause.RESIGNED, Cause.MERGED, Cause.SEPARATED)


def _same_pool(current: Row, scanned: Scan) -> bool:
    return bool(scanned.guide_id) or current.store_id == scanned.store_id


def taken_over(current: Row, taken: Row, outcome: Outcome, cause: Cause, next_id: str) -> Decision:
    """Ends the standing row where the next begins. `cause` says of the ended row why it ended."""
    until = ended(current, taken.valid_from_time, cause, f"{next_id}a")
    # A row that would begin and end at one moment never held.
    kept = (until, taken) if until.valid_from_time < taken.valid_from_time else (taken,)
    return Decision(outcome, taken, (current.binding_id,), kept)


def _may_snatch(current: Row, policy: Policy, time: datetime) -> bool:
    if not current.guide_id:
        return True
    if policy.snatch is Snatch.NEVER:
        return False
    if policy.snatch is Snatch.ALWAYS:
        return True
    return current.protected_until_time is not None and current.protected_until_time <= time


def _bound(rows: Sequence[Row], scanned: Scan, policy: Policy, begin: datetime, binding_id: str) -> Row:
    # Rows that ended earlier stay what they were: a late scan begins when the last of them ended.
    ends = [
        row.valid_to_time for row in rows if row.superseded_time is None and row.valid_to_time is not None
    ]
    begin = max([begin, *ends, *([scanned.not_before] if scanned.not_before else [])])
    return Row(
        binding_id=binding_id,
        guide_id=scanned.guide_id,
        store_id=scanned.store_id,
        valid_from_time=begin,
        valid_to_time=None,
        recorded_time=None,
        superseded_time=None,
        protected_until_time=policy.protected_until(begin) if scanned.guide_id else begin,
        cause=Cause.SCAN,
        campaign=scanned.campaign,
        origin_id=scanned.origin_id,
    )
