"""Anything that can happen to a member's bindings, in any order, at rising and at late times."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chassis.errors import Refused
from svc_members.rules import binding, bitemporal
from svc_members.rules.binding import Cause, Decision, Outcome, Policy, Row, Scan, Snatch

MILLISECOND = timedelta(milliseconds=1)
STORES = {"ann": "east", "bea": "west", "cat": "east"}
"""Guides, and the store of each."""
guides = st.sampled_from(sorted(STORES))
policies = st.builds(
    Policy,
    snatch=st.sampled_from(Snatch),
    protection_days=st.sampled_from([binding.FOR_EVER, 0, 1, 90]),
    self_binding=st.booleans(),
    pool_claim=st.booleans(),
)
# A scan may reach us a day late, and from a clock a little ahead of ours.
ages = st.sampled_from(
    [timedelta(0), MILLISECOND, timedelta(hours=3), timedelta(days=1), -timedelta(seconds=5)]
)
waits = st.sampled_from(
    [timedelta(0), MILLISECOND, timedelta(seconds=7), timedelta(days=1), timedelta(days=90)]
)


class Bindings(RuleBasedStateMachine):
    """One member, as the store writes him: rows are added and superseded, at strictly rising times."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 3, 10, 4, tzinfo=UTC)
        self.recorded = self.now - timedelta(days=400)
        self.rows: tuple[Row, ...] = ()
        self.known: list[tuple[datetime, tuple[Row, ...]]] = []
        self.answers: dict[tuple[datetime, datetime], str | None] = {}
        self.revision = 0

    @initialize(resigned=st.booleans())
    def may_have_a_past(self, resigned: bool) -> None:
        """Some members were somebody's once."""
        if resigned:
            begin = self.now - timedelta(days=300)
            past = Row(
                "old",
                "zoe",
                "east",
                begin,
                begin + timedelta(days=9),
                self.recorded,
                None,
                begin,
                Cause.SCAN,
                "",
            )
            self.rows = (past,)
            self.known.append((self.recorded, self.rows))

    def _next_id(self) -> str:
        self.revision += 1
        return f"row-{self.revision}"

    def _written(self, decision: Decision) -> None:
        """Does what the store does in its one write."""
        before = self.rows
        if not decision.added:
            assert decision.superseded == ()
            return
        self.recorded = max(self.now, self.recorded + MILLISECOND)
        assert set(decision.superseded) <= {row.binding_id for row in before if row.superseded_time is None}
        ended = [
            replace(row, superseded_time=self.recorded) if row.binding_id in decision.superseded else row
            for row in before
        ]
        added = [replace(row, recorded_time=self.recorded) for row in decision.added]
        self.rows = (*ended, *added)
        self.known.append((self.recorded, self.rows))
        standing = binding.standing(self.rows)
        wanted = decision.standing.binding_id if decision.standing else None
        assert (standing.binding_id if standing else None) == wanted
        held = binding.standing(before)
        assert held is None or all(row.valid_from_time >= held.valid_from_time for row in decision.added)
        begins = max([row.valid_to_time or row.valid_from_time for row in decision.added])
        self._past_is_as_it_was(before, begins)

    def _past_is_as_it_was(self, before: tuple[Row, ...], begins: datetime) -> None:
        for moment in [
            begins - MILLISECOND,
            begins - timedelta(days=1),
            *(row.valid_from_time for row in before),
        ]:
            if moment < begins:
                was, now = bitemporal.found(before, moment, None), bitemporal.found(self.rows, moment, None)
                assert (was and (was.guide_id, was.store_id)) == (now and (now.guide_id, now.store_id))

    @rule(guide=guides, age=ages, policy=policies, by_herself=st.booleans())
    def scans(self, guide: str, age: timedelta, policy: Policy, by_herself: bool) -> None:
        """A guide's code is scanned."""
        held = binding.standing(self.rows)
        scan = Scan(guide, STORES[guide], "spring", self.now - age, by_herself)
        if by_herself and not policy.self_binding and (held is None or held.guide_id != guide):
            with pytest.raises(Refused, match="SELF_BINDING"):
                binding.scan(self.rows, scan, policy, self._next_id())
            return
        decision = binding.scan(self.rows, scan, policy, self._next_id())
        match decision.outcome:
            case Outcome.ALREADY_BOUND:
                assert held is not None
                assert held.guide_id == guide
            case Outcome.KEPT:
                assert held is not None
                assert held.guide_id not in ("", guide), "from a pool any guide takes him"
                # Of two guides' scans the later made wins; else only protection, or NEVER, keeps him.
                if scan.scanned_time >= held.valid_from_time:
                    assert policy.snatch is not Snatch.ALWAYS
                    if policy.snatch is Snatch.AFTER_PROTECTION and held.protected_until_time is not None:
                        assert held.protected_until_time > scan.scanned_time
            case Outcome.SNATCHED:
                assert held is not None
                assert held.guide_id not in ("", guide)
                assert policy.snatch is not Snatch.NEVER
                if policy.snatch is Snatch.AFTER_PROTECTION:
                    ends, begins = held.protected_until_time, decision.added[-1].valid_from_time
                    assert ends is not None
                    assert ends <= begins
            case _:
                assert decision.outcome is Outcome.BOUND
                assert held is None or not held.guide_id
        if decision.outcome in (Outcome.KEPT, Outcome.ALREADY_BOUND):
            assert decision.standing == held
            assert decision.added == ()
        self._written(decision)

    @rule(store=st.sampled_from(["east", "west"]), age=ages, policy=policies)
    def scans_a_store_code(self, store: str, age: timedelta, policy: Policy) -> None:
        """A store's code binds only who is nobody's."""
        held = binding.standing(self.rows)
        decision = binding.scan(
            self.rows, Scan("", store, "", self.now - age, False), policy, self._next_id()
        )
        assert (decision.outcome is Outcome.BOUND) == (held is None)
        self._written(decision)

    @rule(guide=guides, policy=policies, by_herself=st.booleans())
    def claims(self, guide: str, policy: Policy, by_herself: bool) -> None:
        """A guide claims him from her store's pool."""
        held = binding.standing(self.rows)
        claimed = Scan(guide, STORES[guide], "", self.now, by_herself)
        hers = held is not None and held.guide_id == guide
        in_her_pool = held is not None and not held.guide_id and held.store_id == STORES[guide]
        allowed = policy.pool_claim and (hers or (in_her_pool and (policy.self_binding or not by_herself)))
        if allowed:
            self._written(binding.claim(self.rows, claimed, policy, self._next_id()))
            standing = binding.standing(self.rows)
            assert standing is not None
            assert standing.guide_id == guide
        else:
            with pytest.raises(Refused, match=r"POOL_CLAIM_OFF|MEMBER_NOT_IN_POOL|SELF_BINDING"):
                binding.claim(self.rows, claimed, policy, self._next_id())

    @rule()
    def lapses(self) -> None:
        """His binding runs out, from now on and never backdated."""
        held = binding.standing(self.rows)
        decision = binding.end(self.rows, self.now, Cause.LAPSED, self._next_id())
        self._written(decision)
        assert binding.standing(self.rows) is None
        if held is not None and held.valid_from_time < self.now:
            before = bitemporal.found(self.rows, self.now - MILLISECOND, None)
            assert before is not None
            assert before.guide_id == held.guide_id

    @rule(guide=guides, age=ages)
    def resigns(self, guide: str, age: timedelta) -> None:
        """A guide leaves: her members fall to her store's pool, nobody else's do."""
        held = binding.standing(self.rows)
        self._written(binding.resign(self.rows, guide, self.now - age, self._next_id()))
        standing = binding.standing(self.rows)
        if held is not None and held.guide_id == guide:
            assert standing is not None
            assert (standing.guide_id, standing.store_id) == ("", held.store_id)
        else:
            assert standing == held

    @rule(giver=guides, taker=guides, policy=policies, resigned=st.booleans())
    def is_handed_over(self, giver: str, taker: str, policy: Policy, resigned: bool) -> None:
        """He accepts another guide: from then on, if he is still with whom he was offered from."""
        held = binding.standing(self.rows)
        accepted = Scan(taker, STORES[taker], "", self.now, False)
        decision = binding.hand_over(
            self.rows, giver, accepted, policy, resigned=resigned, next_id=self._next_id()
        )
        if decision.outcome is Outcome.LOST:
            assert decision.standing == held
            assert decision.added == ()
        else:
            assert decision.standing is not None
            assert decision.standing.guide_id == taker
            assert held is not None
            left = resigned and not held.guide_id and held.cause is Cause.RESIGNED
            assert held.guide_id == taker or left or (not resigned and held.guide_id == giver)
        self._written(decision)

    @rule(wait=waits)
    def time_passes(self, wait: timedelta) -> None:
        """Or does not: several things happen in one millisecond."""
        self.now += wait

    @precondition(lambda self: len(self.answers) < 20)
    @rule(as_of=waits, known=waits)
    def somebody_asks(self, as_of: timedelta, known: timedelta) -> None:
        """Whose he was at a moment, as known at another at least five seconds ago."""
        question = (self.now - as_of, self.now - binding.KNOWN_AT_AGE_LEAST - known)
        found = bitemporal.found(self.rows, *question)
        answer = found.binding_id if found else None
        believed = [rows for recorded, rows in self.known if recorded <= question[1]]
        then = bitemporal.found(believed[-1], question[0], None) if believed else None
        assert answer == (then.binding_id if then else None), "not what was believed then"
        assert self.answers.setdefault(question, answer) == answer

    @invariant()
    def an_answer_once_given_stays(self) -> None:
        """Commission that was paid by an answer must be explained by it for ever."""
        for question, answer in self.answers.items():
            found = bitemporal.found(self.rows, *question)
            assert (found.binding_id if found else None) == answer

    @invariant()
    def nobody_has_him_twice(self) -> None:
        """Of the rows believed at any moment, no two hold at the same time, and one at most stands."""
        for known_at in {row.recorded_time for row in self.rows}:
            assert known_at is not None
            believed = [
                row
                for row in self.rows
                if row.recorded_time is not None
                and row.recorded_time <= known_at
                and (row.superseded_time is None or row.superseded_time > known_at)
            ]
            believed.sort(
                key=lambda row: (row.valid_from_time, row.valid_to_time or datetime.max.replace(tzinfo=UTC))
            )
            for earlier, later in pairwise(believed):
                assert earlier.valid_to_time is not None
                assert earlier.valid_to_time <= later.valid_from_time

    @invariant()
    def recorded_times_rise(self) -> None:
        """A row is superseded by what was recorded later, and ids are never used again."""
        ids = [row.binding_id for row in self.rows]
        assert len(set(ids)) == len(ids)
        for row in self.rows:
            assert row.recorded_time is not None
            assert row.superseded_time is None or row.superseded_time > row.recorded_time


TestBindings = Bindings.TestCase
TestBindings.settings = settings(stateful_step_count=25)
