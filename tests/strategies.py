"""Generators shared by tests: weights, plans, attributions, and the histories of orders."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Final, TypeVar

from hypothesis import strategies as st

from svc_commission.rules.attribution import Attribution, OwnerBasis
from svc_commission.rules.event import Event, Kind, Line, RefundLine
from svc_commission.rules.line import MonthSales
from svc_commission.rules.order import NO_CIRCUMSTANCES, Circumstances
from svc_commission.rules.plan import (
    BASIS_POINTS,
    Absent,
    AfterClose,
    Base,
    CostBearer,
    Hold,
    Match,
    PayeeRole,
    Plan,
    Purchase,
    Rule,
    Share,
    Tier,
    TierMode,
    Tiers,
)

MILLISECOND: Final = timedelta(milliseconds=1)
CATEGORIES: Final = {"A": "shoes", "B": "hats", "C": "", "D": "shoes"}
"""The category of each line that a history may have."""
LONG_AFTER: Final = datetime(2027, 1, 1, tzinfo=UTC)
NEVER_PAID: Final = "Z"
"""A line that refunds may name and no payment does."""

# When months begin in the two zones that histories use, written out by hand: Shanghai is eight hours before
# UTC all year; New York five, and four from 2026-03-08 to 2026-11-01.
MONTH_STARTS: Final[dict[str, list[datetime]]] = {
    "Asia/Shanghai": [
        datetime(2026, 2, 28, 16, tzinfo=UTC),
        datetime(2026, 3, 31, 16, tzinfo=UTC),
        datetime(2026, 4, 30, 16, tzinfo=UTC),
    ],
    "America/New_York": [
        datetime(2026, 3, 1, 5, tzinfo=UTC),
        datetime(2026, 4, 1, 4, tzinfo=UTC),
        datetime(2026, 12, 1, 5, tzinfo=UTC),
    ],
}


@dataclass(frozen=True)
class History:
    """All that happened to one order, and whose sale it is."""

    events: tuple[Event, ...]
    channel: str
    attribution: Attribution
    plan: Plan | None
    around: Circumstances = NO_CIRCUMSTANCES

    def of(self, events: Sequence[Event]) -> History:
        """The same order, had only these events happened."""
        return dataclasses.replace(self, events=tuple(events))

    @property
    def refunds(self) -> list[Event]:
        """What was paid back."""
        return [event for event in self.events if event.kind is Kind.REFUNDED]

    @property
    def closed(self) -> bool:
        """Whether the order was cancelled."""
        return any(event.kind is Kind.CLOSED for event in self.events)


def weights(most: int = 12_000) -> st.SearchStrategy[dict[str, int]]:
    """Weights of up to six keys, at least one of them above zero."""
    amounts = st.one_of(st.integers(0, 6), st.integers(0, most), st.sampled_from([1000, 2500, 10_000]))
    return st.dictionaries(st.sampled_from("abcdef"), amounts, min_size=1).filter(
        lambda w: sum(w.values()) > 0
    )


@cache
def times(zone: str) -> st.SearchStrategy[datetime]:
    """Moments near the beginnings of business months, and the beginnings themselves to the millisecond."""
    # Hours between UTC's midnight and the zone's are where a wrong month shows.
    offsets = [-MILLISECOND, MILLISECOND, *(timedelta(hours=hours) for hours in range(-36, 37))]
    return st.sampled_from([start + offset for start in MONTH_STARTS[zone] for offset in offsets])


_MATCHES: Final = st.sampled_from(
    [
        Match(),
        Match(category_ids=frozenset({"shoes"})),
        Match(category_ids=frozenset({"hats"})),
        Match(sku_ids=frozenset({"sku-A", "sku-C"})),
        Match(channels=frozenset({"TMALL"})),
        Match(member_tiers=frozenset({"gold", "silver"})),
        Match(campaign_ids=frozenset({"spring"})),
        Match(purchase=Purchase.FIRST),
        Match(purchase=Purchase.REPEAT),
    ]
)
_RATES: Final = st.one_of(st.sampled_from([0, 300, 1000, BASIS_POINTS]), st.integers(0, BASIS_POINTS))
# A few fen, where rounding decides; prices; and the most that a contract accepts.
_AMOUNTS: Final = st.one_of(
    st.sampled_from([*range(13), 17, 99, 1000, 2500, 10_000, 99_999, 10**12]), st.integers(0, 10**6)
)
_ABSENT_OR_AMOUNT: Final = st.one_of(st.none(), _AMOUNTS)
_NO_OR_AMOUNT: Final = st.one_of(st.just(0), _AMOUNTS)
_PIECES_BACK: Final = st.sampled_from([0, 1, 1, 2, 8])

_Case = TypeVar("_Case")


def _some_of(make: Callable[[random.Random], _Case], count: int = 400) -> st.SearchStrategy[_Case]:
    """A fixed choice of cases with many independent properties: one draw for each would take too long."""
    chance = random.Random(20_260_310)
    return st.sampled_from([make(chance) for _ in range(count)])


# Of the whole and less, odd shares, and those of the worked examples, equal ones among them.
_SPLITS: Final = (
    (BASIS_POINTS,),
    (3333,),
    (1,),
    (5000, 3000, 2000),
    (2500, 2500, 1000),
    (5000, 5000),
    (3333, 3333, 3333),
    (1, 9999),
    (4000, 2000, 2000, 1000, 1000),
    (1200, 7, 7, 7, 4000),
)


def _rule(chance: random.Random) -> Rule:
    """A rule by rate or by piece, most without cap and floor, for up to five roles."""
    split = chance.choice(_SPLITS)
    roles = chance.sample([*PayeeRole], len(split))
    if PayeeRole.OWNER not in roles and chance.random() < 0.7:
        roles[0] = PayeeRole.OWNER
    per_unit = chance.choice([0, 0, 0, 1, 50, 333])
    floor = chance.choice([0, 0, 0, 1, 25])
    return Rule(
        rule_id="rule",
        match=Match(),
        rate_bp=0,
        shares=tuple(
            Share(role, share_bp, chance.choice([*Absent]))
            for role, share_bp in zip(roles, split, strict=True)
        ),
        per_unit_minor=per_unit,
        base=chance.choice([*Base]),
        floor_minor=floor,
        cap_minor=chance.choice([None, None, None, floor, floor + 7, 1000]),
        cost_bearer=chance.choice([*CostBearer]),
    )


_RULES: Final = _some_of(_rule)


@st.composite
def _rules(draw: st.DrawFn, number: int) -> Rule:
    rule = draw(_RULES)
    rate_bp = 0 if rule.per_unit_minor else draw(_RATES)
    return dataclasses.replace(rule, rule_id=f"rule-{number}", match=draw(_MATCHES), rate_bp=rate_bp)


_HOLDS: Final = _some_of(
    lambda chance: {
        channel: Hold(chance.choice([0, 1, 7]), from_payment=chance.random() < 0.3)
        for channel in ("TMALL", "POS")
        if chance.random() < 0.6
    }
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans of one to three rules with any conditions, roles, caps, bearers; with holds or without."""
    return Plan(
        plan_id="plan",
        effective_from_time=datetime(2026, 1, 1, tzinfo=UTC),
        effective_to_time=None,
        rules=tuple(draw(_rules(number)) for number in range(draw(st.integers(1, 3)))),
        holds=draw(_HOLDS),
    )


