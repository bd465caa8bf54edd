"""Months and statements as messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, Final

from chassis.mongo.connection import Document
from chassis.times import to_optional_timestamp, to_timestamp
from daogou.commission.v1 import month_pb2 as pb
from daogou.common.v1.channel_pb2 import Channel
from svc_commission.ledger.messages import month_message, payee_message
from svc_commission.month.statement_pdf import SlipLine
from svc_commission.order.documents import kind_of, month_of
from svc_commission.rules.order import Account
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.statement import Statement

_AMOUNTS: Final = (
    *("earned_minor", "clawed_back_minor", "adjusted_minor", "paid_out_minor", "written_off_minor"),
    *("opening_balance_minor", "closing_payable_minor"),
)


def statement_message(statement: Statement) -> pb.Statement:
    """A statement."""
    return pb.Statement(
        statement_number=statement.statement_number,
        payee=payee_message(statement.payee),
        month=month_message(statement.month),
        currency_code=statement.currency_code,
        opening_payable_minor=statement.opening_payable_minor,
        opening_held_minor=statement.opening_held_minor,
        earned_minor=statement.earned_minor,
        clawed_back_minor=statement.clawed_back_minor,
        confirmed_minor=statement.confirmed_minor,
        adjusted_minor=statement.adjusted_minor,
        pool_shared_minor=statement.pool_shared_minor,
        opening_balance_minor=statement.opening_balance_minor,
        written_off_minor=statement.written_off_minor,
        paid_out_minor=statement.paid_out_minor,
        closing_payable_minor=statement.closing_payable_minor,
        closing_held_minor=statement.closing_held_minor,
        entry_count=statement.entry_count,
    )


def report_message(close: Mapping[str, Any]) -> pb.MonthReport:
    """The record of a close; its figures where it is done."""
    report = pb.MonthReport(
        month=month_message(month_of(close["month"])),
        state=pb.MonthState.Value(f"MONTH_STATE_{close['state']}"),
        begin_time=to_timestamp(close["begin_time"]),
        close_time=to_optional_timestamp(close.get("close_time")),
        feeds_behind=close["feeds_behind"],
        override_reason=close["override_reason"],
    )
    if "close_time" in close:
        report.MergeFrom(
            pb.MonthReport(
                statement_count=close["statement_count"],
                entry_count=close["entry_count"],
                currency_code=close["currency_code"],
                opening_minor=close["opening_payable_minor"] + close["opening_held_minor"],
                closing_minor=close["closing_payable_minor"] + close["closing_held_minor"],
                parked_count=close["parked_count"],
                parked=[
                    pb.ParkedOrder(
                        channel=Channel.Value(f"CHANNEL_{one['channel']}"),
                        order_id=one["order_id"],
                        reason=one["reason"],
                    )
                    for one in close["parked"]
                ],
                **{name: close[name] for name in _AMOUNTS},
            )
        )
    return report


def slip_lines(entry: Document, payee: str, zone: tzinfo) -> list[SlipLine]:
    """What an entry did for a payee, as a pay slip lists it: one line for each line of an order and kind."""
    amounts: dict[tuple[str, PostingKind], dict[str, int]] = {}
    for one in entry["postings"]:
        if one["payee"] == payee and one["account"] in (Account.HELD, Account.PAYABLE):
            of_line = amounts.setdefault((one.get("line_id", ""), kind_of(one)), {})
            of_line[one["account"]] = of_line.get(one["account"], 0) - one["amount_minor"]
    cause = entry.get("cause") or ", ".join(entry.get("cause_event_ids", ()))
    return [
        SlipLine(
            date=entry["recorded_time"].astimezone(zone).date(),
            order_id=entry["order_key"].split("|", 3)[3] if "order_key" in entry else "",
            line_id=line_id,
            kind=kind,
            cause=cause,
            held_minor=by_account.get(Account.HELD, 0),
            payable_minor=by_account.get(Account.PAYABLE, 0),
        )
        for (line_id, kind), by_account in sorted(amounts.items())
    ]
