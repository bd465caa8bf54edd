"""Doors and their service with an adversary between them, who delays, repeats, reorders and redirects.

He sees and keeps every message, and may write another door, epoch, number or time over a copy of an OPEN;
what he cannot do is guess a nonce. In a second world nonces are all alike, but he changes nothing: there the
door, the epoch and the number alone must tell what an OPEN is for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from chassis.errors import DaogouError
from svc_vision.rules import door_session
from svc_vision.rules.door_session import (
    DoorStream,
    Heard,
    Hello,
    Open,
    Opened,
    Probe,
    ProbeWanted,
    Terminal,
    Welcome,
)

DOORS = ("front", "back")
SERVICE_STARTED_MS = -77_777
"""The service's monotonic clock has nothing to do with a door's."""
doors = st.sampled_from(DOORS)
recent = st.one_of(st.integers(0, 3), st.integers(0, 60))
"""Which message or stream, counted from the latest."""
waits = st.sampled_from([1, 30, 700, 1300, 1999, 2000, 2001, 5000])


def nonce_of(number: int) -> bytes:
    """A nonce that nobody else has."""
    return number.to_bytes(door_session.NONCE_BYTES, "big")


@dataclass
class Asked:
    """What is true of a probe, whatever the messages say."""

    door_id: str
    connection: int
    sequence: int
    captured_ms: int
    command_id: str
    told_to_open: int = 0
    opened: int = 0
    acknowledged: int = 0


@dataclass
class Place:
    """A door: its terminal, when it was started, and the number of its connection, never used twice."""

    terminal: Terminal
    started_ms: int = 0
    connection: int = 0
    opened_sequences: list[int] = field(default_factory=list)


class Network(RuleBasedStateMachine):
    """Two doors, the service's streams, and every message that was ever sent."""

    forges = True

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.numbers = 0
        self.places = {door: Place(Terminal(door)) for door in DOORS}
        self.epochs = dict.fromkeys(DOORS, 0)
        self.streams: dict[tuple[str, int], DoorStream] = {}
        self.sent: dict[type, list[object]] = {
            kind: [] for kind in (Hello, Welcome, Probe, Open, ProbeWanted, Opened)
        }
        self.asked: dict[tuple[str, int, int], Asked] = {}
        self.by_nonce: dict[bytes, Asked] = {}
        self.commands: dict[str, int] = {}

    # ---- what is true ----

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    def _probe_nonce(self) -> bytes:
        return nonce_of(self._number() if self.forges else 0)

    def _door_ms(self, door: str) -> int:
        return self.now_ms - self.places[door].started_ms

    def _service_ms(self) -> int:
        return self.now_ms - SERVICE_STARTED_MS

    def _latest(self, kind: type, back: int) -> object | None:
        found = self.sent[kind]
        return found[-1 - back] if back < len(found) else None

    def _sent_probe(self, door: str, probe: Probe) -> None:
        place = self.places[door]
        true = Asked(door, place.connection, probe.sequence, self.now_ms, probe.command_id)
        self.asked[door, probe.epoch, probe.sequence] = true
        self.by_nonce[probe.nonce] = true
        self.sent[Probe].append(probe)

    def _opens(self, door: str, opening: Open) -> None:
        """The door is open. Whatever the messages said, this must be true of it."""
        place = self.places[door]
        true = (
            self.by_nonce[opening.nonce] if self.forges else self.asked[door, opening.epoch, opening.sequence]
        )
        assert true.door_id == door, "opened for what another door saw"
        assert true.connection == place.connection, "opened for what was asked on an earlier stream"
        assert true.told_to_open, "opened for what was not decided"
        assert self.now_ms - true.captured_ms <= 2000, "opened for what was too long ago"
        assert not true.opened, "opened twice for one decision"
        assert all(true.sequence > earlier for earlier in place.opened_sequences), "opened out of order"
        if true.command_id:
            assert self.now_ms - self.commands[true.command_id] <= 4000, "opened for an old command"
            same = [one for one in self.asked.values() if one.command_id == true.command_id and one.opened]
            assert not same, "opened twice for one command"
        true.opened += 1
        place.opened_sequences.append(true.sequence)

    # ---- what doors and operators do ----

    @rule(door=doors)
    def connects(self, door: str) -> None:
        """Also while it is connected, as when it is asked to go to another replica."""
        place = self.places[door]
        place.terminal, hello = place.terminal.connecting(nonce_of(self._number()))
        place.connection, place.opened_sequences = self._number(), []
        self.sent[Hello].append(hello)

    @rule(door=doors)
    def connects_without_ado(self, door: str) -> None:
        """Nobody in between, for once."""
        self.connects(door)
        self.hello_arrives(0)
        self.welcome_arrives(0, door)

    @rule(door=doors)
    def loses_its_power(self, door: str) -> None:
        """The terminal starts anew: it remembers nothing, and its clock begins at zero."""
        self.places[door] = Place(Terminal(door), self.now_ms, self._number())

    @rule(door=doors)
    def sees_somebody(self, door: str) -> None:
        place = self.places[door]
        with suppress(DaogouError):
            place.terminal, probe = place.terminal.probed(self._probe_nonce(), self._door_ms(door))
            self._sent_probe(door, probe)

    @rule(door=doors, wait_ms=st.sampled_from([0, 0, 5, 1000]))
    def sees_somebody_who_may_enter(self, door: str, wait_ms: int) -> None:
        """All but the answer's way back."""
        before = len(self.sent[Probe])
        self.sees_somebody(door)
        if len(self.sent[Probe]) > before:
            probe = self._latest(Probe, 0)
            assert isinstance(probe, Probe)
            self._arrives_on((door, probe.epoch), probe)
            self.now_ms += wait_ms
            self._decides((door, probe.epoch), probe.sequence, opens=True)

    @precondition(lambda self: self.streams)
    @rule(back=recent)
    def an_operator_opens(self, back: int) -> None:
        key = list(self.streams)[-1 - back % len(self.streams)]
        command_id = f"command-{self._number()}"
        self.commands[command_id] = self.now_ms
        self.streams[key], wanted = self.streams[key].remote_open(command_id, self._service_ms())
        self.sent[ProbeWanted].append(wanted)

    @rule(wait_ms=waits)
    def time_passes(self, wait_ms: int) -> None:
        self.now_ms += wait_ms

    @precondition(lambda self: self.streams)
    @rule(back=recent, index=st.integers(0, 3), opens=st.booleans())
    def the_service_decides(self, back: int, index: int, opens: bool) -> None:
        key = list(self.streams)[-1 - back % len(self.streams)]
        waiting = self.streams[key].waiting
        if waiting:
            self._decides(key, waiting[index % len(waiting)].probe.sequence, opens=opens)

    def _decides(self, key: tuple[str, int], sequence: int, *, opens: bool) -> None:
        if key not in self.streams:
            return
        if not opens:
            self.streams[key] = self.streams[key].denied(sequence)
            return
        self.streams[key], opening = self.streams[key].decided(sequence, self._service_ms())
        if opening is not None:
            true = self.by_nonce[opening.nonce] if self.forges else self.asked[(*key, opening.sequence)]
            true.told_to_open += 1
            assert true.told_to_open == 1, "one probe was decided twice"
            self.sent[Open].append(opening)

    # ---- what the adversary lets through, as often and as late as he likes ----

    @rule(back=recent)
    def hello_arrives(self, back: int) -> None:
        hello = self._latest(Hello, back)
        if isinstance(hello, Hello):
            self.epochs[hello.door_id] += 1
            epoch = self.epochs[hello.door_id]
            self.streams[hello.door_id, epoch] = DoorStream(hello.door_id, epoch)
            self.sent[Welcome].append(Welcome(hello.door_id, hello.nonce, epoch))

    @rule(back=recent, door=doors)
    def welcome_arrives(self, back: int, door: str) -> None:
        welcome = self._latest(Welcome, back)
        if isinstance(welcome, Welcome):
            self.places[door].terminal = self.places[door].terminal.welcomed(welcome)

    @precondition(lambda self: self.streams)
    @rule(back=recent, stream=recent)
    def probe_arrives(self, back: int, stream: int) -> None:
        probe = self._latest(Probe, back)
        if isinstance(probe, Probe):
            key = list(self.streams)[-1 - stream % len(self.streams)]
            self._arrives_on(key, probe)

    def _arrives_on(self, key: tuple[str, int], probe: Probe) -> None:
        if key in self.streams:
            with suppress(DaogouError):
                self.streams[key] = self.streams[key].received(probe, self._service_ms())

    @rule(back=recent, door=doors, forged=st.sets(st.sampled_from(["door_id", "epoch", "sequence", "time"])))
    def open_arrives(self, back: int, door: str, forged: set[str]) -> None:
        opening = self._latest(Open, back)
        if not isinstance(opening, Open):
            return
        place = self.places[door]
        if self.forges:
            waiting = place.terminal.waiting
            latest = waiting[-1].sequence if waiting else 1
            opening = Open(
                door if "door_id" in forged else opening.door_id,
                place.terminal.epoch or 0 if "epoch" in forged else opening.epoch,
                latest if "sequence" in forged else opening.sequence,
                opening.nonce,
                10**9 if "time" in forged else opening.valid_until_ms,
            )
        place.terminal, heard = place.terminal.heard(opening, self._door_ms(door))
        if heard is Heard.OPENED:
            self._opens(door, opening)
            self.sent[Opened].append(Opened(door, opening.epoch, opening.sequence))

    @rule(back=recent, door=doors)
    def wanted_arrives(self, back: int, door: str) -> None:
        wanted = self._latest(ProbeWanted, back)
        if isinstance(wanted, ProbeWanted):
            place = self.places[door]
            place.terminal, probe = place.terminal.wanted(wanted, self._probe_nonce(), self._door_ms(door))
            if probe is not None:
                self._sent_probe(door, probe)

    @rule(back=recent, waits_ms=st.sampled_from([0, 1000, 1999, 2001]), door=doors)
    def wanted_arrives_and_is_answered(self, back: int, waits_ms: int, door: str) -> None:
        """The way of a remote open to the terminal and back, and what the service says to it."""
        before = len(self.sent[Probe])
        self.wanted_arrives(back, door)
        self.now_ms += waits_ms
        if len(self.sent[Probe]) > before:
            probe = self._latest(Probe, 0)
            assert isinstance(probe, Probe)
            self._arrives_on((door, probe.epoch), probe)
            self._decides((door, probe.epoch), probe.sequence, opens=True)

    @precondition(lambda self: self.streams)
    @rule(back=recent, stream=recent)
    def acknowledgement_arrives(self, back: int, stream: int) -> None:
        opened = self._latest(Opened, back)
        if not isinstance(opened, Opened):
            return
        key = list(self.streams)[-1 - stream % len(self.streams)]
        self.streams[key], probe = self.streams[key].acknowledged(opened)
        if probe is not None:
            true = self.by_nonce[probe.nonce] if self.forges else self.asked[(*key, probe.sequence)]
            true.acknowledged += 1
            assert true.opened == true.acknowledged == 1, "acknowledged what did not happen"


