"""Sales credits between the rules and documents. What is counted and why: rules/sales_credit.py.

A document of the collection `sales` is one change: so much more or less on a day, for each of the stores and
guides that it names, and for the brand where `whole` says so. Its sums are what PerformanceService tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from chassis.mongo.connection import Document
from svc_commission.rules import sales_credit
from svc_commission.rules.sales_credit import BRAND, NOTHING, Amounts, Role, SalesCredits, Subject

GUIDE_ROLES = (Role.OWNER, Role.SERVING, Role.OWNER_AND_SERVING)


def guide_text(guide_id: str, role: Role) -> str:
    """A guide in a role, as documents write her."""
    return f"{guide_id}|{role}"


def guide_subject(text: str) -> Subject:
    """A guide in a role."""
    guide_id, _, role = text.partition("|")
    return Subject(Role(role), guide_id)


def tell(order: Document, credited: SalesCredits, now: datetime) -> list[Document]:
    """What brings the collection `sales` to what an order counts; the order remembers it as told.

    The keys follow from the order's `rev`.
    """
    changes = sales_credit.changes(credited, told_of(order))
    if changes:
        order["credited"] = _told_document(credited)
    return [
        {
            "_id": f"{order['_id']}|{order['rev']}|{number}",
            "brand_id": order["brand_id"],
            "recorded_time": now,
            "currency_code": order["currency_code"],
            "date": change.date.isoformat(),
            "whole": BRAND in change.subjects,
            "stores": [subject.subject_id for subject in change.subjects if subject.role is Role.STORE],
            "guides": [
                guide_text(subject.subject_id, subject.role)
                for subject in change.subjects
                if subject.role in GUIDE_ROLES
            ],
            **change.amounts._asdict(),
        }
        for number, change in enumerate(changes)
    ]


def counted(documents: Iterable[Document]) -> dict[tuple[Subject, date], Amounts]:
    """What documents of `sales` sum to, by whom and day; what sums to nothing is left out."""
    sums: dict[tuple[Subject, date], Amounts] = {}
    for document in documents:
        subjects = [BRAND] if document["whole"] else []
        subjects += [Subject(Role.STORE, store_id) for store_id in document["stores"]]
        subjects += [guide_subject(text) for text in document["guides"]]
        amounts = amounts_of(document)
        for subject in subjects:
            key = subject, date.fromisoformat(document["date"])
            sums[key] = sums.get(key, NOTHING).plus(amounts)
    return {key: amounts for key, amounts in sums.items() if amounts != NOTHING}


def amounts_of(document: Document) -> Amounts:
    """The amounts in a document, or in what documents were summed to."""
    return Amounts(document["sold_minor"], document["refunded_minor"], document["order_count"])


def _told_document(credited: SalesCredits) -> Document:
    """What has been told of an order, as it remembers it."""
    return {
        "subjects": [f"{role}|{subject_id}" for role, subject_id in sorted(credited.subjects)],
        "days": [
            {"date": day.isoformat(), **amounts._asdict()} for day, amounts in sorted(credited.days.items())
        ],
    }


def told_of(order: Document) -> SalesCredits:
    """What has been told of an order so far."""
    told = order.get("credited", {"subjects": [], "days": []})
    named = (text.partition("|") for text in told["subjects"])
    return SalesCredits(
        subjects=frozenset(Subject(Role(role), subject_id) for role, _, subject_id in named),
        days={date.fromisoformat(day["date"]): amounts_of(day) for day in told["days"]},
    )
