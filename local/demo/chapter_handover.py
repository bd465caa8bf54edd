"""Chapter 7: the guide leaves; her member is handed over with consent, and what she earned stays hers."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

from daogou.members.v1 import handover_pb2
from daogou.members.v1.handover_pb2 import Handover, HandoverState, OfferState
from daogou.members.v1.handover_pb2_grpc import HandoverServiceStub
from local.demo.books import explain, owed_to
from local.demo.cast import Cast
from local.demo.chapter_order import COMMISSION_MINOR, SCARF_COMMISSION_MINOR, buys_a_hat
from local.demo.stage import PATIENCE_S, Stage, money

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.members.v1.handover_pb2_grpc import HandoverServiceAsyncStub


async def guide_resigns(stage: Stage, cast: Cast) -> None:
    """Tells the chapter."""
    stage.later(days=3)
    stage.chapter(7, "Lin Mei resigns; her member is offered to Chen Yu")
    office: HandoverServiceAsyncStub = HandoverServiceStub(
        stage.channel("members", "BRAND_ADMIN", brand=cast.brand_id)
    )
    resigned = await stage.call(
        office.ResignGuide,
        handover_pb2.ResignGuideRequest(
            brand_id=cast.brand_id,
            request_id=str(uuid.uuid4()),
            guide_id=cast.guides["Lin Mei"],
            taker_guide_ids=[cast.guides["Chen Yu"]],
        ),
    )
    handover = await _offered(stage, cast, office, resigned.handover.handover_id)
    stage.holds("one member is offered to Chen Yu", handover.offer_count, 1)
    accepted = await stage.call(
        office.AnswerOffer,
        handover_pb2.AnswerOfferRequest(
            brand_id=cast.brand_id,
            handover_id=handover.handover_id,
            member_id=cast.member_id,
            accept=True,
        ),
    )
    hers = accepted.offer.state == OfferState.OFFER_STATE_ACCEPTED
    stage.holds("Wang Fang consents and is Chen Yu's from then on", hers, True)
    stage.later(days=1)
    hat_commission = await buys_a_hat(stage, cast)
    told = await explain(stage, cast)
    stage.holds("she buys a hat online: the books agree", told.books_agree, True)
    new, old = await owed_to(stage, cast, "Chen Yu"), await owed_to(stage, cast, "Lin Mei")
    stage.holds(f"Chen Yu is owed {money(new)} for it", new, hat_commission)
    stage.holds(
        f"what Lin Mei earned stays hers: {money(old)}", old, COMMISSION_MINOR - SCARF_COMMISSION_MINOR
    )


async def _offered(stage: Stage, cast: Cast, office: HandoverServiceAsyncStub, handover_id: str) -> Handover:
    """The handover, once all members are offered."""
    request = handover_pb2.GetHandoverRequest(brand_id=cast.brand_id, handover_id=handover_id)
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        handover = (await stage.call(office.GetHandover, request)).handover
        offering = handover.state == HandoverState.HANDOVER_STATE_OFFERING
        if not offering or time.monotonic() > deadline_s:
            return handover
        await asyncio.sleep(0.2)
