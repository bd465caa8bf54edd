"""Corrections of the past over the wire: believed from now on, recorded, done once, and moving no money."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final

import grpc
import pytest

from chassis import audit
from chassis.times import from_timestamp, to_timestamp
from daogou.members.v1 import binding_pb2, handover_pb2, member_pb2
from daogou.members.v1.binding_pb2 import (
    Binding,
    BindingCause,
    BindingQuery,
    CorrectBindingRequest,
    CorrectBindingResponse,
    ResolvedBinding,
)
from daogou.members.v1.directory_pb2 import RENEW_ON_PURCHASE, BindingPolicy
from daogou.members.v1.handover_pb2_grpc import HandoverServiceStub
from tests.rpc.running import Running, eventually, refusal
from tests.rpc.test_activity import _bought, _report
from tests.rpc.world import World, a_world, line_of, plan_of, request_id

INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
REFUSED: Final = grpc.StatusCode.FAILED_PRECONDITION
CORRECTED: Final = BindingCause.BINDING_CAUSE_CORRECTED
HOUR: Final = timedelta(hours=1)


def _request(
    world: World, member_id: str, begin: datetime, end: datetime | None = None, **more: Any
) -> CorrectBindingRequest:
    return CorrectBindingRequest(
        **{
            "brand_id": world.brand_id,
            "member_id": member_id,
            "valid_from_time": to_timestamp(begin),
            "valid_to_time": to_timestamp(end) if end else None,
            "reason": "the codes of two guides were mixed up",
            "request_id": request_id(),
            **more,
        }
    )


async def _correct(world: World, request: CorrectBindingRequest) -> CorrectBindingResponse:
    return await world.admin.bindings.CorrectBinding(request)


async def _rows(world: World, member_id: str) -> list[Binding]:
    request = binding_pb2.ListBindingRowsRequest(brand_id=world.brand_id, member_id=member_id)
    return list((await world.admin.bindings.ListBindingRows(request)).rows)


async def _resolved(
    world: World, member_id: str, as_of: datetime | None = None, known_at: datetime | None = None
) -> ResolvedBinding:
    query = BindingQuery(
        member_id=member_id,
        as_of_time=to_timestamp(as_of) if as_of else None,
        known_at_time=to_timestamp(known_at) if known_at else None,
    )
    request = binding_pb2.ResolveBindingRequest(brand_id=world.brand_id, query=query)
    return (await world.service.bindings.ResolveBinding(request)).resolved


async def _whose(
    world: World, member_id: str, as_of: datetime | None = None, known_at: datetime | None = None
) -> str:
    return (await _resolved(world, member_id, as_of, known_at)).guide_id


# ---- what is believed -------------------------------------------------------------------------------


async def test_the_past_is_believed_otherwise_from_now_on_and_known_as_it_was_known(running: Running) -> None:
    """From three hours ago until an hour ago he was Bea's; he is Ann's before and since."""
    world = await a_world(running, member=False)
    member_id, _ = await world.bound(0)
    running.later(hours=5)
    now = running.now()
    begin, end = now - 3 * HOUR, now - HOUR
    known_at = now - timedelta(seconds=10)
    request = _request(world, member_id, begin, end, guide_id=world.guides[1])
    said = await _correct(world, request)
    ann, bea = world.guides[:2]
    moments = [now - 4 * HOUR, begin, end - timedelta(milliseconds=1), end, now]
    assert [await _whose(world, member_id, moment) for moment in moments] == [ann, bea, bea, ann, ann]
    assert [await _whose(world, member_id, moment, known_at) for moment in moments] == [ann] * 5
    rows = await _rows(world, member_id)
    [first] = [row for row in rows if row.HasField("superseded_time")]
    assert list(said.superseded_binding_ids) == [first.binding_id]
    assert sorted(row.binding_id for row in said.added) == sorted(
        row.binding_id for row in rows if row.binding_id != first.binding_id
    )
    [corrected] = [row for row in said.added if row.guide_id == bea]
    assert (corrected.cause, corrected.reason) == (CORRECTED, request.reason)
    assert corrected.store_id == world.nanjing_road, "where she stood then"
    assert {row.recorded_time.ToJsonString() for row in said.added} == {first.superseded_time.ToJsonString()}


async def test_he_was_nobodys_or_a_pools_or_is_another_guides(running: Running) -> None:
    world = await a_world(running, member=False)
    member_id, _ = await world.bound(0)
    running.later(hours=9)
    now = running.now()
    await _correct(world, _request(world, member_id, now - 8 * HOUR, now - 7 * HOUR))
    pool = _request(world, member_id, now - 6 * HOUR, now - 5 * HOUR, store_id=world.xintiandi)
    await _correct(world, pool)
    hers = _request(world, member_id, now - 4 * HOUR, guide_id=world.guides[2], store_id=world.nanjing_road)
    await _correct(world, hers)
    nobodys, pools, standing = [
        await _resolved(world, member_id, moment)
        for moment in (now - 7.5 * HOUR, now - 5.5 * HOUR, running.now())
    ]
    assert (nobodys.binding_id, nobodys.member_id) == ("", member_id)
    assert (pools.guide_id, pools.store_id) == ("", world.xintiandi)
    assert (standing.guide_id, standing.store_id) == (world.guides[2], world.nanjing_road)
    read = member_pb2.GetMemberRequest(brand_id=world.brand_id, member_id=member_id)
    member = (await world.connector.members.GetMember(read)).member
    assert member.binding.binding_id == standing.binding_id
    assert len([row for row in await _rows(world, member_id) if not row.HasField("superseded_time")]) == 5


async def test_a_correction_moves_no_money_and_counts_for_what_is_reported_later(running: Running) -> None:
    """Each order of 100.00 at 3 % is 3.00. The one that was reported before stays Ann's for ever."""
    world = await a_world(running, plan=plan_of(), member=False)
    member_id, buyer = await world.bound(0)
    running.later(hours=6)
    reported, late = world.order(identity=buyer), world.order(identity=buyer)
    await world.ingest(reported.paid(line_of("coat", 10_000)))
    assert [await world.owed(index) for index in (0, 1)] == [300, 0]
    running.later(hours=1)
    now = running.now()
    await _correct(world, _request(world, member_id, now - 5 * HOUR, now - HOUR, guide_id=world.guides[1]))
    assert [await world.owed(index) for index in (0, 1)] == [300, 0]
    explained = (await world.explained(reported)).attribution
    assert explained.member_id == member_id
    await world.ingest(late.paid(line_of("coat", 10_000)))
    assert [await world.owed(index) for index in (0, 1)] == [300, 300]
    await world.ingest(reported.paid(line_of("coat", 10_000), line_of("scarf", 10_000), number=2))
    assert await world.owed(1) == 300, "what was attributed stays so, also for what is added to it"
    assert (await world.explained(reported)).attribution == explained
    assert (await world.trial_balance()).total_minor == 0


