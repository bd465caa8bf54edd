"""For how long a gallery may be searched without asking who was revoked since: a lease on freshness.

Revocations are numbered without gaps, per brand, as they are written. A gallery renews its lease by reading
those after the last that it has applied; the lease counts from before that read, by a clock that is never
set. Not renewed for 45 s the gallery is dropped, and doors decide from their snapshots: whoever is revoked is
found by no search 45 s later, however cut off a process may be.

Example: asked at 0 s, applied through 7. RENEW is due from 15 s on. The database is away: at 44.9 s the
gallery is searched still, at 45 s it is dropped.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

RENEW_MS: Final = 15_000
DROP_MS: Final = 45_000


class Due(enum.StrEnum):
    """What a gallery needs. RENEW: it may be searched meanwhile. DROP: it may not."""

    NOTHING = "NOTHING"
    RENEW = "RENEW"
    DROP = "DROP"


@dataclass(frozen=True, slots=True)
class Lease:
    """A gallery's freshness: the read that it rests on began at `asked_ms`, and all is applied through it."""

    asked_ms: int
    revocation_sequence: int

    def due(self, now_ms: int) -> Due:
        """What is to be done now."""
        age_ms = now_ms - self.asked_ms
        if age_ms >= DROP_MS:
            return Due.DROP
        return Due.RENEW if age_ms >= RENEW_MS else Due.NOTHING


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a read of the revocations brings. `lease` None: the gallery is to be dropped and loaded anew."""

    lease: Lease | None
    revoked: frozenset[str] = frozenset()


def renewed(lease: Lease, asked_ms: int, head_sequence: int, revocations: Mapping[int, str]) -> Renewal:
    """The lease after a read that began at `asked_ms`, and the people to take out before it counts.

    `revocations` are the person ids by sequence number after the lease's own, through `head_sequence`, the
    highest there is. When some are missing (kept no longer, or not read), or the head has gone back (a
    database restored from a copy), nothing is known of who is to be found: the gallery is dropped. A read
    that began before the one that the lease rests on changes nothing.
    """
    if asked_ms < lease.asked_ms:
        return Renewal(lease)
    numbers = range(lease.revocation_sequence + 1, head_sequence + 1)
    if head_sequence < lease.revocation_sequence or any(one not in revocations for one in numbers):
        return Renewal(None)
    return Renewal(Lease(asked_ms, head_sequence), frozenset(revocations[one] for one in numbers))
