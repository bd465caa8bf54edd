"""Sharing out by weight: no fen is lost, nobody is paid by a refund."""

from __future__ import annotations

from fractions import Fraction
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_commission.rules.apportion import apportion, round_half_up
from tests.strategies import weights

totals = st.one_of(st.integers(0, 60), st.integers(0, 10**12))


def webster(total: int, by_weight: dict[str, int]) -> dict[str, int]:
    """The parts given out one by one: each to the key of the greatest w ÷ (2s - 1), ties to the lower."""
    parts = dict.fromkeys(by_weight, 0)
    for _ in range(total):
        chosen = min(by_weight, key=lambda key: (-Fraction(by_weight[key], 2 * parts[key] + 1), key))
        parts[chosen] += 1
    return parts


@given(totals, weights())
def test_parts_sum_to_the_total(total: int, by_weight: dict[str, int]) -> None:
    """Whatever is shared out, not a fen is lost or made."""
    parts = apportion(total, by_weight)
    assert parts.keys() == by_weight.keys()
    assert sum(parts.values()) == total
    assert min(parts.values()) >= 0


@given(totals, st.integers(0, 50), weights())
def test_nobody_gets_less_of_more(total: int, more: int, by_weight: dict[str, int]) -> None:
    """What is taken back grows with every refund: a part that shrank would pay somebody for a refund."""
    before, after = apportion(total, by_weight), apportion(total + more, by_weight)
    assert all(after[key] >= part for key, part in before.items())


@given(weights(), st.integers(1, 1000))
def test_a_total_of_all_weights_gives_each_its_weight(by_weight: dict[str, int], times: int) -> None:
    """A full refund takes back exactly what was paid out."""
    assert apportion(times * sum(by_weight.values()), by_weight) == {
        key: times * weight for key, weight in by_weight.items()
    }


@given(st.integers(0, 60), weights(most=40))
def test_parts_are_those_of_the_sequence_given_out_one_by_one(total: int, by_weight: dict[str, int]) -> None:
    """The quick method agrees with the definition, ties included."""
    assert apportion(total, by_weight) == webster(total, by_weight)


@given(totals, weights())
def test_who_weighs_nothing_gets_nothing(total: int, by_weight: dict[str, int]) -> None:
    """A line of which nothing remains paid bears none of a goodwill refund."""
    parts = apportion(total, {**by_weight, "nothing": 0})
    assert parts["nothing"] == 0


@given(totals, weights())
def test_parts_depend_on_the_keys_and_not_on_how_they_are_listed(
    total: int, by_weight: dict[str, int]
) -> None:
    """The same order read back from the database gives the same fen to the same people."""
    assert apportion(total, dict(reversed(by_weight.items()))) == apportion(total, by_weight)


def test_a_fourth_fen_takes_nothing_from_anybody() -> None:
    """2500 : 2500 : 1000. The method of the largest remainder would give 1, 1, 1 and then 2, 2, 0.

    Its quotas of 3 are 1.25, 1.25, 0.5: the fen left over goes to the third. Its quotas of 4 are 1.67, 1.67,
    0.67: both fen left over go to the first two, and the third would be paid one fen by a further refund.
    """
    shares = {"ann": 2500, "bea": 2500, "store": 1000}
    assert apportion(3, shares) == {"ann": 1, "bea": 1, "store": 1}
    assert apportion(4, shares) == {"ann": 2, "bea": 1, "store": 1}
    assert apportion(6, shares) == {"ann": 3, "bea": 2, "store": 1}


def test_sharing_among_many_equals_stays_quick() -> None:
    """500 lines of one price and a goodwill of half a fen each: no event may hold up all others.

    Measured against 500 lines of which none ties, so that it holds on any machine.
    """

    def took_s(by_weight: dict[str, int]) -> float:
        begun = process_time()
        apportion(250, by_weight)
        return process_time() - begun

    equal = {f"line-{number:03}": 10_000 for number in range(500)}
    unequal = {f"line-{number:03}": 2 * number + 1 for number in range(500)}
    assert min(took_s(equal) for _ in range(5)) < 100 * min(took_s(unequal) for _ in range(5))


@pytest.mark.parametrize(
    ("total", "by_weight"),
    [(-1, {"a": 1}), (1, {"a": 2, "b": -1}), (1, {"a": 0, "b": 0}), (1, {})],
)
def test_what_cannot_be_shared_out_is_an_error(total: int, by_weight: dict[str, int]) -> None:
    """A mistake of ours stops here instead of in somebody's pay."""
    with pytest.raises(ValueError, match="cannot be shared out"):
        apportion(total, by_weight)


def test_nothing_can_be_shared_out_among_nobody() -> None:
    """An order that earned nothing has nobody to share with, and that is no error."""
    assert apportion(0, {}) == {}
    assert apportion(0, {"a": 0}) == {"a": 0}


@given(st.integers(0, 10**16), st.integers(1, 10**16))
def test_rounding_goes_to_the_nearest_fen_and_halves_go_up(numerator: int, denominator: int) -> None:
    """Exact at any size that money has: no float is involved."""
    off = round_half_up(numerator, denominator) - Fraction(numerator, denominator)
    assert Fraction(-1, 2) < off <= Fraction(1, 2)


@pytest.mark.parametrize(("numerator", "denominator"), [(-1, 2), (1, 0), (1, -2)])
def test_rounding_refuses_what_money_never_is(numerator: int, denominator: int) -> None:
    """Amounts are never negative where they are rounded: a negative half would go the other way."""
    with pytest.raises(ValueError, match="÷"):
        round_half_up(numerator, denominator)
