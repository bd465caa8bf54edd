"""The brand that `bench.members` asks about: its members, told by their numbers, and all of them in MongoDB.

They are written past the service, which would take minutes, in the form in which the service writes them:
`bench.members` holds a sample that was imported against what is made here.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient, WriteConcern

from chassis.ids import derived_id
from chassis.mongo.connection import Document
from chassis.sealing import Sealer
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from svc_members.member.identities import IdentitySealer
from svc_members.member.member_document import Member, new_document
from svc_members.member.store_identity import Held, link_document
from svc_members.rules import binding
from svc_members.rules.binding import Policy, Scan

BOUND_FROM: Final = datetime(2025, 1, 1, tzinfo=UTC)
BOUND_WITHIN_MINUTES: Final = 300_000
NEW_FROM: Final = 500_000_000
"""Numbers from here on are of customers who are nobody's member yet."""
_PIECE: Final = 10_000
_LOADERS: Final = 2


@dataclass(frozen=True)
class BenchBrand:
    """A brand and its guides, as (guide id, store id). Its members are told by their numbers."""

    brand_id: str
    guides: Sequence[tuple[str, str]]
    pii_keys_file: Path

    @property
    def sealer(self) -> IdentitySealer:
        """With the keys of the service."""
        return _sealer(self.pii_keys_file)

    def member_id(self, number: int) -> str:
        """It follows from his phone, as an import gives it."""
        return derived_id("member", self.brand_id, self.sealer.index(self.brand_id, phone(number)))

    def guide_of(self, number: int) -> tuple[str, str]:
        """The guide whose member he is, and her store."""
        return self.guides[number % len(self.guides)]

    def documents(self, number: int, now: datetime) -> tuple[Document, Document]:
        """The member's and his identity's, as an import writes them."""
        stored = self.sealer.stored(self.brand_id, phone(number))
        member_id = derived_id("member", self.brand_id, stored.index)
        scan = Scan(*self.guide_of(number), "", bound_time(number), by_herself=False)
        decision = binding.imported(scan, Policy(), f"{member_id}.1")
        link = link_document(self.brand_id, stored, Held(member_id, ""), now)
        return new_document(Member(self.brand_id, member_id, 0, (), now), decision, 1, now), link


@cache
def _sealer(keys_file: Path) -> IdentitySealer:
    return IdentitySealer(Sealer.from_file(keys_file))


def phone(number: int) -> Identity:
    """The phone of a member or a customer."""
    return Identity(kind=IdentityKind.IDENTITY_KIND_PHONE, value=f"+8613{number:09d}")


def bound_time(number: int) -> datetime:
    """Since when a member has been his guide's."""
    return BOUND_FROM + timedelta(minutes=number % BOUND_WITHIN_MINUTES)


def moment(number: int, until: datetime, draw: random.Random) -> datetime:
    """Some moment of a member's binding, in whole milliseconds."""
    since = bound_time(number)
    return since + timedelta(milliseconds=draw.randrange((until - since) // timedelta(milliseconds=1)))


def load(brand: BenchBrand, uri: str, database: str, numbers: range, now: datetime) -> Iterator[int]:
    """Writes these members, and yields how many with every piece that is written."""
    pieces = [numbers[start : start + _PIECE] for start in range(0, len(numbers), _PIECE)]
    # Not forked: gRPC's threads would not be there.
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_LOADERS, mp_context=spawning) as loaders:
        for written in as_completed(
            loaders.submit(_load, brand, uri, database, piece, now) for piece in pieces
        ):
            yield written.result()


def _load(brand: BenchBrand, uri: str, database: str, numbers: range, now: datetime) -> int:
    with MongoClient[dict[str, Any]](uri) as client:
        opened = client.get_database(database, write_concern=WriteConcern(w=1))
        for start in range(0, len(numbers), 1000):
            made = [brand.documents(number, now) for number in numbers[start : start + 1000]]
            opened["members"].insert_many([member for member, _ in made], ordered=False)
            opened["identities"].insert_many([link for _, link in made], ordered=False)
    return len(numbers)
