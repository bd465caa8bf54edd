"""One brand to try things on: two stores in one region and a flagship on Tmall, guides, a plan, a member."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from chassis.times import to_timestamp
from daogou.commission.v1 import ledger_pb2, order_event_pb2, plan_pb2
from daogou.commission.v1.order_event_pb2 import EventResult, OrderEvent, OrderEventKind, OrderLine
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.geo_pb2 import Datum, GeoPoint
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import directory_pb2, guide_code_pb2, member_pb2, region_pb2
from daogou.members.v1.directory_pb2 import BindingPolicy, Brand, Guide, ShopAccount, Store
from daogou.members.v1.guide_code_pb2 import ScanGuideCodeResponse
from tests.rpc.running import Caller, Running

RATE_BP: Final = 300
_COUNTER = itertools.count(1)


def request_id() -> str:
    """A name for one mutation."""
    return str(uuid.uuid4())


def store_of(name: str, **more: Any) -> Store:
    """A physical store that every contract accepts."""
    place = GeoPoint(latitude=31.23, longitude=121.47, datum=Datum.DATUM_GCJ02)
    return Store(
        **{"display_name": name, "kind": directory_pb2.STORE_KIND_PHYSICAL, "location": place, **more}
    )


def flagship_of(name: str, shop_id: str) -> Store:
    """The brand's shop on Tmall."""
    shop = ShopAccount(channel=Channel.CHANNEL_TMALL, shop_id=shop_id)
    return Store(display_name=name, kind=directory_pb2.STORE_KIND_FLAGSHIP, shops=[shop])


def rule_of(
    rule_id: str = "all", rate_bp: int = RATE_BP, share_bp: int = 10_000, **more: Any
) -> plan_pb2.Rule:
    """A rule that gives the owner a share."""
    owner = plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_OWNER, share_bp=share_bp)
    return plan_pb2.Rule(rule_id=rule_id, rate_bp=rate_bp, shares=[owner], **more)


def plan_of(*rules: plan_pb2.Rule, **more: Any) -> plan_pb2.Plan:
    """A plan that is in force from now on."""
    return plan_pb2.Plan(**{"display_name": "3 % of everything", "rules": rules or [rule_of()], **more})


def line_of(line_id: str, paid_minor: int, **more: Any) -> OrderLine:
    """One piece of an article that has the line's name."""
    return OrderLine(
        **{
            "line_id": line_id,
            "sku_id": line_id,
            "quantity": 1,
            "list_minor": paid_minor,
            "paid_minor": paid_minor,
            **more,
        }
    )


