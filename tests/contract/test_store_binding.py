"""Whose somebody was, asked of the database: by id, by identity, as of any moment, as known at any moment."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import pytest

from chassis.errors import NotFound
from chassis.ids import new_id
from chassis.mongo.connection import Database
from svc_members.binding.store_binding import Answer, Question
from svc_members.member.identities import StoredIdentity
from svc_members.rules import bitemporal
from svc_members.rules.binding import ROWS_KEPT, Row
from svc_members.rules.correction import Correction
from tests.contract.members import ALWAYS, BRAND, Members, MovingClock, card, members_of, phone

HOUR: Final = timedelta(hours=1)


@pytest.fixture
async def members(database: Database) -> Members:
    return await members_of(database, MovingClock())


async def scanned(members: Members, guide: str, number: int | str) -> str:
    """The id of a customer who scans a guide's code, an hour later."""
    members.later(hours=1)
    return (await members.scan(guide, card(number), ALWAYS))[0].member_id


def was(guide: str, begin: datetime, end: datetime | None) -> Correction:
    """He was a guide's; without her, nobody's."""
    return Correction(guide, "west" if guide else "", begin, end, "a mistake")


def told(rows: list[Row], member_id: str, as_of: datetime, known_at: datetime | None) -> Answer:
    """The answer that all rows of a member give."""
    row = bitemporal.found(rows, as_of, known_at)
    if row is None:
        return Answer(member_id)
    return Answer(member_id, row.binding_id, row.guide_id, row.store_id)


# ---- history ----------------------------------------------------------------------------------------