class AlikeNonces(Network):
    """Every probe has the same nonce, and nothing is forged."""

    forges = False


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=80, stateful_step_count=40)
TestAlikeNonces = AlikeNonces.TestCase
TestAlikeNonces.settings = settings(max_examples=80, stateful_step_count=40)

# ---- examples by hand -------------------------------------------------------------------------------


def connected(door: str = "front", epoch: int = 1) -> tuple[Terminal, DoorStream]:
    """A terminal and its stream."""
    terminal, hello = Terminal(door).connecting(nonce_of(900))
    return terminal.welcomed(Welcome(door, hello.nonce, epoch)), DoorStream(door, epoch)


def told(stream: DoorStream, probe: Probe, now_ms: int = 0) -> tuple[DoorStream, Open]:
    """The OPEN for a probe that has just come."""
    stream, opening = stream.received(probe, now_ms).decided(probe.sequence, now_ms)
    assert opening is not None
    return stream, opening


@pytest.mark.parametrize(
    ("heard_ms", "answer"), [(6900, Heard.OPENED), (7000, Heard.OPENED), (7001, Heard.TOO_LATE)]
)
def test_a_door_opens_for_two_seconds_after_the_capture(heard_ms: int, answer: Heard) -> None:
    """The example of the module; the second time it is a repeat, or still too late."""
    terminal, stream = connected()
    terminal, probe = terminal.probed(nonce_of(1), 5000)
    _, opening = told(stream, probe)
    terminal, heard = terminal.heard(opening, heard_ms)
    assert heard is answer
    assert terminal.heard(opening, heard_ms)[1] in {Heard.REPEATED, Heard.TOO_LATE}


