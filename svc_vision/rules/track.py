"""What may be decided from the frames of one track: one face, followed by the door from frame to frame.

A person is identified by two agreeing frames within 600 ms, while nothing in the track speaks against it: no
other name, no frame in those 600 ms in which nobody was recognised, no jump of the face. That she is live is
shown by the device's depth or IR camera, or else by scores of the frames' pixels over at least three frames
that span 300 ms. A track is one visit: an attempt begins with its first searched frame and every 2 s after,
and after the fifth it decides nothing more.

Example, frames at 5 per second, a camera without depth: frames at 0, 200 and 400 ms name Ann, with scores
0.9, 0.8 and 0.7 of at least 0.6. At 200 ms two frames agree, but only 200 ms are looked at for life: NOT_YET.
At 400 ms three frames span 400 ms, and their mean is 0.8: IDENTIFIED, Ann, live, in the first attempt.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from chassis.errors import Invalid

AGREEMENT_MS: Final = 600
"""Frames that vouch for each other are at most this far apart; a longer gap parts a track's evidence."""
AGREEING_FRAMES: Final = 2
LIVE_FRAMES: Final = 3
LIVE_SPAN_MS: Final = 300
ATTEMPT_MS: Final = 2000
ATTEMPTS_MAX: Final = 5
JUMP_WIDTHS_PER_S_MAX: Final = 10.0
"""A face 16 cm wide that walks past at 1.5 m/s moves by its own width nine times a second."""
JUMP_WIDTHS_SLACK: Final = 0.5
"""By how much of its width a detector may misplace a face that stands still."""
JUMP_SIZE_RATIO_MAX: Final = 1.5


class Liveness(enum.StrEnum):
    """Whether a face is a person's who stands there."""

    LIVE = "LIVE"
    SPOOF = "SPOOF"
    UNKNOWN = "UNKNOWN"


class Outcome(enum.StrEnum):
    """What a frame brings about. NOT_YET: nothing is told to the door."""

    NOT_YET = "NOT_YET"
    IDENTIFIED = "IDENTIFIED"
    DENY = "DENY"
    COME_CLOSER = "COME_CLOSER"
    TRY_AGAIN = "TRY_AGAIN"


class Reason(enum.StrEnum):
    """Why a face is not identified. After those that void a track only a new track can succeed.

    FACE_JUMPED, FACES_DISAGREE: the track is void. NOT_LIVE: an attack. NOT_RECOGNISED, LIVENESS_UNKNOWN: an
    attempt passed without two agreeing frames, or without enough to tell whether they are live.
    """

    NONE = "NONE"
    TOO_FAR = "TOO_FAR"
    FACE_JUMPED = "FACE_JUMPED"
    FACES_DISAGREE = "FACES_DISAGREE"
    NOT_RECOGNISED = "NOT_RECOGNISED"
    LIVENESS_UNKNOWN = "LIVENESS_UNKNOWN"
    NOT_LIVE = "NOT_LIVE"


@dataclass(frozen=True, slots=True)
class Box:
    """Where a face is in the picture, in pixels. Sides are above 0."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a track, after the search.

    `captured_ms` is the door's monotonic time. `person_id` empty: nobody was recognised. `live_score` is
    what the pixels say, 0 (an attack) to 1 (live); None: not looked at. `device_liveness` is the verdict of
    the device's depth or IR camera; None: it has none.
    """

    sequence: int
    captured_ms: int
    box: Box
    person_id: str
    live_score: float | None = None
    device_liveness: Liveness | None = None


