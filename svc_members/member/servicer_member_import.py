"""Import of members over gRPC: a thousand at the cost of a few commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chassis.clock import Now
from chassis.errors import DaogouError, Invalid, NotFound, invalid_fields
from chassis.ids import derived_id
from chassis.mongo.connection import Document
from chassis.rpc import limits
from chassis.rpc.items import to_item_error
from chassis.times import from_timestamp
from daogou.members.v1 import member_import_pb2 as pb
from svc_members.directory.entities import BRAND, Kind, check_employed, guide_kind, policy_of
from svc_members.directory.postings import store_at
from svc_members.directory.store_directory import DirectoryStore
from svc_members.member.identities import IdentitySealer, StoredIdentity
from svc_members.member.member_document import Member
from svc_members.member.store_identity import IdentityStore
from svc_members.member.store_member import MemberStore
from svc_members.member.store_member_import import Arrival, MemberImportStore
from svc_members.rules import binding
from svc_members.rules.binding import Decision, Outcome, Policy, Scan

Result = pb.ImportMembersResponse.Result


@dataclass(slots=True)
class _Item:
    """One acceptable member of the call, and his place in it."""

    index: int
    message: pb.ImportedMember
    identities: list[StoredIdentity]


class MemberImportServicer:
    """Implements daogou.members.v1.MemberImportService."""

    def __init__(
        self,
        directory: DirectoryStore,
        identity_store: IdentityStore,
        members: MemberStore,
        imports: MemberImportStore,
        sealer: IdentitySealer,
        now: Now,
    ) -> None:
        self._directory = directory
        self._identities = identity_store
        self._members = members
        self._imports = imports
        self._sealer = sealer
        self._guide: Kind[Any] = guide_kind(sealer)
        self._now = now

    async def ImportMembers(self, request: pb.ImportMembersRequest, context: Any) -> pb.ImportMembersResponse:
        now, brand_id = self._now(), request.brand_id
        brand = await self._directory.find(BRAND, brand_id, brand_id)
        results: dict[int, Result] = {}
        items = self._accepted(brand_id, request.members, now, results)
        guides = await self._directory.find_many(
            self._guide, brand_id, [item.message.guide_id for item in items if item.message.guide_id]
        )
        held = await self._identities.holders(
            brand_id, [identity.index for item in items for identity in item.identities]
        )
        known = await self._members.existing(brand_id, list(held.values()))
        arrivals: dict[int, Arrival] = {}
        policy = policy_of(brand)
        for item in items:
            try:
                arrival = _arrival(brand_id, item, held, guides, policy, now)
            except DaogouError as error:
                results[item.index] = _refused(error)
                continue
            member_id = arrival.member.member_id
            if member_id in known:
                results[item.index] = Result(outcome=pb.IMPORT_OUTCOME_KNOWN, member_id=member_id)
            else:
                arrivals[item.index] = arrival
        outcomes = await self._imports.write(list(arrivals.values()))
        for (index, arrival), outcome in zip(arrivals.items(), outcomes, strict=True):
            results[index] = (
                _refused(outcome)
                if isinstance(outcome, DaogouError)
                else Result(
                    outcome=pb.IMPORT_OUTCOME_IMPORTED if outcome else pb.IMPORT_OUTCOME_KNOWN,
                    member_id=arrival.member.member_id,
                )
            )
        return pb.ImportMembersResponse(results=[results[index] for index in range(len(request.members))])

    def _accepted(
        self,
        brand_id: str,
        messages: Sequence[pb.ImportedMember],
        now: datetime,
        results: dict[int, Result],
    ) -> list[_Item]:
        """The items with which nothing is wrong whatever the database holds; `results` says of the others."""
        seen: set[str] = set()
        accepted = []
        for index, message in enumerate(messages):
            try:
                if found := limits.violations(message):
                    raise invalid_fields(found)
                if message.guide_id and from_timestamp(message.bound_time) > now:
                    raise Invalid("BOUND_IN_FUTURE", "bound_time is ahead of this service's clock")
                stored = {
                    one.index: one
                    for one in (self._sealer.stored(brand_id, given) for given in message.identities)
                }
                if not seen.isdisjoint(stored):
                    raise Invalid("IDENTITY_TWICE", "an earlier item has one of the identities")
            except DaogouError as error:
                results[index] = _refused(error)
            else:
                seen |= stored.keys()
                accepted.append(_Item(index, message, list(stored.values())))
        return accepted


def _arrival(
    brand_id: str,
    item: _Item,
    held: dict[str, str],
    guides: dict[str, Document],
    policy: Policy,
    now: datetime,
) -> Arrival:
    """The member as he is to be written.

    His id follows from his first identity, so that an import that was cut off finds what it began.
    Raises: Invalid IDENTITIES_OF_DIFFERENT_MEMBERS; NotFound GUIDE_UNKNOWN; Refused GUIDE_RESIGNED.
    """
    holders = {held[identity.index] for identity in item.identities if identity.index in held}
    if len(holders) > 1:
        raise Invalid("IDENTITIES_OF_DIFFERENT_MEMBERS", "the identities belong to two members already")
    member_id = holders.pop() if holders else derived_id("member", brand_id, item.identities[0].index)
    decision = Decision(Outcome.ENDED, None)
    if guide_id := item.message.guide_id:
        if guide_id not in guides:
            raise NotFound("GUIDE_UNKNOWN", "the guide does not exist in this brand")
        check_employed(guides[guide_id])
        time = from_timestamp(item.message.bound_time)
        scan = Scan(guide_id, store_at(guides[guide_id], time), "", time, by_herself=False)
        decision = binding.imported(scan, policy, f"{member_id}.1")
    missing = [identity for identity in item.identities if identity.index not in held]
    return Arrival(Member(brand_id, member_id, 0, (), now), missing, len(item.identities), decision)


def _refused(error: DaogouError) -> Result:
    return Result(outcome=pb.IMPORT_OUTCOME_REFUSED, error=to_item_error(error))