def test_each_way_of_not_being_meant_is_discarded_by_its_name() -> None:
    """Another door, an earlier stream, a number not asked, a nonce of another probe, an older one."""
    terminal, stream = connected()
    terminal, first = terminal.probed(nonce_of(1), 0)
    terminal, second = terminal.probed(nonce_of(2), 1)
    stream, older = told(stream, first)
    _, opening = told(stream, second)
    for wrong, heard in (
        (replace(opening, door_id="back"), Heard.FOREIGN),
        (replace(opening, epoch=0), Heard.OTHER_EPOCH),
        (replace(opening, sequence=9), Heard.NOT_ASKED),
        (replace(opening, nonce=nonce_of(1)), Heard.NOT_ASKED),
        (replace(opening, valid_until_ms=4), Heard.TOO_LATE),
    ):
        assert terminal.heard(wrong, 5)[1] is heard
    terminal, heard = terminal.heard(opening, 5)
    assert heard is Heard.OPENED
    assert terminal.heard(older, 5)[1] is Heard.REPEATED


def test_nothing_that_was_asked_before_a_reconnection_opens_after_it() -> None:
    terminal, stream = connected()
    terminal, probe = terminal.probed(nonce_of(1), 0)
    _, opening = told(stream, probe)
    terminal, hello = terminal.connecting(nonce_of(901))
    assert terminal.heard(opening, 1)[1] is Heard.OTHER_EPOCH
    terminal = terminal.welcomed(Welcome("front", nonce_of(900), 1))
    assert terminal.epoch is None, "a welcome of the stream before"
    terminal = terminal.welcomed(Welcome("front", hello.nonce, 2))
    assert terminal.heard(opening, 1)[1] is Heard.OTHER_EPOCH


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"door_id": "back"}, "DOOR_MISMATCH"),
        ({"epoch": 2}, "EPOCH_MISMATCH"),
        ({"nonce": b"short"}, "NONCE_MALFORMED"),
        ({"sequence": 1}, "SEQUENCE_REPLAYED"),
        ({"sequence": 0}, "SEQUENCE_REPLAYED"),
        ({"sequence": 2, "command_id": "gone"}, "REMOTE_OPEN_OVER"),
    ],
)
def test_the_service_refuses_what_it_was_not_asked(change: dict[str, object], reason: str) -> None:
    """Each with its own reason, and the stream is as it was."""
    terminal, stream = connected()
    terminal, first = terminal.probed(nonce_of(1), 0)
    _, second = terminal.probed(nonce_of(2), 0)
    stream = stream.received(first, 0)
    with pytest.raises(DaogouError) as refused:
        stream.received(replace(second, **change), 0)  # type: ignore[arg-type]
    assert refused.value.reason == reason
    assert stream.received(second, 0).sequence == 2