@dataclass(frozen=True, slots=True)
class TrackPolicy:
    """What a door asks of a track.

    `face_px_min`: the smaller side of a face that its model can recognise. `live_score_min`: the least mean
    of scores that passes for live.
    """

    face_px_min: float
    live_score_min: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What a track shows after a frame.

    `attempts` is how many independent tries the visit has had so far, by which the false positive rate is
    reckoned; 0: no frame was searched. `sequences` are the frames that name the person. IDENTIFIED comes with
    liveness LIVE, and with nothing else.
    """

    outcome: Outcome
    reason: Reason = Reason.NONE
    person_id: str = ""
    liveness: Liveness = Liveness.UNKNOWN
    attempts: int = 0
    sequences: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Track:
    """The frames of one face so far, as far back as an attempt lasts.

    `last` is the latest frame, searched or too far away; `began_ms` when the first one was searched (None:
    none was); `named` who was recognised in any frame; `told_attempts` of how many attempts the door heard
    that they failed. `settled`: everything is said, and only a jump of the face is told of it still.
    """

    frames: tuple[Frame, ...] = ()
    last: Frame | None = None
    began_ms: int | None = None
    named: str = ""
    told_attempts: int = 0
    settled: bool = False
    void: bool = False


def seen(track: Track, frame: Frame, policy: TrackPolicy) -> tuple[Track, Finding]:
    """The track with one more frame, and what it shows now.

    What is final is told once: IDENTIFIED, DENY, and that a track is void. A frame that is too far away is
    not searched: it counts as no attempt, and neither for nor against anybody.

    Raises: Invalid FRAME_OUT_OF_ORDER unless it was captured after the frame before it.
    """
    last = track.last
    if last is not None and frame.captured_ms <= last.captured_ms:
        raise Invalid("FRAME_OUT_OF_ORDER", "a frame was captured before one that came earlier")
    if track.void:
        return replace(track, last=frame), Finding(Outcome.NOT_YET, attempts=_attempts(track, frame))
    continues = last is not None and frame.captured_ms - last.captured_ms <= AGREEMENT_MS
    if last is not None and continues and jumped(last, frame):
        return _voided(track, frame, Reason.FACE_JUMPED)
    track = replace(track, last=frame, frames=track.frames if continues else ())
    if min(frame.box.width, frame.box.height) < policy.face_px_min:
        attempts = _attempts(track, frame)
        if track.settled:
            return track, Finding(Outcome.NOT_YET, attempts=attempts)
        return track, Finding(Outcome.COME_CLOSER, Reason.TOO_FAR, attempts=attempts)
    if track.named and frame.person_id and frame.person_id != track.named:
        return _voided(track, frame, Reason.FACES_DISAGREE)
    kept = [one for one in track.frames if frame.captured_ms - one.captured_ms <= ATTEMPT_MS]
    began_ms = frame.captured_ms if track.began_ms is None else track.began_ms
    track = replace(track, frames=(*kept, frame), began_ms=began_ms, named=track.named or frame.person_id)
    if track.settled:
        return track, Finding(Outcome.NOT_YET, attempts=_attempts(track, frame))
    return _judged(track, frame, policy)


def jumped(before: Frame, after: Frame) -> bool:
    """Whether no face moves like this: it must be another one that took its place.

    Example: in 200 ms a face of 80 px may move by 2.5 times its width, 200 px, and grow to 120 px.
    """
    old, new = before.box, after.box
    moved = math.hypot(
        new.left + new.width / 2 - old.left - old.width / 2,
        new.top + new.height / 2 - old.top - old.height / 2,
    )
    elapsed_s = (after.captured_ms - before.captured_ms) / 1000
    allowed = max(old.width, new.width) * (JUMP_WIDTHS_SLACK + JUMP_WIDTHS_PER_S_MAX * elapsed_s)
    ratios = (new.width / old.width, new.height / old.height)
    # Asked this way round, a coordinate that is no number is a jump.
    return not (
        moved <= allowed and max(ratios) <= JUMP_SIZE_RATIO_MAX and min(ratios) >= 1 / JUMP_SIZE_RATIO_MAX
    )


def liveness_of(frames: Sequence[Frame], policy: TrackPolicy) -> Liveness:
    """Whether the face of an unbroken run of frames is live.

    The device's verdict on the last 600 ms outranks the pixels; of two verdicts SPOOF. Without one, the
    scores of the latest frames decide by their mean: as few as span 300 ms, are three, and have all of the
    last 600 ms among them. A frame that nobody looked at, among those, makes it UNKNOWN.
    """
    latest_ms = frames[-1].captured_ms
    recent = [one for one in frames if latest_ms - one.captured_ms <= AGREEMENT_MS]
    verdicts = {one.device_liveness for one in recent}
    if Liveness.SPOOF in verdicts:
        return Liveness.SPOOF
    if Liveness.LIVE in verdicts:
        return Liveness.LIVE
    looked_at = list(recent)
    for one in reversed(frames[: len(frames) - len(recent)]):
        if len(looked_at) >= LIVE_FRAMES and latest_ms - looked_at[0].captured_ms >= LIVE_SPAN_MS:
            break
        looked_at.insert(0, one)
    if len(looked_at) < LIVE_FRAMES or latest_ms - looked_at[0].captured_ms < LIVE_SPAN_MS:
        return Liveness.UNKNOWN
    scores = [one.live_score for one in looked_at if one.live_score is not None]
    if len(scores) < len(looked_at) or not all(math.isfinite(score) for score in scores):
        return Liveness.UNKNOWN
    mean = math.fsum(scores) / len(scores)
    return Liveness.LIVE if mean >= policy.live_score_min else Liveness.SPOOF


def _attempts(track: Track, frame: Frame) -> int:
    if track.began_ms is None:
        return 0
    return min((frame.captured_ms - track.began_ms) // ATTEMPT_MS + 1, ATTEMPTS_MAX)


def _voided(track: Track, frame: Frame, reason: Reason) -> tuple[Track, Finding]:
    track = replace(track, last=frame, frames=(), void=True, settled=True)
    return track, Finding(Outcome.TRY_AGAIN, reason, attempts=_attempts(track, frame))


def _judged(track: Track, frame: Frame, policy: TrackPolicy) -> tuple[Track, Finding]:
    attempts = _attempts(track, frame)
    used_up = track.began_ms is None or frame.captured_ms - track.began_ms >= ATTEMPT_MS * ATTEMPTS_MAX
    recent = [one for one in track.frames if frame.captured_ms - one.captured_ms <= AGREEMENT_MS]
    names = {one.person_id for one in recent}
    agreed = len(recent) >= AGREEING_FRAMES and names == {frame.person_id} and frame.person_id != ""
    liveness = liveness_of(track.frames, policy) if agreed else Liveness.UNKNOWN
    sequences = tuple(one.sequence for one in recent) if agreed else ()
    shown = Finding(Outcome.NOT_YET, Reason.NONE, "", liveness, attempts, sequences)
    if agreed and not used_up and liveness is Liveness.LIVE:
        found = replace(shown, outcome=Outcome.IDENTIFIED, person_id=frame.person_id)
        return replace(track, settled=True), found
    if agreed and liveness is Liveness.SPOOF:
        return replace(track, settled=True), replace(shown, outcome=Outcome.DENY, reason=Reason.NOT_LIVE)
    why = Reason.LIVENESS_UNKNOWN if agreed else Reason.NOT_RECOGNISED
    if used_up:
        return replace(track, settled=True), replace(shown, outcome=Outcome.DENY, reason=why)
    if attempts - 1 > track.told_attempts:
        return (
            replace(track, told_attempts=attempts - 1),
            replace(shown, outcome=Outcome.TRY_AGAIN, reason=why),
        )
    return track, shown
