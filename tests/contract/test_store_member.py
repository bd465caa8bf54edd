"""Members in the database: one binding whatever the races, and rows that are added and never changed."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from chassis.clock import Clock
from chassis.errors import Conflict, NotFound, Refused
from chassis.ids import new_id
from chassis.mongo.connection import Database
from svc_members.rules import binding, bitemporal
from svc_members.rules.binding import Outcome, Policy, Scan
from tests.contract.members import ALWAYS, BRAND, CLOCK, Members, card, members_of, the_standing


@pytest.fixture
async def members(database: Database) -> Members:
    return await members_of(database)


@pytest.mark.both_drivers
async def test_two_scans_at_once_leave_one_binding(members: Members) -> None:
    """And the loser gets the winner's."""
    for number in range(5):
        found = await asyncio.gather(*(members.scan(guide, card(number)) for guide in ("ann", "bea")))
        assert Counter(decision.outcome for _, decision in found) == {Outcome.BOUND: 1, Outcome.KEPT: 1}
        assert len({the_standing(member).binding_id for member, _ in found}) == 1


@pytest.mark.both_drivers
async def test_sixty_four_scans_at_once_leave_one_binding(members: Members) -> None:
    """Of a customer whom nobody knew: he becomes one member, of one guide."""
    found = await asyncio.gather(*(members.scan(f"guide-{number}", card(1)) for number in range(64)))
    assert Counter(decision.outcome for _, decision in found) == {Outcome.BOUND: 1, Outcome.KEPT: 63}
    assert len({member.member_id for member, _ in found}) == 1
    assert len({the_standing(member) for member, _ in found}) == 1
    stored = await members.store.find(BRAND, found[0][0].member_id)
    assert len(stored.rows) == 1


async def test_scans_that_each_take_him_over_all_get_their_turn(members: Members) -> None:
    """Under ALWAYS the rows are a whole history, without gap or overlap, and one stands."""
    first, _ = await members.scan("first", card(1), ALWAYS)
    await asyncio.gather(*(members.scan(f"guide-{number}", card(1), ALWAYS) for number in range(10)))
    rows = await members.bindings.rows(BRAND, first.member_id)
    believed = [row for row in rows if row.superseded_time is None]
    believed.sort(key=lambda row: row.valid_from_time)
    assert the_standing(await members.store.find(BRAND, first.member_id)) == believed[-1]
    for earlier, later in pairwise(believed):
        assert earlier.valid_to_time == later.valid_from_time


async def test_who_read_before_somebody_wrote_must_read_again(members: Members) -> None:
    """His write changes nothing."""
    member, _ = await members.scan("ann", card(1), ALWAYS)
    scan = Scan("bea", "east", "", CLOCK.now(), False)
    decision = binding.scan(member.rows, scan, ALWAYS, "stale")
    await members.scan("cat", card(1), ALWAYS)
    with pytest.raises(Conflict) as raised:
        await members.store.save_rows(member, decision)
    assert raised.value.reason == "MEMBER_CHANGED"
    assert the_standing(await members.store.find(BRAND, member.member_id)).guide_id == "cat"


async def test_of_two_who_meet_a_new_customer_one_must_read_again(members: Members) -> None:
    """Both saw that nobody knew him; the identity is where they meet."""
    store = members.store
    one, other = [await store.holder_of(BRAND, card(1), new_id, CLOCK.now()) for _ in range(2)]
    scan = Scan("ann", "east", "", CLOCK.now(), False)
    await store.save_rows(one, binding.scan((), scan, Policy(), "one"), card(1))
    with pytest.raises(Conflict):
        await store.save_rows(other, binding.scan((), scan, Policy(), "other"), card(1))
    assert await members.holders(card(1)) == [one.member_id]
    with pytest.raises(NotFound):
        await store.find(BRAND, other.member_id)


@pytest.mark.both_drivers
async def test_times_of_recording_rise_within_a_millisecond(members: Members) -> None:
    """What we knew at one moment is one answer, however fast it changed."""
    member, _ = await members.scan("guide", card(1), ALWAYS)
    for number in range(20):
        member, _ = await members.scan(f"guide-{number}", card(1), ALWAYS)
    rows = await members.bindings.rows(BRAND, member.member_id)
    recorded = {row.recorded_time for row in rows}
    assert len(recorded) == 21
    for row in rows:
        assert row.recorded_time is not None
        assert row.superseded_time is None or row.superseded_time > row.recorded_time
        assert row.superseded_time is None or row.superseded_time in recorded


async def test_times_of_recording_rise_when_the_databases_clock_goes_back(
    database: Database, tmp_path: Path
) -> None:
    """A new primary may be an hour behind the last one."""
    shift = tmp_path / "shift"
    members = await members_of(database, Clock(shift))
    recorded = []
    for hours, guide in [(1, "ann"), (0, "bea"), (-1, "cat")]:
        shift.write_text(str(hours * 3600), encoding="ascii")
        # The customers' clocks, and ours, are right.
        member, _ = await members.scan(guide, card(1), ALWAYS, age=timedelta(hours=hours))
        recorded.append(the_standing(member).recorded_time)
    first = recorded[0]
    assert first is not None
    assert first > CLOCK.now() + timedelta(minutes=59)
    assert recorded == [first + timedelta(milliseconds=number) for number in range(3)]