def test_numbers_may_be_left_out_and_a_decision_is_given_once() -> None:
    """A frame that the network lost is not waited for; a decision that took 2.001 s is not sent."""
    terminal, stream = connected()
    terminal, _ = terminal.probed(nonce_of(1), 0)
    terminal, _ = terminal.probed(nonce_of(2), 0)
    terminal, probe = terminal.probed(nonce_of(3), 0)
    stream, opening = told(stream, probe)
    assert opening.sequence == 3
    assert stream.decided(3, 0)[1] is None
    terminal, probe = terminal.probed(nonce_of(4), 0)
    assert stream.received(probe, 0).decided(4, 2001)[1] is None
    assert stream.received(probe, 0).denied(4).decided(4, 0)[1] is None


def test_a_remote_open_is_a_probe_that_the_service_asks_for_and_its_effect_is_acknowledged() -> None:
    terminal, stream = connected()
    stream, wanted = stream.remote_open("for the courier", 100)
    terminal, probe = terminal.wanted(wanted, nonce_of(1), 50_000)
    assert probe is not None
    stream = stream.received(probe, 300)
    stream, opening = stream.decided(probe.sequence, 300)
    assert opening is not None
    assert terminal.heard(opening, 50_200)[1] is Heard.OPENED
    stream, opened = stream.acknowledged(Opened("front", 1, probe.sequence))
    assert opened == probe
    assert stream.acknowledged(Opened("front", 1, probe.sequence))[1] is None


@pytest.mark.parametrize(("passed_ms", "open_"), [(2000, True), (2001, False)])
def test_a_remote_open_that_was_held_up_is_dropped(passed_ms: int, open_: bool) -> None:
    """Never queued: the operator is told, and asks again if he still wants to."""
    terminal, stream = connected()
    stream, wanted = stream.remote_open("for the courier", 0)
    terminal, probe = terminal.wanted(wanted, nonce_of(1), 0)
    assert probe is not None
    if open_:
        assert told(stream, probe, passed_ms)
        return
    with pytest.raises(DaogouError) as refused:
        stream.received(probe, passed_ms)
    assert refused.value.reason == "REMOTE_OPEN_OVER"


