"""A brand's regions: whatever is asked, the tree stays a tree."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import NotFound, Refused
from svc_members.rules.region import REGIONS_MAX, Tree, descendants, placed

NAMES = st.sampled_from("abcdefgh")
CHANGES = st.lists(st.tuples(NAMES, st.one_of(st.just(""), NAMES)), max_size=40)


def upwards(tree: Mapping[str, str], region_id: str) -> list[str]:
    """The region and what it lies in, up to the top. Fails where the way leads in a circle."""
    way = [region_id]
    while tree[way[-1]]:
        way.append(tree[way[-1]])
        assert len(way) <= len(tree), f"a circle: {way}"
    return way


def grown(changes: list[tuple[str, str]]) -> Tree:
    """The tree after those of the changes that were accepted."""
    tree: Tree = {}
    for region_id, parent_id in changes:
        try:
            tree = placed(tree, region_id, parent_id)
        except (NotFound, Refused):
            continue
    return tree


@given(CHANGES)
def test_whatever_is_accepted_every_region_leads_to_the_top(changes: list[tuple[str, str]]) -> None:
    tree = grown(changes)
    for region_id in tree:
        upwards(tree, region_id)


@given(CHANGES, NAMES, st.one_of(st.just(""), NAMES))
def test_a_change_is_refused_exactly_where_it_would_break_the_tree(
    changes: list[tuple[str, str]], region_id: str, parent_id: str
) -> None:
    tree = grown(changes)
    before = dict(tree)
    circle = parent_id == region_id or (parent_id in tree and region_id in upwards(tree, parent_id))
    if circle or (parent_id and parent_id not in tree):
        with pytest.raises(Refused if circle else NotFound) as caught:
            placed(tree, region_id, parent_id)
        assert caught.value.reason == ("REGION_CIRCLE" if circle else "REGION_UNKNOWN")
    else:
        after = placed(tree, region_id, parent_id)
        assert after == {**before, region_id: parent_id}
        assert upwards(after, region_id)[1:] == (upwards(tree, parent_id) if parent_id else [])
    assert tree == before, "a tree is never changed, only followed by another"


@given(CHANGES)
def test_below_a_region_is_what_leads_up_to_it(changes: list[tuple[str, str]]) -> None:
    tree = grown(changes)
    for region_id in tree:
        assert descendants(tree, region_id) == {one for one in tree if region_id in upwards(tree, one)}


def test_nothing_is_below_a_region_that_is_not_there() -> None:
    with pytest.raises(NotFound) as caught:
        descendants({"a": ""}, "b")
    assert caught.value.reason == "REGION_UNKNOWN"
    with pytest.raises(NotFound):
        descendants({"a": ""}, "")


def test_a_chain_as_deep_as_the_tree_may_be_is_walked() -> None:
    chain = {str(depth): str(depth - 1) if depth else "" for depth in range(REGIONS_MAX)}
    assert len(descendants(chain, "0")) == REGIONS_MAX
    with pytest.raises(Refused) as caught:
        placed(chain, "0", str(REGIONS_MAX - 1))
    assert caught.value.reason == "REGION_CIRCLE"


def test_a_full_tree_takes_no_more_regions_but_still_moves_its_own() -> None:
    full = {str(number): "" for number in range(REGIONS_MAX)}
    with pytest.raises(Refused) as caught:
        placed(full, "one more", "")
    assert caught.value.reason == "TOO_MANY_REGIONS"
    assert placed(full, "5", "7")["5"] == "7"
