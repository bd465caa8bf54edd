"""A watch in a world where writes are seen late and clocks go back: nothing is missed, and memory ends."""

from __future__ import annotations

import base64
import hashlib
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Invalid
from chassis.ids import derived_id
from chassis.rpc.cursors import time_of
from chassis.times import EPOCH
from svc_members.binding import binding_watch
from svc_members.binding.binding_watch import FROM_START, OVERLAP, Told, Watch
from svc_members.binding.resume_token import opened_resume_token, resume_token
from svc_members.binding.store_binding_watch import Recorded
from svc_members.rules import binding
from svc_members.rules.binding import Policy, Row, Scan, Snatch
from svc_members.rules.changes import Place, Progress, changes

BRAND = "brandbrandbrand2"
BEGIN = datetime(2026, 3, 10, 4, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)
ALWAYS = Policy(snatch=Snatch.ALWAYS)


@dataclass(frozen=True)
class Written:
    """A state of a member's rows. It is stamped by the database's clock, and seen at a true time."""

    stamp: datetime
    seen: datetime
    rows: tuple[Row, ...]


class Brand:
    """Members to whom something happens while somebody looks; in memory, at the test's pace."""

    def __init__(self, draw: random.Random, members: int, *, late_most: timedelta = timedelta(0)) -> None:
        self.draw = draw
        self.time = BEGIN
        self.clock_ahead = timedelta(0)
        self.busy = 0.0
        """How often, from 0 to 1, something happens while somebody looks."""
        self.clock_goes_back = False
        self._late_most = late_most
        self._members: dict[str, list[Written]] = {derived_id(str(number)): [] for number in range(members)}

    def write(self, member_id: str, stamp: datetime | None = None) -> None:
        """A guide takes the member over."""
        past = self._members[member_id]
        rows = past[-1].rows if past else ()
        stamp = max(stamp or self.time + self.clock_ahead, past[-1].stamp + MILLISECOND if past else EPOCH)
        scan = Scan(f"guide-{len(past)}", "east", "", stamp, False)
        decision = binding.scan(rows, scan, ALWAYS, f"{member_id}.{len(past)}")
        ended = [
            replace(row, superseded_time=stamp) if row.binding_id in decision.superseded else row
            for row in rows
        ]
        added = [replace(row, recorded_time=stamp) for row in decision.added]
        late = self._late_most * self.draw.choice((0, 0, 0, 0, self.draw.random()))
        seen = max(self.time + late, past[-1].seen if past else self.time)
        past.append(Written(stamp, seen, (*ended, *added)))

    def happens(self) -> None:
        """Time passes, and members are taken over."""
        if self.draw.random() < self.busy:
            self.time += self.draw.choice((0, 1, 1, 40, 700, 3000)) * MILLISECOND
            if self.clock_goes_back and self.draw.random() < 0.02:
                self.clock_ahead = self.draw.choice((0, -10, -20)) * SECOND
            for _ in range(self.draw.choice((0, 1, 3))):
                self.write(self.draw.choice(list(self._members)))

    def everything(self) -> list[Told]:
        """Every change there ever was."""
        return [
            (member_id, change)
            for member_id, past in self._members.items()
            if past
            for change in changes(past[-1].rows, EPOCH, past[-1].stamp)
        ]

    def _seen(self, member_id: str) -> Written | None:
        past = self._members[member_id]
        count = bisect_right(past, self.time, key=lambda written: written.seen)
        return past[count - 1] if count else None

    # ---- what a watch reads -----------------------------------------------------------------------

    async def majority_time(self) -> datetime:
        self.happens()
        return self.time + self.clock_ahead

    async def page(self, brand_id: str, after: Place, size: int) -> list[Place]:
        self.happens()
        seen = {member_id: self._seen(member_id) for member_id in self._members}
        places = sorted(
            (written.stamp, member_id) for member_id, written in seen.items() if written is not None
        )
        begin = (after.time, after.member_id or "~")
        return [Place(*place) for place in places if place > begin][:size]

    async def changed(self, brand_id: str, member_ids: Sequence[str], after: datetime) -> list[Recorded]:
        self.happens()
        found = [(member_id, self._seen(member_id)) for member_id in member_ids]
        return [Recorded(member_id, written.rows, written.stamp) for member_id, written in found if written]


