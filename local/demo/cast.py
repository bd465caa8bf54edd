"""Who and what the story has brought about so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from daogou.common.v1.identity_pb2 import Identity

TMALL_SHOP = "aurora-flagship"


@dataclass
class Cast:
    """Ids by the names that the story tells."""

    brand_id: str = ""
    stores: dict[str, str] = field(default_factory=dict)
    guides: dict[str, str] = field(default_factory=dict)
    member_id: str = ""
    buyer: Identity = field(default_factory=Identity)
    order_id: str = ""