@cache
def attributions(zone: str) -> st.SearchStrategy[Attribution]:
    """Sales of a guide or of a pool, in which others had a part or nobody had, or one person twice.

    The stores they are credited to may be one, two or three.
    """
    stores = ["east", "west", "flagship"]
    guides = ["", "guide:ann", "guide:bea", "guide:cat"]
    begin = datetime(2026, 2, 1, tzinfo=UTC)
    return _some_of(
        lambda chance: Attribution(
            member_id="member",
            binding_id="member.1",
            owner=chance.choice(["guide:ann", "pool:east"]),
            owner_basis=OwnerBasis.BINDING,
            selling_store_id=chance.choice(stores),
            owner_store_id=chance.choice(["", *stores]),
            flagship_store_id=chance.choice(["", "flagship"]),
            as_of_time=begin,
            known_at_time=begin,
            plan_id="plan",
            time_zone=zone,
            serving=chance.choice(guides),
            referrer_1=chance.choice(guides),
            referrer_2=chance.choice(guides),
            store_manager=chance.choice(guides),
            member_tier=chance.choice(["", "gold", "bronze"]),
            campaign_id=chance.choice(["", "spring"]),
        )
    )


_EXTRAS: Final = _some_of(
    lambda chance: (chance.choice([1, 1, 2, 3, 7]), chance.choice([0, 0, 1, 50, 99_999, 10**12])), 60
)
"""How many pieces a line has, and what the platform paid for it."""