@pytest.mark.both_drivers
async def test_with_thirty_scans_the_document_keeps_a_few_rows_and_no_answer_changes(
    members: Members, database: Database
) -> None:
    """Nothing is lost: every answer at every two moments is that of the whole list, as it was each time."""
    moments, member_id = [members.clock.now()], ""
    answers: dict[tuple[datetime, datetime], Answer] = {}
    for number in range(30):
        member_id = await scanned(members, f"guide {number % 7}", 1)
        moments.append(members.later(minutes=30))
        known_at = moments[-1]
        for as_of in moments[:: max(1, number // 6)]:
            answers[as_of, known_at] = await members.whose(member_id, as_of, known_at)
    stored = await database["members"].find_one({"_id": f"{BRAND}|{member_id}"})
    assert stored is not None
    assert len(stored["rows"]) <= ROWS_KEPT + 2
    assert stored["history_count"] == await database["binding_history"].count_documents({})
    assert len(stored["rows"]) + stored["history_count"] == 59, "one row, and two for each of 29 scans"
    rows = await members.bindings.rows(BRAND, member_id)
    assert len(rows) == len({row.binding_id for row in rows}) == 59
    recorded = [row.recorded_time for row in rows if row.recorded_time]
    assert recorded == sorted(recorded)
    for as_of in moments[::3]:
        for known in [*moments[::3], None]:
            assert await members.whose(member_id, as_of, known) == told(rows, member_id, as_of, known)
    for question, answer in answers.items():
        assert await members.whose(member_id, *question) == answer


async def test_a_correction_of_what_stands_in_the_history_supersedes_it_there(
    members: Members, database: Database
) -> None:
    """And is believed from then on; what was known before is as it was."""
    times: list[datetime] = []
    member_id = ""
    for number in range(15):
        member_id = await scanned(members, f"guide {number}", 1)
        times.append(members.clock.now())
    known_at = members.later(hours=1)
    asked = [time + HOUR / 2 for time in times]
    before = [(await members.whose(member_id, time, known_at)).guide_id for time in asked]
    assert before == [f"guide {number}" for number in range(15)]
    await members.correct(member_id, was("right", times[1] + HOUR / 4, times[6] + HOUR / 4))
    members.later(hours=1)
    after = [(await members.whose(member_id, time)).guide_id for time in asked]
    assert after == [
        *("guide 0", "right", "right", "right", "right", "right"),
        *(f"guide {number}" for number in range(6, 15)),
    ]
    assert [(await members.whose(member_id, time, known_at)).guide_id for time in asked] == before
    superseded = await database["binding_history"].count_documents(
        {"superseded_time": {"$gt": known_at}, "valid_to_time": {"$ne": None}}
    )
    assert superseded > 0


async def test_rows_of_nobody_are_unknown_and_those_of_a_merged_one_stay_his(members: Members) -> None:
    """By his own id, as he left them."""
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)
    await members.merged(old, young)
    assert [row.guide_id for row in await members.bindings.rows(BRAND, young)] == ["bea", "bea"]
    with pytest.raises(NotFound) as unknown:
        await members.bindings.rows(BRAND, "x" * 16)
    assert unknown.value.reason == "MEMBER_UNKNOWN"
    with pytest.raises(NotFound):
        await members.bindings.rows("b" * 16, old)


# ---- identities -------------------------------------------------------------------------------------


async def test_a_recycled_number_is_the_first_ones_before_and_the_second_ones_after(
    members: Members,
) -> None:
    """As known before either was recorded, it was as was known then."""
    number = phone("13812345678")
    early = members.clock.now()
    members.later(hours=1)
    first, _ = await members.scan("ann", number, ALWAYS)
    held = members.later(hours=1)
    gave_up = members.later(hours=1)
    await members.unlink(first.member_id, number)
    between = members.later(hours=1)
    members.later(hours=1)
    second, _ = await members.scan("bea", number, ALWAYS)
    late = members.later(hours=1)
    assert second.member_id != first.member_id

    async def whose(as_of: datetime, known_at: datetime | None) -> tuple[str, str]:
        answer = await members.whose(number, as_of, known_at)
        return answer.member_id, answer.guide_id

    ann, bea = (first.member_id, "ann"), (second.member_id, "bea")
    assert [await whose(time, None) for time in (held, gave_up - HOUR / 60, late)] == [ann, ann, bea]
    assert await whose(gave_up + HOUR / 60, None) == (second.member_id, ""), "his since it was given up"
    assert [await whose(late, known) for known in (early, held, between, late)] == [
        *(("", ""), ann),
        *(("", ""), bea),
    ]
    assert [await whose(held, known) for known in (early, held, between, late)] == [("", ""), ann, ann, ann]
    assert (await members.whose(first.member_id)).guide_id == "ann", "he has only lost his number"


async def test_an_identity_that_is_linked_was_his_since_ever_but_not_known(members: Members) -> None:
    """An account linked today ordered yesterday; what was answered yesterday stays."""
    member_id = await scanned(members, "ann", 1)
    before = members.later(hours=1)
    assert await members.whose(card(2), before, before) == Answer("")
    members.later(hours=1)
    await members.joined(member_id, card(2))
    members.later(hours=1)
    assert (await members.whose(card(2), before)).guide_id == "ann"
    assert await members.whose(card(2), before, before) == Answer("")


async def test_one_whose_enrolment_was_cut_off_is_known_by_his_identity_before_and_after_it_is_completed(
    members: Members,
) -> None:
    """The same answer for the same moment."""
    await members.cut_off(card(1), "m" * 16)
    known_at = members.later(hours=1)
    answer = await members.whose(card(1), known_at, known_at)
    assert answer == Answer("m" * 16)
    await scanned(members, "ann", 1)
    members.later(hours=1)
    assert await members.whose(card(1), known_at, known_at) == answer


# ---- merges -----------------------------------------------------------------------------------------


async def test_through_a_chain_of_merges_each_answers_for_his_time(members: Members) -> None:
    """By the youngest one's id and card: himself, then the middle one, then the old one, and back again."""
    old, middle, young = [await scanned(members, f"guide {number}", number) for number in range(3)]
    first, _ = members.later(hours=1), members.later(hours=1)
    lower = await members.merged(middle, young)
    second, _ = members.later(hours=1), members.later(hours=1)
    upper = await members.merged(old, middle)
    third = members.later(hours=1)
    asked = [(subject, as_of) for subject in (young, card(2)) for as_of in (first, second, third)]
    answers = [await members.whose(subject, as_of) for subject, as_of in asked]
    assert [(answer.member_id, answer.guide_id) for answer in answers] == [
        *((young, "guide 2"), (middle, "guide 1"), (old, "guide 0")),
    ] * 2
    known_at = third
    members.later(hours=1)
    for merge in (upper, lower):
        await members.undo(merge)
    members.later(hours=1)
    now = [await members.whose(subject, as_of) for subject, as_of in asked]
    assert {(answer.member_id, answer.guide_id) for answer in now} == {(young, "guide 2")}
    again = [await members.whose(subject, as_of, known_at) for subject, as_of in asked]
    assert again == answers, "what was believed while they were one stays known"


async def test_a_correction_by_a_merged_ones_id_is_of_whoever_answered_for_it(members: Members) -> None:
    """From before the merge until after it: himself until then, the survivor since."""
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)
    before, _ = members.later(hours=1), members.later(hours=1)
    merge = await members.merged(old, young)
    after = members.later(hours=1)
    now = members.later(hours=2)
    known = {
        (one, time): await members.whose(one, time, now - HOUR)
        for one in (old, young)
        for time in (before, after)
    }
    await members.correct(young, was("cat", before - HOUR / 2, now))
    late = members.later(hours=1)

    async def guides(time: datetime) -> list[str]:
        return [(await members.whose(one, time)).guide_id for one in (old, young, card(1), card(2))]

    assert await guides(before) == ["ann", "cat", "ann", "cat"]
    assert await guides(after) == ["cat", "cat", "cat", "cat"]
    assert await guides(late) == ["ann", "ann", "ann", "ann"]
    for (one, time), answer in known.items():
        assert await members.whose(one, time, now - HOUR) == answer
    await members.undo(merge)
    members.later(hours=1)
    assert await guides(after) == ["ann", "cat", "ann", "cat"], "it came through the other's id"
    assert await guides(late) == ["ann", "bea", "ann", "bea"]


