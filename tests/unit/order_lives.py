"""Lives of orders under anything that may fall between two steps: a simulation that a seed decides.

The service's own parts run (ingest, rounds, outbox, stores, the members client), several processes of them at
once, over a database in memory. Whatever they await is a step: there the scheduler lets another go on, lets
time pass, fails a command before or after it was carried out, or kills a process with all that it had begun.
Feeds report every event several times, shuffled, and again whatever was not answered. In the end nobody dies
any more, the rounds finish what was left, and `problems` says what is not as it must be.
"""

from __future__ import annotations

import contextvars
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import coroutine
from typing import Any, Final, cast

import grpc
from pymongo.errors import AutoReconnect
from structlog.testing import capture_logs

from chassis import backoff
from chassis.background import Round
from chassis.clock import to_milliseconds
from chassis.errors import Unavailable
from chassis.mongo import failures, outbox
from chassis.mongo.connection import Database
from chassis.sealing import KeyRing, Sealer
from chassis.times import from_timestamp, to_timestamp
from daogou.commission.v1.order_event_pb2 import (
    EventOutcome,
    OrderEvent,
    OrderEventKind,
    OrderLine,
    RefundLine,
)
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import activity_pb2, binding_pb2, directory_pb2
from svc_commission.background import Rounds
from svc_commission.members_client import MembersClient
from svc_commission.month.leases import Leases
from svc_commission.month.store_month import MonthStore
from svc_commission.order import documents, purchases, sales
from svc_commission.order.booking import Booking
from svc_commission.order.ingest import Ingest, Verdict
from svc_commission.order.purchases import Purchases
from svc_commission.order.store_first_purchase import FirstPurchaseStore
from svc_commission.order.store_order import OrderStore, order_key
from svc_commission.plan import plans
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import order
from svc_commission.rules.plan import Hold, Match, PayeeRole, Plan, Purchase, Rule, Share
from tests.memory_mongo import MemoryDatabase

LIVES: Final = 40
"""Orders of one simulation."""
BUYERS: Final = 12
TIMES: Final = 3
"""How often a feed reports each event, at least."""
PROCESSES: Final = 3
FEEDS: Final = 6
"""Calls that are under way at once."""
BRAND: Final = "brand".ljust(16, "a")
EAST: Final = "east".ljust(16, "a")
FLAGSHIP: Final = "flagship".ljust(16, "a")
SOLD: Final = datetime(2026, 3, 1, tzinfo=UTC)
BEGIN: Final = SOLD + timedelta(days=25)
SEALER: Final = Sealer(KeyRing("k1", {"k1": b"1" * 32}), b"i" * 32)
OWNER: Final = (Share(PayeeRole.OWNER, 10_000),)
PLAN: Final = Plan(
    "plan",
    SOLD - timedelta(days=30),
    None,
    (
        Rule("first", Match(purchase=Purchase.FIRST), 1000, OWNER),
        Rule("repeat", Match(purchase=Purchase.REPEAT), 233, OWNER),
    ),
    holds={"TMALL": Hold(days=7, from_payment=False)},
)
TMALL: Final = Channel.CHANNEL_TMALL
POS: Final = Channel.CHANNEL_POS
QUIET: Final = ("relay", "parked", "outbox")
"""Fields of an order that are there for as long as something of it is still to be done."""
_DAY_S: Final = 86_400


@coroutine
def _pause() -> Generator[None, None, None]:
    yield


# ---- what happens to orders --------------------------------------------------------------------------


@dataclass
class Life:
    """One order: its events, and one that contradicts what is known, if any. `buyer` None: nobody knows."""

    channel: Channel.ValueType
    order_id: str
    buyer: int | None
    events: list[OrderEvent]
    contradiction: OrderEvent | None

    @property
    def key(self) -> str:
        return order_key(BRAND, documents.channel_name(self.channel), self.order_id)

    @property
    def placed_time(self) -> datetime:
        return from_timestamp(self.events[0].order_placed_time)

    def paid_times(self) -> list[datetime]:
        kind = OrderEventKind.ORDER_EVENT_KIND_PAID
        return [from_timestamp(event.happened_time) for event in self.events if event.kind == kind]