@st.composite
def _payment(draw: st.DrawFn, number: int, lines: Sequence[str], zone: str) -> Event:
    paid = {line_id: draw(_ABSENT_OR_AMOUNT) for line_id in lines}
    return Event(
        f"PAID:{number}",
        Kind.PAID,
        draw(times(zone)),
        lines=tuple(
            Line(
                line_id,
                f"sku-{line_id}",
                CATEGORIES[line_id],
                pieces,
                amount,
                amount,
                subsidy,
            )
            for line_id, amount in paid.items()
            if amount is not None
            for pieces, subsidy in [draw(_EXTRAS)]
        ),
    )


@st.composite
def _refund(draw: st.DrawFn, number: int, lines: Sequence[str], zone: str) -> Event:
    by_line = {line_id: draw(_ABSENT_OR_AMOUNT) for line_id in [*lines, NEVER_PAID]}
    return Event(
        f"REFUND:{number}",
        Kind.REFUNDED,
        draw(times(zone)),
        refund_lines=tuple(
            RefundLine(line_id, amount, draw(_PIECES_BACK))
            for line_id, amount in by_line.items()
            if amount is not None
        ),
        goodwill_minor=draw(_NO_OR_AMOUNT),
    )


_LINES: Final = st.sampled_from(["A", "AB", "ABC", "ABCD", "BD"])
_OTHER_KINDS: Final = st.sets(st.sampled_from([Kind.PLACED, Kind.RECEIVED]))
_EARLIER: Final = st.sampled_from([timedelta(days=days) for days in (0, 0, 1, 7, 15, 22)])
"""By how much some things happen before what is held for that long becomes payable."""


@st.composite
def _movements(draw: st.DrawFn, zone: str) -> list[Event]:
    """Placed, parcels sent, the goods received: at times from which a hold ends near a month's border."""
    kinds = sorted(draw(_OTHER_KINDS))
    events = [Event(kind.value, kind, draw(times(zone)) - draw(_EARLIER)) for kind in kinds]
    parcels = range(draw(st.sampled_from([0, 0, 1, 2])))
    return events + [
        Event(f"SHIPPED:{number}", Kind.SHIPPED, draw(times(zone)) - draw(_EARLIER)) for number in parcels
    ]


