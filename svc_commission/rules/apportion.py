"""Sharing whole minor units out by weight: no unit is lost, and a larger total is less for nobody."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cmp_to_key


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
    while sum(parts.values()) > total:
        parts[_ordered(weights, parts, -1)[-1]] -= 1
    while sum(parts.values()) < total:
        parts[_ordered(weights, parts, +1)[0]] += 1
    return parts


def _ordered(weights: Mapping[str, int], parts: Mapping[str, int], last: int) -> list[str]:
    """The keys by the priority of the part they got last (-1) or would get next (+1), the first first."""
    keys = [key for key in weights if weights[key] > 0 and parts[key] + last >= 0]

    def earlier(one: str, other: str) -> int:
        left = weights[one] * (2 * parts[other] + last)
        right = weights[other] * (2 * parts[one] + last)
        if left != right:
            return right - left
        return -1 if one < other else 1

    return sorted(keys, key=cmp_to_key(earlier))
