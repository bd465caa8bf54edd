"""An OPEN cannot come late: what a terminal accepts, and what the service says, whatever the network does.

A door asks with a probe: its id, the epoch of its stream, a sequence number and a nonce. An OPEN repeats all
four, and the terminal opens by it only while it waits for exactly that answer, and for at most 2 s after the
moment of capture by its own monotonic clock, which it remembers itself. Messages may be delayed, repeated,
reordered and taken to other doors: each door opens for decisions that are its own, fresh, and heard first.

Epochs are counted by the service's store, one higher for each stream of a door, so that no terminal has to
remember one. An operator's remote open has no frame to answer to: the service asks the terminal for a probe,
and answers that one if it comes at once. A command that waits, for whatever reason, is dropped.

Example: at 5,000 ms the terminal sends probe 7. The OPEN for it arrives at 6,900: the door opens. The same
message again: REPEATED. Had it arrived at 7,001: TOO_LATE.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from chassis.errors import Conflict, Invalid, Refused

VALID_MS: Final = 2000
PROBES_MAX: Final = 64
"""Probes of a door that wait for an answer at one time; the oldest is given up for a new one."""
NONCE_BYTES: Final = 16


class Heard(enum.StrEnum):
    """What a terminal does with an OPEN: all but OPENED are discarded, and counted."""

    OPENED = "OPENED"
    FOREIGN = "FOREIGN"
    OTHER_EPOCH = "OTHER_EPOCH"
    REPEATED = "REPEATED"
    NOT_ASKED = "NOT_ASKED"
    TOO_LATE = "TOO_LATE"


@dataclass(frozen=True, slots=True)
class Hello:
    """A terminal's first message on a stream. The nonce is random, and made for this stream alone."""

    door_id: str
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
    """The service's answer: the epoch of the stream that began with this nonce."""

    door_id: str
    nonce: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class Probe:
    """A frame, a card or a remote open on which the terminal wants a decision.

    `captured_ms` is its monotonic time; `nonce` random, made for this probe alone. `command_id`: the remote
    open that it was asked for; empty: it comes from whoever stands there.
    """

    door_id: str
    epoch: int
    sequence: int
    nonce: bytes
    captured_ms: int
    command_id: str = ""


@dataclass(frozen=True, slots=True)
class Open:
    """Open the door, for this probe, until `valid_until_ms` by the terminal's own monotonic clock."""

    door_id: str
    epoch: int
    sequence: int
    nonce: bytes
    valid_until_ms: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The terminal has opened for this probe. Nothing less is the effect of a remote open."""

    door_id: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class ProbeWanted:
    """An operator opens the door from afar: the terminal is to send a probe with the command's id."""

    door_id: str
    epoch: int
    command_id: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """The door's side. `epoch` None: the stream has not been welcomed.

    `sequence` is the last that was used, `opened_sequence` the last for which the door opened.
    """

    door_id: str
    hello_nonce: bytes = b""
    epoch: int | None = None
    sequence: int = 0
    opened_sequence: int = 0
    waiting: tuple[Probe, ...] = ()

    def connecting(self, nonce: bytes) -> tuple[Terminal, Hello]:
        """A stream is begun: nothing that was asked on another one is waited for any more."""
        return Terminal(self.door_id, hello_nonce=nonce), Hello(self.door_id, nonce)

    def welcomed(self, welcome: Welcome) -> Terminal:
        """The stream has its epoch. A welcome of another stream, or a second one, changes nothing."""
        if self.epoch is not None or (welcome.door_id, welcome.nonce) != (self.door_id, self.hello_nonce):
            return self
        return replace(self, epoch=welcome.epoch)

    def probed(self, nonce: bytes, now_ms: int, command_id: str = "") -> tuple[Terminal, Probe]:
        """Asks for a decision on what was captured now.

        Raises: Refused NOT_CONNECTED.
        """
        if self.epoch is None:
            raise Refused("NOT_CONNECTED", "the service has not welcomed this stream")
        probe = Probe(self.door_id, self.epoch, self.sequence + 1, nonce, now_ms, command_id)
        fresh = [one for one in self.waiting if now_ms - one.captured_ms <= VALID_MS]
        return replace(self, sequence=probe.sequence, waiting=(*fresh[1 - PROBES_MAX :], probe)), probe

    def wanted(self, asked: ProbeWanted, nonce: bytes, now_ms: int) -> tuple[Terminal, Probe | None]:
        """Answers to a remote open. None: it is for another door or an earlier stream.

        One that was delayed is answered too: the service knows for how long it has waited, and the terminal
        does not.
        """
        if self.epoch is None or (asked.door_id, asked.epoch) != (self.door_id, self.epoch):
            return self, None
        return self.probed(nonce, now_ms, asked.command_id)

    def heard(self, opening: Open, now_ms: int) -> tuple[Terminal, Heard]:
        """Whether the door opens. After it opened for one probe it opens for none that was sent before."""
        if opening.door_id != self.door_id:
            return self, Heard.FOREIGN
        if self.epoch is None or opening.epoch != self.epoch:
            return self, Heard.OTHER_EPOCH
        if opening.sequence <= self.opened_sequence:
            return self, Heard.REPEATED
        asked = next((one for one in self.waiting if one.sequence == opening.sequence), None)
        if asked is None or asked.nonce != opening.nonce:
            return self, Heard.NOT_ASKED
        if now_ms > min(asked.captured_ms + VALID_MS, opening.valid_until_ms):
            return self, Heard.TOO_LATE
        later = tuple(one for one in self.waiting if one.sequence > opening.sequence)
        return replace(self, opened_sequence=opening.sequence, waiting=later), Heard.OPENED


