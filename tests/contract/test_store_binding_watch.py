"""What was recorded lately, read from the database: in order, whole, whenever it comes to be seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chassis.clock import Clock
from chassis.ids import new_id
from chassis.mongo import connection, schema
from chassis.mongo.connection import Database
from chassis.mongo.schema import Schema
from chassis.times import EPOCH
from svc_members.binding import store_binding_watch
from svc_members.binding.binding_watch import FROM_START, Told, Watch
from svc_members.binding.store_binding_watch import BindingWatchStore, Recorded
from svc_members.member.member_document import Member, new_document
from svc_members.rules import binding
from svc_members.rules.binding import Policy, Row, Scan
from svc_members.rules.changes import Place, changes
from svc_members.rules.correction import Correction, correct
from tests.contract.members import ALWAYS, BRAND, CLOCK, Members, card, members_of

OTHER = "brandbrandbrand3"
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
async def members(database: Database) -> Members:
    found = await members_of(database)
    await schema.migrate(database, Schema(1, store_binding_watch.INDEXES))
    return found


@pytest.fixture
def store(database: Database) -> BindingWatchStore:
    return BindingWatchStore(database, CLOCK)


async def at_one_instant(members: Members, stamp: datetime, count: int, brand_id: str = BRAND) -> list[str]:
    """The ids of members who were recorded in one command, as imports are; in order."""
    decision = binding.scan((), Scan("ann", "east", "", stamp, False), Policy(), "row")
    made = [Member(brand_id, new_id(), 0, (), stamp) for _ in range(count)]
    documents = [new_document(member, decision, 1, stamp) for member in made]
    await members.database["members"].insert_many(documents)
    return sorted(member.member_id for member in made)


async def walked(store: BindingWatchStore, after: Place, size: int) -> list[Place]:
    """All pages after a place."""
    found: list[Place] = []
    while page := await store.page(BRAND, after, size):
        assert len(page) <= size
        found += page
        after = page[-1]
    return found


@pytest.mark.both_drivers
@pytest.mark.parametrize("size", [1, 7, 100])
async def test_members_come_in_the_order_of_recording_each_once(
    members: Members, store: BindingWatchStore, size: int
) -> None:
    """Though many share an instant, and pages end in the middle of it."""
    later = await at_one_instant(members, NOON + SECOND, 12)
    earlier = await at_one_instant(members, NOON, 20)
    await at_one_instant(members, NOON, 5, OTHER)
    await members.enrol(card("never bound"))
    found = await walked(store, Place(EPOCH), size)
    assert found == [
        *(Place(NOON, member_id) for member_id in earlier),
        *(Place(NOON + SECOND, member_id) for member_id in later),
    ]
    assert await walked(store, found[13], size) == found[14:]
    assert await walked(store, Place(NOON), size) == found[20:], "all of that instant is behind it"
    assert await walked(store, Place(NOON + SECOND), size) == []


async def test_a_member_is_met_once_at_his_last_change(members: Members, store: BindingWatchStore) -> None:
    """Who was taken over goes to the end, with all that was recorded of him."""
    first, _ = await members.scan("ann", card(1), ALWAYS)
    second, _ = await members.scan("ann", card(2), ALWAYS)
    await members.scan("bea", card(1), ALWAYS)
    found = await walked(store, Place(EPOCH), 10)
    assert [place.member_id for place in found] == [second.member_id, first.member_id]
    [recorded] = await store.changed(BRAND, [first.member_id], EPOCH)
    assert recorded.until == found[1].time
    told = changes(recorded.rows, EPOCH, recorded.until)
    assert [[row.guide_id for row in change.added] for change in told] == [["ann"], ["ann", "bea"]]


async def taken_over(members: Members, times: int) -> Member:
    """A member whom one guide after the other has had."""
    for number in range(times - 1):
        await members.scan(f"guide-{number}", card(1), ALWAYS)
    member, _ = await members.scan(f"guide-{times}", card(1), ALWAYS)
    return member


async def all_rows(members: Members, member_id: str) -> set[Row]:
    """As the member's history is listed."""
    return set(await members.bindings.rows(BRAND, member_id))


async def recorded_of(store: BindingWatchStore, member_id: str, after: datetime) -> Recorded:
    [found] = await store.changed(BRAND, [member_id], after)
    return found


