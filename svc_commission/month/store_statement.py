"""Statements, and the sums of the journal that they are made from, in MongoDB.

Documents: statements `{_id: brand|month|payee, number, ...}`, one for each payee of a closed month, never
changed; worked_minutes `{_id: brand|month|store|guide, minutes}`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from chassis.errors import NotFound
from chassis.mongo import failures
from chassis.mongo.connection import Collection, Database, Document, aggregated, within
from chassis.mongo.schema import Index
from svc_commission.order.documents import month_of, month_text
from svc_commission.rules.order import Account
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.statement import ACCOUNTS, Statement

INDEXES = (
    Index("statements", "by_number", [("brand_id", 1), ("month", 1), ("statement_number", 1)]),
    Index("journal", "by_month", [("brand_id", 1), ("posting_month", 1)]),
    Index("worked_minutes", "by_store", [("brand_id", 1), ("month", 1), ("store_id", 1)]),
)
_OWED: Final = [account.value for account in ACCOUNTS]
SUMS_S_MAX: Final = 600.0
_SUMMED: Final = (
    *("opening_payable_minor", "opening_held_minor", "earned_minor", "clawed_back_minor", "adjusted_minor"),
    *("pool_shared_minor", "opening_balance_minor", "written_off_minor", "paid_out_minor"),
    *("closing_payable_minor", "closing_held_minor"),
)


class StatementStore:
    """Reads what months came to, and reads and writes statements."""

    def __init__(self, database: Database) -> None:
        self._statements = database["statements"]
        self._journal = database["journal"]
        self._worked = database["worked_minutes"]

    async def month_sums(self, brand_id: str, month: date) -> list[Document]:
        """What was posted in a month by payee: `{_id: payee, sums: [{account, kind, amount_minor}],
        entry_count}`, in order of payees; under the payee "" what was posted on all other accounts.
        """
        first = {"$eq": ["$place", {"$indexOfArray": ["$payees", "$postings.payee"]}]}
        owed = {"$in": ["$postings.account", _OWED]}
        return await _sums(
            self._journal,
            [
                {"$match": {"brand_id": brand_id, "posting_month": month_text(month)}},
                {"$project": {"postings": 1, "payees": "$postings.payee"}},
                {"$unwind": {"path": "$postings", "includeArrayIndex": "place"}},
                {
                    "$group": {
                        "_id": {
                            "payee": {"$cond": [owed, "$postings.payee", ""]},
                            "account": "$postings.account",
                            "kind": "$postings.kind",
                        },
                        "amount_minor": {"$sum": "$postings.amount_minor"},
                        "entry_count": {"$sum": {"$cond": [first, 1, 0]}},
                    }
                },
                {
                    "$group": {
                        "_id": "$_id.payee",
                        "sums": {
                            "$push": {
                                "account": "$_id.account",
                                "kind": "$_id.kind",
                                "amount_minor": "$amount_minor",
                            }
                        },
                        "entry_count": {"$sum": "$entry_count"},
                    }
                },
                {"$sort": {"_id": 1}},
            ],
        )

    async def payable_sums(
        self, brand_id: str, month: date, criteria: Mapping[str, Any]
    ) -> dict[tuple[Account, str], int]:
        """What became owed in a month, by account, to the payees who meet a condition."""
        found = await _sums(
            self._journal,
            [
                {
                    "$match": {
                        "brand_id": brand_id,
                        "posting_month": month_text(month),
                        "postings.payee": criteria,
                    }
                },
                {"$unwind": "$postings"},
                {"$match": {"postings.account": {"$in": _OWED}, "postings.payee": criteria}},
                {
                    "$group": {
                        "_id": {"payee": "$postings.payee", "account": "$postings.account"},
                        "amount_minor": {"$sum": "$postings.amount_minor"},
                    }
                },
            ],
        )
        return {(Account(one["_id"]["account"]), one["_id"]["payee"]): -one["amount_minor"] for one in found}

    async def earliest_month(self, brand_id: str) -> date | None:
        """The first month with anything posted in it."""
        found = await self._journal.find_one(
            {"brand_id": brand_id}, {"posting_month": 1}, sort=[("posting_month", 1)]
        )
        return month_of(found["posting_month"]) if found else None

    async def add(self, statements: Sequence[Statement]) -> None:
        """Adds statements. Safe to repeat: what is there stays."""
        try:
            await self._statements.insert_many([_document(one) for one in statements], ordered=False)
        except BulkWriteError as error:
            failures.duplicates(error)

    async def balances(
        self, brand_id: str, month: date, criteria: Mapping[str, Any] | None = None
    ) -> dict[str, Statement]:
        """The statements of a month that end with anything owed or owing, by payee.

        `criteria`: of the payees who meet a condition; None: of all.
        """
        query = {
            "brand_id": brand_id,
            "month": month_text(month),
            **({} if criteria is None else {"payee": criteria}),
            "$or": [{"closing_payable_minor": {"$ne": 0}}, {"closing_held_minor": {"$ne": 0}}],
        }
        return {found["payee"]: statement_of_document(found) async for found in self._statements.find(query)}

    async def totals(self, brand_id: str, month: date) -> Document:
        """How many statements a month has, and the sums of their amounts by name."""
        group = {name: {"$sum": f"${name}"} for name in _SUMMED}
        found = await _sums(
            self._statements,
            [
                {"$match": {"brand_id": brand_id, "month": month_text(month)}},
                {"$group": {"_id": None, "statement_count": {"$sum": 1}, **group}},
            ],
        )
        none = dict.fromkeys(("statement_count", *_SUMMED), 0)
        return {**none, **(found[0] if found else {})}

    async def entry_count(self, brand_id: str, month: date) -> int:
        """How many entries were posted in a month."""
        query = {"brand_id": brand_id, "posting_month": month_text(month)}
        return int(await self._journal.count_documents(query))

    async def find(self, brand_id: str, month: date, payee: str) -> Statement:
        """A payee's statement. Raises: NotFound STATEMENT_UNKNOWN."""
        found = await self._statements.find_one({"_id": f"{brand_id}|{month_text(month)}|{payee}"})
        if found is None:
            raise NotFound("STATEMENT_UNKNOWN", "nothing was posted for the payee, and nothing is owed")
        return statement_of_document(found)

    async def page(self, brand_id: str, month: date, after: str, size: int) -> list[Statement]:
        """Up to so many statements by number, after one."""
        query = {"brand_id": brand_id, "month": month_text(month), "statement_number": {"$gt": after}}
        found = self._statements.find(query).sort("statement_number", 1).limit(size)
        return [statement_of_document(one) async for one in found]

    async def all_of(self, brand_id: str, month: date) -> AsyncIterator[Statement]:
        """The statements of a month by number."""
        query = {"brand_id": brand_id, "month": month_text(month)}
        async for one in self._statements.find(query).sort("statement_number", 1):
            yield statement_of_document(one)

    async def entries_of(self, brand_id: str, month: date, payee: str) -> list[Document]:
        """The entries of a month with postings of a payee, as recorded."""
        query = {"brand_id": brand_id, "postings.payee": payee, "posting_month": month_text(month)}
        return await self._journal.find(query).sort([("recorded_time", 1), ("_id", 1)]).to_list(None)

    async def report_minutes(
        self, brand_id: str, month: date, store_id: str, minutes: Mapping[str, int]
    ) -> None:
        """Puts minutes worked at a store in the place of what was reported before."""
        text = month_text(month)
        fields = {"brand_id": brand_id, "month": text, "store_id": store_id}
        writes = [
            UpdateOne(
                {"_id": f"{brand_id}|{text}|{store_id}|{guide_id}"},
                {"$set": {**fields, "guide_id": guide_id, "minutes": worked}},
                upsert=True,
            )
            for guide_id, worked in minutes.items()
        ]
        await self._worked.bulk_write(writes, ordered=False)

    async def minutes(self, brand_id: str, month: date) -> dict[str, dict[str, int]]:
        """Minutes worked in a month, by store and guide."""
        found: dict[str, dict[str, int]] = {}
        async for one in self._worked.find({"brand_id": brand_id, "month": month_text(month)}):
            found.setdefault(one["store_id"], {})[one["guide_id"]] = one["minutes"]
        return found


