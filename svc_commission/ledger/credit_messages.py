"""Sales credits as messages: the stores and guides that an order was counted for."""

from __future__ import annotations

from daogou.commission.v1 import ledger_pb2 as pb
from svc_commission.ledger.messages import date_message
from svc_commission.order.sales import GUIDE_ROLES
from svc_commission.rules.sales_credit import Role, SalesCredits


def store_credits(credited: SalesCredits) -> list[pb.SalesCredit]:
    """What an order counts for stores, day by day."""
    return [
        pb.SalesCredit(
            store_id=subject.subject_id,
            date=date_message(day),
            amount_minor=amounts.net_minor,
            **amounts._asdict(),
        )
        for (subject, day), amounts in credited.each().items()
        if subject.role is Role.STORE
    ]


def guide_credits(credited: SalesCredits) -> list[pb.GuideSalesCredit]:
    """What an order counts for guides, day by day."""
    return [
        pb.GuideSalesCredit(
            guide_id=subject.subject_id,
            role=pb.GuideCreditRole.Value(f"GUIDE_CREDIT_ROLE_{subject.role}"),
            date=date_message(day),
            **amounts._asdict(),
        )
        for (subject, day), amounts in credited.each().items()
        if subject.role in GUIDE_ROLES
    ]