@dataclass
class World:
    """A brand and its people."""

    running: Running
    brand_id: str
    shop_id: str
    region_id: str
    """The two stores lie in it; the flagship in none."""
    nanjing_road: str
    xintiandi: str
    flagship: str
    guides: list[str]
    """The first and the second stand in Nanjing Road, the others in Xintiandi."""
    platform: Caller
    admin: Caller
    connector: Caller
    service: Caller
    plan_id: str = ""
    member_id: str = ""
    phone: Identity | None = None
    """Of the member."""

    def store_of_guide(self, index: int) -> str:
        """Where a guide stands."""
        return self.nanjing_road if index < 2 else self.xintiandi

    def guide(self, index: int = 0) -> Caller:
        """A guide, calling."""
        store = self.store_of_guide(index)
        return self.running.caller("GUIDE", brand=self.brand_id, store=store, guide=self.guides[index])

    def manager(self, store: str = "") -> Caller:
        """The manager of a store: Nanjing Road unless another is named."""
        return self.running.caller("STORE_MANAGER", brand=self.brand_id, store=store or self.nanjing_road)

    def identity(self, kind: IdentityKind.ValueType = IdentityKind.IDENTITY_KIND_PHONE) -> Identity:
        """A new customer's identity, which must show up in no log."""
        number = secrets.randbelow(10**8)
        value = (
            f"+86139{number:08d}"
            if kind == IdentityKind.IDENTITY_KIND_PHONE
            else f"cust-{secrets.token_hex(9)}"
        )
        self.running.canaries.identities.add(value)
        return Identity(kind=kind, value=value)

    async def code(self, index: int = 0, **more: Any) -> str:
        """A guide's code."""
        request = guide_code_pb2.CreateGuideCodeRequest(
            brand_id=self.brand_id, store_id=self.store_of_guide(index), guide_id=self.guides[index], **more
        )
        return (await self.connector.codes.CreateGuideCode(request)).code

    async def scan(self, code: str, identity: Identity, **more: Any) -> ScanGuideCodeResponse:
        """A customer scans a code."""
        request = guide_code_pb2.ScanGuideCodeRequest(
            brand_id=self.brand_id, code=code, identity=identity, **more
        )
        return await self.connector.codes.ScanGuideCode(request)

    async def bound(self, index: int = 0) -> tuple[str, Identity]:
        """A new customer who is a guide's: his member id and an identity on Tmall."""
        buyer = self.identity(IdentityKind.IDENTITY_KIND_TAOBAO_OPEN_ID)
        return (await self.scan(await self.code(index), buyer)).member_id, buyer

    # ---- orders -------------------------------------------------------------------------------------

    async def ingest(self, *events: OrderEvent) -> list[EventResult]:
        """Reports events; what became of each."""
        request = order_event_pb2.IngestOrderEventsRequest(brand_id=self.brand_id, events=events)
        return list((await self.connector.events.IngestOrderEvents(request)).results)

    async def owed(self, index: int) -> int:
        """What the brand owes to a guide, in fen."""
        request = ledger_pb2.GetBalanceRequest(brand_id=self.brand_id, guide_id=self.guides[index])
        return (await self.admin.ledger.GetBalance(request)).payable_minor

    async def owed_to_pool(self, store_id: str) -> int:
        """What the brand owes to a store's pool, in fen."""
        request = ledger_pb2.GetBalanceRequest(brand_id=self.brand_id, pool_store_id=store_id)
        return (await self.admin.ledger.GetBalance(request)).payable_minor

    async def explained(self, order: Order) -> ledger_pb2.ExplainOrderResponse:
        """The whole way from the order's events to its entries."""
        request = ledger_pb2.ExplainOrderRequest(
            brand_id=self.brand_id, channel=order.channel, order_id=order.order_id
        )
        return await self.admin.ledger.ExplainOrder(request)

    async def trial_balance(self) -> ledger_pb2.GetTrialBalanceResponse:
        """The sums of the brand's accounts."""
        return await self.admin.ledger.GetTrialBalance(
            ledger_pb2.GetTrialBalanceRequest(brand_id=self.brand_id)
        )

    def order(self, channel: Channel.ValueType = Channel.CHANNEL_TMALL, **more: Any) -> Order:
        """An order placed two hours ago: on Tmall in the flagship, elsewhere in Nanjing Road."""
        seller = {"shop_id": self.shop_id} if channel == Channel.CHANNEL_TMALL else {}
        if channel != Channel.CHANNEL_TMALL:
            seller = {"selling_store_id": self.nanjing_road}
        return Order(
            channel=channel,
            order_id=f"order-{next(_COUNTER)}-{secrets.token_hex(4)}",
            placed_time=self.running.now() - timedelta(hours=2),
            fields={**seller, **more},
        )


@dataclass(frozen=True)
class Order:
    """What all events of one order have in common."""

    channel: Channel.ValueType
    order_id: str
    placed_time: datetime
    fields: dict[str, Any]

    def event(
        self, event_id: str, kind: OrderEventKind.ValueType, *, after: timedelta, **more: Any
    ) -> OrderEvent:
        """An event some time after the order was placed."""
        return OrderEvent(
            **{
                "channel": self.channel,
                "order_id": self.order_id,
                "event_id": event_id,
                "kind": kind,
                "happened_time": to_timestamp(self.placed_time + after),
                "order_placed_time": to_timestamp(self.placed_time),
                "currency_code": "CNY",
                **self.fields,
                **more,
            }
        )

    def placed(self, *lines: OrderLine) -> OrderEvent:
        """The order was placed."""
        return self.event("PLACED", OrderEventKind.ORDER_EVENT_KIND_PLACED, after=timedelta(0), lines=lines)

    def paid(self, *lines: OrderLine, number: int = 1, **more: Any) -> OrderEvent:
        """A payment was made."""
        kind, after = OrderEventKind.ORDER_EVENT_KIND_PAID, timedelta(minutes=number)
        return self.event(f"PAID:{number}", kind, **{"after": after, "lines": lines, **more})

    def shipped(self) -> OrderEvent:
        """A parcel was sent."""
        kind = OrderEventKind.ORDER_EVENT_KIND_SHIPPED
        return self.event("SHIPPED:SF1", kind, after=timedelta(minutes=30))

    def received(self) -> OrderEvent:
        """The customer has the goods."""
        kind = OrderEventKind.ORDER_EVENT_KIND_RECEIVED
        return self.event("RECEIVED", kind, after=timedelta(minutes=50))

    def refunded(
        self, *lines: order_event_pb2.RefundLine, number: int = 1, goodwill_minor: int = 0
    ) -> OrderEvent:
        """Money was paid back."""
        kind, after = OrderEventKind.ORDER_EVENT_KIND_REFUNDED, timedelta(hours=1, minutes=number)
        return self.event(
            f"REFUND:{number}", kind, after=after, refund_lines=lines, goodwill_minor=goodwill_minor
        )

    def closed(self) -> OrderEvent:
        """The order was cancelled."""
        kind = OrderEventKind.ORDER_EVENT_KIND_CLOSED
        return self.event("CLOSED", kind, after=timedelta(minutes=100))


