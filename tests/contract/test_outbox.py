"""The outbox: every message is delivered, at least once, whatever fails, and waits for no other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from chassis.mongo import outbox, schema
from chassis.mongo.connection import Collection, Database
from chassis.mongo.outbox import LEASE, RETRY_AFTER, RETRY_AFTER_MOST, Message, Relay
from chassis.mongo.schema import Schema

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)


class Receiver:
    """Another service: knows a message again, and refuses what it is told to."""

    def __init__(self) -> None:
        self.got: Counter[str] = Counter()
        self.refuses: set[str] = set()
        self.away = False

    async def deliver(self, messages: Sequence[Message]) -> list[bool]:
        """Takes in what it does not refuse."""
        if self.away:
            raise ConnectionError("away")
        taken = [one.message_id not in self.refuses for one in messages]
        self.got.update(one.message_id for one, took in zip(messages, taken, strict=True) if took)
        return taken


@pytest.fixture
async def facts(database: Database) -> Collection:
    await schema.migrate(database, Schema(1, [outbox.index_of("facts")]))
    return database["facts"]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


async def told(facts: Collection, number: int, *messages: str, time: datetime = NOON) -> None:
    """A fact, with what it has to tell."""
    sent = [outbox.message(name, "told", {"number": number}, time) for name in messages]
    await facts.insert_one({"_id": f"fact-{number}", "outbox": sent})


def relay(facts: Collection, receiver: Receiver, now: Callable[[], datetime] = lambda: NOON) -> Relay:
    """A relay to the receiver."""
    return Relay(facts, {"told": receiver.deliver}, now)


async def waiting(facts: Collection) -> int:
    """How many facts have something to tell still."""
    return int(await facts.count_documents({"outbox": {"$exists": True}}))


@pytest.mark.both_drivers
async def test_what_is_due_is_delivered_once_and_taken_out(facts: Collection, receiver: Receiver) -> None:
    """Of each document all its messages; the documents stay."""
    for number in range(20):
        await told(facts, number, f"a{number}", f"b{number}")
    await relay(facts, receiver).round()
    await relay(facts, receiver).round()
    assert receiver.got == Counter({f"{name}{number}": 1 for name in "ab" for number in range(20)})
    assert await waiting(facts) == 0
    assert await facts.count_documents({}) == 20


async def test_what_is_not_due_waits(facts: Collection, receiver: Receiver) -> None:
    """A message of a document may be due while another is not."""
    await told(facts, 1, "later", time=NOON + timedelta(seconds=1))
    await relay(facts, receiver).round()
    assert receiver.got == Counter()
    await relay(facts, receiver, lambda: NOON + timedelta(seconds=1)).round()
    assert receiver.got == Counter(later=1)


async def test_one_that_is_refused_keeps_no_other_waiting(facts: Collection, receiver: Receiver) -> None:
    """Not even of its own document; it is tried again, later and later, and never given up."""
    receiver.refuses = {"bad"}
    await told(facts, 1, "good", "bad")
    await told(facts, 2, "other")
    now, waits = NOON, []

    def later() -> datetime:
        return now

    for _ in range(12):
        await relay(facts, receiver, later).round()
        [left] = (await facts.find_one({"outbox": {"$exists": True}}) or {})["outbox"]
        waits.append(left["due_time"] - now)
        now = left["due_time"]
    assert receiver.got == Counter(good=1, other=1)
    assert waits[0] == RETRY_AFTER
    assert waits == sorted(waits)
    assert waits[-1] == RETRY_AFTER_MOST
    receiver.refuses = set()
    await relay(facts, receiver, later).round()
    assert receiver.got["bad"] == 1
    assert await waiting(facts) == 0


async def test_nothing_is_lost_while_the_receiver_is_away(facts: Collection, receiver: Receiver) -> None:
    """It gets all of it when it is back."""
    receiver.away = True
    await told(facts, 1, "one", "two")
    await relay(facts, receiver).round()
    assert await waiting(facts) == 1
    receiver.away = False
    await relay(facts, receiver, lambda: NOON + RETRY_AFTER).round()
    assert receiver.got == Counter(one=1, two=1)


async def test_two_relays_deliver_everything_between_them(facts: Collection, receiver: Receiver) -> None:
    """More than once at most where both took it up in the same moment."""
    for number in range(50):
        await told(facts, number, f"m{number}")
    await asyncio.gather(*(relay(facts, receiver).round() for _ in range(2)))
    assert set(receiver.got) == {f"m{number}" for number in range(50)}
    assert max(receiver.got.values()) <= 2
    assert await waiting(facts) == 0


@pytest.mark.both_drivers
async def test_what_another_took_out_meanwhile_holds_up_nothing(
    facts: Collection, receiver: Receiver
) -> None:
    """Due for both; by the time the slower one takes it up, nothing is left of the document's outbox."""
    await facts.insert_one({"_id": "fact-1", "outbox": [outbox.message("early", "early", {}, NOON)]})
    await told(facts, 2, "taken")
    await told(facts, 3, "left", time=NOON)
    kinds = {"early": receiver.deliver, "told": receiver.deliver}

    async def slowly(messages: Sequence[Message]) -> list[bool]:
        await Relay(facts, kinds, lambda: NOON).round()
        await told(facts, 4, "new")
        return await receiver.deliver(messages)

    await Relay(facts, {**kinds, "early": slowly}, lambda: NOON).round()
    await relay(facts, receiver).round()
    assert set(receiver.got) == {"early", "taken", "left", "new"}
    assert await waiting(facts) == 0


async def test_one_that_died_while_delivering_is_followed_by_another(
    facts: Collection, receiver: Receiver
) -> None:
    """What it had taken up is tried again when its lease is over, not before."""

    async def dies(messages: Sequence[Message]) -> list[bool]:
        raise asyncio.CancelledError

    await told(facts, 1, "one")
    with pytest.raises(asyncio.CancelledError):
        await Relay(facts, {"told": dies}, lambda: NOON).round()
    await relay(facts, receiver, lambda: NOON + LEASE - timedelta(milliseconds=1)).round()
    assert receiver.got == Counter()
    await relay(facts, receiver, lambda: NOON + LEASE).round()
    assert receiver.got == Counter(one=1)


async def test_what_is_told_meanwhile_is_not_taken_out(facts: Collection, receiver: Receiver) -> None:
    """A message that was added while another of its document was on its way."""

    async def slowly(messages: Sequence[Message]) -> list[bool]:
        added = outbox.message("second", "told", {}, NOON)
        await facts.update_one({"_id": "fact-1"}, {"$push": {"outbox": added}})
        return await receiver.deliver(messages)

    await told(facts, 1, "first")
    await Relay(facts, {"told": slowly}, lambda: NOON).round()
    assert receiver.got == Counter(first=1)
    await relay(facts, receiver).round()
    assert receiver.got == Counter(first=1, second=1)
