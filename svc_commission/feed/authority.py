"""Whose events are taken in: the feeds' authority, remembered for a moment.

What is remembered may be some seconds old, so it is asked one way only: to let events in. The feed that has
just handed over may deliver a little longer, as it might have a moment earlier, and its events are known
again by their ids. That events are refused is never said from memory: the feed that has just taken over
would lose what it delivers first, if it does not send it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from chassis.kept import Kept
from daogou.commission.v1.order_event_pb2 import OrderEvent
from daogou.common.v1.channel_pb2 import Channel
from svc_commission.feed.store_feed import FeedStore
from svc_commission.order.documents import channel_name
from svc_commission.rules import feed
from svc_commission.rules.feed import Source

KEPT_S: Final = 5.0


class Authority:
    """Says of which sources a feed's events are not taken in."""

    def __init__(self, feeds: FeedStore) -> None:
        self._feeds = feeds
        self._kept: Kept[str, Mapping[Source, str]] = Kept(KEPT_S)

    async def refused(self, brand_id: str, feed_id: str, events: Sequence[OrderEvent]) -> frozenset[Source]:
        """The sources of these events that have another authoritative feed than the one named."""
        named = {(event.channel, event.shop_id) for event in events}
        known = Channel.values()
        sources = [Source(channel_name(channel), shop_id) for channel, shop_id in named if channel in known]
        standing = self._kept.get(brand_id)
        if standing is None or feed.refused(standing, sources, feed_id):
            standing = await self._feeds.authorities(brand_id)
            self._kept.put(brand_id, standing)
        return feed.refused(standing, sources, feed_id)
