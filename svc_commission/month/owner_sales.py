"""What the owner of an order sold in a month, which decides tiers: noted on orders, summed at close.

An order carries `owner_sales`, what it adds to its owner's sales of each month; `tier_due`, months in which
lines under tiers were paid and whose sales it does not know yet; `closed_sales`, those that it knows; and
`late_sales`, when it became known that a month which had closed was another than its close found it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

from chassis.mongo.connection import Document
from svc_commission.order.documents import month_text
from svc_commission.rules.order import Books
from svc_commission.rules.plan import AfterClose, Plan

LATE_DUE: Final = "late_sales.retry_time"
"""When an order is due to be rated whose month had closed before it was known."""


def note(
    order: Document, books: Books, plans: Sequence[Plan], first_open: date | None, now: datetime
) -> None:
    """Notes an order's sales by month, and which months are to be rated."""
    before = {sold["month"]: sold["amount_minor"] for sold in order.get("owner_sales", ())}
    sales = {month_text(month): amount for month, amount in books.owner_sales.items()}
    order["owner_sales"] = [{"month": month, "amount_minor": amount} for month, amount in sales.items()]
    known = {sold["month"] for sold in order.get("closed_sales", ())}
    due = sorted({month_text(month) for month in books.tiered_months} - known)
    if due:
        order["tier_due"] = due
    else:
        order.pop("tier_due", None)
    if first_open is None:
        return
    late = {month for month in due if month < month_text(first_open)}
    if any(_rerated(plan) for plan in plans):
        changed = {month for month in before | sales if before.get(month) != sales.get(month)}
        late |= {month for month in changed if month < month_text(first_open)}
    if late:
        waiting = set(order["late_sales"]["months"]) if "late_sales" in order else set()
        order["late_sales"] = {"months": sorted(late | waiting), "retry_time": now}


def add_closed(order: Document, month: str, sales_minor: int, latest_minor: int) -> Document:
    """The order, knowing what its owner sold in a closed month."""
    others = [sold for sold in order.get("closed_sales", ()) if sold["month"] != month]
    known = {"month": month, "sales_minor": sales_minor, "latest_minor": latest_minor}
    return {**order, "closed_sales": sorted([*others, known], key=lambda sold: str(sold["month"]))}


def has_tiers(plans: Sequence[Plan]) -> bool:
    """Whether any rule of the plans has tiers."""
    return any(rule.tiers is not None for plan in plans for rule in plan.rules)


def _rerated(plan: Plan) -> bool:
    return any(rule.tiers and rule.tiers.after_close is AfterClose.RERATE for rule in plan.rules)
