"""Guide codes over gRPC: made for a guide, scanned by a customer."""

from __future__ import annotations

import asyncio
import secrets
from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client import Counter

from chassis.clock import Now
from chassis.errors import Invalid, Refused
from chassis.ids import bytes_of_id, id_of_bytes, is_id, new_id
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.times import from_timestamp, to_timestamp
from daogou.members.v1 import guide_code_pb2 as pb
from svc_members.directory import postings
from svc_members.directory.entities import STORE, Kind, check_employed, guide_kind, policy_of
from svc_members.directory.store_directory import DirectoryStore
from svc_members.guide_code.code_signer import CodeSigner
from svc_members.guide_code.store_guide_code import GuideCodeStore
from svc_members.guide_code.store_scan import ScanStore
from svc_members.member.identities import IdentitySealer, StoredIdentity
from svc_members.member.member_document import Member
from svc_members.member.messages import binding_message
from svc_members.member.store_identity import IdentityStore
from svc_members.member.store_member import MemberStore
from svc_members.rules import binding, guide_code
from svc_members.rules.guide_code import GuideCode

TTL_DEFAULT: Final = timedelta(days=90)
SCAN_AHEAD_MOST: Final = timedelta(seconds=5)
SCAN_AGE_MOST: Final = timedelta(hours=24)

SCANS = Counter("daogou_members_scans_total", "Scans of guide codes, by what they did.", ["outcome"])