async def _sums(collection: Collection, pipeline: Sequence[Mapping[str, Any]]) -> list[Document]:
    """An aggregation over a whole month, of millions of entries perhaps: it may take longer than any call."""
    with within(SUMS_S_MAX):
        return await aggregated(collection, pipeline)


def _document(statement: Statement) -> Document:
    month = month_text(statement.month)
    names = (name for name in Statement.__dataclass_fields__ if name not in ("month", "held_minor"))
    return {
        "_id": f"{statement.brand_id}|{month}|{statement.payee}",
        "month": month,
        **{name: getattr(statement, name) for name in names},
        "held_minor": {kind.value: amount for kind, amount in statement.held_minor.items()},
    }


def statement_of_document(document: Mapping[str, Any]) -> Statement:
    """A stored statement for the rules."""
    fields = {name: document[name] for name in Statement.__dataclass_fields__}
    held = {PostingKind(kind): amount for kind, amount in document["held_minor"].items()}
    return Statement(**{**fields, "month": month_of(document["month"]), "held_minor": held})


def sums_of(found: Mapping[str, Any]) -> dict[tuple[Account, PostingKind], int]:
    """A payee's sums of a month for the rules."""
    return {(Account(one["account"]), PostingKind(one["kind"])): one["amount_minor"] for one in found["sums"]}
