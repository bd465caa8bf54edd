"""What the frames of one face allow: against a second telling of the rule that looks at all of them anew."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import Invalid
from svc_vision.rules import track as rules
from svc_vision.rules.track import Box, Finding, Frame, Liveness, Outcome, Reason, Track, TrackPolicy

POLICY = TrackPolicy(face_px_min=60, live_score_min=0.6)
NEAR = Box(900, 400, 80, 80)
Told = tuple[Outcome, Reason, str]

# ---- histories --------------------------------------------------------------------------------------

INTERVALS = [33, 100, 200, 200, 200, 300, 500, 600, 601, 1000, 2000]
NAMES: list[list[str]] = [["ann"] * 6 + ["", "bea"], ["ann"] * 9 + [""], ["ann"], ["ann"], [""]]
SCORES: list[list[float | None]] = [
    [0.9, 0.9, 0.9, 0.6, 0.599, 0.1, None, math.nan],
    [0.9] * 9 + [None],
    [0.9],
    [None],
    [0.9, 0.5],
]
VERDICTS: list[list[Liveness | None]] = [[None] * 5 + [*Liveness], [None], [None]]
STEPS = [[0.0] * 4 + [5.0, 30.0, 400.0], [0.0], [0.0]]
SIDES = [[80.0] * 4 + [60.0, 59.0, 120.0, 130.0], [80.0], [80.0]]


def run(die: random.Random) -> list[Frame]:
    """The frames of a track. Of some nobody is ever recognised, and of some nobody looks for life."""
    names, scores, verdicts = die.choice(NAMES), die.choice(SCORES), die.choice(VERDICTS)
    steps, sides = die.choice(STEPS), die.choice(SIDES)
    found: list[Frame] = []
    at_ms, left = 1000, 900.0
    for sequence in range(die.randint(1, 25)):
        left += die.choice(steps)
        at_ms += die.choice(INTERVALS)
        box = Box(left, 400, die.choice(sides), 80)
        found.append(Frame(sequence, at_ms, box, die.choice(names), die.choice(scores), die.choice(verdicts)))
    return found


runs = st.randoms(use_true_random=False).map(run)


def told(frames: Sequence[Frame]) -> list[Finding]:
    """What the rule says after each frame."""
    track, found = Track(), []
    for frame in frames:
        track, finding = rules.seen(track, frame, POLICY)
        found.append(finding)
    return found


# ---- the same rule, told from the whole history each time --------------------------------------------


def _leaps(before: Frame, after: Frame) -> bool:
    seconds = (after.captured_ms - before.captured_ms) / 1000
    if seconds > 0.6:
        return False
    centre = before.box.left + before.box.width / 2 - after.box.left - after.box.width / 2
    wide = max(before.box.width, after.box.width)
    return abs(centre) > wide * (0.5 + 10 * seconds) or wide > 1.5 * min(before.box.width, after.box.width)


def _live(frames: Sequence[Frame], now: Frame) -> Liveness:
    """By trying every number of latest frames, the fewest first, until they are enough."""
    close = [one for one in frames if now.captured_ms - one.captured_ms <= 600]
    for verdict in (Liveness.SPOOF, Liveness.LIVE):
        if any(one.device_liveness is verdict for one in close):
            return verdict
    for many in range(3, len(frames) + 1):
        latest = frames[-many:]
        if many >= len(close) and now.captured_ms - latest[0].captured_ms >= 300:
            values = [one.live_score for one in latest if one.live_score is not None]
            if len(values) < many or any(value != value for value in values):  # noqa: PLR0124 - no number
                return Liveness.UNKNOWN
            return Liveness.LIVE if sum(values) / many >= 0.6 - 1e-12 else Liveness.SPOOF
    return Liveness.UNKNOWN


def expected(frames: Sequence[Frame]) -> list[Told]:
    """What is to be told after each frame, looking back at all before it."""
    silent = (Outcome.NOT_YET, Reason.NONE, "")
    found: list[Told] = []
    for index, now in enumerate(frames):
        so_far = frames[: index + 1]
        searched = [one for one in so_far if one.box.width >= 60]
        finals = {Outcome.IDENTIFIED, Outcome.DENY}
        void = any(one[1] in {Reason.FACE_JUMPED, Reason.FACES_DISAGREE} for one in found)
        over = any(one[0] in finals for one in found)
        if void:
            found.append(silent)
        elif index and _leaps(frames[index - 1], now):
            found.append((Outcome.TRY_AGAIN, Reason.FACE_JUMPED, ""))
        elif now.box.width < 60:
            found.append(silent if over else (Outcome.COME_CLOSER, Reason.TOO_FAR, ""))
        elif len({one.person_id for one in searched} - {""}) > 1:
            found.append((Outcome.TRY_AGAIN, Reason.FACES_DISAGREE, ""))
        else:
            found.append(silent if over else _decided(so_far, searched, found))
    return found


def _decided(so_far: Sequence[Frame], searched: Sequence[Frame], before: Sequence[Told]) -> Told:
    now = so_far[-1]
    begin = 0
    for index in range(1, len(so_far)):
        if so_far[index].captured_ms - so_far[index - 1].captured_ms > 600:
            begin = index
    unbroken = [
        one for one in so_far[begin:] if one in searched and now.captured_ms - one.captured_ms <= 2000
    ]
    close = [one for one in unbroken if now.captured_ms - one.captured_ms <= 600]
    elapsed = now.captured_ms - searched[0].captured_ms
    agree = len(close) >= 2 and now.person_id != "" and all(one.person_id == now.person_id for one in close)
    live = _live(unbroken, now) if agree else Liveness.UNKNOWN
    if agree and live is Liveness.LIVE and elapsed < 10_000:
        return (Outcome.IDENTIFIED, Reason.NONE, now.person_id)
    if live is Liveness.SPOOF:
        return (Outcome.DENY, Reason.NOT_LIVE, "")
    why = Reason.LIVENESS_UNKNOWN if agree else Reason.NOT_RECOGNISED
    if elapsed >= 10_000:
        return (Outcome.DENY, why, "")
    # The door hears of each attempt that failed, once: at the first frame judged in a later one.
    judged = [
        one.captured_ms
        for one, said in zip(so_far[:-1], before, strict=True)
        if one in searched and said[0] in {Outcome.NOT_YET, Outcome.TRY_AGAIN}
    ]
    last = max(judged, default=searched[0].captured_ms)
    first = searched[0].captured_ms
    if elapsed // 2000 > (last - first) // 2000:
        return (Outcome.TRY_AGAIN, why, "")
    return (Outcome.NOT_YET, Reason.NONE, "")


def a_track_says_what_the_whole_history_says(frames: Sequence[Frame]) -> None:
    """After every frame."""
    assert [(one.outcome, one.reason, one.person_id) for one in told(frames)] == expected(frames)


def whoever_is_identified_is_live_and_agreed_upon(frames: Sequence[Frame]) -> None:
    """Straight from the words of the rule, for each finding by itself; and it is told once."""
    findings = told(frames)
    for frame, finding in zip(frames, findings, strict=True):
        assert 0 <= finding.attempts <= 5
        if finding.outcome is not Outcome.IDENTIFIED:
            assert finding.person_id == ""
            continue
        named = [one for one in frames if one.sequence in finding.sequences]
        assert finding.liveness is Liveness.LIVE
        assert len(named) >= 2
        assert {one.person_id for one in named} == {finding.person_id}
        assert all(frame.captured_ms - one.captured_ms <= 600 for one in named)
        assert all(one.device_liveness is not Liveness.SPOOF for one in named)
        if all(one.device_liveness is not Liveness.LIVE for one in named):
            assert all(one.live_score is not None for one in named)
    assert sum(one.outcome in {Outcome.IDENTIFIED, Outcome.DENY} for one in findings) <= 1


def when_it_began_does_not_matter(frames: Sequence[Frame]) -> None:
    """A door's monotonic clock starts anywhere."""
    later = [replace(one, captured_ms=one.captured_ms + 86_400_123) for one in frames]
    assert told(later) == told(frames)