@pytest.mark.both_drivers
async def test_rows_that_went_to_the_history_are_told_too(members: Members, store: BindingWatchStore) -> None:
    """A member's document keeps his last few."""
    member = await taken_over(members, 30)
    assert member.history_count > 20
    whole = await recorded_of(store, member.member_id, EPOCH)
    assert set(whole.rows) == await all_rows(members, member.member_id)
    told = changes(whole.rows, EPOCH, whole.until)
    assert len(told) == 30
    for change in (told[3], told[20], told[28]):
        lately = await recorded_of(store, member.member_id, change.recorded_time)
        assert changes(lately.rows, change.recorded_time, lately.until) == [
            one for one in told if one.recorded_time > change.recorded_time
        ]
    nothing = await recorded_of(store, member.member_id, whole.until)
    assert changes(nothing.rows, whole.until, nothing.until) == []


async def test_a_correction_of_long_ago_is_told(members: Members, store: BindingWatchStore) -> None:
    """It supersedes rows that went to the history before anything that the document still has."""
    member = await taken_over(members, 30)
    rows = await members.bindings.rows(BRAND, member.member_id)
    believed = sorted(
        (row for row in rows if row.superseded_time is None), key=lambda row: row.valid_from_time
    )
    wrong = believed[2]
    assert wrong.binding_id not in {row.binding_id for row in member.rows}
    correction = Correction("zoe", "west", wrong.valid_from_time, wrong.valid_to_time, "she was ill")
    before = await recorded_of(store, member.member_id, EPOCH)
    await members.store.save_rows(member, correct(rows, correction, ALWAYS, member.next_id))
    after = await recorded_of(store, member.member_id, before.until)
    [change] = changes(after.rows, before.until, after.until)
    assert wrong.binding_id in change.superseded
    assert "zoe" in {row.guide_id for row in change.added}


async def heard(watch: Watch) -> list[Told]:
    """What a watch tells next."""
    return [told async for page in watch.sweep() for told in page]


@pytest.mark.parametrize("first_is_seen_first", [True, False])
async def test_what_is_recorded_in_either_order_is_told(
    members: Members, store: BindingWatchStore, first_is_seen_first: bool
) -> None:
    """A write is stamped when it begins, and seen when it has ended: others may overtake it."""
    known, _ = await members.scan("ann", card(1), ALWAYS)
    watch = await Watch.from_now(store, BRAND)
    decision = binding.scan(known.rows, Scan("bea", "east", "", CLOCK.now(), False), ALWAYS, known.next_id)
    async with connection.session(members.database) as started:
        await connection.begin(started)
        written = await members.store.write(known, decision, started=started)
        assert written is not None
        if first_is_seen_first:
            await started.commit_transaction()
        other, _ = await members.scan("cat", card(2), ALWAYS)
        told = await heard(watch)
        if not first_is_seen_first:
            assert [member_id for member_id, _ in told] == [other.member_id]
            await started.commit_transaction()
            told += await heard(watch)
    changed = dict(told)
    assert changed.keys() == {known.member_id, other.member_id}
    assert changed[known.member_id].recorded_time < changed[other.member_id].recorded_time
    assert await heard(watch) == []


async def test_a_watch_from_the_start_tells_all_that_there_is_and_then_what_comes(
    members: Members, store: BindingWatchStore
) -> None:
    """Of this brand."""
    for number in range(5):
        await members.scan("ann", card(number), ALWAYS)
        await members.scan("bea", card(number), ALWAYS)
        await members.scan("ann", card(number, OTHER), ALWAYS, OTHER)
    watch = Watch(store, BRAND, FROM_START)
    told = await heard(watch)
    assert [len(change.superseded) for _, change in told] == [0, 1] * 5
    member, _ = await members.scan("ann", card(3), ALWAYS)
    [(member_id, change)] = await heard(watch)
    assert member_id == member.member_id
    assert {row.binding_id for row in change.added} == {
        row.binding_id for row in member.rows if row.recorded_time == change.recorded_time
    }


@pytest.mark.both_drivers
async def test_what_is_written_is_seen_by_the_time_that_is_told(
    database: Database, members: Members, store: BindingWatchStore, tmp_path: Path
) -> None:
    """And that time follows a clock that is shifted, as the stamps do."""
    for _ in range(3):
        member, _ = await members.scan(new_id(), card(1), ALWAYS)
        [place] = await store.page(BRAND, Place(EPOCH), 10)
        assert place.member_id == member.member_id
        # MongoDB tells it in whole seconds.
        assert -SECOND < await store.majority_time() - place.time < 2 * SECOND
    shift = tmp_path / "shift"
    shift.write_text("86400", encoding="ascii")
    shifted = BindingWatchStore(database, Clock(shift))
    assert await shifted.majority_time() - await store.majority_time() > timedelta(hours=23)