def test_what_waits_is_bounded_on_both_sides() -> None:
    """A terminal that sends a thousand frames in one second has 64 of them in memory, here and there."""
    terminal, stream = connected()
    terminal, probe = terminal.probed(nonce_of(0), 0)
    for number in range(1, 1000):
        terminal, probe = terminal.probed(nonce_of(number), number)
        stream = stream.received(probe, number)
    assert len(terminal.waiting) == len(stream.waiting) == door_session.PROBES_MAX
    assert terminal.waiting[-1] == stream.waiting[-1].probe == probe
    terminal, probe = terminal.probed(nonce_of(1000), 10_000)
    assert terminal.waiting == (probe,)
    for number in range(200):
        terminal, probe = terminal.probed(nonce_of(number), 20_000)
        stream, _ = told(stream, probe, 20_000)
    assert len(stream.told) == door_session.PROBES_MAX


# ---- planted faults ---------------------------------------------------------------------------------

heard, connecting, received = Terminal.heard, Terminal.connecting, DoorStream.received
probed, acknowledged, welcomed = Terminal.probed, DoorStream.acknowledged, Terminal.welcomed


def _nonce_unchecked(self: Terminal, opening: Open, now_ms: int) -> tuple[Terminal, Heard]:
    asked = [one for one in self.waiting if one.sequence == opening.sequence]
    return heard(self, replace(opening, nonce=asked[0].nonce) if asked else opening, now_ms)


def _door_unchecked(self: Terminal, opening: Open, now_ms: int) -> tuple[Terminal, Heard]:
    return heard(self, replace(opening, door_id=self.door_id), now_ms)


def _epoch_unchecked(self: Terminal, opening: Open, now_ms: int) -> tuple[Terminal, Heard]:
    return heard(self, replace(opening, epoch=self.epoch or 0), now_ms)


def _number_unchecked(self: Terminal, opening: Open, now_ms: int) -> tuple[Terminal, Heard]:
    latest = self.waiting[-1].sequence if self.waiting else 0
    return heard(self, replace(opening, sequence=latest), now_ms)


def _not_remembered(self: Terminal, opening: Open, now_ms: int) -> tuple[Terminal, Heard]:
    after, found = heard(self, opening, now_ms)
    return replace(after, opened_sequence=0, waiting=self.waiting), found


def _older_still_waited_for(self: Terminal, opening: Open, now_ms: int) -> tuple[Terminal, Heard]:
    after, found = heard(self, opening, now_ms)
    left = tuple(one for one in self.waiting if one.sequence != opening.sequence)
    return (
        (replace(after, opened_sequence=0, waiting=left), found) if found is Heard.OPENED else (after, found)
    )


def _time_of_the_message(self: Terminal, opening: Open, now_ms: int) -> tuple[Terminal, Heard]:
    trusting = tuple(replace(one, captured_ms=opening.valid_until_ms) for one in self.waiting)
    return heard(replace(self, waiting=trusting), opening, now_ms)


def _never_too_late(self: Terminal, opening: Open, now_ms: int) -> tuple[Terminal, Heard]:
    return heard(
        self, opening, min(now_ms, *(one.captured_ms for one in self.waiting), opening.valid_until_ms)
    )


def _waits_through_a_reconnection(self: Terminal, nonce: bytes) -> tuple[Terminal, Hello]:
    after, hello = connecting(self, nonce)
    return replace(after, epoch=self.epoch, sequence=self.sequence, waiting=self.waiting), hello


def _any_welcome(self: Terminal, welcome: Welcome) -> Terminal:
    return welcomed(self, replace(welcome, nonce=self.hello_nonce))


def _replays_taken(self: DoorStream, probe: Probe, now_ms: int) -> DoorStream:
    return received(replace(self, sequence=0), probe, now_ms)


def _commands_never_end(self: DoorStream, probe: Probe, now_ms: int) -> DoorStream:
    patient = self.command and replace(self.command, asked_ms=now_ms)
    return received(replace(self, command=patient), probe, now_ms)


def _commands_are_kept(self: DoorStream, probe: Probe, now_ms: int) -> DoorStream:
    return replace(received(self, probe, now_ms), command=self.command)


