"""Guide codes over gRPC: made for a guide, scanned by a customer."""

from __future__ import annotations

import asyncio
import io
import secrets
from datetime import datetime, timedelta
from typing import Any, Final

import segno

from chassis import backoff
from chassis.clock import Now
from chassis.errors import Conflict, Invalid, Refused, Violation, invalid_fields
from chassis.ids import bytes_of_id, id_of_bytes, new_id
from chassis.mongo.connection import Document
from chassis.sealing import KeyRing
from chassis.times import from_timestamp, to_timestamp
from daogou.members.v1 import guide_code_pb2 as pb
from svc_members import identities
from svc_members.entities import BRAND, Kind, guide_kind, policy_of
from svc_members.identities import IdentitySealer
from svc_members.messages import binding_message
from svc_members.rules import binding, guide_code
from svc_members.rules.guide_code import GuideCode
from svc_members.store_directory import DirectoryStore
from svc_members.store_member import Member, MemberStore

TTL_DEFAULT: Final = timedelta(days=90)
SCAN_AHEAD_MOST: Final = timedelta(seconds=5)
SCAN_AGE_MOST: Final = timedelta(hours=24)
_ATTEMPTS: Final = 20


class GuideCodeServicer:
    """Implements daogou.members.v1.GuideCodeService."""

    def __init__(
        self,
        directory: DirectoryStore,
        members: MemberStore,
        sealer: IdentitySealer,
        code_keys: KeyRing,
        link_base: str,
        now: Now,
    ) -> None:
        self._directory = directory
        self._members = members
        self._sealer = sealer
        self._guide: Kind[Any] = guide_kind(sealer)
        self._keys = {int(kid): key for kid, key in code_keys.keys.items()}
        self._key_number = int(code_keys.current)
        self._link_base = link_base
        self._now = now

    async def CreateGuideCode(
        self, request: pb.CreateGuideCodeRequest, context: Any
    ) -> pb.CreateGuideCodeResponse:
        now = self._now()
        if not guide_code.CAMPAIGN.fullmatch(request.campaign):
            raise invalid_fields([Violation("campaign", "must be letters, digits, '-', '_' and '.'")])
        guide = await self._directory.find(self._guide, request.brand_id, request.guide_id)
        if guide["store_id"] != request.store_id:
            raise Refused("GUIDE_NOT_OF_STORE", "the guide belongs to another store")
        ttl = timedelta(seconds=request.ttl_seconds) if request.ttl_seconds else TTL_DEFAULT
        code = GuideCode(
            brand=bytes_of_id(request.brand_id),
            store=bytes_of_id(request.store_id),
            guide=bytes_of_id(request.guide_id),
            campaign=request.campaign,
            issue_time=now,
            expire_time=(now + ttl).replace(microsecond=0),
            nonce=secrets.token_bytes(guide_code.NONCE_BYTES),
        )
        text = guide_code.signed(code, self._key_number, self._keys[self._key_number])
        link = f"{self._link_base}{text}"
        svg, png = await asyncio.to_thread(_drawn, link)
        return pb.CreateGuideCodeResponse(
            code=text, link=link, qr_svg=svg, qr_png=png, expire_time=to_timestamp(code.expire_time)
        )

    async def ScanGuideCode(self, request: pb.ScanGuideCodeRequest, context: Any) -> pb.ScanGuideCodeResponse:
        now = self._now()
        if found := identities.problems(request.identity, "identity"):
            raise invalid_fields(found)
        code = guide_code.opened(request.code, self._keys)
        scanned_time = _scanned_time(request, now)
        if id_of_bytes(code.brand) != request.brand_id:
            raise Invalid("GUIDE_CODE_OF_ANOTHER_BRAND", "the code is of another brand")
        guide_code.check_time(code, scanned_time)
        brand, guide = await asyncio.gather(
            self._directory.find(BRAND, request.brand_id, request.brand_id),
            self._directory.find(self._guide, request.brand_id, id_of_bytes(code.guide)),
        )
        identity = self._sealer.stored(request.brand_id, request.identity)
        for attempt in range(_ATTEMPTS):
            member = await self._members.holder_of(request.brand_id, identity, new_id, now)
            scan = binding.Scan(
                guide_id=guide["guide_id"],
                store_id=guide["store_id"],
                campaign=code.campaign,
                scanned_time=scanned_time,
                by_herself=await self._by_herself(member, identity.index, guide),
            )
            next_id = f"{member.member_id}.{member.rev + 1}"
            decision = binding.scan(member.rows, scan, policy_of(brand), next_id)
            try:
                written = (
                    await self._members.save_scan(member, identity, decision) if decision.added else member
                )
            except Conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
                # Many scans of one customer at once: whoever lost reads what the winner wrote.
                await backoff.pause(attempt)
            else:
                return _scan_response(written, decision)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _by_herself(self, member: Member, index: str, guide: Document) -> bool:
        """Whether the customer is the guide: one of his identities is one of her accounts."""
        accounts = {account["index"] for account in guide["accounts"]}
        if not accounts:
            return False
        if index in accounts:
            return True
        links = await self._members.links(member.brand_id, member.member_id) if member.rev else []
        return any(link.identity.index in accounts for link in links)


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


def _scan_response(member: Member, decision: binding.Decision) -> pb.ScanGuideCodeResponse:
    standing = next(row for row in member.rows if row.binding_id == decision.standing.binding_id)
    return pb.ScanGuideCodeResponse(
        member_id=member.member_id,
        outcome=pb.ScanOutcome.Value(f"SCAN_OUTCOME_{decision.outcome}"),
        binding=binding_message(member, standing),
    )


def _drawn(link: str) -> tuple[str, bytes]:
    """The link as a QR, error correction M: an SVG document and a PNG picture of 8 pixels a module."""
    code = segno.make(link, error="m", micro=False)
    png = io.BytesIO()
    code.save(png, kind="png", scale=8, border=4)
    return code.svg_inline(scale=4, border=4), png.getvalue()
