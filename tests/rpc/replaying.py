"""What came of a simulation and of a verification, read from their streams to the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from chassis.times import to_timestamp
from daogou.commission.v1 import simulation_pb2, verification_pb2
from daogou.commission.v1.plan_pb2 import Plan
from daogou.commission.v1.simulation_pb2_grpc import SimulationServiceStub
from daogou.commission.v1.verification_pb2_grpc import VerificationServiceStub
from tests.rpc.running import Caller
from tests.rpc.world import World

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.commission.v1.simulation_pb2_grpc import SimulationServiceAsyncStub
    from daogou.commission.v1.verification_pb2_grpc import VerificationServiceAsyncStub


@dataclass
class Simulated:
    """All that one simulation told. Payees by `guide_id` or `pool_store_id`, stores by id."""

    progress: list[simulation_pb2.SimulationProgress] = field(default_factory=list)
    payees: dict[str, simulation_pb2.PayeeDifference] = field(default_factory=dict)
    stores: dict[str, simulation_pb2.StoreDifference] = field(default_factory=dict)
    totals: simulation_pb2.SimulationTotals = field(default_factory=simulation_pb2.SimulationTotals)

    def earned(self) -> dict[str, tuple[int, int]]:
        """What each payee who differs earned and would have earned."""
        return {payee: (row.current_minor, row.draft_minor) for payee, row in self.payees.items()}


def simulation_of(
    world: World, draft: Plan | None, from_time: datetime | None = None, to_time: datetime | None = None
) -> simulation_pb2.SimulatePlanRequest:
    """A request for the last hundred days until now, unless another period is given."""
    now = world.running.now()
    return simulation_pb2.SimulatePlanRequest(
        brand_id=world.brand_id,
        draft=draft,
        from_time=to_timestamp(from_time or now - timedelta(days=100)),
        to_time=to_timestamp(to_time or now),
    )


def simulating(world: World, request: simulation_pb2.SimulatePlanRequest) -> Any:
    """The stream of a simulation."""
    stub: SimulationServiceAsyncStub = SimulationServiceStub(world.running.plain("commission"))
    return stub.SimulatePlan(request, metadata=world.admin.metadata, timeout=60)


async def simulated(
    world: World, draft: Plan, from_time: datetime | None = None, to_time: datetime | None = None
) -> Simulated:
    """What a draft would have paid."""
    found, ended = Simulated(), False
    async for reply in simulating(world, simulation_of(world, draft, from_time, to_time)):
        assert not ended, "something comes after the totals"
        if reply.HasField("progress"):
            found.progress.append(reply.progress)
        for payee in reply.payees.payees:
            found.payees[payee.payee.guide_id or payee.payee.pool_store_id] = payee
        for store in reply.stores.stores:
            found.stores[store.store_id] = store
        if reply.HasField("totals"):
            found.totals, ended = reply.totals, True
    assert ended, "there are no totals"
    return found


@dataclass
class Verified:
    """All that one verification told."""

    progress: list[verification_pb2.VerificationProgress] = field(default_factory=list)
    differences: list[verification_pb2.OrderDifference] = field(default_factory=list)
    verdict: verification_pb2.BooksVerdict = field(default_factory=verification_pb2.BooksVerdict)


async def verified(world: World, caller: Caller | None = None) -> Verified:
    """What is to be said against a brand's books."""
    stub: VerificationServiceAsyncStub = VerificationServiceStub(world.running.plain("commission"))
    request = verification_pb2.VerifyBooksRequest(brand_id=world.brand_id)
    found, ended = Verified(), False
    async for reply in stub.VerifyBooks(request, metadata=(caller or world.admin).metadata, timeout=60):
        assert not ended, "something comes after the verdict"
        if reply.HasField("progress"):
            found.progress.append(reply.progress)
        if reply.HasField("difference"):
            found.differences.append(reply.difference)
        if reply.HasField("verdict"):
            found.verdict, ended = reply.verdict, True
    assert ended, "there is no verdict"
    return found
