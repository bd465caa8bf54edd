"""Profiles over gRPC: read and changed, by whoever serves the member."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any, Final

from chassis import backoff
from chassis.clock import Now
from chassis.errors import Conflict, Violation, invalid_fields
from chassis.mongo import idempotency
from daogou.members.v1 import profile_pb2 as pb
from svc_members.care.profiles import Profiles, birthday_of
from svc_members.care.store_profile import ProfileStore
from svc_members.care.text_sealer import TextSealer
from svc_members.member.served import check_hers, served
from svc_members.member.store_member import MemberStore

_ATTEMPTS: Final = 20
_A_DAY: Final = timedelta(days=1)


class ProfileServicer:
    """Implements daogou.members.v1.ProfileService."""

    def __init__(self, members: MemberStore, store: ProfileStore, sealer: TextSealer, now: Now) -> None:
        self._members = members
        self._store = store
        self._sealer = sealer
        self._profiles = Profiles(sealer)
        self._now = now

    async def GetProfile(self, request: pb.GetProfileRequest, context: Any) -> pb.GetProfileResponse:
        member = await served(self._members, request.brand_id, request.member_id, request.guide_id)
        stored, _ = await self._store.find(member)
        profile = self._profiles.message(request.brand_id, stored)
        return pb.GetProfileResponse(member_id=member.member_id, profile=profile)

    async def UpdateProfile(self, request: pb.UpdateProfileRequest, context: Any) -> pb.UpdateProfileResponse:
        self._check_birthday(request)
        for attempt in itertools.count():
            try:
                return await self._changed_once(request)
            except Conflict:
                if attempt == _ATTEMPTS:
                    raise
            # A scan or a purchase came between.
            await backoff.pause(attempt)
        raise AssertionError("unreachable: the loop returns or raises")

    async def _changed_once(self, request: pb.UpdateProfileRequest) -> pb.UpdateProfileResponse:
        """Raises: as UpdateProfile; Conflict MEMBER_CHANGED when the member was written meanwhile."""
        now, brand_id = self._now(), request.brand_id
        body = idempotency.body_hash(request, self._sealer.digest)
        member = await self._members.find(brand_id, request.member_id)
        stored, receipts = await self._store.find(member)
        first = self._sealer.first_reply(
            brand_id, receipts, request.request_id, body, pb.UpdateProfileResponse
        )
        if first is not None:
            return first
        check_hers(member, request.guide_id)
        values = self._profiles.stored(brand_id, request.profile, request.update_mask.paths)
        changed = {name: value for name, value in {**stored, **values}.items() if value is not None}
        reply = pb.UpdateProfileResponse(
            member_id=member.member_id, profile=self._profiles.message(brand_id, changed)
        )
        receipt = self._sealer.receipt(brand_id, request.request_id, body, reply, now)
        await self._store.save(member, values, idempotency.with_receipt(receipts, receipt))
        return reply

    def _check_birthday(self, request: pb.UpdateProfileRequest) -> None:
        """Raises: Invalid INVALID_FIELDS for one that is still to come, wherever on earth he is."""
        birthday = birthday_of(request.profile) if "birthday" in request.update_mask.paths else None
        if birthday is not None and birthday.is_after((self._now() + _A_DAY).date()):
            raise invalid_fields([Violation("profile.birthday", "is in the future")])