async def test_a_corrected_binding_does_not_lapse_for_it(running: Running) -> None:
    """His purchase of ten days ago keeps the binding alive that is said to have begun forty days ago."""
    policy = BindingPolicy(validity_days=30, renew_on=RENEW_ON_PURCHASE)
    world = await a_world(running, policy=policy, member=False)
    corrected, _ = await world.bound(0)
    witness, _ = await world.bound(0)
    running.later(days=30)
    await _bought(world, corrected, running.now())
    running.later(days=10)
    now = running.now()
    await _correct(world, _request(world, corrected, now - timedelta(days=35), guide_id=world.guides[1]))
    await _report(world, running.now())

    async def lapsed() -> bool:
        return not (await _resolved(world, witness)).binding_id

    await eventually(lapsed, "one who was idle as long lapses")
    assert await _whose(world, corrected) == world.guides[1]
    begin = now - timedelta(days=35)
    await _correct(world, _request(world, witness, begin, guide_id=world.guides[1]))
    running.later(days=20, hours=1)
    await _report(world, running.now())

    async def lapsed_too() -> bool:
        return not (await _resolved(world, corrected)).binding_id

    await eventually(lapsed_too, "thirty days after the purchase it lapses")
    assert await _whose(world, witness) == world.guides[1], "what an admin says stands counts from then"