def lives_of(draw: random.Random) -> list[Life]:
    """Orders of a few buyers, so that their first purchases are contested."""
    return [_life(draw, number) for number in range(LIVES)]


def _life(draw: random.Random, number: int) -> Life:
    channel = draw.choice([TMALL, TMALL, POS])
    buyer = None if draw.random() < 0.1 else draw.randrange(BUYERS)
    placed = SOLD + timedelta(minutes=draw.randrange(12 * 24 * 60))
    # A few shops are known to the directory only later: their orders have to wait.
    named: dict[str, Any] = (
        {"shop_id": f"shop-{draw.choice('kkkl')}"} if channel == TMALL else {"selling_store_id": EAST}
    )
    if buyer is not None and draw.random() < 0.5:
        named["member_id"] = member(buyer)
    elif buyer is not None:
        kind = IdentityKind.IDENTITY_KIND_TAOBAO_OPEN_ID
        named["identity"] = Identity(kind=kind, value=f"open-{buyer}")

    def event(event_id: str, minutes: float, **more: Any) -> OrderEvent:
        return OrderEvent(
            channel=channel,
            order_id=f"order-{number}",
            event_id=event_id,
            kind=OrderEventKind.Value(f"ORDER_EVENT_KIND_{_kind(event_id)}"),
            happened_time=to_timestamp(placed + timedelta(minutes=minutes)),
            order_placed_time=to_timestamp(placed),
            currency_code="CNY",
            **named,
            **more,
        )

    amounts = {
        f"line-{place}": draw.choice([0, 1, 333, 9_999, 10_000]) for place in range(draw.randint(1, 3))
    }
    events = [event("PAID:1", 2, lines=_lines(amounts))]
    if draw.random() < 0.5:
        events.append(event("PLACED", 0, lines=_lines(amounts)))
    if draw.random() < 0.2:
        events.append(event("PAID:2", 90, lines=_lines(dict.fromkeys(amounts, 700))))
    if draw.random() < 0.7:
        events.append(event("SHIPPED:1", 60 * 30))
    if draw.random() < 0.7:
        events.append(event("RECEIVED", 60 * 70))
    for back in range(draw.choice([0, 0, 1, 2])):
        name, paid = draw.choice(sorted(amounts.items()))
        line = RefundLine(line_id=name, refunded_minor=paid // 3 + 1, quantity=1)
        events.append(event(f"REFUND:{back}", draw.randrange(60 * 24 * 12), refund_lines=[line]))
    if draw.random() < 0.1:
        events.append(event("CLOSED", 60 * 80))
    contradicts = draw.random() < 0.2
    wrong = event("PAID:1", 2, lines=_lines({"line-0": 77})) if contradicts else None
    return Life(channel, f"order-{number}", buyer, events, wrong)


def _kind(event_id: str) -> str:
    return event_id.partition(":")[0].replace("REFUND", "REFUNDED")


def _lines(amounts: Mapping[str, int]) -> list[OrderLine]:
    return [
        OrderLine(line_id=name, sku_id=name, quantity=1, list_minor=paid, paid_minor=paid)
        for name, paid in amounts.items()
    ]


def member(buyer: int) -> str:
    return f"member{'abcdefghijkl'[buyer]}".ljust(16, "a")


def guide(buyer: int) -> str:
    """Whose member a buyer is."""
    return f"guide{'abc'[buyer % 3]}".ljust(16, "a")


# ---- the members service -----------------------------------------------------------------------------


@dataclass
class Members:
    """Answers as the members service does, unless it is away; knows all shops only after a while."""

    step: Callable[[str], Awaitable[None]]
    draw: random.Random
    away: bool = False
    knows_all: bool = False
    bought: dict[str, datetime] = field(default_factory=dict)
    """When each member was told to have bought last."""

    def unary_unary(self, method: str, **_options: Any) -> Callable[..., Awaitable[Any]]:
        """As a channel of gRPC, which the service's own client calls."""

        async def call(request: Any, timeout: float) -> Any:  # noqa: ASYNC109 -- as gRPC calls it
            await self.step(f"members {method}")
            if self.away:
                nothing = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "away")
            answer = getattr(self, method.rpartition("/")[2])(request)
            await self.step(f"members {method} answered")
            return answer

        return call

    unary_stream = unary_unary

    def GetBrand(self, request: directory_pb2.GetBrandRequest) -> directory_pb2.GetBrandResponse:
        brand = directory_pb2.Brand(
            brand_id=request.brand_id, business_time_zone="Asia/Shanghai", currency_code="CNY"
        )
        return directory_pb2.GetBrandResponse(brand=brand)

    def BatchGetStores(
        self, request: directory_pb2.BatchGetStoresRequest
    ) -> directory_pb2.BatchGetStoresResponse:
        reply = directory_pb2.BatchGetStoresResponse()
        for key in request.keys:
            known = self.knows_all or key.shop.shop_id != "shop-l"
            found = key.store_id or (FLAGSHIP if known else "")
            reply.results.add().store.store_id = found
        return reply

    def BatchGetGuides(
        self, request: directory_pb2.BatchGetGuidesRequest
    ) -> directory_pb2.BatchGetGuidesResponse:
        reply = directory_pb2.BatchGetGuidesResponse()
        for guide_id in request.guide_ids:
            found = reply.results.add().guide
            found.guide_id = guide_id
            found.postings.add(store_id=EAST).from_time.CopyFrom(to_timestamp(SOLD))
        return reply

    def BatchResolveBindings(
        self, request: binding_pb2.BatchResolveBindingsRequest
    ) -> binding_pb2.BatchResolveBindingsResponse:
        reply = binding_pb2.BatchResolveBindingsResponse()
        for query in request.queries:
            by_identity = query.identity.value.removeprefix("open-")
            buyer = int(by_identity) if by_identity else "abcdefghijkl".index(query.member_id[len("member")])
            reply.resolved.add(
                member_id=member(buyer), binding_id=f"row-{buyer}", guide_id=guide(buyer), store_id=EAST
            )
        return reply

    def BatchRecordPurchases(
        self, request: activity_pb2.BatchRecordPurchasesRequest
    ) -> activity_pb2.BatchRecordPurchasesResponse:
        reply = activity_pb2.BatchRecordPurchasesResponse()
        for purchase in request.purchases:
            result = reply.results.add()
            if self.draw.random() < 0.1:
                result.error.reason = "MEMBER_CHANGED"
                continue
            time = from_timestamp(purchase.purchase_time)
            self.bought[purchase.member_id] = max(time, self.bought.get(purchase.member_id, time))
        return reply