LAWS: list[Callable[[Sequence[Frame]], None]] = [
    a_track_says_what_the_whole_history_says,
    whoever_is_identified_is_live_and_agreed_upon,
    when_it_began_does_not_matter,
]


@given(runs)
@settings(max_examples=200)
def test_every_law_holds_for_every_track(frames: list[Frame]) -> None:
    for law in LAWS:
        law(frames)


# ---- examples by hand -------------------------------------------------------------------------------


def frames_of(*captured: tuple[int, str], score: float | None = 0.9, box: Box = NEAR) -> list[Frame]:
    """Frames at some times that name somebody."""
    return [Frame(number, at_ms, box, who, score) for number, (at_ms, who) in enumerate(captured)]


def test_three_agreeing_live_frames_identify_ann() -> None:
    """The example of the module, down to the mean."""
    frames = [
        replace(one, live_score=score)
        for one, score in zip(frames_of((0, "ann"), (200, "ann"), (400, "ann")), (0.9, 0.8, 0.7), strict=True)
    ]
    first, second, third = told(frames)
    assert first.outcome is second.outcome is Outcome.NOT_YET
    assert third == Finding(Outcome.IDENTIFIED, Reason.NONE, "ann", Liveness.LIVE, 1, (0, 1, 2))


def test_a_device_with_depth_needs_two_frames() -> None:
    frames = [replace(one, device_liveness=Liveness.LIVE) for one in frames_of((0, "ann"), (600, "ann"))]
    assert told(frames)[1].outcome is Outcome.IDENTIFIED
    apart = [frames[0], replace(frames[1], captured_ms=601)]
    assert told(apart)[1].outcome is Outcome.NOT_YET


