"""What came of a simulation as messages: payees, stores, and the totals last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from daogou.commission.v1 import simulation_pb2 as pb
from svc_commission.ledger.messages import payee_message
from svc_commission.rules.simulation import Payee, Simulation, Store

LISTED_MAX: Final = 10_000
AT_ONCE: Final = 500


async def difference_messages(
    simulation: Simulation, totals: pb.SimulationTotals
) -> AsyncGenerator[pb.SimulatePlanResponse, None]:
    """The differences, and the totals with what is known of them already."""
    # Of tens of thousands the largest are found in a thread: to sort them all takes longer than a turn.
    payees, totals.differing_payee_count = await asyncio.to_thread(simulation.differing_payees, LISTED_MAX)
    for start in range(0, len(payees), AT_ONCE):
        rows = [_payee(payee, row) for payee, row in payees[start : start + AT_ONCE]]
        yield pb.SimulatePlanResponse(payees=pb.PayeeDifferences(payees=rows))
    stores, totals.differing_store_count = await asyncio.to_thread(simulation.differing_stores, LISTED_MAX)
    for start in range(0, len(stores), AT_ONCE):
        some = [_store(store_id, row) for store_id, row in stores[start : start + AT_ONCE]]
        yield pb.SimulatePlanResponse(stores=pb.StoreDifferences(stores=some))
    brand = simulation.brand
    totals.order_count = simulation.orders
    totals.differing_order_count = brand.orders
    totals.sold_minor = brand.sold_minor
    totals.current_minor = brand.current_minor
    totals.draft_minor = brand.draft_minor
    totals.difference_minor = brand.difference_minor
    totals.brand_current_minor = brand.borne_current_minor
    totals.brand_draft_minor = brand.borne_draft_minor
    yield pb.SimulatePlanResponse(totals=totals)


def _payee(payee: str, row: Payee) -> pb.PayeeDifference:
    return pb.PayeeDifference(
        payee=payee_message(payee),
        current_minor=row.current_minor,
        draft_minor=row.draft_minor,
        difference_minor=row.difference_minor,
        order_count=row.orders,
    )


def _store(store_id: str, row: Store) -> pb.StoreDifference:
    return pb.StoreDifference(
        store_id=store_id,
        sold_minor=row.sold_minor,
        current_minor=row.current_minor,
        draft_minor=row.draft_minor,
        difference_minor=row.difference_minor,
        borne_current_minor=row.borne_current_minor,
        borne_draft_minor=row.borne_draft_minor,
        order_count=row.orders,
    )