class Listener:
    """Keeps what it is told and where to resume; is cut off, and comes back with a token it has."""

    def __init__(self, brand: Brand) -> None:
        self._brand = brand
        self.watch = Watch(brand, BRAND, FROM_START)
        self.tokens = [resume_token(BRAND, FROM_START)]
        self.kept: list[Told] = []
        self.times_told: Counter[tuple[str, datetime]] = Counter()
        self.memory_most = 0

    def keep(self, told: list[Told]) -> None:
        """Keeps what is new, and the token."""
        for member_id, change in told:
            self.times_told[member_id, change.recorded_time] += 1
            if self.times_told[member_id, change.recorded_time] == 1:
                self.kept.append((member_id, change))
        self.tokens.append(resume_token(BRAND, self.watch.progress))
        self.memory_most = max(self.memory_most, len(self.watch._told))

    async def listen(self, *, rounds: int, cut_off: float = 0.0) -> None:
        """Listens for some rounds, cut off now and then before he has kept what he was told."""
        for _ in range(rounds):
            found = self.watch.sweep() if self._brand.draw.random() < 0.4 else self.watch.look()
            async for told in found:
                if self._brand.draw.random() < cut_off:
                    await found.aclose()
                    self.resume(self._brand.draw.choice(self.tokens[-3:]))
                    break
                self.keep(told)
            else:
                self.keep([])
            self._brand.happens()

    async def hear(self, found: AsyncGenerator[list[Told], None]) -> None:
        """Hears all that a sweep or a look tells."""
        async for told in found:
            self.keep(told)

    def resume(self, token: str) -> None:
        """Comes back with a token."""
        self.watch = Watch(self._brand, BRAND, opened_resume_token(BRAND, token))

    async def listen_to_the_end(self) -> None:
        """All is quiet, and he hears what there is."""
        self._brand.busy = 0
        for _ in range(3):
            self._brand.time += OVERLAP
            await self.hear(self.watch.sweep())


def assert_all_is_kept(listener: Listener, brand: Brand) -> None:
    """Each change, none else, and of each member in order."""
    everything = brand.everything()
    assert len(listener.kept) == len(everything)
    assert {(member_id, change.recorded_time): change for member_id, change in listener.kept} == {
        (member_id, change.recorded_time): change for member_id, change in everything
    }
    for wanted in {member_id for member_id, _ in everything}:
        times = [change.recorded_time for member_id, change in listener.kept if member_id == wanted]
        assert times == sorted(times)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and memory so small that every boundary is met."""
    monkeypatch.setattr(binding_watch, "PAGE", 3)
    monkeypatch.setattr(binding_watch, "REMEMBERED_MAX", 6)


@given(seed=st.integers(0, 2**32), members=st.integers(1, 30), busy=st.sampled_from([0.1, 0.5, 1.0]))
async def test_nothing_is_missed_however_late_it_is_seen_and_however_often_he_is_cut_off(
    seed: int, members: int, busy: float
) -> None:
    """Writes are seen up to 39 s late, the clock goes back by 20 s: together less than the overlap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binding_watch, "PAGE", 3)
        patch.setattr(binding_watch, "REMEMBERED_MAX", 6)
        brand = Brand(random.Random(seed), members, late_most=39 * SECOND)
        for _ in range(20):
            brand.busy = 1
            brand.happens()
        brand.clock_goes_back, brand.busy = True, busy
        listener = Listener(brand)
        await listener.listen(rounds=30, cut_off=0.2)
        await listener.listen_to_the_end()
        assert_all_is_kept(listener, brand)
        assert listener.memory_most <= 6


@given(seed=st.integers(0, 2**32))
async def test_who_listens_without_a_break_is_told_everything_once(seed: int) -> None:
    """Though all of the last minute is looked at again and again."""
    brand = Brand(random.Random(seed), 20, late_most=39 * SECOND)
    listener = Listener(brand)
    brand.busy = 0.7
    listener.watch = await Watch.from_now(brand, BRAND)
    await listener.listen(rounds=40)
    await listener.listen_to_the_end()
    assert set(listener.times_told.values()) <= {1}
    untold = [told for told in brand.everything() if told not in listener.kept]
    assert all(change.recorded_time < BEGIN + 39 * SECOND for _, change in untold), "from before he came"


async def test_a_late_write_is_told_at_the_next_look_or_at_the_next_sweep() -> None:
    """One that was stamped some seconds ago, and one half a minute ago, behind much that was told."""
    brand = Brand(random.Random(1), 40)
    late, later, *others = brand._members
    listener = Listener(brand)
    listener.watch = await Watch.from_now(brand, BRAND)
    stamp = brand.time
    for other in others:
        brand.time += SECOND
        brand.write(other)
        await listener.hear(listener.watch.sweep())
    brand.write(late, brand.time - 4 * SECOND)
    brand.write(later, stamp)
    await listener.hear(listener.watch.look())
    assert [member_id for member_id, _ in listener.kept] == [*others, late]
    await listener.hear(listener.watch.sweep())
    assert [member_id for member_id, _ in listener.kept] == [*others, late, later]