def test_the_devices_verdict_outranks_the_pixels_both_ways() -> None:
    """A picture that looks alive is a spoof when it is flat, and a face that looks odd is none when not."""
    good = frames_of((0, "ann"), (200, "ann"), (400, "ann"))
    flat = told([good[0], good[1], replace(good[2], device_liveness=Liveness.SPOOF)])[-1]
    assert (flat.outcome, flat.reason) == (Outcome.DENY, Reason.NOT_LIVE)
    odd = frames_of((0, "ann"), (200, "ann"), (400, "ann"), score=0.1)
    odd[1] = replace(odd[1], device_liveness=Liveness.LIVE)
    assert told(odd)[1].outcome is Outcome.IDENTIFIED


def test_a_face_that_nobody_looked_at_for_life_never_opens() -> None:
    """Ten seconds of Ann without a score: tries again, four times, then denied for what is not known."""
    found = told(frames_of(*((at_ms, "ann") for at_ms in range(0, 10_200, 200)), score=None))
    assert {one.outcome for one in found} == {Outcome.NOT_YET, Outcome.TRY_AGAIN, Outcome.DENY}
    assert [one.outcome for one in found].count(Outcome.TRY_AGAIN) == 4
    assert (found[-1].reason, found[-1].attempts) == (Reason.LIVENESS_UNKNOWN, 5)


def test_a_stranger_has_five_attempts_of_two_seconds() -> None:
    found = told(frames_of(*((at_ms, "") for at_ms in range(0, 15_000, 500))))
    said = [(at * 500, one.outcome) for at, one in enumerate(found) if one.outcome is not Outcome.NOT_YET]
    assert said == [
        *((at_ms, Outcome.TRY_AGAIN) for at_ms in (2000, 4000, 6000, 8000)),
        (10_000, Outcome.DENY),
    ]


def test_a_face_that_takes_anothers_place_voids_the_track() -> None:
    """Bea stands where Ann stood, two frames before anything was decided; nothing comes of it any more."""
    frames = frames_of((0, "ann"), (200, "ann"), (300, "bea"), (500, "ann"), (700, "ann"), (900, "ann"))
    assert [one.reason for one in told(frames)][2] is Reason.FACES_DISAGREE
    assert {one.outcome for one in told(frames)[3:]} == {Outcome.NOT_YET}


@pytest.mark.parametrize(
    ("box", "jumps"),
    [
        (Box(900 + 200, 400, 80, 80), False),
        (Box(900 + 201, 400, 80, 80), True),
        (Box(900, 400 + 201, 80, 80), True),
        (Box(880, 380, 120, 120), False),
        (Box(879, 379, 121, 121), True),
        (Box(math.nan, 400, 80, 80), True),
        (Box(900, 400, math.inf, 80), True),
    ],
)
def test_what_counts_as_a_jump_within_200_ms(box: Box, jumps: bool) -> None:
    """2.5 widths of 80 px, and half as large again; a coordinate that is no number is one."""
    before, after = frames_of((0, "ann"), (200, "ann"))
    assert rules.jumped(before, replace(after, box=box)) is jumps