async def test_an_answer_about_the_past_stays_while_the_present_changes(members: Members) -> None:
    """Read from the database, as commission reads it."""
    first, _ = await members.scan("ann", card(1), ALWAYS)
    known_at = the_standing(first).recorded_time
    assert known_at is not None
    later = known_at + timedelta(days=1)
    for guide in ("bea", "cat"):
        await members.scan(guide, card(1), ALWAYS)
    rows = await members.bindings.rows(BRAND, first.member_id)
    then, now = bitemporal.found(rows, later, known_at), bitemporal.found(rows, later, None)
    assert then is not None
    assert now is not None
    assert (then.guide_id, now.guide_id) == ("ann", "cat")


async def test_rows_read_back_are_the_rows_that_were_decided(members: Members) -> None:
    """Every field of them, to the millisecond."""
    member, decision = await members.scan("ann", card(1), Policy(protection_days=7))
    [decided], [stored] = decision.added, (await members.store.find(BRAND, member.member_id)).rows
    for field in decided.__slots__:
        if field != "recorded_time":
            assert getattr(stored, field) == getattr(decided, field), field
    assert stored.recorded_time is not None


async def test_unknown_members_are_left_out(members: Members) -> None:
    """Of many, and one alone is told to be unknown."""
    known, _ = await members.scan("ann", card(1))
    assert await members.store.existing(BRAND, [known.member_id, new_id()]) == {known.member_id}
    with pytest.raises(NotFound) as raised:
        await members.store.find(BRAND, new_id())
    assert raised.value.reason == "MEMBER_UNKNOWN"


async def test_the_members_of_a_guide_are_paged_and_counted(members: Members) -> None:
    """Each once, in one order, also while she gets more."""
    for number in range(7):
        await members.scan("ann" if number % 2 else "bea", card(number), ALWAYS)
    store, seen, after = members.store, [], ""
    assert (await store.count_of_guide(BRAND, "ann"), await store.count_of_guide(BRAND, "bea")) == (3, 4)
    while page := await store.page_of_guide(BRAND, "bea", after, 2):
        seen += [member.member_id for member in page]
        after = seen[-1]
        await members.scan("bea", card(100 + len(seen)), ALWAYS)
    assert seen == sorted(set(seen))
    assert len(seen) >= 4
    assert await store.count_of_guide("b" * 16, "bea") == 0


async def test_who_was_taken_over_is_found_with_his_new_guide_alone(members: Members) -> None:
    """The list that she sees is that of the rows that stand."""
    await members.scan("ann", card(1), ALWAYS)
    await members.scan("bea", card(1), ALWAYS)
    assert await members.store.page_of_guide(BRAND, "ann", "", 10) == []
    assert len(await members.store.page_of_guide(BRAND, "bea", "", 10)) == 1


async def test_only_the_latest_activity_is_kept(members: Members) -> None:
    """Reports come late and again; a contact counts for the guide whose member he is alone."""
    member, _ = await members.scan("ann", card(1))
    noon, store = CLOCK.now(), members.store

    async def recorded(hours: int, guide: str = "") -> float:
        time = noon + timedelta(hours=hours)
        latest = await store.record_activity(member, "contact", time, renews=True, guide_id=guide)
        return (latest - noon) / timedelta(hours=1)

    assert [await recorded(hours) for hours in (2, 5, 3, 5)] == [2, 5, 5, 5]
    assert await recorded(6, "ann") == 6
    with pytest.raises(Refused) as refused:
        await recorded(7, "bea")
    assert refused.value.reason == "NOT_HER_MEMBER"


async def test_whoever_was_active_is_not_among_the_inactive(members: Members) -> None:
    """The longest inactive come first; who is nobody's cannot lapse."""
    idle, _ = await members.scan("ann", card(1))
    busy, _ = await members.scan("ann", card(2))
    await members.enrol(card(3))
    before = CLOCK.now() + timedelta(hours=1)
    later = before + timedelta(hours=1)
    found = await members.store.inactive(BRAND, before, 10)
    assert [member.member_id for member in found] == [idle.member_id, busy.member_id]
    await members.store.record_activity(busy, "purchase", later, renews=True)
    await members.store.record_activity(idle, "purchase", later, renews=False)
    assert [member.member_id for member in await members.store.inactive(BRAND, before, 10)] == [
        idle.member_id
    ]


async def test_an_enrolment_that_was_cut_off_is_completed_by_the_next_scan(members: Members) -> None:
    """The identity was linked, then the service died: he is the same member, not a second one."""
    await members.cut_off(card(1), "m" * 16)
    member, decision = await members.scan("ann", card(1))
    assert (member.member_id, decision.outcome) == ("m" * 16, Outcome.BOUND)
    assert await members.enrol(card(1)) == ("m" * 16, False)
    assert await members.count("m" * 16) == 1


async def test_a_scan_and_an_enrolment_at_once_make_one_member(members: Members) -> None:
    """Who is bound and knows both identities."""
    for number in range(5):
        (bound, _), (enrolled, _) = await asyncio.gather(
            members.scan("ann", card(number)), members.enrol(card(number), card(f"other-{number}"))
        )
        assert bound.member_id == enrolled
        assert the_standing(await members.store.find(BRAND, enrolled)).guide_id == "ann"
        assert await members.count(enrolled) == 2
