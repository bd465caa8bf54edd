"""A brand's regions: where a region may stand in the tree, and what lies below it.

A tree is the parent of each region, by region id; an empty parent is the top. Every tree that `placed`
returns ends at the top from everywhere, because it begins from one that does and makes no circle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chassis.errors import NotFound, Refused

REGIONS_MAX: Final = 1000
"""Regions of one brand: they live in one document."""

Tree = Mapping[str, str]


def placed(tree: Tree, region_id: str, parent_id: str) -> Tree:
    """The tree with a region, new or not, directly below the parent; empty: at the top.

    Raises: NotFound REGION_UNKNOWN for the parent; Refused REGION_CIRCLE, TOO_MANY_REGIONS.
    """
    if parent_id == region_id or (region_id in tree and parent_id in descendants(tree, region_id)):
        raise Refused("REGION_CIRCLE", "the region would lie below itself")
    if parent_id and parent_id not in tree:
        raise unknown()
    if region_id not in tree and len(tree) >= REGIONS_MAX:
        raise Refused("TOO_MANY_REGIONS", f"the brand has {REGIONS_MAX} regions, the most there may be")
    return {**tree, region_id: parent_id}


def descendants(tree: Tree, region_id: str) -> frozenset[str]:
    """The region and all below it. Raises: NotFound REGION_UNKNOWN."""
    if region_id not in tree:
        raise unknown()
    children: dict[str, list[str]] = {}
    for child, parent in tree.items():
        children.setdefault(parent, []).append(child)
    found = [region_id]
    # The list grows while it is walked: each region brings its children. In a tree none comes twice.
    for region in found:
        found += children.get(region, [])
    return frozenset(found)


def unknown() -> NotFound:
    """The refusal of a region that the brand does not have."""
    return NotFound("REGION_UNKNOWN", "the region does not exist in this brand")