# ---- processes ---------------------------------------------------------------------------------------


@dataclass
class Job:
    """Something that a process has begun, and what is to be done with its result, or when it came to none."""

    work: Coroutine[Any, Any, Any]
    done: Callable[[Any], None]
    lost: Callable[[], None]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    stalled_until: int = 0
    """The turn of the scheduler before which it does not go on."""


@dataclass
class Process:
    """One replica of the service: its parts, with all that they remember, and what they are at."""

    ingest: Ingest
    rounds: dict[str, Round]
    jobs: list[Job] = field(default_factory=list)
    at_rounds: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Dangers:
    """How likely each step is to fail or to be followed by a long pause of whoever took it.

    And each turn of the scheduler to kill a process, or to let the members service leave or come back.
    """

    fails: float
    stalls: float
    kills: float
    leaves: float


NO_DANGERS: Final = Dangers(0, 0, 0, 0)


def _dangers(draw: random.Random) -> Dangers:
    """Of another mixture in every simulation: some faults show where much fails, others where little does."""
    return Dangers(
        fails=draw.choice([0.001, 0.004, 0.02]),
        stalls=draw.choice([0, 0.02, 0.1]),
        kills=draw.choice([0.002, 0.008, 0.03]),
        leaves=draw.choice([0, 0.002]),
    )