def refund_of(line_id: str, refunded_minor: int) -> order_event_pb2.RefundLine:
    """One piece came back."""
    return order_event_pb2.RefundLine(line_id=line_id, refunded_minor=refunded_minor, quantity=1)


async def a_world(
    running: Running,
    *,
    guides: int = 3,
    names: Sequence[str] = (),
    policy: BindingPolicy | None = None,
    plan: plan_pb2.Plan | None = None,
    member: bool = True,
    time_zone: str = "",
    currency_code: str = "",
) -> World:
    """A brand with its people. The plan is in force from now on, so orders in it are placed later."""
    platform = running.caller("PLATFORM")
    brand = Brand(
        display_name=names[0] if names else "Aurora 极光",
        binding_policy=policy,
        business_time_zone=time_zone,
        currency_code=currency_code,
    )
    opened = await platform.directory.CreateBrand(
        directory_pb2.CreateBrandRequest(request_id=request_id(), brand=brand)
    )
    brand_id = opened.brand.brand_id
    admin = running.caller("BRAND_ADMIN", brand=brand_id)
    shop_id = f"shop-{secrets.token_hex(4)}"
    label = names[0] if names else "Aurora"
    region = await admin.regions.CreateRegion(
        region_pb2.CreateRegionRequest(
            brand_id=brand_id,
            request_id=request_id(),
            region=region_pb2.Region(display_name=f"{label} East"),
        )
    )
    region_id = region.region.region_id
    stores = [
        store_of(f"{label} Nanjing Road", region_id=region_id),
        store_of(f"{label} Xintiandi", region_id=region_id),
        flagship_of(f"{label} flagship", shop_id),
    ]
    made = await admin.directory.BatchCreateStores(
        directory_pb2.BatchCreateStoresRequest(brand_id=brand_id, request_id=request_id(), stores=stores)
    )
    nanjing_road, xintiandi, flagship = (result.store.store_id for result in made.results)
    hired = await admin.directory.BatchCreateGuides(
        directory_pb2.BatchCreateGuidesRequest(
            brand_id=brand_id,
            request_id=request_id(),
            guides=[
                Guide(
                    store_id=nanjing_road if index < 2 else xintiandi,
                    display_name=f"{names[1]} {index}" if len(names) > 1 else f"Guide {index}",
                )
                for index in range(guides)
            ],
        )
    )
    world = World(
        running=running,
        brand_id=brand_id,
        shop_id=shop_id,
        region_id=region_id,
        nanjing_road=nanjing_road,
        xintiandi=xintiandi,
        flagship=flagship,
        guides=[result.guide.guide_id for result in hired.results],
        platform=platform,
        admin=admin,
        connector=running.caller("CONNECTOR", brand=brand_id),
        service=running.caller("SERVICE"),
    )
    if plan is not None:
        published = await admin.plans.PublishPlan(
            plan_pb2.PublishPlanRequest(brand_id=brand_id, request_id=request_id(), plan=plan)
        )
        world.plan_id = published.plan.plan_id
        # Orders of the tests are placed two hours ago; the plan is to be in force by then.
        running.later(hours=3)
    if member:
        world.phone = world.identity()
        enrolled = await world.connector.members.EnrolMember(
            member_pb2.EnrolMemberRequest(brand_id=brand_id, identities=[world.phone])
        )
        world.member_id = enrolled.member.member_id
    return world
