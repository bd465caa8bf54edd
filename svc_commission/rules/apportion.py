"""Sharing whole minor units out by weight: no unit is lost, and a larger total is less for nobody."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush, heapreplace


def round_half_up(numerator: int, denominator: int) -> int:
    """numerator ÷ denominator to the nearest whole, halves upwards.

    Raises: ValueError unless numerator >= 0 and denominator > 0.
    """
    if numerator < 0 or denominator <= 0:
        raise ValueError(f"{numerator} ÷ {denominator}")
    return (2 * numerator + denominator) // (2 * denominator)


def apportion(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """`total` in whole parts, one per key, in proportion to the weights.

    Webster's method (Sainte-Laguë): part s of a key with weight w is given out in the order of
    w ÷ (2s - 1), ties to the lower key. The parts are therefore a prefix of one fixed sequence: they sum
    to `total`, none shrinks when `total` grows, and `total` = Σ weights gives every key its weight. The
    method of the largest remainder has the first property alone: by it a refund could pay somebody.

    Raises: ValueError when total < 0, a weight < 0, or total > 0 and all weights are 0.
    """
    whole = sum(weights.values())
    if total < 0 or any(weight < 0 for weight in weights.values()) or (total > 0 and whole == 0):
        raise ValueError(f"{total} cannot be shared out by {dict(weights)}")
    if total == 0:
        return dict.fromkeys(weights, 0)
    if len(weights) == 1:
        return dict.fromkeys(weights, total)
    # Rounding each quota cuts the sequence at one priority, ties included; at most half the keys are off.
    parts = {key: round_half_up(total * weight, whole) for key, weight in weights.items()}
    surplus = sum(parts.values()) - total
    if surplus > 0:
        _take_last(parts, weights, surplus)
    else:
        _give_next(parts, weights, -surplus)
    return parts


def _take_last(parts: dict[str, int], weights: Mapping[str, int], count: int) -> None:
    """Takes back the last parts of the sequence: of the least priority, of equals the higher key's."""
    keys = sorted(weights, reverse=True)
    scale = _scale(parts)
    queue = [
        (weights[key] * scale // (2 * parts[key] - 1), rank) for rank, key in enumerate(keys) if parts[key]
    ]
    heapify(queue)
    for _ in range(count):
        _, rank = heappop(queue)
        key = keys[rank]
        parts[key] -= 1
        if parts[key]:
            heappush(queue, (weights[key] * scale // (2 * parts[key] - 1), rank))


def _give_next(parts: dict[str, int], weights: Mapping[str, int], count: int) -> None:
    """Gives the next parts of the sequence: of the greatest priority, of equals the lower key's."""
    keys = sorted(key for key in weights if weights[key])
    scale = _scale(parts)
    queue = [(-(weights[key] * scale // (2 * parts[key] + 1)), rank) for rank, key in enumerate(keys)]
    heapify(queue)
    for _ in range(count):
        rank = queue[0][1]
        key = keys[rank]
        parts[key] += 1
        heapreplace(queue, (-(weights[key] * scale // (2 * parts[key] + 1)), rank))


def _scale(parts: Mapping[str, int]) -> int:
    """What priorities are multiplied by, so that cut to whole numbers they still compare as the fractions do.

    Two fractions that differ do so by at least 1 over the product of their denominators, which are at most
    2 × the greatest part that there will be, plus 1: a part grows by less than the number of keys.
    """
    denominator_max = 2 * (max(parts.values()) + len(parts)) + 1
    return denominator_max * denominator_max
