"""What a close moves between payees: store pools shared out, debts of guides who left written off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from svc_commission.rules.apportion import apportion
from svc_commission.rules.attribution import Guide, guide_payee
from svc_commission.rules.plan import PoolSharing


@dataclass(frozen=True, slots=True)
class StoreStaff:
    """Who may have a part in a store's pool: guides who stand there, and minutes that guides worked there."""

    guide_ids: Sequence[str]
    minutes: Mapping[str, int]


def staff_at(guides: Mapping[str, Guide], moment: datetime) -> dict[str, list[str]]:
    """The guides employed at a moment, by the store where they stand, in order of ids.

    `moment`: the last of the month. Who begins or leaves with its end is not there, resp. still there.
    """
    stands: dict[str, list[str]] = {}
    for guide_id, guide in sorted(guides.items()):
        hired = guide.postings[0][0] < moment
        if hired and (guide.resign_time is None or guide.resign_time >= moment):
            before = [store_id for from_time, store_id in guide.postings if from_time < moment]
            stands.setdefault(before[-1], []).append(guide_id)
    return stands


def pool_shares(payable_minor: int, staff: StoreStaff, sharing: PoolSharing) -> dict[str, int]:
    """What each payee gets of a pool's payable; empty: it is kept.

    Kept where there is nothing, or a debt, or nobody to share it. Parts of a fen go as in every split
    (`apportion`).
    """
    weights: dict[str, int] = {}
    if sharing is PoolSharing.EQUALLY:
        weights = {guide_payee(guide_id): 1 for guide_id in staff.guide_ids}
    elif sharing is PoolSharing.BY_HOURS:
        weights = {guide_payee(guide_id): minutes for guide_id, minutes in staff.minutes.items()}
    if payable_minor <= 0 or not any(weights.values()):
        return {}
    return {payee: part for payee, part in apportion(payable_minor, weights).items() if part}


def written_off(payable_minor: int, held_minor: int) -> int:
    """What is written off of a balance of who has left: what is owed beyond what is held."""
    return max(0, -(payable_minor + held_minor))
