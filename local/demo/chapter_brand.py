"""Chapter 1: a brand, two stores, a flagship, two guides, a commission plan."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from daogou.commission.v1 import plan_pb2
from daogou.commission.v1.plan_pb2_grpc import PlanServiceStub
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.geo_pb2 import Datum, GeoPoint
from daogou.members.v1 import directory_pb2
from daogou.members.v1.directory_pb2_grpc import DirectoryServiceStub
from local.demo.cast import TMALL_SHOP, Cast
from local.demo.stage import Stage

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.commission.v1.plan_pb2_grpc import PlanServiceAsyncStub
    from daogou.members.v1.directory_pb2_grpc import DirectoryServiceAsyncStub

RATE_BP = 300


async def brand_opens(stage: Stage, cast: Cast) -> None:
    """Chapter 1: a brand, two stores, a flagship, two guides, a commission plan."""
    stage.chapter(1, "A brand opens two stores and a flagship online shop; guides are hired")
    operator: DirectoryServiceAsyncStub = DirectoryServiceStub(stage.channel("members", "PLATFORM"))
    brand = directory_pb2.Brand(display_name="Aurora 极光")
    opened = await stage.call(
        operator.CreateBrand, directory_pb2.CreateBrandRequest(request_id=str(uuid.uuid4()), brand=brand)
    )
    cast.brand_id = opened.brand.brand_id
    office = stage.channel("members", "BRAND_ADMIN", brand=cast.brand_id)
    directory: DirectoryServiceAsyncStub = DirectoryServiceStub(office)
    stores = await stage.call(
        directory.BatchCreateStores,
        directory_pb2.BatchCreateStoresRequest(
            brand_id=cast.brand_id, request_id=str(uuid.uuid4()), stores=_stores()
        ),
    )
    cast.stores = {result.store.display_name: result.store.store_id for result in stores.results}
    for name, store in (("Lin Mei", "Aurora Nanjing Road"), ("Chen Yu", "Aurora Xintiandi")):
        guide = directory_pb2.Guide(store_id=cast.stores[store], display_name=name)
        hired = await stage.call(
            directory.CreateGuide,
            directory_pb2.CreateGuideRequest(
                brand_id=cast.brand_id, request_id=str(uuid.uuid4()), guide=guide
            ),
        )
        cast.guides[name] = hired.guide.guide_id
        stage.say(f"{name} is hired at {store}.")
    listed = await stage.call(directory.ListStores, directory_pb2.ListStoresRequest(brand_id=cast.brand_id))
    stage.holds("Aurora has two stores and a flagship on Tmall", len(listed.stores), 3)
    await _publish_plan(stage, cast)


def _stores() -> list[directory_pb2.Store]:
    physical, flagship = directory_pb2.STORE_KIND_PHYSICAL, directory_pb2.STORE_KIND_FLAGSHIP
    nanjing_road = GeoPoint(latitude=31.2357, longitude=121.4737, datum=Datum.DATUM_GCJ02)
    xintiandi = GeoPoint(latitude=31.2198, longitude=121.4737, datum=Datum.DATUM_GCJ02)
    shop = directory_pb2.ShopAccount(channel=Channel.CHANNEL_TMALL, shop_id=TMALL_SHOP)
    return [
        directory_pb2.Store(display_name="Aurora Nanjing Road", kind=physical, location=nanjing_road),
        directory_pb2.Store(display_name="Aurora Xintiandi", kind=physical, location=xintiandi),
        directory_pb2.Store(display_name="Aurora Tmall flagship", kind=flagship, shops=[shop]),
    ]


async def _publish_plan(stage: Stage, cast: Cast) -> None:
    office = stage.channel("commission", "BRAND_ADMIN", brand=cast.brand_id)
    plans: PlanServiceAsyncStub = PlanServiceStub(office)
    owner = plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_OWNER, share_bp=10_000)
    rule = plan_pb2.Rule(rule_id="three-percent", rate_bp=RATE_BP, shares=[owner])
    plan = plan_pb2.Plan(display_name="3 % of every sale", rules=[rule])
    await stage.call(
        plans.PublishPlan,
        plan_pb2.PublishPlanRequest(brand_id=cast.brand_id, request_id=str(uuid.uuid4()), plan=plan),
    )
    stage.say("Head office publishes a plan: 3 % of what is paid, to the guide whose customer buys.")
