"""Imported members in the database: each whole or not at all, and none twice."""

from __future__ import annotations

import asyncio

import pytest

from chassis.clock import Clock
from chassis.errors import Conflict
from chassis.ids import derived_id
from chassis.mongo.connection import Database
from svc_members.member.identities import StoredIdentity
from svc_members.member.member_document import Member
from svc_members.member.store_member_import import Arrival, MemberImportStore
from svc_members.rules import binding
from svc_members.rules.binding import Decision, Outcome, Policy, Scan
from tests.contract.members import BRAND, Members, card, members_of, the_standing

NOW = Clock().now()


@pytest.fixture
async def members(database: Database) -> Members:
    return await members_of(database)


@pytest.fixture
def imports(members: Members) -> MemberImportStore:
    return MemberImportStore(members.database, members.identities)


def arrival(*named: StoredIdentity, guide: str = "ann") -> Arrival:
    """A member who is known by these alone, and brings a binding or none."""
    member_id = derived_id("member", BRAND, named[0].index)
    decision = Decision(Outcome.ENDED, None)
    if guide:
        decision = binding.imported(Scan(guide, "east", "", NOW, False), Policy(), f"{member_id}.1")
    return Arrival(Member(BRAND, member_id, 0, (), NOW), named, len(named), decision)


@pytest.mark.both_drivers
async def test_arrivals_are_written_whole(members: Members, imports: MemberImportStore) -> None:
    """With their identities and their bindings, or without one."""
    bound, free = arrival(card(1), card(2)), arrival(card(3), guide="")
    assert await imports.write([bound, free]) == [True, True]
    assert await members.holders(card(1), card(2), card(3)) == [bound.member.member_id] * 2 + [
        free.member.member_id
    ]
    stored = await members.store.find(BRAND, bound.member.member_id)
    assert the_standing(stored).guide_id == "ann"
    assert (await members.store.find(BRAND, free.member.member_id)).rows == ()
    assert await imports.write([]) == []


async def test_the_same_import_twice_at_once_writes_each_member_once(
    members: Members, imports: MemberImportStore
) -> None:
    """One of the two may be told to send some again; what is there is right."""
    arrivals = [arrival(card(number)) for number in range(40)]
    await asyncio.gather(imports.write(arrivals), imports.write(arrivals))
    for one in arrivals:
        stored = await members.store.find(BRAND, one.member.member_id)
        assert (stored.rev, len(stored.rows)) == (1, 1)


async def test_an_import_that_was_cut_off_is_completed_by_the_next(
    members: Members, imports: MemberImportStore
) -> None:
    """His identity was linked, he was not: his id follows from it."""
    one = arrival(card(1))
    await members.cut_off(card(1), one.member.member_id)
    whole = Arrival(one.member, (), 1, one.decision)
    assert await imports.write([whole]) == [True]
    assert the_standing(await members.store.find(BRAND, one.member.member_id)).guide_id == "ann"


async def test_an_arrival_whom_somebody_else_met_meanwhile_is_to_be_sent_again(
    members: Members, imports: MemberImportStore
) -> None:
    """His neighbours are written."""
    met, _ = await members.scan("bea", card(1))
    outcomes = await imports.write([arrival(card(1)), arrival(card(2))])
    assert isinstance(outcomes[0], Conflict)
    assert outcomes[1] is True
    assert await members.holders(card(1)) == [met.member_id]


async def test_of_an_arrival_who_is_not_written_nothing_is_left(
    members: Members, imports: MemberImportStore
) -> None:
    """Else his other identity would be a member's who does not exist, and he could never be sent again."""
    met, _ = await members.scan("bea", card(2))
    [outcome] = await imports.write([arrival(card(1), card(2))])
    assert isinstance(outcome, Conflict)
    assert await members.holders(card(1), card(2)) == ["", met.member_id]
    assert await members.enrol(card(1), card(2)) == (met.member_id, False)
