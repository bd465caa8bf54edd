"""Handovers at work: members offered in the background, offers answered or accepted by themselves.

Every step is safe to repeat. An offer is written before its member is released, so that a crash in between
leaves somebody to be released again, never somebody released and forgotten.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import datetime
from typing import Any

from chassis import logs
from chassis.clock import Now
from chassis.errors import Conflict, NotFound, Refused
from chassis.mongo.connection import Document
from svc_members.directory.entities import BRAND, Kind, policy_of
from svc_members.directory.store_directory import DirectoryStore
from svc_members.handover.store_handover import NOT_OFFERED, HandoverStore
from svc_members.member.member_document import Member
from svc_members.member.store_member import MemberStore
from svc_members.rules import binding, handover
from svc_members.rules.binding import Decision, Outcome, Scan
from svc_members.rules.handover import OfferState, Spread

MEMBERS_MOST = 100
"""Members of one round."""


class Handovers:
    """Offers, releases and hands over."""

    def __init__(
        self,
        directory: DirectoryStore,
        members: MemberStore,
        handovers: HandoverStore,
        guide: Kind[Any],
        now: Now,
    ) -> None:
        self._directory = directory
        self._members = members
        self._handovers = handovers
        self._guide = guide
        self._now = now
        self._log = logs.logger("handovers")

    async def offering_round(self) -> bool:
        """Offers some members of a handover that is under way. Whether there was one."""
        now = self._now()
        leased = await self._handovers.lease(now)
        if leased is None:
            return False
        if leased["kind"] == "RESIGNATION" and not await self.resign(leased):
            await self._handovers.release(leased, {"state": "OFFERED"})
            return True
        brand_id, giver_id = leased["brand_id"], leased["guide_id"]
        page = await self._members.page_of_guide(brand_id, giver_id, leased["after_id"], MEMBERS_MOST)
        loads = await self._loads(leased)
        skipped = False
        for member in page:
            try:
                await self._offer(leased, member, loads, now)
            except Conflict:
                # Written this moment by somebody else: another round finds him where he then is.
                skipped = True
        whole = len(page) < MEMBERS_MOST
        after_id = page[-1].member_id if page else leased["after_id"]
        changes: Document = {"lease_time": now, "after_id": "" if whole and skipped else after_id}
        if whole and not skipped:
            changes["state"] = "OFFERED"
        await self._handovers.release(leased, changes)
        return True

    async def resign(self, begun: Document) -> bool:
        """Marks the guide as resigned by this handover; False when another resigned her first.

        From then on no scan binds to her, so that the handover meets all her members.
        Raises: Conflict DIRECTORY_CHANGED.
        """
        guide = await self._directory.find(self._guide, begun["brand_id"], begun["guide_id"])
        if guide["state"] == "RESIGNED":
            return bool(guide["resign_handover_id"] == begun["handover_id"])
        resigned = {
            "state": "RESIGNED",
            "resign_time": begun["resign_time"],
            "resign_handover_id": begun["handover_id"],
            "update_time": self._now(),
        }
        await self._directory.replace(self._guide, {**guide, **resigned})
        return True

    async def _loads(self, leased: Document) -> Counter[str]:
        """What each taker has: by turn the offers of this handover, by load her members as well."""
        loads = await self._handovers.loads(leased["brand_id"], leased["handover_id"])
        if leased["spread"] == Spread.LOAD:
            for taker in leased["taker_guide_ids"]:
                loads[taker] += await self._members.count_of_guide(leased["brand_id"], taker)
        return loads

    async def _offer(self, leased: Document, member: Member, loads: Counter[str], now: datetime) -> None:
        """Offers one member and, where his guide has left, releases him to the pool."""
        brand_id, handover_id, takers = leased["brand_id"], leased["handover_id"], leased["taker_guide_ids"]
        earlier = await self._handovers.earlier_offers(
            brand_id, [member.member_id, *member.absorbed], handover_id, now - handover.OFFERS_WITHIN
        )
        offer: Document = {
            "_id": f"{brand_id}|{handover_id}|{member.member_id}",
            "brand_id": brand_id,
            "handover_id": handover_id,
            "member_id": member.member_id,
            "offer_time": now,
            "taker_guide_id": "",
            "state": NOT_OFFERED,
            "end_time": None,
            "answered_by_member": False,
        }
        if takers and handover.may_offer(earlier, now):
            offered = sum(loads[taker] for taker in takers)
            taker = handover.taker_of(offered, takers, Spread(leased["spread"]), loads)
            loads[taker] += 1
            offer |= {
                "taker_guide_id": taker,
                "state": OfferState.OFFERED.value,
                "answer_by_time": now + handover.ANSWER_WITHIN,
            }
        await self._handovers.add_offer(offer)
        if leased["kind"] == "RESIGNATION":
            decision = binding.resign(member.rows, leased["guide_id"], leased["resign_time"], member.next_id)
            if decision.added:
                await self._members.save_rows(member, decision)

    async def release(self, brand_id: str, member_id: str) -> None:
        """Leaves a member to the pool who came to be a guide's that has resigned: by a merge, or its undoing.

        Her handover may have passed him by. Raises: Conflict MEMBER_CHANGED.
        """

        async def read() -> Member:
            return await self._members.find(brand_id, member_id)

        async def released(member: Member, next_id: str) -> Decision:
            standing = binding.standing(member.rows)
            if standing is not None and standing.guide_id:
                guide = await self._directory.find(self._guide, brand_id, standing.guide_id)
                if guide["state"] == "RESIGNED":
                    return binding.resign(member.rows, guide["guide_id"], guide["resign_time"], next_id)
            return Decision(Outcome.KEPT, standing)

        with contextlib.suppress(NotFound):
            await self._members.decided(read, released)

    async def overdue_round(self) -> bool:
        """Accepts offers that nobody answered in time. Whether there may be more."""
        overdue = await self._handovers.overdue(self._now(), MEMBERS_MOST)
        for offer in overdue:
            try:
                await self._accept(offer, by_member=False)
            except Conflict as error:
                self._log.info("put_off", offer=offer["_id"], reason=error.reason)
        return len(overdue) == MEMBERS_MOST

    async def answer(self, brand_id: str, handover_id: str, member_id: str, *, accept: bool) -> Document:
        """A member's answer; the offer as it then stands.

        Raises: NotFound OFFER_UNKNOWN; Refused OFFER_ANSWERED; Conflict MEMBER_CHANGED.
        """
        offer = await self._offer_to(brand_id, handover_id, member_id)
        wanted = OfferState.ACCEPTED if accept else OfferState.REFUSED
        if offer["state"] == OfferState.OFFERED:
            ended = await self._accept(offer, by_member=True) if accept else await self._refuse(offer)
            offer = ended or await self._handovers.find_offer(brand_id, handover_id, offer["member_id"])
        if offer["state"] not in (wanted, OfferState.LOST if accept else wanted):
            raise Refused("OFFER_ANSWERED", f"the offer was {offer['state'].lower()} already")
        return offer

    async def _offer_to(self, brand_id: str, handover_id: str, member_id: str) -> Document:
        """What a member was offered by an id of his, or by another where he was merged: an open one first.

        Raises: NotFound OFFER_UNKNOWN.
        """
        try:
            return await self._handovers.find_offer(brand_id, handover_id, member_id)
        except NotFound:
            with contextlib.suppress(NotFound):
                member = await self._members.find(brand_id, member_id)
                ids = [member.member_id, *member.absorbed]
                offers = await self._handovers.offers_to(brand_id, handover_id, ids)
                if offers:
                    return min(offers, key=lambda offer: bool(offer["state"] != OfferState.OFFERED))
            raise

    async def _accept(self, offer: Document, *, by_member: bool) -> Document | None:
        """Makes the member the taker's and ends the offer; LOST where he is not to be had any more."""
        brand_id, member_id = offer["brand_id"], offer["member_id"]
        started = await self._handovers.find(brand_id, offer["handover_id"])
        brand = await self._directory.find(BRAND, brand_id, brand_id)
        taker = await self._directory.find(self._guide, brand_id, offer["taker_guide_id"])
        now = self._now()
        resigned = started["kind"] == "RESIGNATION"
        # From here on it cannot be refused any more, and is finished by the background if cut off.
        by_member = by_member or offer["answered_by_member"]
        if not await self._handovers.begin_accepting(offer, now, by_member=by_member):
            return None

        async def read() -> Member:
            return await self._members.find(brand_id, member_id)

        async def handed_over(member: Member, next_id: str) -> Decision:
            if taker["state"] == "RESIGNED":
                return Decision(Outcome.LOST, binding.standing(member.rows))
            scan = Scan(taker["guide_id"], taker["store_id"], "", now, by_herself=False)
            return binding.hand_over(
                member.rows, started["guide_id"], scan, policy_of(brand), resigned=resigned, next_id=next_id
            )

        try:
            _, decision = await self._members.decided(read, handed_over)
            lost = decision.outcome is Outcome.LOST
        except NotFound:
            lost = True
        state = OfferState.LOST if lost else OfferState.ACCEPTED
        return await self._handovers.end_offer(offer, {"state": state.value, "end_time": now})

    async def _refuse(self, offer: Document) -> Document | None:
        changes = {"state": OfferState.REFUSED.value, "end_time": self._now(), "answered_by_member": True}
        return await self._handovers.end_offer(offer, changes, unless_accepting=True)
