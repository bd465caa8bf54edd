"""Periods between messages and the rules, and what is wrong with those that a request asks for."""

from __future__ import annotations

from chassis.errors import Violation
from chassis.rpc import limits
from daogou.commission.v1 import performance_pb2 as pb
from daogou.common.v1.date_pb2 import Date
from svc_commission.rules import period
from svc_commission.rules.period import Period

OfOnePeriod = (
    pb.ListStoreLeaderboardRequest
    | pb.ListGuideLeaderboardRequest
    | pb.GetStoreRankRequest
    | pb.GetGuideRankRequest
)
_NO_PERIOD = "must be a day of the calendar, or a month with day 0"


def check_requests() -> None:
    """Has the periods of requests looked at together with their limits."""
    limits.also_check(pb.PeriodRange, _range_problems)
    limits.also_check(pb.ListStoreLeaderboardRequest, _period_problems)
    limits.also_check(pb.ListGuideLeaderboardRequest, _period_problems)
    limits.also_check(pb.GetStoreRankRequest, _period_problems)
    limits.also_check(pb.GetGuideRankRequest, _period_problems)


def _period_problems(request: OfOnePeriod, prefix: str) -> list[Violation]:
    """What is wrong with the period of a request. That it is absent, the contract says."""
    if not request.HasField("period") or _found(request.period):
        return []
    return [Violation(f"{prefix}period", _NO_PERIOD)]


def _range_problems(message: pb.PeriodRange, prefix: str) -> list[Violation]:
    """What is wrong with a range. That an end is absent, the contract says."""
    ends = {name: getattr(message, name) for name in ("first", "last") if message.HasField(name)}
    found = [Violation(f"{prefix}{name}", _NO_PERIOD) for name, end in ends.items() if not _found(end)]
    first, last = _found(message.first), _found(message.last)
    if first and last and (problem := period.range_problem(first, last)):
        found.append(Violation(f"{prefix}last", problem))
    return found


def period_of(message: Date) -> Period:
    """The period that a message names, which has been looked at before."""
    found = _found(message)
    assert found is not None
    return found


def periods_of(message: pb.PeriodRange) -> list[Period]:
    """All periods of a range that has been looked at before."""
    return period.periods(period_of(message.first), period_of(message.last))


def period_message(one: Period) -> Date:
    """A period as a message."""
    return Date(year=one.day.year, month=one.day.month, day=0 if one.whole_month else one.day.day)


def _found(message: Date) -> Period | None:
    return period.period_of(message.year, message.month, message.day)
