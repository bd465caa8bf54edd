"""Consents over gRPC: every giving and withdrawal on record, and what holds told from them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest

from chassis.times import to_timestamp
from daogou.members.v1 import consent_pb2
from daogou.members.v1.consent_pb2 import ConsentRecord, RecordConsentRequest
from tests.rpc.care import Care
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world

GIVEN, WITHDRAWN = consent_pb2.CONSENT_STATE_GIVEN, consent_pb2.CONSENT_STATE_WITHDRAWN
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    return await a_world(running)


def said(world: World, member_id: str, time: datetime, **more: Any) -> RecordConsentRequest:
    """A consent to marketing by SMS, given on paper."""
    return RecordConsentRequest(
        **{
            "brand_id": world.brand_id,
            "member_id": member_id,
            "purpose": "marketing-sms",
            "state": GIVEN,
            "version": "2026-01",
            "consent_time": to_timestamp(time),
            "channel": consent_pb2.CONSENT_CHANNEL_PAPER,
            "evidence": "form 4711",
            **more,
        }
    )


async def holds(world: World, member_id: str) -> dict[str, ConsentRecord]:
    """What holds, by purpose."""
    request = consent_pb2.GetConsentsRequest(brand_id=world.brand_id, member_id=member_id)
    reply = await Care(world.service).consents.GetConsents(request)
    assert [one.purpose for one in reply.consents] == sorted({one.purpose for one in reply.consents})
    return {one.purpose: one for one in reply.consents}


async def history(world: World, member_id: str, size: int = 0) -> list[ConsentRecord]:
    """All pages of the records."""
    records: list[ConsentRecord] = []
    token = ""
    while True:
        request = consent_pb2.ListConsentRecordsRequest(
            brand_id=world.brand_id, member_id=member_id, page_size=size, page_token=token
        )
        reply = await Care(world.admin).consents.ListConsentRecords(request)
        records += reply.records
        token = reply.next_page_token
        if not token:
            return records


async def test_what_holds_is_what_was_said_last_and_everything_stays_on_record(world: World) -> None:
    """Reported in another order than it was said in."""
    member_id, _ = await world.bound()
    care, now = Care(world.connector), world.running.now()
    assert await holds(world, member_id) == {}
    withdrawn: dict[str, Any] = {"state": WITHDRAWN, "version": "", "evidence": ""}
    withdrawn["channel"] = consent_pb2.CONSENT_CHANNEL_PHONE
    reported: list[tuple[int, dict[str, Any]]] = [
        (3, {}),
        (1, withdrawn),
        (5, {"purpose": "face"}),
        (2, {"version": "2026-02"}),
    ]
    for hours, more in reported:
        await care.consents.RecordConsent(said(world, member_id, now - hours * HOUR, **more))
    found = await holds(world, member_id)
    assert {purpose: one.state for purpose, one in found.items()} == {
        "face": GIVEN,
        "marketing-sms": WITHDRAWN,
    }
    assert found["face"].evidence == "form 4711"
    assert found["marketing-sms"].channel == consent_pb2.CONSENT_CHANNEL_PHONE
    for size in (0, 1, 2, 1000):
        records = await history(world, member_id, size)
        assert [(one.purpose, one.version) for one in records] == [
            ("marketing-sms", ""),
            ("marketing-sms", "2026-02"),
            ("marketing-sms", "2026-01"),
            ("face", "2026-01"),
        ]


async def test_a_repeat_is_the_record_that_stands(world: World) -> None:
    """Whatever else it says; another version is another record."""
    member_id, _ = await world.bound()
    care, time = Care(world.connector), world.running.now() - HOUR
    first = await care.consents.RecordConsent(said(world, member_id, time))
    assert first.record.HasField("recorded_time")
    with world.running.nothing_written(world.brand_id):
        again = await care.consents.RecordConsent(said(world, member_id, time, evidence="another"))
    assert again == first
    await care.consents.RecordConsent(said(world, member_id, time, version="2026-02"))
    assert len(await history(world, member_id)) == 2


async def test_nobody_consents_tomorrow(world: World) -> None:
    """Five minutes of a fast clock are forgiven."""
    member_id, _ = await world.bound()
    care, now = Care(world.connector), world.running.now()
    await care.consents.RecordConsent(said(world, member_id, now + timedelta(minutes=4)))
    with world.running.nothing_written(world.brand_id):
        early = await refusal(care.consents.RecordConsent(said(world, member_id, now + timedelta(minutes=6))))
    assert (early.code, early.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONSENT_IN_FUTURE")


async def test_a_member_speaks_of_at_most_a_hundred_purposes(world: World) -> None:
    member_id, _ = await world.bound()
    care, time = Care(world.connector), world.running.now() - HOUR
    for number in range(100):
        await care.consents.RecordConsent(said(world, member_id, time, purpose=f"p{number:03}"))
    with world.running.nothing_written(world.brand_id):
        full = await refusal(care.consents.RecordConsent(said(world, member_id, time, purpose="one-more")))
    assert (full.code, full.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOO_MANY_PURPOSES")
    await care.consents.RecordConsent(said(world, member_id, time + HOUR, purpose="p007", state=WITHDRAWN))
    found = await holds(world, member_id)
    assert len(found) == 100
    assert found["p007"].state == WITHDRAWN


async def test_a_guide_speaks_for_her_own_members_alone(world: World) -> None:
    hers, _ = await world.bound(0)
    others, _ = await world.bound(1)
    guide, mine, time = Care(world.guide(0)), {"guide_id": world.guides[0]}, world.running.now() - HOUR
    await guide.consents.RecordConsent(said(world, hers, time, **mine))
    reading = consent_pb2.GetConsentsRequest(brand_id=world.brand_id, member_id=hers, **mine)
    assert len((await guide.consents.GetConsents(reading)).consents) == 1
    reading.member_id = others
    with world.running.nothing_written(world.brand_id):
        for call in (
            guide.consents.RecordConsent(said(world, others, time, **mine)),
            guide.consents.GetConsents(reading),
        ):
            assert (await refusal(call)).reason == "NOT_HER_MEMBER"
