"""Thresholds follow from trials: laws over random evidence, worked figures, planted faults."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from fractions import Fraction
from unittest.mock import patch

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from chassis.errors import Refused
from svc_vision.recognition.model_contract import DLIB
from svc_vision.rules import threshold as rule
from svc_vision.rules.threshold import (
    Evidence,
    FmrPoint,
    LiveImpostors,
    Threshold,
    attempts_of,
    fpir,
    threshold,
)

distances = st.floats(0.05, 1.5, allow_nan=False)
rates = st.one_of(st.just(0.0), st.floats(1e-9, 0.5), st.just(1.0))
measured = st.builds(FmrPoint, distances, rates, st.just(Evidence.MEASURED), st.integers(1, 10**8))
told = st.builds(
    FmrPoint, distances, rates, st.sampled_from([Evidence.ASSUMED, Evidence.PUBLISHED]), st.just(0)
)
evidence = st.lists(st.one_of(measured, told), max_size=8)
templates = st.integers(1, 100_000)
attempts = st.integers(1, 5)
accepted = st.floats(1e-6, 0.2)


def found(points: list[FmrPoint], **how: object) -> Threshold | None:
    """The threshold; None where it is refused."""
    with contextlib.suppress(Refused):  # it has one reason to refuse
        return threshold(points, **how)  # type: ignore[arg-type]
    return None


# ---- laws -------------------------------------------------------------------------------------------


def a_visit_stays_within_what_is_accepted(
    points: list[FmrPoint], count: int, tried: int, most: float
) -> None:
    """By exact arithmetic: no rate that the evidence bears lets more strangers in than were accepted."""
    chosen = found(points, templates=count, attempts=tried, accepted_fpir=most)
    if chosen is None:
        return
    point = chosen.point
    rate = max(point.fmr, 3 / point.trials if point.trials else 0.0)
    trials = min(count * tried, 200)  # exact powers of more are slow, and can only be larger
    assert 1 - (1 - Fraction(min(rate, 1.0))) ** trials <= Fraction(most) * Fraction(1_000_001, 1_000_000)


def nothing_that_would_do_is_passed_over(points: list[FmrPoint], count: int, tried: int, most: float) -> None:
    """No point with a wider threshold is safe too."""
    chosen = found(points, templates=count, attempts=tried, accepted_fpir=most)
    for point in points:
        if chosen is None or point.distance > chosen.distance:
            assert fpir(point.shown_fmr, count, tried) > most


def more_trials_never_widen(points: list[FmrPoint], count: int, tried: int, most: float) -> None:
    """Another template or attempt can only tighten the threshold, or end it."""
    chosen = found(points, templates=count, attempts=tried, accepted_fpir=most)
    for more in (
        {"templates": count + 1, "attempts": tried},
        {"templates": count, "attempts": min(5, tried + 1)},
    ):
        after = found(points, accepted_fpir=most, **more)
        assert after is None or (chosen is not None and after.distance <= chosen.distance)


def a_measurement_shows_nothing_below_three_in_n(
    points: list[FmrPoint], count: int, tried: int, most: float
) -> None:
    """Without a single false match in n comparisons, n decides."""
    clean = [FmrPoint(0.4, 0.0, Evidence.MEASURED, point.trials) for point in points if point.trials]
    for point in clean:
        chosen = found([point], templates=count, attempts=tried, accepted_fpir=most)
        assert (
            chosen is None or 1 - (1 - min(1.0, 3 / point.trials)) ** min(count * tried, 50) <= most * 1.001
        )


LAWS: list[Callable[[list[FmrPoint], int, int, float], None]] = [
    a_visit_stays_within_what_is_accepted,
    nothing_that_would_do_is_passed_over,
    more_trials_never_widen,
    a_measurement_shows_nothing_below_three_in_n,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@settings(max_examples=200)
@given(points=evidence, count=templates, tried=attempts, most=accepted)
def test_thresholds_obey_every_law(
    law: Callable[[list[FmrPoint], int, int, float], None],
    points: list[FmrPoint],
    count: int,
    tried: int,
    most: float,
) -> None:
    law(points, count, tried, most)


@given(evidence, templates, attempts, accepted, st.lists(distances, max_size=30))
def test_impostors_met_live_only_ever_tighten(
    points: list[FmrPoint], count: int, tried: int, most: float, met: list[float]
) -> None:
    """However well they look: few distances, all of them far, prove nothing."""
    before = found(points, templates=count, attempts=tried, accepted_fpir=most)
    after = found(points, templates=count, attempts=tried, accepted_fpir=most, live=LiveImpostors(met))
    assert after is None or (before is not None and after.distance <= before.distance)


@given(evidence, templates, attempts, accepted, st.floats(0, 0.2))
def test_a_less_exact_execution_gets_a_tighter_threshold_of_the_same_risk(
    points: list[FmrPoint], count: int, tried: int, most: float, off: float
) -> None:
    before = found(points, templates=count, attempts=tried, accepted_fpir=most)
    after = found(points, templates=count, attempts=tried, accepted_fpir=most, tighten_by=off)
    if before is None or before.distance <= off:
        assert after is None
    else:
        assert after is not None
        assert after.distance == pytest.approx(before.distance - off)


@given(st.floats(0, 1), st.integers(0, 200), attempts)
def test_a_visits_risk_is_that_of_any_of_its_comparisons(rate: float, count: int, tried: int) -> None:
    exact = 1 - (1 - Fraction(rate)) ** (count * tried)
    assert fpir(rate, count, tried) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


@given(st.integers(0, 50), st.integers(0, 10**7))
def test_attempts_are_counted_by_tries_and_by_time(tried: int, present_ms: int) -> None:
    """At least one, at least one for each 2 s begun, at most five."""
    counted = attempts_of(tried, present_ms)
    assert 1 <= counted <= 5
    assert counted == 5 or (counted >= tried and counted * 2_000 >= present_ms)


# ---- worked figures ---------------------------------------------------------------------------------


def test_the_default_model_is_enough_for_a_demonstration() -> None:
    """5 in 10,000 by 20 templates is one visit in a hundred, and 21 are too many; 0.1 % is out of reach."""
    chosen = threshold(DLIB.points, templates=20, attempts=1, accepted_fpir=0.01)
    assert (chosen.distance, chosen.point.evidence) == (0.45, Evidence.ASSUMED)
    assert chosen.fpir == pytest.approx(0.00995, abs=1e-5)
    for beyond in (
        {"templates": 21, "attempts": 1, "accepted_fpir": 0.01},
        {"templates": 20, "attempts": 2, "accepted_fpir": 0.01},
        {"templates": 3, "attempts": 1, "accepted_fpir": 0.001},
    ):
        assert found(list(DLIB.points), **beyond) is None


def test_production_refuses_the_default_model_where_a_face_alone_opens() -> None:
    """What is assumed is no evidence."""
    with pytest.raises(Refused) as refused:
        threshold(DLIB.points, templates=1, attempts=1, accepted_fpir=0.01, weakest=Evidence.PUBLISHED)
    assert refused.value.reason == "FPIR_NOT_ATTAINABLE"


def test_thirty_thousand_clean_comparisons_bear_one_in_ten_thousand() -> None:
    point = FmrPoint(0.5, 0.0, Evidence.MEASURED, 30_000)
    assert point.shown_fmr == pytest.approx(1e-4)
    assert found([point], templates=10, attempts=1) is not None
    assert found([point], templates=11, attempts=1) is None


def test_impostors_met_nearer_than_the_model_promises_close_a_threshold() -> None:
    """One of 1,000 within 0.4 at this site is ten times what was published: 0.3 remains."""
    points = [FmrPoint(0.3, 1e-5, Evidence.PUBLISHED), FmrPoint(0.4, 1e-4, Evidence.PUBLISHED)]
    how = {"templates": 5, "attempts": 1, "accepted_fpir": 0.001}
    met = LiveImpostors([0.39, *(1.0 for _ in range(999))])
    before, after = found(points, **how), found(points, **how, live=met)
    assert before is not None
    assert after is not None
    assert (before.distance, after.distance) == (0.4, 0.3)


@pytest.mark.parametrize(
    "wrong", [{"templates": 0}, {"attempts": 6}, {"accepted_fpir": 0.0}, {"accepted_fpir": 1.0}]
)
def test_no_threshold_is_made_of_nonsense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="templates"):
        found(list(DLIB.points), **{"templates": 1, "attempts": 1, **wrong})


def test_a_measurement_says_how_large_it_was() -> None:
    with pytest.raises(ValueError, match="how many"):
        FmrPoint(0.4, 0.0, Evidence.MEASURED)


# ---- planted faults ---------------------------------------------------------------------------------

FAULTS: dict[str, tuple[str, object]] = {
    "attempts are forgotten": ("fpir", lambda fmr, count, tried: fpir(fmr, count, 1)),
    "one comparison for the whole gallery": ("fpir", lambda fmr, count, tried: fpir(fmr, 1, tried)),
    "clean measurements count as perfect": ("FmrPoint.shown_fmr", property(lambda point: point.fmr)),
    "one in n instead of three": (
        "FmrPoint.shown_fmr",
        property(lambda point: max(point.fmr, 1 / point.trials) if point.trials else point.fmr),
    ),
    "twice as careful as asked": ("fpir", lambda fmr, count, tried: 2 * fpir(fmr, count, tried)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_laws_find_planted_faults(fault: str) -> None:
    """A law that no fault breaks would prove nothing."""
    where, wrong = FAULTS[fault]

    @settings(max_examples=2000, phases=[Phase.generate], database=None, derandomize=True)
    @given(evidence, st.integers(1, 50), attempts, accepted)
    def all_laws(points: list[FmrPoint], count: int, tried: int, most: float) -> None:
        for law in LAWS:
            law(points, count, tried, most)

    holder: object = rule
    *path, name = where.split(".")
    for part in path:
        holder = getattr(holder, part)
    with patch.object(holder, name, wrong), pytest.raises(AssertionError):
        all_laws()
