"""Anything that can happen to members, in any order, on the real store; every answer is remembered and stays.

Forty examples of up to 40 steps each, a brand to each; under --soak two hundred of up to 120.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import ClassVar, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chassis.errors import Conflict, Refused
from chassis.ids import new_id
from chassis.mongo import connection
from chassis.mongo.connection import Document
from local.embedded_mongo import EmbeddedMongo, GivenMongo
from svc_members.binding.store_binding import Answer, Question
from svc_members.member.identities import StoredIdentity
from svc_members.member.member_document import Member
from svc_members.rules import binding, bitemporal
from svc_members.rules.binding import KNOWN_AT_AGE_LEAST, Cause, Decision, Policy, Row, Scan
from svc_members.rules.correction import Correction
from tests.contract.conftest import settings_for
from tests.contract.members import ALWAYS, PROTECTED, Members, MovingClock, card, members_of

T = TypeVar("T")

GUIDES: Final = st.sampled_from(["ann", "bea", "cat"])
CARDS: Final = st.integers(0, 4)
WHOM: Final = st.integers(0, 9)
"""One of the ids that were ever given, the latest first."""
AGES: Final = st.sampled_from(
    [timedelta(0), timedelta(milliseconds=1), timedelta(hours=2), timedelta(days=1)]
)
WAITS: Final = st.sampled_from(
    [timedelta(seconds=7), timedelta(hours=1), timedelta(days=1), timedelta(days=9)]
)

Subject = str | StoredIdentity
"""Who is asked about: by id, or by an identity."""


class Lives(RuleBasedStateMachine):
    """The members of a brand, whom a connector, guides and admins do to whatever they can.

    What was answered for an explicit `known_at` is kept in `answers` and asked again now and then, and at the
    end. An erasure alone takes answers out of it: those by what the erased was known by.
    """

    members: ClassVar[Members]
    runner: ClassVar[asyncio.Runner]

    def __init__(self) -> None:
        super().__init__()
        self.brand_id = new_id()
        self.ids: list[str] = []
        self.erased: list[str] = []
        self.merges: list[Document] = []
        self.moments: list[datetime] = []
        self.answers: dict[tuple[Subject, datetime, datetime], Answer] = {}

    # ---- what the rules are made of ------------------------------------------------------------------

    def run(self, act: Awaitable[T]) -> T:
        """Does something in the machine's event loop."""

        async def acted() -> T:
            return await act

        return self.runner.run(acted())

    @property
    def now(self) -> datetime:
        return self.members.clock.now()

    def card(self, number: int) -> StoredIdentity:
        """One of the brand's few cards, so that members meet at them."""
        return card(number, self.brand_id)

    def whom(self, place: int) -> str:
        """One of the ids, aliases among them."""
        return self.ids[-1 - place % len(self.ids)]

    def knows(self, member_id: str) -> None:
        """Notes an id that was told."""
        if member_id not in self.ids:
            self.ids.append(member_id)

    def done(self, act: Awaitable[T], *refusals: str) -> T | None:
        """Does something that may be refused for some reasons, and notes when it was done."""

        async def tried() -> T | None:
            try:
                return await act
            except Refused as refused:
                if refused.reason not in refusals:
                    raise
                return None

        result = self.run(tried())
        self.moments.append(self.now)
        return result

    def decided(self, place: int, decide: Callable[[Member, str], Decision]) -> None:
        """What the background or an admin decides about whoever answers for an id."""

        async def read() -> Member:
            return await self.members.store.find(self.brand_id, self.whom(place))

        async def decided(member: Member, next_id: str) -> Decision:
            return decide(member, next_id)

        self.done(self.members.store.decided(read, decided))

    # ---- what happens --------------------------------------------------------------------------------

    @initialize(number=CARDS)
    def begins(self, number: int) -> None:
        """With somebody."""
        self.enrols({number})

    @rule(numbers=st.sets(CARDS, min_size=1, max_size=2))
    def enrols(self, numbers: set[int]) -> None:
        """Somebody who shows some cards."""
        named = [self.card(number) for number in sorted(numbers)]
        enrolled = self.done(
            self.members.enrol(*named, brand_id=self.brand_id), "IDENTITIES_OF_DIFFERENT_MEMBERS"
        )
        if enrolled is not None:
            self.knows(enrolled[0])

    @rule(number=CARDS, guide=GUIDES, age=AGES, policy=st.sampled_from([ALWAYS, ALWAYS, PROTECTED]))
    def scans(self, number: int, guide: str, age: timedelta, policy: Policy) -> None:
        """A customer known by a card; his scan may reach us a day late."""
        scanned = self.done(self.members.scan(guide, self.card(number), policy, self.brand_id, age=age))
        assert scanned is not None
        self.knows(scanned[0].member_id)

    @rule(place=WHOM, number=CARDS)
    def is_linked(self, place: int, number: int) -> None:
        """A card is linked to somebody; where it is another's, they are merged.

        Then all that was before the merge is told as it was.
        """
        asked = self.now - timedelta(milliseconds=1)
        before = self._told(asked)
        merge = self.done(self.members.joined(self.whom(place), self.card(number), self.brand_id))
        if merge is not None:
            self.merges.append(merge)
            self.moments.append(merge["merge_time"])
            assert self._told(asked) == before

    def _told(self, as_of: datetime) -> list[tuple[str, str, str]]:
        """Of everybody, whose he was at a moment, as is believed."""
        questions = [Question(*_named(subject), as_of, None) for subject in self.subjects()]
        answers = self.run(self.members.bindings.resolve(self.brand_id, questions))
        return [(answer.member_id, answer.guide_id, answer.store_id) for answer in answers]

    @precondition(lambda self: self.merges)
    @rule(place=st.integers(0, 5))
    def is_separated(self, place: int) -> None:
        """A merge is undone, or has been already."""
        merge = self.merges[-1 - place % len(self.merges)]
        self.done(self.members.undo(merge), "MERGED_AGAIN", "MERGE_TOO_OLD")

    @rule(one=WHOM, two=WHOM)
    def are_merged_by_mistake(self, one: int, two: int) -> None:
        """And separated when somebody has asked about them: both have what they had, row by row."""
        find = self.members.store.find
        this, that = (self.run(find(self.brand_id, self.whom(place))).member_id for place in (one, two))
        if this == that:
            return
        before = [self._kept(member_id) for member_id in (this, that)]
        merge = self.done(self.members.merged(this, that, self.brand_id))
        assert merge is not None
        self.somebody_asks_at_once()
        self.merges.append(self.done(self.members.undo(merge)) or merge)
        assert [self._kept(member_id) for member_id in (this, that)] == before

    def _kept(self, member_id: str) -> object:
        rows = [
            replace(row, binding_id="", recorded_time=None, cause=Cause.SCAN)
            for row in self._believed(member_id)
        ]
        links = self.run(self.members.identities.links(self.brand_id, member_id))
        stored = self.run(self._document(member_id))
        activity = (stored.get("standing") or {}).get("active_time")
        return rows, [link.identity.index for link in links], stored["identity_count"], activity

    @rule(place=WHOM, number=CARDS, ago=AGES)
    def gives_up(self, place: int, number: int, ago: timedelta) -> None:
        """A card of his, if it is; some time ago, if he had it then, or now."""
        time = self.now - ago if ago else None
        act = self.members.unlink(self.whom(place), self.card(number), time, self.brand_id)
        self.done(act, "NOT_HIS_IDENTITY", "UNLINKED_BEFORE_LINKED")

    @rule(number=CARDS)
    def is_cut_off(self, number: int) -> None:
        """The service dies between the two writes of a first scan, where nobody has the card."""

        async def cut_off() -> None:
            try:
                await self.members.identities.link_first(self.brand_id, new_id(), self.card(number))
            except Conflict:
                return

        self.done(cut_off())

    @rule(place=WHOM)
    def lapses(self, place: int) -> None:
        """His binding, if he has one."""
        self.decided(place, lambda member, next_id: binding.end(member.rows, self.now, Cause.LAPSED, next_id))

    @rule(place=WHOM, age=AGES)
    def is_left(self, place: int, age: timedelta) -> None:
        """His guide resigned, some time ago."""

        def decide(member: Member, next_id: str) -> Decision:
            standing = binding.standing(member.rows)
            guide = standing.guide_id if standing else ""
            return binding.resign(member.rows, guide or "nobody", self.now - age, next_id)

        self.decided(place, decide)

    @rule(place=WHOM, taker=GUIDES)
    def is_handed_over(self, place: int, taker: str) -> None:
        """To another guide, by whoever has him."""

        def decide(member: Member, next_id: str) -> Decision:
            standing = binding.standing(member.rows)
            giver = standing.guide_id if standing else ""
            taken = Scan(taker, "west", "", self.now, by_herself=False)
            return binding.hand_over(
                member.rows, giver or "nobody", taken, PROTECTED, resigned=not giver, next_id=next_id
            )

        self.decided(place, decide)

    @precondition(lambda self: len(self.moments) > 1)
    @rule(place=WHOM, guide=st.one_of(GUIDES, st.just("")), data=st.data())
    def is_corrected(self, place: int, guide: str, data: st.DataObject) -> None:
        """From when something happened until something else did, or from then on."""
        begin, end = sorted(data.draw(st.sampled_from(self.moments)) for _ in range(2))
        until = data.draw(st.sampled_from([end, None]))
        if until is None or begin < until:
            said = Correction(guide, "west" if guide else "", begin, until, "a mistake")
            self.done(self.members.correct(self.whom(place), said, self.brand_id))

    @rule(place=WHOM)
    def buys(self, place: int) -> None:
        """By an id of his, which renews his binding."""

        async def bought() -> None:
            member = await self.members.store.find(self.brand_id, self.whom(place))
            await self.members.store.record_activity(member, "purchase", self.now, renews=True)

        self.done(bought())

    @precondition(lambda self: len(self.ids) > 2)
    @rule(place=WHOM)
    def is_erased(self, place: int) -> None:
        """Whoever answers for an id, with all who were merged into him, unless he is the only one left.

        By his ids every answer stays; by what he was known by there is none any more.
        """
        member = self.run(self.members.store.find(self.brand_id, self.whom(place)))
        gone = {member.member_id, *member.absorbed}
        if gone >= set(self.ids):
            return
        links = self.run(self.members.identities.links(self.brand_id, member.member_id))
        his = {link.identity.index for link in links}
        act = self.members.erasures.erase(self.brand_id, self.whom(place), self.now)
        erased = self.done(act)
        assert erased is not None
        assert set(erased[1]) == gone
        self.erased += [one for one in self.ids if one in gone]
        self.ids = [one for one in self.ids if one not in gone]
        self.merges = [one for one in self.merges if one["survivor_id"] not in gone]
        self.answers = {
            question: answer
            for question, answer in self.answers.items()
            if isinstance(question[0], str) or (question[0].index not in his and answer.member_id not in gone)
        }
        assert not self.run(self.members.identities.links(self.brand_id, member.member_id))

    @rule(wait=WAITS)
    def time_passes(self, wait: timedelta) -> None:
        """So that what was known can be asked for."""
        self.members.later(seconds=wait.total_seconds())

    # ---- what is asked -------------------------------------------------------------------------------

    def subjects(self) -> list[Subject]:
        """All who can be asked about."""
        return [*self.ids, *self.erased, *(self.card(number) for number in range(5))]

    @rule(data=st.data())
    def somebody_asks(self, data: st.DataObject) -> None:
        """About everybody: whose he was when something happened, as was known at another such moment."""
        known = [moment for moment in self.moments if moment + KNOWN_AT_AGE_LEAST <= self.now]
        if not known:
            return
        tick = st.sampled_from([timedelta(0), timedelta(milliseconds=1)])
        as_of = data.draw(st.sampled_from(self.moments)) - data.draw(tick)
        known_at = data.draw(st.sampled_from(known)) - data.draw(tick)
        self._ask(as_of, known_at)

    @rule()
    def somebody_asks_at_once(self) -> None:
        """About everybody, as soon as it can be told for good what was known a moment ago."""
        now = self.now
        self.members.later(seconds=KNOWN_AT_AGE_LEAST.total_seconds())
        self._ask(now, now)

    def _ask(self, as_of: datetime, known_at: datetime) -> None:
        questions = [(subject, as_of, known_at) for subject in self.subjects()]
        for question, answer in zip(questions, self._asked(questions), strict=True):
            assert self.answers.setdefault(question, answer) == answer, question
        if len(self.answers) % 3 == 0:
            self._ask_again()

    def _asked(self, questions: list[tuple[Subject, datetime, datetime]]) -> list[Answer]:
        asked = [Question(*_named(subject), as_of, known_at) for subject, as_of, known_at in questions]
        return self.run(self.members.bindings.resolve(self.brand_id, asked))

    def _ask_again(self) -> None:
        questions = list(self.answers)
        for question, answer in zip(questions, self._asked(questions), strict=True):
            assert answer == self.answers[question], question

    def teardown(self) -> None:
        """At the end everything is asked again, and everything looked through."""
        if self.ids:
            self._ask_again()
            for member_id in [*self.ids, *self.erased]:
                self._looked_through(member_id)

    # ---- what holds ----------------------------------------------------------------------------------

    async def _document(self, member_id: str) -> Document:
        found = await self.members.database["members"].find_one({"_id": f"{self.brand_id}|{member_id}"})
        assert found is not None
        return found

    def _rows(self, member_id: str) -> list[Row]:
        return self.run(self.members.bindings.rows(self.brand_id, member_id))

    def _believed(self, member_id: str) -> list[Row]:
        rows = [row for row in self._rows(member_id) if row.superseded_time is None]
        return sorted(rows, key=lambda row: row.valid_from_time)

    def _looked_through(self, member_id: str) -> None:
        """Of the rows believed at any moment no two hold at one time; none is lost, none there twice."""
        rows, stored = self._rows(member_id), self.run(self._document(member_id))
        assert len(rows) == len(stored["rows"]) + stored.get("history_count", 0)
        for moment in {row.recorded_time for row in rows}:
            assert moment is not None
            known = [row for row in rows if bitemporal.believed(row, moment)]
            known.sort(key=lambda row: row.valid_from_time)
            for earlier, later in pairwise(known):
                assert earlier.valid_to_time is not None
                assert earlier.valid_to_time <= later.valid_from_time
        for row in rows:
            assert row.valid_to_time is None or row.valid_from_time < row.valid_to_time
            assert row.superseded_time is None or (row.recorded_time or self.now) < row.superseded_time

    @invariant()
    def everybody_is_in_order(self) -> None:
        """One standing binding at most, whoever answers answers for himself, and nobody's card is counted."""
        members, held = self.run(self._everything())
        by_id = {member["member_id"]: member for member in members}
        for member in members:
            self._check(member, by_id)
        counted = {member["member_id"]: member["identity_count"] for member in members}
        # Whose enrolment was cut off holds a card and is nowhere counted.
        assert {one: count for one, count in counted.items() if count} == {
            one: count for one, count in held.items() if one in counted
        }
        assert not [one for one in held if "merged_into" in by_id.get(one, {})]

    async def _everything(self) -> tuple[list[Document], Counter[str]]:
        database, query = self.members.database, {"brand_id": self.brand_id}
        members = await database["members"].find(query).to_list(None)
        links = await database["identities"].find(query, {"member_id": 1}).to_list(None)
        return members, Counter(link["member_id"] for link in links if "member_id" in link)

    def _check(self, member: Document, by_id: dict[str, Document]) -> None:
        rows = member["rows"]
        standing = [row for row in rows if row["superseded_time"] is None and row["valid_to_time"] is None]
        told = member.get("standing")
        assert [row["binding_id"] for row in standing] == ([told["binding_id"]] if told else [])
        if told:
            assert told["recorded_time"] == standing[0]["recorded_time"]
            assert told["active_time"] >= standing[0]["valid_from_time"] or standing[0]["since_time"]
        if "merged_into" in member:
            assert told is None
            survivor = by_id[member["merged_into"]]
            while "merged_into" in survivor:
                survivor = by_id[survivor["merged_into"]]
            assert member["member_id"] in survivor["absorbed"]
        absorbed = [one for one in by_id.values() if one.get("merged_into") == member["member_id"]]
        nested = [alias for one in absorbed for alias in (one["member_id"], *one.get("absorbed", ()))]
        assert sorted(nested) == sorted(member.get("absorbed", ()))
        origins = {row["origin_id"] for row in rows if row["superseded_time"] is None} - {""}
        assert origins <= set(member.get("absorbed", ())), "whose separation took what came through him"