@st.composite
def circumstances(draw: st.DrawFn, zone: str) -> Circumstances:
    """A first purchase or not; looked whether to confirm never, some time, or long after everything."""
    looked = st.one_of(st.none(), times(zone), st.just(LONG_AFTER))
    return Circumstances(first_purchase=draw(st.booleans()), confirmed_through=draw(looked))


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Orders with any payments, refunds, goodwill and cancellation, in no order, around month borders.

    Refunds may be dated before the payment, exceed it, or name a line that nobody paid; what was earned may
    be held for days, and confirmed before, between or after the refunds.
    """
    zone = draw(st.sampled_from(sorted(MONTH_STARTS)))
    lines = draw(_LINES)
    events = [draw(_payment(number, lines, zone)) for number in range(draw(st.integers(0, 2)))]
    events += [draw(_refund(number, lines, zone)) for number in range(draw(st.integers(0, 4)))]
    events += draw(_movements(zone))
    if draw(st.integers(0, 3)) == 0:
        events.append(Event("CLOSED", Kind.CLOSED, draw(times(zone))))
    return History(
        events=tuple(events),
        channel=draw(st.sampled_from(["TMALL", "POS"])),
        attribution=draw(attributions(zone)),
        plan=draw(st.one_of(plans(), st.none())),
        around=draw(circumstances(zone)),
    )


@st.composite
def paid_histories(draw: st.DrawFn) -> History:
    """Histories in which something was paid under a plan, so that something can be owed."""
    history = draw(histories())
    payment = draw(_payment(9, "ABCD", history.attribution.time_zone))
    return dataclasses.replace(history, events=(payment, *history.events), plan=history.plan or draw(plans()))


@st.composite
def held_histories(draw: st.DrawFn) -> History:
    """Histories in which what was paid is held, mostly until it is confirmed near a month's border."""
    history = draw(paid_histories())
    assert history.plan is not None
    zone, days = history.attribution.time_zone, draw(st.sampled_from([0, 1, 7]))
    ends = draw(st.lists(times(zone), min_size=1, max_size=3))
    home, *parcels = [time - timedelta(days=days) for time in ends]
    moved = [Event("RECEIVED", Kind.RECEIVED, home)] if draw(st.integers(0, 3)) else []
    moved += [
        Event(f"SHIPPED:{number}", Kind.SHIPPED, time - timedelta(days=15))
        for number, time in enumerate(parcels)
    ]
    others = [event for event in history.events if event.kind not in (Kind.SHIPPED, Kind.RECEIVED)]
    looked = LONG_AFTER if draw(st.integers(0, 3)) else draw(times(zone))
    return dataclasses.replace(
        history.of([*others, *moved]),
        plan=dataclasses.replace(history.plan, holds={history.channel: Hold(days)}),
        around=dataclasses.replace(history.around, confirmed_through=looked),
    )


@st.composite
def arrivals(draw: st.DrawFn, events: Sequence[Event]) -> list[list[Event]]:
    """The events as they may reach us: in any order, some again, in any grouping into calls."""
    again = draw(st.lists(st.sampled_from(events))) if events else []
    shuffled = draw(st.permutations([*events, *again]))
    cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    return [list(shuffled[start:end]) for start, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]


_MONTHS: Final = [date(2026, month, 1) for month in (2, 3, 4, 5, 11, 12)]
_TIER_BEGINS: Final = [1, 99, 1000, 10_000, 500_000, 10**12]
_TIERS: Final = _some_of(
    lambda chance: Tiers(
        tiers=tuple(
            Tier(begin, chance.choice([0, 1, 333, 500, 1000, BASIS_POINTS]))
            for begin in sorted(chance.sample(_TIER_BEGINS, chance.choice([1, 1, 2, 4])))
        ),
        mode=chance.choice([*TierMode]),
        after_close=chance.choice([*AfterClose]),
    )
)
_SOLD: Final = st.sampled_from([0, 1, 98, 99, 1001, 10_000, 12_345, 500_000, 10**12, 10**13])


@st.composite
def tiered_histories(draw: st.DrawFn) -> History:
    """Histories under rules with tiers, held or not, of which some months have been closed."""
    history = draw(st.one_of(paid_histories(), held_histories()))
    assert history.plan is not None
    rules = tuple(
        dataclasses.replace(rule, per_unit_minor=0, rate_bp=draw(_RATES), base=Base.PAID, tiers=draw(_TIERS))
        for rule in history.plan.rules
    )
    sales = {
        month: MonthSales(draw(_SOLD), draw(_SOLD))
        for month in draw(st.lists(st.sampled_from(_MONTHS), min_size=1, unique=True))
    }
    return dataclasses.replace(
        history,
        plan=dataclasses.replace(history.plan, rules=rules),
        around=dataclasses.replace(history.around, sales=sales),
    )