async def test_from_now_on_tells_nothing_of_before_and_everything_after() -> None:
    """Also where the stamp of what comes is a little older than the watch."""
    brand = Brand(random.Random(1), 3)
    before, after, late = brand._members
    brand.write(before)
    brand.time += SECOND
    listener = Listener(brand)
    listener.watch = await Watch.from_now(brand, BRAND)
    brand.write(late, brand.time - 2 * SECOND)
    brand.time += SECOND
    brand.write(after)
    brand.write(before)
    await listener.hear(listener.watch.sweep())
    first, *rest = brand.everything()
    assert first[0] == before
    assert sorted(told[0] for told in listener.kept) == sorted([before, after, late])
    assert all(told in listener.kept for told in rest)


async def test_a_clock_that_goes_back_by_an_hour_hides_nothing() -> None:
    """It must not, but it may: what is recorded then lies far behind where the watch had come."""
    brand = Brand(random.Random(1), 6)
    listener = Listener(brand)
    for member_id in brand._members:
        brand.time += timedelta(minutes=1)
        brand.write(member_id)
        await listener.hear(listener.watch.sweep())
        brand.clock_ahead -= timedelta(hours=1)
    assert [member_id for member_id, _ in listener.kept] == list(brand._members)
    assert_all_is_kept(listener, brand)


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_flood_is_told_within_bounds_and_the_place_rises_through_it(
    small: None, at_once: bool
) -> None:
    """An import: more than is remembered, at rising instants or all at one; cut off after every message."""
    brand = Brand(random.Random(1), 300)
    listener = Listener(brand)
    listener.watch = await Watch.from_now(brand, BRAND)
    brand.time += 2 * OVERLAP
    stamp = brand.time
    for place, member_id in enumerate(brand._members):
        brand.write(member_id, stamp if at_once else stamp + place * 10 * MILLISECOND)
    brand.time += 4 * SECOND
    for _ in range(3):
        await listener.hear(listener.watch.look())
        await listener.hear(listener.watch.sweep())
    assert 3 < len(listener.kept) <= 6, "what it could not remember is not told yet"

    brand.time += OVERLAP
    messages = 0
    while len(listener.kept) < 300:
        messages += 1
        assert messages <= 110, "no progress"
        found = listener.watch.sweep()
        async for told in found:
            listener.keep(told)
            break
        await found.aclose()
        listener.resume(listener.tokens[-1])
    assert listener.memory_most <= 6
    assert listener.times_told.total() <= 300 + 6, "each once, but for what was told early"
    await listener.listen_to_the_end()
    assert_all_is_kept(listener, brand)


# ---- resume tokens ----------------------------------------------------------------------------------

times = st.integers(0, 253_402_300_799_999).map(time_of)
places = st.builds(Place, times, st.sampled_from(["", "a" * 16, "z2z7" * 4]))


@given(st.builds(Progress, times, places))
def test_a_token_says_how_far_the_watch_had_come(progress: Progress) -> None:
    """And is short enough for its field."""
    token = resume_token(BRAND, progress)
    assert opened_resume_token(BRAND, token) == progress
    assert len(token) <= 40
    assert token.isascii()


def refusal(token: str, brand_id: str = BRAND) -> str:
    """Why a token is refused; empty: it is not."""
    try:
        opened_resume_token(brand_id, token)
    except Invalid as error:
        return error.reason
    return ""


@given(st.builds(Progress, times, places), st.integers(0, 39), st.characters())
def test_a_changed_token_is_refused(progress: Progress, at: int, letter: str) -> None:
    """Or means the same: a base64 text has bits to spare."""
    token = resume_token(BRAND, progress)
    changed = token[:at] + letter + token[at + 1 :]
    assert refusal(changed) == "RESUME_TOKEN_INVALID" or opened_resume_token(BRAND, changed) == progress


@given(st.text() | st.binary(max_size=48).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_what_is_no_token_is_refused(token: str) -> None:
    """Whatever it is."""
    assert refusal(token) == "RESUME_TOKEN_INVALID"


def test_the_token_of_another_brand_is_refused() -> None:
    """It would pass over this brand's changes, and nobody would know."""
    token = resume_token(BRAND, FROM_START)
    assert refusal(token) == ""
    assert refusal(token, "brandbrandbrand3") == "RESUME_TOKEN_INVALID"


def test_a_token_that_somebody_made_up_does_no_harm() -> None:
    """Its sum is no secret; absurd times are refused all the same."""
    for content in (b"", b"\xff" * 16, b"\0" * 8, b"\0" * 17, b"\0" * 8 + b"\xff" * 18):
        total = hashlib.sha256(BRAND.encode() + b"|" + content).digest()[:4]
        token = base64.urlsafe_b64encode(total + content).decode()
        assert refusal(token) == "RESUME_TOKEN_INVALID"
