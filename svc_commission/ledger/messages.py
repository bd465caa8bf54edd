"""The ledger as messages: payees, entries, attributions, and how lines came to their amounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date

from chassis.errors import Violation, invalid_fields
from chassis.mongo.connection import Document
from chassis.times import to_timestamp
from daogou.commission.v1 import ledger_pb2 as pb
from daogou.commission.v1.plan_pb2 import PayeeRole
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.date_pb2 import Date
from svc_commission.order import documents
from svc_commission.rules.attribution import Attribution
from svc_commission.rules.comparison import Compared
from svc_commission.rules.event import Event, Kind
from svc_commission.rules.line import LineBooks
from svc_commission.rules.plan import BASIS_POINTS, Base
from svc_commission.rules.posting import PostingKind

_PAYEE_FIELDS = {"guide": "guide_id", "pool": "pool_store_id", "store": "bearing_store_id"}


def date_message(day: date) -> Date:
    """A day of the brand's calendar."""
    return Date(year=day.year, month=day.month, day=day.day)


def month_message(month: date) -> Date:
    """A whole month of the brand's calendar."""
    return Date(year=month.year, month=month.month)


def month_of_message(month: Date, field: str) -> date:
    """The first day of a month. Raises: Invalid INVALID_FIELDS, naming the field, where it is none."""
    if month.day or not (1 <= month.year <= 9999 and 1 <= month.month <= 12):
        raise invalid_fields([Violation(field, "must be a month: year, month, and 0 for its day")])
    return date(month.year, month.month, 1)


def payee_message(payee: str) -> pb.Payee | None:
    """A payee, or who bears a cost; None: the brand."""
    kind, _, identifier = payee.partition(":")
    if not kind:
        return None
    return pb.Payee(**{_PAYEE_FIELDS[kind]: identifier})


def entry_message(entry: Document, payee: str = "") -> pb.Entry:
    """A journal entry; with a payee, the payee's own postings alone."""
    message = pb.Entry(
        entry_id=entry["_id"],
        posting_month=month_message(documents.month_of(entry["posting_month"])),
        recorded_time=to_timestamp(entry["recorded_time"]),
        cause_event_ids=entry.get("cause_event_ids", ()),
        postings=[
            pb.Posting(
                account=pb.Account.Value(f"ACCOUNT_{one['account']}"),
                payee=payee_message(one["payee"]),
                line_id=one.get("line_id", ""),
                amount_minor=one["amount_minor"],
                kind=kind_message(documents.kind_of(one)),
                origin_month=month_message(documents.origin_of(one, entry)),
            )
            for one in entry["postings"]
            if not payee or one["payee"] == payee
        ],
        cause=entry.get("cause", ""),
    )
    if documents.is_of_order(entry):
        message.channel, message.order_id = order_named(entry["order_key"])
    return message


def kind_message(kind: PostingKind) -> pb.PostingKind.ValueType:
    """What a posting does."""
    return pb.PostingKind.Value(f"POSTING_KIND_{kind}")


def order_named(key: str) -> tuple[Channel.ValueType, str]:
    """The channel and the id of the order that has a key."""
    _, _, channel, order_id = [*key.split("|", 3), "", "", ""][:4]
    known = f"CHANNEL_{channel}" in Channel.keys()  # noqa: SIM118 - an enum's wrapper is no dict
    return Channel.Value(f"CHANNEL_{channel}") if known else Channel.CHANNEL_UNSPECIFIED, order_id


