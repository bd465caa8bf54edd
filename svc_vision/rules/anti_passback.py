"""Anti-passback: a card handed back through the fence, or one entry shared by two, shows in where people are.

Where somebody is follows from the doors she passed. Whoever has no record has just been enrolled, or came
in while records were lost: she is judged as being nowhere, and never refused for it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

OUTSIDE: Final = ""
"""In the place of a zone: the street."""


class AntiPassback(enum.StrEnum):
    """What a zone does about somebody who enters it while she is in it. SOFT opens, and reports it.

    TIMED refuses her for some minutes after her last entry, wherever she is since.
    """

    OFF = "OFF"
    SOFT = "SOFT"
    HARD = "HARD"
    TIMED = "TIMED"


class Passback(enum.StrEnum):
    """What is to be said of a passage. REPORTED: the door opens all the same."""

    FINE = "FINE"
    REPORTED = "REPORTED"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class ZonePassback:
    """The mode of a zone. `minutes` count for TIMED alone, and are above 0 then."""

    mode: AntiPassback = AntiPassback.OFF
    minutes: int = 0


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a person was last seen to go: `zone_id` (OUTSIDE: she left), at `passed_time`.

    `entered` is when she last entered each zone that she ever did.
    """

    zone_id: str
    passed_time: datetime
    entered: Mapping[str, datetime] = field(default_factory=dict)


def judged(
    rule: ZonePassback, *, to_zone_id: str, whereabouts: Whereabouts | None, now: datetime, offline: bool
) -> Passback:
    """Whether somebody may enter a zone that she may already be in. `rule` is that of the zone.

    A door that is offline knows no other door's passages: there HARD and TIMED are SOFT. The way out refuses
    nobody. An entry reported by a clock that is ahead counts as much as one that is as long ago, so that a
    door whose clock was wrong by a day shuts nobody out for a day.

    Example: TIMED with 10 minutes, entered at 09:00: refused at 09:09:59, fine at 09:10.
    """
    if rule.mode is AntiPassback.OFF or whereabouts is None:
        return Passback.FINE
    if rule.mode is AntiPassback.TIMED:
        entered = whereabouts.entered.get(to_zone_id)
        passed_back = entered is not None and abs(now - entered) < timedelta(minutes=rule.minutes)
    else:
        passed_back = whereabouts.zone_id == to_zone_id
    if not passed_back:
        return Passback.FINE
    if rule.mode is AntiPassback.SOFT or offline or to_zone_id == OUTSIDE:
        return Passback.REPORTED
    return Passback.REFUSED


def passed(before: Whereabouts | None, *, to_zone_id: str, passed_time: datetime) -> Whereabouts:
    """Where she is after a passage that the door has confirmed: opened for her is not gone through.

    Passages may become known in any order, and more than once: the latest says where she is.
    """
    entered = dict(before.entered) if before is not None else {}
    if to_zone_id != OUTSIDE:
        entered[to_zone_id] = max(entered.get(to_zone_id, passed_time), passed_time)
    if before is not None and (passed_time, to_zone_id) < (before.passed_time, before.zone_id):
        return Whereabouts(before.zone_id, before.passed_time, entered)
    return Whereabouts(to_zone_id, passed_time, entered)