async def test_a_correction_by_the_survivors_id_leaves_the_others_past_alone(members: Members) -> None:
    """And stays with the survivor when they are separated."""
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)
    before, _ = members.later(hours=1), members.later(hours=1)
    merge = await members.merged(old, young)
    now = members.later(hours=1)
    await members.correct(old, was("cat", before - HOUR / 2, now))
    members.later(hours=1)
    assert [(await members.whose(one, before)).guide_id for one in (old, young)] == ["cat", "bea"]
    await members.undo(merge)
    asked = [(old, before), (old, now - HOUR / 2), (young, before), (young, now - HOUR / 2)]
    assert [(await members.whose(one, time)).guide_id for one, time in asked] == [
        *("cat", "cat"),
        *("bea", "bea"),
    ]


async def test_a_correction_keeps_the_standing_row_active(members: Members, database: Database) -> None:
    """It is as active as it was; who was nobody's and is corrected to be somebody's is so from now on."""

    async def active() -> datetime:
        stored = await database["members"].find_one({"_id": f"{BRAND}|{member_id}"})
        assert stored is not None
        found: datetime = stored["standing"]["active_time"]
        return found

    member_id = await scanned(members, "ann", 1)
    begun = await active()
    bought = members.later(days=50)
    member = await members.store.find(BRAND, member_id)
    await members.store.record_activity(member, "purchase", bought, renews=True)
    members.later(days=10)
    await members.correct(member_id, was("bea", begun + HOUR, begun + 2 * HOUR))
    assert await active() == bought
    await members.correct(member_id, was("cat", begun + 3 * HOUR, None))
    assert await active() == bought
    members.later(days=10)
    await members.lapse(member_id)
    now = members.later(days=10)
    await members.correct(member_id, was("dan", begun, None))
    assert await active() >= now, "what an admin says stands does not lapse the same night"


async def test_a_thousand_questions_are_answered_in_their_order(members: Members) -> None:
    """By id and identity, known and unknown, standing, past, merged and long ago."""
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)
    members.later(hours=1)
    merged_at = (await members.merged(old, young))["merge_time"]
    for number in range(12):
        await scanned(members, f"guide {number}", 3)
    now = members.later(hours=1)
    kinds: list[tuple[str | StoredIdentity, datetime, tuple[str, str]]] = [
        (old, now, ("ann", old)),
        (young, now, ("ann", old)),
        (young, merged_at - HOUR / 2, ("bea", young)),
        (card(2), merged_at - HOUR / 2, ("bea", young)),
        (card(2), now, ("ann", old)),
        (card(3), now, ("guide 11", await scanned(members, "guide 11", 3))),
        (card(3), merged_at + HOUR * 1.5, ("guide 0", await scanned(members, "guide 11", 3))),
        (card("unknown"), now, ("", "")),
        (new_id(), now, ("", "")),
        (card(1), merged_at - 9 * HOUR, ("", old)),
    ]
    asked = [kinds[number * 7 % len(kinds)] for number in range(1000)]
    questions = [
        Question("", subject, as_of, None)
        if isinstance(subject, str)
        else Question(subject.index, "", as_of, None)
        for subject, as_of, _ in asked
    ]
    answers = await members.bindings.resolve(BRAND, questions)
    assert [(answer.guide_id, answer.member_id) for answer in answers] == [answer for _, _, answer in asked]
