"""Books held against what they should be: amount by amount, computed and posted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from svc_commission.rules.order import Target


@dataclass(frozen=True, slots=True)
class Compared:
    """One amount: what the events come to, what had been posted before, and what was posted."""

    target: Target
    computed_minor: int
    before_minor: int
    posted_minor: int

    @property
    def agrees(self) -> bool:
        """Whether what was posted brings the books to where they should be."""
        return self.before_minor + self.posted_minor == self.computed_minor


def compared(
    computed: Mapping[Target, int], before: Mapping[Target, int], posted: Mapping[Target, int]
) -> list[Compared]:
    """Every amount that is computed, or was posted, by line, account, payee, month and kind."""
    targets = sorted(computed.keys() | before.keys() | posted.keys())
    return [
        Compared(target, computed.get(target, 0), before.get(target, 0), posted.get(target, 0))
        for target in targets
    ]
