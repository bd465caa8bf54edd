"""Which batch sizes to run, from what each was measured to take. `batcher` decides who is in them.

A device runs batches of fixed sizes, its buckets, because every new shape costs it anew. Fewer items than a
bucket holds are filled up with padding, which costs as much as items do: 33 may be cheaper as 32 and 1 than
as one batch of 64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
BATCH_MAX: Final = BUCKETS[-1]
LARGER_GAINS: Final = 1.05
"""A larger bucket is used only where it makes an item cheaper by more than this: it makes everybody wait."""


class Costs:
    """The cheapest batches for every number of waiting items.

    Example: runs of 1, 2, 4 and 8 that take 10, 11, 14 and 20 ms. Nine items are cheapest as 8 and 1: 30 ms.
    Seven are one batch of 8, a place of it padding: 20 ms, where 4, 2 and 1 would take 35.
    """

    def __init__(self, seconds: Mapping[int, float], items_max: int) -> None:
        """`seconds`: of one run, by bucket. `items_max`: the most that ever wait.

        Raises: ValueError unless there is a bucket, and all cost something.
        """
        if not seconds or min(seconds.values()) <= 0:
            raise ValueError(f"a run costs time: {dict(seconds)}")
        self.seconds: Final = dict(sorted(seconds.items()))
        self.usable: Final = _worth_their_size(self.seconds)
        """The buckets that batches are made of, ascending."""
        self.largest: Final = self.usable[-1]
        self._least_s, self._first = self._planned(items_max)

    def _planned(self, items_max: int) -> tuple[list[float], list[int]]:
        """For every number of items the least time they can take, and the batch to begin with."""
        least_s, first = [0.0], [0]
        for items in range(1, items_max + 1):
            options = [(self.seconds[size] + least_s[max(0, items - size)], size) for size in self.usable]
            cost_s, size = min(options)
            after = first[max(0, items - size)]
            # Of the batches of a plan first the one in which an item is cheapest: most are done soonest.
            begin = min((one for one in (size, after) if one), key=self._order)
            least_s.append(cost_s)
            first.append(begin)
        return least_s, first

    def _order(self, size: int) -> tuple[float, int]:
        return self.seconds[size] / size, -size

    def first_batch(self, items: int) -> int:
        """The bucket to run first when so many items wait: of the plan that takes the least time for all."""
        return self._first[items]

    def least_s(self, items: int) -> float:
        """How long so many items take at the least, one batch after the other."""
        return self._least_s[items]

    def bucket_for(self, items: int) -> int:
        """The cheapest bucket that holds so many items, of which there are at most `largest`."""
        return min((size for size in self.usable if size >= items), key=lambda size: self.seconds[size])

    def saved_by_company_s(self, items: int) -> float:
        """What one more item costs less when it is run together with so many than after them."""
        return max(0.0, self._least_s[1] + self._least_s[items] - self._least_s[items + 1])


def _worth_their_size(seconds: Mapping[int, float]) -> tuple[int, ...]:
    cheapest_s = min(cost / size for size, cost in seconds.items())
    enough = min(size for size, cost in seconds.items() if cost / size <= cheapest_s * LARGER_GAINS)
    return tuple(size for size in sorted(seconds) if size <= enough)