def _acknowledged_again(self: DoorStream, opened: Opened) -> tuple[DoorStream, Probe | None]:
    after, probe = acknowledged(self, opened)
    return replace(after, told=self.told), probe


def _acknowledged_by_any(self: DoorStream, opened: Opened) -> tuple[DoorStream, Probe | None]:
    return acknowledged(self, replace(opened, door_id=self.door_id, epoch=self.epoch))


FAULTS: dict[str, tuple[type[Network], object, str, object]] = {
    "the nonce is not looked at": (Network, Terminal, "heard", _nonce_unchecked),
    "the door is not looked at": (AlikeNonces, Terminal, "heard", _door_unchecked),
    "the epoch is not looked at": (AlikeNonces, Terminal, "heard", _epoch_unchecked),
    "the number is not looked at": (AlikeNonces, Terminal, "heard", _number_unchecked),
    "what opened is forgotten": (Network, Terminal, "heard", _not_remembered),
    "older ones still open": (Network, Terminal, "heard", _older_still_waited_for),
    "the message says how long": (Network, Terminal, "heard", _time_of_the_message),
    "nothing is too late": (Network, Terminal, "heard", _never_too_late),
    "half a second more": (Network, door_session, "VALID_MS", 2500),
    "asked before, opened after": (Network, Terminal, "connecting", _waits_through_a_reconnection),
    "any welcome will do": (AlikeNonces, Terminal, "welcomed", _any_welcome),
    "replays are taken in": (Network, DoorStream, "received", _replays_taken),
    "commands wait for ever": (Network, DoorStream, "received", _commands_never_end),
    "commands are answered twice": (Network, DoorStream, "received", _commands_are_kept),
    "acknowledged again and again": (Network, DoorStream, "acknowledged", _acknowledged_again),
    "acknowledged by any door": (Network, DoorStream, "acknowledged", _acknowledged_by_any),
}


def walked(machine: type[Network], seed: int) -> None:
    """Fifty steps of the machine by a die: the same on every run, and faster than a search."""
    die = random.Random(seed)
    world = machine()

    def back() -> int:
        return die.choice([0, 0, 0, 1, 1, 2, 3, 7])

    def door() -> str:
        return die.choice(DOORS)

    def command_told_twice() -> None:
        world.an_operator_opens(0)
        for where in (door(), door()):
            world.wanted_arrives_and_is_answered(0, 0, where)
        for which in (1, 0):
            world.open_arrives(which, door(), set())

    for one in DOORS:
        world.connects_without_ado(one)
    forgeable = ["door_id", "epoch", "sequence", "time"]
    steps: list[tuple[int, Callable[[], None]]] = [
        (2, lambda: world.connects_without_ado(door())),
        (1, lambda: world.connects(door())),
        (1, lambda: world.loses_its_power(door())),
        (2, lambda: world.sees_somebody(door())),
        (5, lambda: world.sees_somebody_who_may_enter(door(), die.choice([0, 5, 1000]))),
        (3, lambda: world.an_operator_opens(die.choice([0, 1]))),
        (2, lambda: world.time_passes(die.choice([1, 700, 1300, 2000, 2001, 5000]))),
        (2, lambda: world.the_service_decides(back(), back(), die.random() < 0.8)),
        (1, lambda: world.hello_arrives(back())),
        (2, lambda: world.welcome_arrives(back(), door())),
        (2, lambda: world.probe_arrives(back(), back())),
        (9, lambda: world.open_arrives(back(), door(), set())),
        (5, lambda: world.open_arrives(back(), door(), {one for one in forgeable if die.random() < 0.5})),
        (5, lambda: world.wanted_arrives_and_is_answered(back(), die.choice([0, 0, 1999, 2001]), door())),
        (3, lambda: world.acknowledgement_arrives(back(), back())),
        (2, command_told_twice),
    ]
    for step in die.choices([step for _, step in steps], [weight for weight, _ in steps], k=50):
        step()


def broken_by(machine: type[Network]) -> str | None:
    """What an adversary brings about within two thousand walks, if anything."""
    for seed in range(2000):
        try:
            walked(machine, seed)
        except AssertionError as broken:
            return str(broken) or "broken"
    return None


@pytest.mark.parametrize("machine", [Network, AlikeNonces])
def test_no_walk_opens_a_door_without_a_fault(machine: type[Network]) -> None:
    assert broken_by(machine) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, owner, name, wrong = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrong)
    assert broken_by(machine) is not None, f"nobody notices: {fault}"