async def test_by_the_id_of_a_merged_member_each_time_is_corrected_with_whoever_answered(
    running: Running,
) -> None:
    """From before the merge until after it: the reply tells the rows of both."""
    world = await a_world(running, member=False)
    (old, _), (young, young_card) = await world.bound(0), await world.bound(1)
    running.later(hours=2)
    begin = running.now() - HOUR
    linked = await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=old, identity=young_card)
    )
    merged = from_timestamp(linked.merge.merge_time)
    running.later(hours=2)
    request = _request(world, young, begin, guide_id=world.guides[2])
    said = await _correct(world, request)
    assert {row.member_id for row in said.added} == {old, young}
    before, after = merged - HOUR / 2, merged + HOUR
    assert [await _whose(world, one, before) for one in (old, young)] == [world.guides[0], world.guides[2]]
    assert [await _whose(world, one, after) for one in (old, young)] == [world.guides[2]] * 2
    assert await _correct(world, request) == said
    [own] = [row for row in said.added if row.member_id == young and row.guide_id == world.guides[2]]
    [his] = [row for row in said.added if row.member_id == old and row.guide_id == world.guides[2]]
    assert (own.origin_member_id, his.origin_member_id) == ("", young)
    assert own.valid_to_time == his.valid_from_time == linked.merge.merge_time


# ---- once, and recorded -----------------------------------------------------------------------------


async def test_a_repeat_returns_the_first_reply_and_corrects_nothing(running: Running) -> None:
    """At once, later, after other corrections, and when another has been merged into him."""
    world = await a_world(running, member=False)
    member_id, card = await world.bound(0)
    running.later(hours=5)
    now = running.now()
    request = _request(world, member_id, now - 3 * HOUR, now - HOUR, guide_id=world.guides[1])
    replies = await asyncio.gather(*[_correct(world, request) for _ in range(6)])
    assert len({reply.SerializeToString() for reply in replies}) == 1
    await _correct(world, _request(world, member_id, now - 2 * HOUR, now - HOUR, guide_id=world.guides[2]))
    with running.nothing_written(world.brand_id):
        assert await _correct(world, request) == replies[0]
    later_id, _ = await world.bound(0)
    linked = await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=later_id, identity=card)
    )
    assert linked.merge.survivor_member_id == member_id
    with running.nothing_written(world.brand_id):
        assert await _correct(world, request) == replies[0]


async def test_a_repeat_by_the_id_that_has_become_an_alias_corrects_nothing(running: Running) -> None:
    """The receipt stands with the id that was named."""
    world = await a_world(running, member=False)
    old, _ = await world.bound(0)
    young, young_card = await world.bound(1)
    running.later(hours=5)
    now = running.now()
    request = _request(world, young, now - 3 * HOUR, now - HOUR, guide_id=world.guides[2])
    said = await _correct(world, request)
    await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=old, identity=young_card)
    )
    with running.nothing_written(world.brand_id):
        assert await _correct(world, request) == said


