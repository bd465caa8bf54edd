"""Exact search of a gallery: the five nearest people of each probe, by the best template of each.

One matrix product, then the best of each person's columns. An approximate index would save nothing at the
size of a site, and would sometimes miss somebody who is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from chassis.errors import Invalid
from svc_vision.recognition.model_contract import Metric
from svc_vision.rules.score import Candidate, rank_scores

NEAREST: Final = 5

Floats = NDArray[np.float32]


class Gallery:
    """Templates of people, ready to be searched; never changed. Several threads may search it at once."""

    def __init__(self, people: Sequence[str], templates: Floats, metric: Metric) -> None:
        """`people`: the person of each row of `templates`; a person's rows stand together.

        Raises: Invalid EMBEDDING_NOT_FINITE; ValueError when rows and people do not go together.
        """
        groups = [(person, len(list(rows))) for person, rows in groupby(people)]
        if (
            templates.ndim != 2
            or len(templates) != len(people)
            or len({one for one, _ in groups}) != len(groups)
        ):
            raise ValueError(
                f"{len(people)} people for templates of shape {templates.shape}, or not together"
            )
        self._people = [person for person, _ in groups]
        counts = [count for _, count in groups]
        self._begins = np.cumsum([0, *counts])[:-1]
        self._counts = counts
        self._one_each = len(groups) == len(people)
        self._metric = metric
        self._templates = _measurable(templates, metric)
        self._squares = np.einsum("ij,ij->i", self._templates, self._templates)

    def __len__(self) -> int:
        """How many templates it holds: the trials of one attempt."""
        return len(self._templates)

    @property
    def size_bytes(self) -> int:
        """The memory that its vectors take."""
        return int(self._templates.nbytes + self._squares.nbytes)

    def nearest(self, probes: Floats, count: int = NEAREST) -> list[list[Candidate]]:
        """For each row of `probes` the nearest people, nearest first.

        Raises: Invalid EMBEDDING_NOT_FINITE, EMBEDDING_SIZE_WRONG.
        """
        if probes.ndim != 2 or probes.shape[1] != self._templates.shape[1]:
            raise Invalid("EMBEDDING_SIZE_WRONG", f"embeddings here have {self._templates.shape[1]} numbers")
        probes = _measurable(probes, self._metric)
        if not self._people:
            return [[] for _ in probes]
        scores = rank_scores(probes, self._templates, self._squares)
        best = scores if self._one_each else np.maximum.reduceat(scores, self._begins, axis=1)
        count = min(count, len(self._people))
        chosen = np.argpartition(best, len(self._people) - count, axis=1)[:, -count:]
        return [self._candidates(probe, rows) for probe, rows in zip(probes, chosen, strict=True)]

    def _candidates(self, probe: Floats, people: NDArray[np.intp]) -> list[Candidate]:
        """Measured directly, not from the scores: of two near vectors these lose what makes them differ."""
        found = []
        for person in sorted(people.tolist()):
            begin = int(self._begins[person])
            away = self._templates[begin : begin + self._counts[person]] - probe
            squares = np.einsum("ij,ij->i", away, away)
            nearest = int(squares.argmin())
            found.append(Candidate(self._people[person], self._distance(float(squares[nearest])), nearest))
        return sorted(found, key=lambda candidate: candidate.distance)

    def _distance(self, square: float) -> float:
        # Of vectors of unit length |x - y|^2 is 2 (1 - x.y).
        return square / 2 if self._metric is Metric.COSINE else float(np.sqrt(square))


def _measurable(vectors: Floats, metric: Metric) -> Floats:
    """float32, finite, and of unit length where the metric is of directions alone."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    if not np.isfinite(vectors).all():
        raise Invalid("EMBEDDING_NOT_FINITE", "an embedding holds a number that is none")
    if metric is Metric.COSINE:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (lengths > 0).all():
            raise Invalid("EMBEDDING_NOT_FINITE", "an embedding of length zero has no direction")
        vectors = vectors / lengths
    return vectors
