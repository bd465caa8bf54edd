"""What a correction says of a member's past: that for some time he was somebody else's, or nobody's.

Nothing is overwritten: the rows that said otherwise are superseded by what is left of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from svc_members.rules import binding
from svc_members.rules.binding import Cause, Decision, Outcome, Policy, Row


@dataclass(frozen=True, slots=True)
class Correction:
    """From `begin_time` to `end_time` (None: from then on) he was the guide's, the store's, or nobody's.

    `guide_id` empty: the pool of the store; both empty: nobody's. `origin_id`: the merged member by whose id
    it was asked for; empty: by his own. `since_time`: as of the row that it makes.
    """

    guide_id: str
    store_id: str
    begin_time: datetime
    end_time: datetime | None
    reason: str
    origin_id: str = ""
    since_time: datetime | None = None

    def within(self, from_time: datetime | None, until_time: datetime | None) -> Correction | None:
        """What it says of the time between two moments (None: ever). None: nothing."""
        begin = self.begin_time if from_time is None else max(self.begin_time, from_time)
        ends = [time for time in (self.end_time, until_time) if time is not None]
        end = min(ends, default=None)
        if end is not None and end <= begin:
            return None
        since = self.since_time or (self.begin_time if begin > self.begin_time else None)
        return replace(self, begin_time=begin, end_time=end, since_time=since)


def correct(rows: Sequence[Row], correction: Correction, policy: Policy, next_id: str) -> Decision:
    """The rows once the correction is believed. `rows` are all of the member."""
    superseded: list[str] = []
    added: list[Row] = []
    kept: list[Row] = []
    for row in rows:
        if row.superseded_time is not None:
            continue
        if _apart(row, correction):
            kept.append(row)
            continue
        superseded.append(row.binding_id)
        added += _left_of(row, correction)
    if correction.store_id:
        added.append(_corrected(correction, policy))
    named = tuple(replace(row, binding_id=f"{next_id}.{place}") for place, row in enumerate(added))
    return Decision(Outcome.CORRECTED, binding.standing([*kept, *named]), tuple(superseded), named)


def _apart(row: Row, correction: Correction) -> bool:
    ends_before = row.valid_to_time is not None and row.valid_to_time <= correction.begin_time
    begins_after = correction.end_time is not None and correction.end_time <= row.valid_from_time
    return ends_before or begins_after


def _left_of(row: Row, correction: Correction) -> list[Row]:
    """What is left of a row before and after the time that was corrected."""
    left = []
    if row.valid_from_time < correction.begin_time:
        left.append(binding.ended(row, correction.begin_time, Cause.CORRECTED, ""))
    if correction.end_time is not None and (
        row.valid_to_time is None or correction.end_time < row.valid_to_time
    ):
        left.append(replace(row, valid_from_time=correction.end_time, recorded_time=None))
    return left


def _corrected(correction: Correction, policy: Policy) -> Row:
    begin = correction.since_time or correction.begin_time
    return Row(
        binding_id="",
        guide_id=correction.guide_id,
        store_id=correction.store_id,
        valid_from_time=correction.begin_time,
        valid_to_time=correction.end_time,
        recorded_time=None,
        superseded_time=None,
        protected_until_time=policy.protected_until(begin) if correction.guide_id else begin,
        cause=Cause.CORRECTED,
        campaign="",
        origin_id=correction.origin_id,
        reason=correction.reason,
        since_time=correction.since_time,
    )