async def test_the_same_request_id_with_another_body_is_refused(world: World) -> None:
    member_id, _ = await world.bound(0)
    world.running.later(hours=5)
    now = world.running.now()
    request = _request(world, member_id, now - 3 * HOUR, now - HOUR, guide_id=world.guides[1])
    await _correct(world, request)
    request.guide_id = world.guides[2]
    with world.running.nothing_written(world.brand_id):
        reused = await refusal(_correct(world, request))
    assert (reused.code, reused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_many_corrections_of_one_member_at_once_are_all_believed(running: Running) -> None:
    """Of different hours: whoever writes second reads again."""
    world = await a_world(running, member=False)
    member_id, _ = await world.bound(0)
    running.later(hours=20)
    now = running.now()
    requests = [
        _request(
            world, member_id, now - (2 * hour + 1) * HOUR, now - 2 * hour * HOUR, guide_id=world.guides[1]
        )
        for hour in range(8)
    ]
    await asyncio.gather(*[_correct(world, request) for request in requests])
    told = [await _whose(world, member_id, now - (hour + 0.5) * HOUR) for hour in range(16)]
    assert told == [world.guides[1], world.guides[0]] * 8


async def test_a_correction_is_recorded_in_the_audit_log_before_it_is_believed(world: World) -> None:
    """Who, whom, why; in a chain that shows a change."""
    member_id, _ = await world.bound(0)
    world.running.later(hours=5)
    before = len(world.running.documents("members", "audit", {}))
    request = _request(world, member_id, world.running.now() - HOUR, guide_id=world.guides[1])
    said = await _correct(world, request)
    records = world.running.documents("members", "audit", {})
    assert len(records) == before + 1
    record = max(records, key=lambda record: (record["recorded_time"], int(record["sequence"])))
    assert (record["action"], record["role"]) == ("CorrectBinding", "ROLE_BRAND_ADMIN")
    assert record["subject"] == {"brand_id": world.brand_id, "member_id": member_id}
    assert record["purpose"] == request.reason
    assert record["recorded_time"] <= min(from_timestamp(row.recorded_time) for row in said.added)
    chain = [one for one in records if one["process_id"] == record["process_id"]]
    chain.sort(key=lambda one: int(one["sequence"]))
    assert audit.broken_at(chain) is None


# ---- what is refused --------------------------------------------------------------------------------


REFUSALS: Final[dict[str, tuple[dict[str, Any], grpc.StatusCode, str, set[str]]]] = {
    "nothing said": (
        {"member_id": "", "valid_from_time": None, "reason": "", "request_id": ""},
        INVALID,
        "INVALID_FIELDS",
        {"member_id", "valid_from_time", "reason", "request_id"},
    ),
    "what are no ids, and too long a reason": (
        {"member_id": "x", "guide_id": "y", "store_id": "z", "reason": "r" * 201, "request_id": "short"},
        INVALID,
        "INVALID_FIELDS",
        {"member_id", "guide_id", "store_id", "reason", "request_id"},
    ),
    "an end at the beginning": ({"ends_after": timedelta(0)}, INVALID, "INVALID_FIELDS", {"valid_to_time"}),
    "an end before the beginning": ({"ends_after": -HOUR}, INVALID, "INVALID_FIELDS", {"valid_to_time"}),
    "a beginning ahead": ({"begins_after": HOUR}, INVALID, "CORRECTION_IN_FUTURE", set()),
    "an end ahead": ({"ends_after": 9 * HOUR}, INVALID, "CORRECTION_IN_FUTURE", set()),
    "a stranger": ({"member_id": "a" * 16}, NOT_FOUND, "MEMBER_UNKNOWN", set()),
    "an unknown guide": ({"guide_id": "a" * 16}, NOT_FOUND, "GUIDE_UNKNOWN", set()),
    "an unknown store": ({"store_id": "a" * 16}, NOT_FOUND, "STORE_UNKNOWN", set()),
}


@pytest.mark.parametrize("what", REFUSALS)
async def test_refusals_name_the_reason_and_every_field_and_write_nothing(what: str, world: World) -> None:
    changed, code, reason, named = REFUSALS[what]
    fields = {"member_id": world.member_id, "guide_id": world.guides[0], **changed}
    begin = world.running.now() + fields.pop("begins_after", -HOUR)
    ends_after = fields.pop("ends_after", None)
    end = begin + ends_after if ends_after is not None else None
    request = _request(world, fields.pop("member_id"), begin, end, **fields)
    with world.running.nothing_written(world.brand_id):
        refused = await refusal(_correct(world, request))
    assert (refused.code, refused.reason, refused.fields) == (code, reason, named)


async def test_who_has_left_may_have_had_him_but_has_nobody_now(running: Running) -> None:
    """A correction of the past may name her; one that is to stand may not."""
    world = await a_world(running, member=False)
    member_id, _ = await world.bound(0)
    running.later(hours=5)
    handovers = HandoverServiceStub(world.admin.channel("members"))
    await handovers.ResignGuide(
        handover_pb2.ResignGuideRequest(
            brand_id=world.brand_id, request_id=request_id(), guide_id=world.guides[1]
        )
    )
    now = running.now()
    with running.nothing_written(world.brand_id):
        refused = await refusal(
            _correct(world, _request(world, member_id, now - HOUR, guide_id=world.guides[1]))
        )
    assert (refused.code, refused.reason) == (REFUSED, "GUIDE_RESIGNED")
    past = _request(world, member_id, now - 3 * HOUR, now - HOUR, guide_id=world.guides[1])
    await _correct(world, past)
    assert await _whose(world, member_id, now - 2 * HOUR) == world.guides[1]


async def test_another_brands_people_and_places_cannot_be_named(running: Running) -> None:
    world, other = await a_world(running), await a_world(running)
    begin = running.now() - HOUR
    with running.nothing_written(world.brand_id, other.brand_id):
        strange = await refusal(_correct(world, _request(world, other.member_id, begin)))
        guide = await refusal(
            _correct(world, _request(world, world.member_id, begin, guide_id=other.guides[0]))
        )
        store = await refusal(
            _correct(world, _request(world, world.member_id, begin, store_id=other.nanjing_road))
        )
    assert [one.reason for one in (strange, guide, store)] == [
        *("MEMBER_UNKNOWN", "GUIDE_UNKNOWN"),
        "STORE_UNKNOWN",
    ]