def test_a_face_that_is_too_far_away_is_no_attempt() -> None:
    """Twenty seconds on the pavement cost Ann nothing."""
    far = frames_of(*((at_ms, "") for at_ms in range(0, 20_000, 500)), box=Box(900, 400, 59, 80))
    found = told(far)
    assert {(one.outcome, one.attempts) for one in found} == {(Outcome.COME_CLOSER, 0)}
    near = [replace(one, captured_ms=one.captured_ms + 20_000) for one in frames_of((0, "ann"), (200, "ann"))]
    assert told([*far, *near])[-1].attempts == 1


def test_frames_come_in_the_order_of_capture() -> None:
    """Also the same one twice is refused: it agrees with itself."""
    first, second = frames_of((200, "ann"), (200, "ann"))
    track, _ = rules.seen(Track(), first, POLICY)
    with pytest.raises(Invalid) as invalid:
        rules.seen(track, second, POLICY)
    assert invalid.value.reason == "FRAME_OUT_OF_ORDER"


def test_a_track_remembers_no_more_than_an_attempt() -> None:
    """A terminal that sends a thousand frames a second costs two thousand of them at a time."""
    track = Track()
    for at_ms in range(2500):
        track, _ = rules.seen(track, Frame(at_ms, at_ms, NEAR, "", 0.9), POLICY)
    assert len(track.frames) == 2001


# ---- planted faults ---------------------------------------------------------------------------------

liveness_of = rules.liveness_of


def _unknown_passes(frames: Sequence[Frame], policy: TrackPolicy) -> Liveness:
    found = liveness_of(frames, policy)
    return Liveness.LIVE if found is Liveness.UNKNOWN else found


def _pixels_first(frames: Sequence[Frame], policy: TrackPolicy) -> Liveness:
    without = [replace(one, device_liveness=None) for one in frames]
    found = liveness_of(without, policy)
    return liveness_of(frames, policy) if found is Liveness.UNKNOWN else found


def _best_frame(frames: Sequence[Frame], policy: TrackPolicy) -> Liveness:
    best = max((one.live_score or 0 for one in frames), default=0)
    return liveness_of([replace(one, live_score=one.live_score and best) for one in frames], policy)


def _unscored_left_out(frames: Sequence[Frame], policy: TrackPolicy) -> Liveness:
    scored = [one for one in frames if one.live_score is not None or one.device_liveness is not None]
    return liveness_of(scored, policy) if scored else Liveness.UNKNOWN


FAULTS: dict[str, tuple[str, object]] = {
    "one frame is enough": ("AGREEING_FRAMES", 1),
    "frames vouch for each other longer": ("AGREEMENT_MS", 700),
    "frames vouch for each other shorter": ("AGREEMENT_MS", 599),
    "two frames show life": ("LIVE_FRAMES", 2),
    "life is seen too soon": ("LIVE_SPAN_MS", 200),
    "a sixth attempt": ("ATTEMPTS_MAX", 6),
    "attempts last longer": ("ATTEMPT_MS", 2500),
    "nothing is a jump": ("jumped", lambda before, after: False),
    "sizes may jump": ("JUMP_SIZE_RATIO_MAX", 3),
    "unknown liveness passes": ("liveness_of", _unknown_passes),
    "pixels outrank the device": ("liveness_of", _pixels_first),
    "the best frame decides": ("liveness_of", _best_frame),
    "frames without a score are left out": ("liveness_of", _unscored_left_out),
}


@pytest.fixture(scope="module")
def fixed_runs() -> list[list[Frame]]:
    """The same on every run."""
    return [run(random.Random(seed)) for seed in range(1500)]


def broken_law(tracks: Sequence[Sequence[Frame]]) -> str | None:
    """The first law for which there is a counterexample."""
    for frames in tracks:
        for law in LAWS:
            try:
                law(frames)
            except AssertionError:
                return law.__name__
    return None


def test_no_law_is_broken_without_a_fault(fixed_runs: list[list[Frame]]) -> None:
    assert broken_law(fixed_runs) is None
    seen = {one.outcome for frames in fixed_runs for one in told(frames)}
    assert seen == set(Outcome), "the tracks do not reach every outcome"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(
    fault: str, fixed_runs: list[list[Frame]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, wrong = FAULTS[fault]
    monkeypatch.setattr(rules, name, wrong)
    assert broken_law(fixed_runs) is not None, f"nobody notices: {fault}"