class GuideCodeServicer:
    """Implements daogou.members.v1.GuideCodeService."""

    def __init__(
        self,
        directory: DirectoryStore,
        identity_store: IdentityStore,
        members: MemberStore,
        codes: GuideCodeStore,
        scans: ScanStore,
        sealer: IdentitySealer,
        signer: CodeSigner,
        now: Now,
    ) -> None:
        self._directory = directory
        self._identities = identity_store
        self._members = members
        self._codes = codes
        self._scans = scans
        self._sealer = sealer
        self._guide: Kind[Any] = guide_kind(sealer)
        self._signer = signer
        self._now = now

    async def CreateGuideCode(
        self, request: pb.CreateGuideCodeRequest, context: Any
    ) -> pb.CreateGuideCodeResponse:
        now = self._now()
        _, holder = await self._holder(request.brand_id, request.store_id, request.guide_id)
        ttl = timedelta(seconds=request.ttl_seconds) if request.ttl_seconds else TTL_DEFAULT
        code = GuideCode(
            epoch=holder.get("code_epoch", 0),
            brand=bytes_of_id(request.brand_id),
            store=bytes_of_id(request.store_id),
            guide=bytes_of_id(request.guide_id) if request.guide_id else guide_code.NO_GUIDE,
            campaign=request.campaign,
            issue_time=now,
            expire_time=(now + ttl).replace(microsecond=0),
            nonce=secrets.token_bytes(guide_code.NONCE_BYTES),
        )
        text = self._signer.signed(code)
        svg, png = await asyncio.to_thread(self._signer.drawn, text)
        return pb.CreateGuideCodeResponse(
            code=text,
            link=self._signer.link(text),
            qr_svg=svg,
            qr_png=png,
            expire_time=to_timestamp(code.expire_time),
        )

    async def CreateCodeAlias(
        self, request: pb.CreateCodeAliasRequest, context: Any
    ) -> pb.CreateCodeAliasResponse:
        code = self._signer.opened(request.brand_id, request.code)
        guide_code.check_valid(code, self._now(), code.epoch)
        alias = await self._codes.give_alias(request.brand_id, request.code, code.expire_time)
        return pb.CreateCodeAliasResponse(alias=alias, expire_time=to_timestamp(code.expire_time))

    async def RevokeGuideCodes(
        self, request: pb.RevokeGuideCodesRequest, context: Any
    ) -> pb.RevokeGuideCodesResponse:
        now = self._now()
        kind, holder = await self._holder(request.brand_id, request.store_id, request.guide_id)

        def raised(entry: Document) -> tuple[Document, pb.RevokeGuideCodesResponse]:
            changed = {**entry, "code_epoch": entry.get("code_epoch", 0) + 1, "update_time": now}
            return changed, pb.RevokeGuideCodesResponse(revoke_time=to_timestamp(now))

        body = idempotency.body_hash(request, self._sealer.digest)
        key = f"revoke|{request.request_id}"
        return await self._directory.change_once(
            kind, holder, (key, body, now), raised, pb.RevokeGuideCodesResponse
        )

    async def ScanGuideCode(self, request: pb.ScanGuideCodeRequest, context: Any) -> pb.ScanGuideCodeResponse:
        now = self._now()
        scanned_time = _scanned_time(request, now)
        text = request.code
        if is_id(text):
            text = await self._codes.code_of(request.brand_id, text)
        code = self._signer.opened(request.brand_id, text)
        identity, fresh_id = self._sealer.stored(request.brand_id, request.identity), new_id()
        scene = await self._scans.scene(self._whose(code), request.brand_id, identity, fresh_id, now)
        holder, policy = scene.code_holder, policy_of(scene.brand)
        guide_code.check_valid(code, scanned_time, holder.get("code_epoch", 0))
        check_employed(holder)
        customers = [scene.customer]

        async def read() -> Member:
            if customers:
                return customers.pop()
            return await self._members.holder_of(request.brand_id, identity, lambda: fresh_id, now)

        async def scanned(member: Member, next_id: str) -> binding.Decision:
            scan = binding.Scan(
                guide_id=holder.get("guide_id", ""),
                store_id=postings.store_at(holder, scanned_time),
                campaign=code.campaign,
                scanned_time=scanned_time,
                by_herself=await self._by_herself(member, holder, identity, fresh_id),
                origin_id=member.origin_id,
                not_before=member.not_before,
            )
            return binding.scan(member.rows, scan, policy, next_id)

        member, decision = await self._members.decided(read, scanned, identity)
        SCANS.labels(decision.outcome).inc()
        standing = binding.standing(member.rows)
        assert standing is not None, "whoever scanned is somebody's"
        return pb.ScanGuideCodeResponse(
            member_id=member.member_id,
            outcome=pb.ScanOutcome.Value(f"SCAN_OUTCOME_{decision.outcome}"),
            binding=binding_message(member.brand_id, member.member_id, standing),
        )

    async def _holder(self, brand_id: str, store_id: str, guide_id: str) -> tuple[Kind[Any], Document]:
        """Whose codes they are: the guide, who must be of the store, or the store itself.

        Raises: NotFound STORE_UNKNOWN, GUIDE_UNKNOWN; Refused GUIDE_NOT_OF_STORE, GUIDE_RESIGNED.
        """
        if not guide_id:
            return STORE, await self._directory.find(STORE, brand_id, store_id)
        guide = await self._directory.find(self._guide, brand_id, guide_id)
        if guide["store_id"] != store_id:
            raise Refused("GUIDE_NOT_OF_STORE", "the guide belongs to another store")
        check_employed(guide)
        return self._guide, guide

    def _whose(self, code: GuideCode) -> tuple[Kind[Any], str]:
        """The guide or the store that a code binds to, by id."""
        if code.guide == guide_code.NO_GUIDE:
            return STORE, id_of_bytes(code.store)
        return self._guide, id_of_bytes(code.guide)

    async def _by_herself(
        self, customer: Member, holder: Document, identity: StoredIdentity, fresh_id: str
    ) -> bool:
        """Whether the customer is the guide. It is read only where it makes a difference and may be so."""
        standing = binding.standing(customer.rows)
        if standing is not None and standing.guide_id == holder.get("guide_id"):
            return False
        if customer.rev == 0 and customer.member_id == fresh_id:
            # Nobody has held the identity, so it is all that he is known by.
            return identity.index in {account["index"] for account in holder.get("accounts", ())}
        return await self._identities.are_of(customer.brand_id, customer.member_id, holder, identity.index)


def _scanned_time(request: pb.ScanGuideCodeRequest, now: datetime) -> datetime:
    """When the code was scanned. Raises: Invalid SCAN_IN_FUTURE, SCAN_TOO_OLD."""
    if not request.HasField("scanned_time"):
        return now
    scanned_time = from_timestamp(request.scanned_time)
    if scanned_time > now + SCAN_AHEAD_MOST:
        raise Invalid("SCAN_IN_FUTURE", f"scanned_time is ahead of this service's clock, {now:%F %T} UTC")
    if scanned_time < now - SCAN_AGE_MOST:
        raise Invalid("SCAN_TOO_OLD", "scanned_time is more than 24 hours ago")
    return scanned_time