def _named(subject: Subject) -> tuple[str, str]:
    """Index and member id, as a question names them."""
    return ("", subject) if isinstance(subject, str) else (subject.index, "")


@pytest.fixture
def lives(mongo: EmbeddedMongo | GivenMongo) -> Iterator[type[Lives]]:
    """The machine, on a database of its own and in one event loop."""
    with asyncio.Runner() as running:
        opened = contextlib.AsyncExitStack()

        async def open_() -> Members:
            opening = connection.connected(settings_for(mongo, "motor"), f"machine_{new_id()}")
            return await members_of(await opened.enter_async_context(opening), MovingClock())

        async def close(database: connection.Database) -> None:
            await database.client.drop_database(database.name)
            await opened.aclose()

        class OnDatabase(Lives):
            """The machine of this test."""

            members = running.run(open_())
            runner = running

        yield OnDatabase
        running.run(close(OnDatabase.members.database))


@pytest.mark.timeout(3600)
def test_every_answer_stays_whatever_happens_to_members(lives: type[Lives], soak: bool) -> None:
    """Scans, enrolments, merges and undoing, lost cards, handovers, resignations, corrections, erasures."""
    run_state_machine_as_test(
        lives,
        settings=settings(
            max_examples=200 if soak else 40,
            stateful_step_count=120 if soak else 40,
            suppress_health_check=list(HealthCheck),
        ),
    )
