"""Tags of a member: each once, and not too many. They may stand in several sets, one per merged member."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from chassis.errors import Refused

TAGS_MAX: Final = 3000


def trimmed(tags: Iterable[str]) -> frozenset[str]:
    """The tags without the spaces around them, each once."""
    return frozenset(tag.strip() for tag in tags)


def added(own: AbstractSet[str], others: AbstractSet[str], new: AbstractSet[str]) -> frozenset[str]:
    """The set that new tags go to, once they are in it. `others`: what the member's other sets hold.

    A tag that another set holds is added all the same: the sets may part again.

    Raises: Refused TOO_MANY_TAGS where the member would have a tag more, and more than `TAGS_MAX`.
    """
    had, has = own | others, own | others | new
    if len(has) > max(TAGS_MAX, len(had)):
        raise Refused("TOO_MANY_TAGS", f"a member has at most {TAGS_MAX} tags")
    return frozenset(own | new)
