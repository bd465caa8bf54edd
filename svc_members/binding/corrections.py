"""Corrections at work: recorded in the audit log, decided for all who answered for the id, told whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from chassis.audit import Audit
from chassis.errors import Invalid
from chassis.ids import derived_id
from chassis.mongo import idempotency
from chassis.rpc.call import caller
from chassis.times import from_timestamp
from daogou.members.v1 import binding_pb2 as pb
from svc_members.binding.store_binding import BindingStore
from svc_members.binding.store_correction import Answered, Corrected, CorrectionStore, receipts_of
from svc_members.directory import postings
from svc_members.directory.entities import BRAND, STORE, Kind, check_employed, guide_kind, policy_of
from svc_members.directory.store_directory import DirectoryStore
from svc_members.member.attempts import until_unchanged
from svc_members.member.identities import IdentitySealer
from svc_members.member.messages import binding_message
from svc_members.member.store_member import MemberStore
from svc_members.rules import binding
from svc_members.rules.binding import Decision, Outcome, Policy
from svc_members.rules.correction import Correction, correct


class Corrections:
    """Corrects the past."""

    def __init__(
        self,
        directory: DirectoryStore,
        members: MemberStore,
        bindings: BindingStore,
        store: CorrectionStore,
        sealer: IdentitySealer,
        audit: Audit,
    ) -> None:
        self._directory = directory
        self._members = members
        self._bindings = bindings
        self._store = store
        self._guide: Kind[Any] = guide_kind(sealer)
        self._digest = sealer.digest
        self._audit = audit

    async def correct(self, request: pb.CorrectBindingRequest, now: datetime) -> pb.CorrectBindingResponse:
        """Writes what is to be believed, once.

        Raises: Invalid CORRECTION_IN_FUTURE; NotFound BRAND_UNKNOWN, MEMBER_UNKNOWN, MEMBER_ERASED,
        GUIDE_UNKNOWN, STORE_UNKNOWN; Refused GUIDE_RESIGNED; AlreadyExists REQUEST_ID_REUSED; Conflict
        MEMBER_CHANGED, TRANSACTION_CONTENDED.
        """
        brand_id, member_id = request.brand_id, request.member_id
        brand = await self._directory.find(BRAND, brand_id, brand_id)
        correction = await self._correction(request, now)
        member = await self._members.find(brand_id, member_id)
        key, body = f"correct|{request.request_id}", idempotency.body_hash(request, self._digest)
        receipts = await self._store.receipts(brand_id, member_id)
        said = idempotency.first_reply(receipts, key, body, pb.CorrectBindingResponse)
        if said is None:
            subject = {"brand_id": brand_id, "member_id": member.member_id}
            await self._audit.record(caller(), "CorrectBinding", subject, request.reason, now)

            def decide(answered: Sequence[Answered]) -> Corrected[pb.CorrectBindingResponse]:
                kept = receipts_of(answered[0].whole.document)
                before = idempotency.first_reply(kept, key, body, pb.CorrectBindingResponse)
                if before is not None:
                    return Corrected(before)
                decisions = [
                    decision_of(one, correction, policy_of(brand), member_id, request.request_id)
                    for one in answered
                ]
                told = _said(answered, decisions)
                receipt = idempotency.receipt(key, body, told, now)
                return Corrected(told, decisions, idempotency.with_receipt(kept, receipt))

            said = await until_unchanged(lambda: self._store.correct(brand_id, member_id, decide))
        return await self._recorded(brand_id, said)

    async def _recorded(self, brand_id: str, said: pb.CorrectBindingResponse) -> pb.CorrectBindingResponse:
        """The reply with its rows whole, as they were recorded: only then is it known when."""
        whole = pb.CorrectBindingResponse(superseded_binding_ids=said.superseded_binding_ids)
        for member_id in dict.fromkeys(row.member_id for row in said.added):
            rows = {row.binding_id: row for row in await self._bindings.rows(brand_id, member_id)}
            whole.added.extend(
                binding_message(brand_id, member_id, replace(rows[row.binding_id], superseded_time=None))
                for row in said.added
                if row.member_id == member_id
            )
        return whole

    async def _correction(self, request: pb.CorrectBindingRequest, now: datetime) -> Correction:
        """What is to be believed.

        Raises: Invalid CORRECTION_IN_FUTURE; NotFound GUIDE_UNKNOWN, STORE_UNKNOWN; Refused GUIDE_RESIGNED.
        """
        begin = from_timestamp(request.valid_from_time)
        end = from_timestamp(request.valid_to_time) if request.HasField("valid_to_time") else None
        if max(begin, end or begin) > now:
            raise Invalid("CORRECTION_IN_FUTURE", "the past alone is corrected, up to this service's clock")
        store_id = request.store_id
        if store_id:
            await self._directory.find(STORE, request.brand_id, store_id)
        if request.guide_id:
            guide = await self._directory.find(self._guide, request.brand_id, request.guide_id)
            if end is None:
                check_employed(guide)
            store_id = store_id or postings.store_at(guide, begin)
        return Correction(request.guide_id, store_id, begin, end, request.reason)


def decision_of(
    answered: Answered, correction: Correction, policy: Policy, named_id: str, request_id: str
) -> Decision:
    """What becomes of one who answered for the id that was named, in the time in which he did."""
    rows, member = answered.whole.rows, answered.whole.member
    within = correction.within(answered.from_time, answered.until_time)
    if within is None:
        return Decision(Outcome.CORRECTED, binding.standing(rows))
    correction_id = derived_id("correction", member.brand_id, named_id, member.member_id, request_id)
    origin_id = "" if member.member_id == named_id else named_id
    return correct(rows, replace(within, origin_id=origin_id), policy, correction_id)


def _said(answered: Sequence[Answered], decisions: Sequence[Decision]) -> pb.CorrectBindingResponse:
    """Which rows were added, and which superseded."""
    said = pb.CorrectBindingResponse()
    for one, decision in zip(answered, decisions, strict=True):
        member_id = one.whole.member.member_id
        for row in decision.added:
            said.added.add(binding_id=row.binding_id, member_id=member_id)
        said.superseded_binding_ids.extend(decision.superseded)
    return said