@dataclass(frozen=True, slots=True)
class Received:
    """A probe that waits for its decision, and when it came, by the service's monotonic clock."""

    probe: Probe
    received_ms: int


@dataclass(frozen=True, slots=True)
class RemoteOpen:
    """An operator's command that was passed on to the terminal at `asked_ms`, and waits for its probe."""

    command_id: str
    asked_ms: int


@dataclass(frozen=True, slots=True)
class DoorStream:
    """The service's side of one stream. `sequence` is the highest that was taken in.

    `waiting`: what is to be decided; `told`: what the door was told to open for, and has not acknowledged.
    """

    door_id: str
    epoch: int
    sequence: int = 0
    waiting: tuple[Received, ...] = ()
    told: tuple[Probe, ...] = ()
    command: RemoteOpen | None = None

    def received(self, probe: Probe, now_ms: int) -> DoorStream:
        """Takes a probe in, to be decided. Numbers may be left out, for frames that the network lost.

        Raises: Invalid DOOR_MISMATCH, EPOCH_MISMATCH, NONCE_MALFORMED; Conflict SEQUENCE_REPLAYED (this one
        or a later one was taken in before); Refused REMOTE_OPEN_OVER (the command that the probe is for was
        answered, replaced, or has waited for more than 2 s).
        """
        if probe.door_id != self.door_id:
            raise Invalid("DOOR_MISMATCH", "the stream belongs to another door")
        if probe.epoch != self.epoch:
            raise Invalid("EPOCH_MISMATCH", f"the stream has epoch {self.epoch}, not {probe.epoch}")
        if len(probe.nonce) != NONCE_BYTES:
            raise Invalid("NONCE_MALFORMED", f"a nonce has {NONCE_BYTES} bytes")
        if probe.sequence <= self.sequence:
            raise Conflict("SEQUENCE_REPLAYED", f"{probe.sequence} comes after {self.sequence}")
        command = self.command
        if probe.command_id:
            if (
                command is None
                or command.command_id != probe.command_id
                or now_ms - command.asked_ms > VALID_MS
            ):
                raise Refused("REMOTE_OPEN_OVER", "the command is not waited for any more")
            command = None
        fresh = [one for one in self.waiting if now_ms - one.received_ms <= VALID_MS]
        waiting = (*fresh[1 - PROBES_MAX :], Received(probe, now_ms))
        return replace(self, sequence=probe.sequence, waiting=waiting, command=command)

    def decided(self, sequence: int, now_ms: int) -> tuple[DoorStream, Open | None]:
        """The OPEN for a probe, once. None: it would come too late, or was given before.

        The probe was captured before it was received, so that one received more than 2 s ago is certainly too
        old; of one received later only the terminal can tell.
        """
        found = next((one for one in self.waiting if one.probe.sequence == sequence), None)
        left = tuple(one for one in self.waiting if one is not found)
        if found is None or now_ms - found.received_ms > VALID_MS:
            return replace(self, waiting=left), None
        probe = found.probe
        told = (*self.told[1 - PROBES_MAX :], probe)
        return replace(self, waiting=left, told=told), Open(
            self.door_id, self.epoch, probe.sequence, probe.nonce, probe.captured_ms + VALID_MS
        )

    def acknowledged(self, opened: Opened) -> tuple[DoorStream, Probe | None]:
        """The probe for which the door has opened, once. None: it was told nothing of the kind, or said so.

        What the door was told before and has not opened for by now, it will not: `Terminal.heard`.
        """
        if (opened.door_id, opened.epoch) != (self.door_id, self.epoch):
            return self, None
        probe = next((one for one in self.told if one.sequence == opened.sequence), None)
        if probe is None:
            return self, None
        return replace(self, told=tuple(one for one in self.told if one.sequence > opened.sequence)), probe

    def denied(self, sequence: int) -> DoorStream:
        """The probe was decided, and the door stays shut for it."""
        return replace(self, waiting=tuple(one for one in self.waiting if one.probe.sequence != sequence))

    def remote_open(self, command_id: str, now_ms: int) -> tuple[DoorStream, ProbeWanted]:
        """Passes an operator's command on, once; it is never kept for later. It replaces one that waits."""
        asked = ProbeWanted(self.door_id, self.epoch, command_id)
        return replace(self, command=RemoteOpen(command_id, now_ms)), asked