def attribution_message(frozen: Attribution) -> pb.Attribution:
    """Whose sale an order is."""
    return pb.Attribution(
        member_id=frozen.member_id,
        binding_id=frozen.binding_id,
        owner=payee_message(frozen.owner),
        owner_basis=pb.OwnerBasis.Value(f"OWNER_BASIS_{frozen.owner_basis}"),
        selling_store_id=frozen.selling_store_id,
        owner_store_id=frozen.owner_store_id,
        flagship_store_id=frozen.flagship_store_id,
        as_of_time=to_timestamp(frozen.as_of_time),
        known_at_time=to_timestamp(frozen.known_at_time),
        plan_id=frozen.plan_id,
        serving=payee_message(frozen.serving),
        referrer_1=payee_message(frozen.referrer_1),
        referrer_2=payee_message(frozen.referrer_2),
        store_manager=payee_message(frozen.store_manager),
        member_tier=frozen.member_tier,
        campaign_id=frozen.campaign_id,
        self_purchases=[
            pb.WithheldRole(role=PayeeRole.Value(f"PAYEE_ROLE_{role}"), payee=payee_message(payee))
            for role, payee in frozen.self_purchases.items()
        ],
    )


def former_message(former: Document) -> pb.FormerAttribution:
    """Whose sale an order was."""
    return pb.FormerAttribution(
        attribution=attribution_message(documents.attribution_of(former["attribution"])),
        replaced_time=to_timestamp(former["replaced_time"]),
        reattribution_id=former["reattribution_id"],
    )


def line_messages(lines: Iterable[LineBooks], events: Iterable[Event]) -> list[pb.ExplainedLine]:
    """How the lines of an order came to their amounts. `events`: what they were computed from."""
    subsidies: Counter[str] = Counter()
    for event in events:
        for line in event.lines if event.kind is Kind.PAID else ():
            subsidies[line.line_id] += line.subsidy_minor
    return [_line_message(line, subsidies[line.line_id]) for line in lines]


def _line_message(line: LineBooks, subsidy_minor: int) -> pb.ExplainedLine:
    shared_bp = sum(part.share_bp for part in line.parts)
    return pb.ExplainedLine(
        line_id=line.line_id,
        rule_id=line.rule.rule_id if line.rule else "",
        rate_bp=line.rule.rate_bp if line.rule else 0,
        paid_minor=line.paid_minor,
        refunded_minor=line.refunded_minor,
        earned_minor=line.earned_minor,
        distributable_minor=line.distributable_minor,
        reversed_minor=line.reversed_minor,
        per_unit_minor=line.rule.per_unit_minor if line.rule else 0,
        returned_quantity=line.returned,
        shared=[
            pb.SharedLine(
                payee=payee_message(part.payee),
                roles=[PayeeRole.Value(f"PAYEE_ROLE_{role}") for role in part.roles],
                share_bp=part.share_bp,
                earned_minor=part.earned_minor,
                reversed_minor=part.reversed_minor,
            )
            for part in line.parts
        ],
        earned_rounding_bp=_rounding_bp(line, subsidy_minor),
        distributable_rounding_bp=_rounded_up_bp(line.earned_minor * shared_bp),
    )


def _rounding_bp(line: LineBooks, subsidy_minor: int) -> int:
    rule = line.rule
    if rule is None or rule.per_unit_minor or rule.tiers is not None:
        return 0
    base = line.paid_minor + (subsidy_minor if rule.base is Base.PAID_PLUS_SUBSIDY else 0)
    return _rounded_up_bp(base * rule.rate_bp)


def _rounded_up_bp(exact_bp: int) -> int:
    """What rounding to whole units, halves upwards, adds to an amount in ten-thousandths of a unit."""
    half = BASIS_POINTS // 2
    return (exact_bp + half) // BASIS_POINTS * BASIS_POINTS - exact_bp


def compared_message(one: Compared) -> pb.ComparedAmount:
    """What an amount came to, and what was posted."""
    return pb.ComparedAmount(
        line_id=one.target.line_id,
        account=pb.Account.Value(f"ACCOUNT_{one.target.account}"),
        payee=payee_message(one.target.payee),
        month=month_message(one.target.month),
        computed_minor=one.computed_minor,
        before_minor=one.before_minor,
        posted_minor=one.posted_minor,
        agrees=one.agrees,
        kind=kind_message(one.target.kind),
    )