class Lives:
    """One simulation."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counts: Counter[str] = Counter()
        """What happened, and how often."""
        self._draw = random.Random(seed)
        self._dangers = _dangers(self._draw)
        self._turns = 0
        self._now = BEGIN
        self._ids = 0
        self.lives = lives_of(self._draw)
        self.members = Members(self._step, self._draw)
        self.database = MemoryDatabase(self._step)
        self.database["plans"].documents[BRAND] = {
            "_id": BRAND,
            "rev": 1,
            "plans": [plans.plan_document(PLAN)],
            "receipts": [],
        }
        self._processes = [self._process() for _ in range(PROCESSES)]
        self._calls = self._shuffled_calls()

    def run(self) -> list[str]:
        """Lives it through; what is not as it must be in the end."""
        with _pausing_by(self._again), capture_logs():
            self._live()
            # What contradicts is told apart only once all else is known.
            wrong = [life.contradiction for life in self.lives if life.contradiction is not None]
            self._calls = [wrong, wrong] if wrong else []
            self._live()
            self._recover()
        return list(self.problems())

    # ---- the scheduler -------------------------------------------------------------------------------

    def _live(self) -> None:
        """Until every call has been answered."""
        reporting = 0

        def answered(call: list[OrderEvent], verdicts: Sequence[Verdict]) -> None:
            nonlocal reporting
            reporting -= 1
            rejected = EventOutcome.EVENT_OUTCOME_REJECTED
            self.counts.update(EventOutcome.Name(one.outcome) for one in verdicts)
            again = [one for one, verdict in zip(call, verdicts, strict=True) if verdict.outcome == rejected]
            if again:
                self._calls.append(again)

        def unanswered(call: list[OrderEvent]) -> None:
            nonlocal reporting
            reporting -= 1
            self.counts["calls sent again"] += 1
            self._calls.insert(self._draw.randint(0, len(self._calls)), call)

        while self._calls or reporting:
            process = self._draw.choice(self._processes)
            if self._calls and reporting < FEEDS and self._draw.random() < 0.2:
                call = self._calls.pop()
                reporting += 1
                work = process.ingest.ingest(BRAND, call)
                process.jobs.append(Job(work, partial(answered, call), partial(unanswered, call)))
            elif self._draw.random() < 0.03:
                self._begin_round(process, self._draw.choice(sorted(process.rounds)))
            elif ready := [job for job in process.jobs if job.stalled_until <= self._turns]:
                job = self._draw.choice(ready)
                if self._draw.random() < self._dangers.stalls:
                    job.stalled_until = self._turns + self._draw.choice([30, 300])
                self._go_on(process, job)
            self._let_things_happen(process)
            self._turns += 1

    def _let_things_happen(self, process: Process) -> None:
        """Time passes; members leaves or comes back; the process dies."""
        self._now += timedelta(milliseconds=self._draw.choice([0, 1, 5, 40]))
        if self._draw.random() < 0.001:
            self._now += timedelta(seconds=self._draw.choice([3, 20, _DAY_S]))
        if self._draw.random() < self._dangers.leaves:
            self.members.away = not self.members.away
        self.members.knows_all = self.members.knows_all or len(self._calls) < LIVES // 2
        if self._draw.random() < self._dangers.kills:
            self.counts["processes killed"] += 1
            self._kill(process)

    def _begin_round(self, process: Process, name: str) -> None:
        """As `chassis.background` does: none of a kind before the last one is over."""
        if name in process.at_rounds:
            return
        process.at_rounds.add(name)

        def over() -> None:
            process.at_rounds.discard(name)

        work = cast("Coroutine[Any, Any, Any]", process.rounds[name]())
        process.jobs.append(Job(work, lambda _more: over(), over))

    def _go_on(self, process: Process, job: Job) -> None:
        """One step of a job."""
        self.counts["steps"] += 1
        try:
            job.context.run(job.work.send, None)
        except StopIteration as finished:
            process.jobs.remove(job)
            job.done(finished.value)
        except Exception as error:
            if not isinstance(error, Unavailable) and failures.as_error(error) is None:
                raise
            process.jobs.remove(job)
            self.counts["calls and rounds failed"] += 1
            job.lost()

    def _kill(self, process: Process) -> None:
        """kill -9: nothing that it had begun goes on, and it remembers nothing when it is started again."""
        for job in process.jobs:
            job.context.run(job.work.close)
            job.lost()
        fresh = self._process()
        process.ingest, process.rounds, process.jobs = fresh.ingest, fresh.rounds, []
        process.at_rounds = set()

    async def _again(self) -> None:
        """Between two attempts of a call that others came before."""
        self.counts["attempts repeated"] += 1
        await self._step("again")

    async def _step(self, what: str) -> None:
        """Before each step that a process takes: others may go on, or it fails."""
        await _pause()
        if self._draw.random() < self._dangers.fails:
            raise AutoReconnect(what)

    # ---- the scene -----------------------------------------------------------------------------------

    def _new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    def _process(self) -> Process:
        """A replica, put together as the composition root does."""
        database = cast("Database", self.database)
        orders, firsts = OrderStore(database), FirstPurchaseStore(database)
        members = MembersClient(cast("grpc.aio.Channel", self.members))
        now: Callable[[], datetime] = lambda: to_milliseconds(self._now)  # noqa: E731
        leases = Leases(MonthStore(database), 3600.0)
        plans = PlanStore(database)
        booking = Booking(orders, plans, firsts, members, SEALER, now, self._new_id, leases)
        ingest = Ingest(orders, booking, SEALER, now)
        told = outbox.Relay(database["orders"], {purchases.KIND: Purchases(members).deliver}, now)
        return Process(ingest, {**Rounds(orders, firsts, booking, now).all(), "outbox": told.round})

    def _shuffled_calls(self) -> list[list[OrderEvent]]:
        """Every event several times, in calls of any size."""
        events = [event for life in self.lives for event in life.events] * TIMES
        self._draw.shuffle(events)
        calls = []
        while events:
            size = self._draw.choice([1, 2, 5, 15])
            calls.append(events[:size])
            events = events[size:]
        return calls

    def _recover(self) -> None:
        """Nobody dies any more: the rounds finish what was left."""
        self._dangers = NO_DANGERS
        self.members.away, self.members.knows_all = False, True
        for process in self._processes:
            self._kill(process)
        process = self._processes[0]
        for wait_s in (*[15] * 4, _DAY_S, 40 * _DAY_S, *[15] * 4, _DAY_S, 15):
            self._now += timedelta(seconds=wait_s)
            for name in process.rounds:
                self._begin_round(process, name)
                while process.jobs:
                    self._go_on(process, process.jobs[0])

    # ---- what must hold ------------------------------------------------------------------------------

    def problems(self) -> Iterator[str]:
        """Everything that is not as it must be, now that all was reported and nothing is under way."""
        stored = self.database["orders"].documents
        yield from (f"{key}: nobody reported it" for key in stored.keys() - {life.key for life in self.lives})
        firsts = self._firsts()
        for life in self.lives:
            if life.key not in stored:
                yield f"{life.key}: lost"
                continue
            document = stored[life.key]
            yield from self._of_order(life, document, firsts)
        yield from self._of_journal()
        told = {
            member(buyer): max(
                time for life in self.lives if life.buyer == buyer for time in life.paid_times()
            )
            for buyer in {life.buyer for life in self.lives} - {None}
            if buyer is not None
        }
        if told != self.members.bought:
            yield f"members was told {self.members.bought}, not {told}"
        kept = Counter(one["order_key"] for one in self.database["quarantine"].documents.values())
        if kept != {life.key: 1 for life in self.lives if life.contradiction}:
            yield f"in quarantine: {kept}"

    def _firsts(self) -> set[str]:
        """The key of each member's first purchase."""
        by_buyer: dict[int, list[Life]] = {}
        for life in self.lives:
            if life.buyer is not None:
                by_buyer.setdefault(life.buyer, []).append(life)
        channel = documents.channel_name
        return {
            min(bought, key=lambda one: (one.placed_time, channel(one.channel), one.order_id)).key
            for bought in by_buyer.values()
        }

    def _of_order(self, life: Life, document: Mapping[str, Any], firsts: set[str]) -> Iterator[str]:
        """The order has every event once, and the journal what all of them come to."""
        ids = Counter(event["event_id"] for event in document["events"])
        if ids != Counter(event.event_id for event in life.events):
            yield f"{life.key}: events {sorted(ids.elements())}"
        if waiting := [name for name in QUIET if name in document]:
            yield f"{life.key}: still has {waiting}"
        frozen = document["attribution"]
        owner = f"pool:{EAST if life.channel == POS else FLAGSHIP}"
        owner = owner if life.buyer is None else f"guide:{guide(life.buyer)}"
        if frozen is None or frozen["owner"] != owner:
            yield f"{life.key}: attributed to {frozen and frozen['owner']}"
            return
        first = document.get("first_purchase", False)
        if first != (life.key in firsts):
            yield f"{life.key}: first purchase {first}"
        reported = [
            documents.event_of(documents.event_document(event, life.key, b"", self._now, SEALER))
            for event in life.events
        ]
        # By now everything has been confirmed that ever will be.
        around = replace(
            documents.circumstances_of(dict(document)),
            first_purchase=life.key in firsts,
            confirmed_through=self._now,
        )
        books = order.fold(
            reported, documents.channel_name(life.channel), documents.attribution_of(frozen), PLAN, around
        )
        wanted: Counter[tuple[str, ...]] = Counter()
        for target, amount in books.targets.items():
            month = documents.month_text(target.month)
            wanted[target.line_id, target.account.value, target.payee, month] += amount
        posted = self._posted(life.key)
        if posted != {key: amount for key, amount in wanted.items() if amount}:
            yield f"{life.key}: posted {posted}, not {dict(wanted)}"
        counted = sales.counted(
            one for one in self.database["sales"].documents.values() if one["_id"].startswith(f"{life.key}|")
        )
        if counted != books.sales_credits.each():
            yield f"{life.key}: counted {counted}, not {books.sales_credits.each()}"

    def _posted(self, key: str) -> dict[tuple[str, ...], int]:
        posted: Counter[tuple[str, ...]] = Counter()
        for entry in self.database["journal"].documents.values():
            if entry["order_key"] == key:
                for one in entry["postings"]:
                    month = entry["posting_month"]
                    posted[one["line_id"], one["account"], one["payee"], month] += one["amount_minor"]
        return {name: amount for name, amount in posted.items() if amount}

    def _of_journal(self) -> Iterator[str]:
        for entry in self.database["journal"].documents.values():
            if sum(one["amount_minor"] for one in entry["postings"]):
                yield f"{entry['_id']}: does not balance"
        if left := [
            one for one in self.database["first_purchases"].documents.values() if "retry_time" in one
        ]:
            yield f"displaced and not made anew: {left}"


@contextmanager
def _pausing_by(step: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Lets whoever waits before another attempt take a step of the simulation instead."""
    original = backoff.pause

    async def pause(attempt: int) -> None:
        await step()

    backoff.pause = pause
    try:
        yield
    finally:
        backoff.pause = original
