"""Search finds what comparing one by one finds, and a stranger is nobody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chassis.errors import Invalid
from svc_vision.recognition.model_contract import Metric
from svc_vision.recognition.search import Gallery
from svc_vision.rules.score import Candidate, Verdict, recognised

Floats = NDArray[np.float32]


def vectors(seed: int, count: int, dimension: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def one_by_one(people: list[str], templates: Floats, probe: Floats, metric: Metric) -> dict[str, float]:
    """Each person's distance, in double precision, from the definition."""
    best: dict[str, float] = {}
    x = probe.astype(np.float64)
    for person, template in zip(people, templates.astype(np.float64), strict=True):
        if metric is Metric.L2:
            distance = float(np.sqrt(((x - template) ** 2).sum()))
        else:
            distance = float(1 - x @ template / np.sqrt((x @ x) * (template @ template)))
        best[person] = min(distance, best.get(person, np.inf))
    return best


@settings(max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 6), min_size=1, max_size=40),
    st.integers(1, 64),
    st.integers(1, 7),
    st.sampled_from(Metric),
)
def test_search_finds_what_comparing_one_by_one_finds(
    seed: int, counts: list[int], dimension: int, asked: int, metric: Metric
) -> None:
    """The nearest people, in order, each by the best of her templates, wherever they stand in the gallery."""
    people = [f"person-{number}" for number, count in enumerate(counts) for _ in range(count)]
    templates = vectors(seed, len(people), dimension)
    probes = np.concatenate([vectors(seed + 1, 2, dimension), templates[-1:] * np.float32(1.01)])
    found = Gallery(people, templates, metric).nearest(probes, asked)
    assert len(found) == len(probes)
    for probe, candidates in zip(probes, found, strict=True):
        expected = one_by_one(people, templates, probe, metric)
        assert [one.distance for one in candidates] == pytest.approx(
            sorted(expected.values())[:asked], abs=1e-5
        )
        for one in candidates:
            assert one.distance == pytest.approx(expected[one.person_id], abs=1e-5)
            row = people.index(one.person_id) + one.template
            alone = one_by_one([one.person_id], templates[row : row + 1], probe, metric)
            assert alone[one.person_id] == pytest.approx(one.distance, abs=1e-5)


def test_a_template_itself_is_found_at_distance_nothing() -> None:
    """Though the score is the difference of two large numbers."""
    templates = vectors(1, 500, 128) * 30
    people = [str(number) for number in range(500)]
    found = Gallery(people, templates, Metric.L2).nearest(templates[123:124])
    assert (found[0][0].person_id, found[0][0].distance) == ("123", 0.0)


def test_vectors_that_are_not_of_unit_length_are_not_made_so() -> None:
    """dlib's differ in length, and the length counts: near in direction is not near."""
    templates = np.array([[2.0, 0.0], [0.9, 0.5]], np.float32)
    probe = np.array([[1.0, 0.0]], np.float32)
    by_place = Gallery(["same direction", "same place"], templates, Metric.L2).nearest(probe)
    by_direction = Gallery(["same direction", "same place"], templates, Metric.COSINE).nearest(probe)
    assert by_place[0][0].person_id == "same place"
    assert by_direction[0][0].person_id == "same direction"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused(wrong: float) -> None:
    """It would compare as neither near nor far, and rank anywhere."""
    templates = vectors(1, 3, 4)
    gallery = Gallery(["ann", "bea", "cyd"], templates, Metric.L2)
    broken = templates.copy()
    broken[1, 2] = wrong
    for attempt in (lambda: gallery.nearest(broken), lambda: Gallery(["a", "b", "c"], broken, Metric.L2)):
        with pytest.raises(Invalid) as refused:
            attempt()
        assert refused.value.reason == "EMBEDDING_NOT_FINITE"


def test_an_embedding_without_direction_has_no_cosine() -> None:
    with pytest.raises(Invalid) as refused:
        Gallery(["ann"], np.zeros((1, 4), np.float32), Metric.COSINE)
    assert refused.value.reason == "EMBEDDING_NOT_FINITE"


def test_an_embedding_of_another_model_is_refused() -> None:
    with pytest.raises(Invalid) as refused:
        Gallery(["ann"], vectors(1, 1, 128), Metric.L2).nearest(vectors(1, 1, 512))
    assert refused.value.reason == "EMBEDDING_SIZE_WRONG"


def test_nobody_is_found_in_an_empty_gallery() -> None:
    assert Gallery([], np.zeros((0, 8), np.float32), Metric.L2).nearest(vectors(1, 2, 8)) == [[], []]


@pytest.mark.parametrize("people", [["ann", "bea", "ann"], ["ann", "bea"]])
def test_a_gallery_whose_rows_do_not_go_together_is_not_made(people: list[str]) -> None:
    with pytest.raises(ValueError, match="people"):
        Gallery(people, vectors(1, 3, 4), Metric.L2)


# ---- who it is ----------------------------------------------------------------------------------------


def near(*distances: float) -> list[Candidate]:
    return [Candidate(f"person-{number}", distance, 0) for number, distance in enumerate(distances)]


@pytest.mark.parametrize(
    ("distances", "verdict"),
    [
        ((0.30, 0.61), Verdict.RECOGNISED),
        ((0.45, 0.61), Verdict.RECOGNISED),
        ((0.30,), Verdict.RECOGNISED),
        ((0.30, 0.32), Verdict.AMBIGUOUS),
        ((0.44, 0.46), Verdict.AMBIGUOUS),
        ((0.4501, 0.9), Verdict.UNKNOWN),
        ((float("nan"), 0.9), Verdict.UNKNOWN),
        ((), Verdict.UNKNOWN),
    ],
)
def test_who_a_search_finds(distances: tuple[float, ...], verdict: Verdict) -> None:
    """Near enough, and clearly nearer than the next; otherwise nobody."""
    found = recognised(near(*distances), 0.45)
    assert found.verdict is verdict
    assert found.person_id == ("person-0" if verdict is Verdict.RECOGNISED else "")


@given(st.lists(st.floats(0, 2), max_size=6).map(sorted), st.floats(0.01, 1), st.floats(0, 0.2))
def test_who_is_recognised_stays_so_with_a_wider_threshold_and_a_smaller_margin(
    distances: list[float], threshold: float, margin: float
) -> None:
    candidates: Any = near(*distances)
    found = recognised(candidates, threshold, margin)
    if found.verdict is Verdict.RECOGNISED:
        assert recognised(candidates, threshold * 1.1, margin * 0.9).person_id == found.person_id
