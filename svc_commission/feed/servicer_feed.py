"""Feeds over gRPC: registered and retired by the brand, reporting by themselves."""

from __future__ import annotations

from typing import Any

from chassis.audit import Audit
from chassis.clock import Now
from chassis.errors import Invalid, NotFound, invalid_fields
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.rpc.call import caller
from chassis.sealing import Sealer
from chassis.times import from_timestamp, to_optional_timestamp, to_timestamp
from daogou.commission.v1 import feed_pb2 as pb
from daogou.common.v1.channel_pb2 import Channel
from svc_commission.feed.store_feed import FeedStore, feed_document
from svc_commission.order.documents import channel_name
from svc_commission.rules import feed as rules
from svc_commission.rules.feed import Feed, Source


class FeedServicer:
    """Implements daogou.commission.v1.FeedService."""

    def __init__(self, feeds: FeedStore, sealer: Sealer, audit: Audit, now: Now) -> None:
        self._feeds = feeds
        self._digest = sealer.digest
        self._audit = audit
        self._now = now

    async def RegisterFeed(self, request: pb.RegisterFeedRequest, context: Any) -> pb.RegisterFeedResponse:
        if found := rules.problems(_source(request)):
            raise invalid_fields(found)
        return pb.RegisterFeedResponse(feed=await self._change(request))

    async def RetireFeed(self, request: pb.RetireFeedRequest, context: Any) -> pb.RetireFeedResponse:
        return pb.RetireFeedResponse(feed=await self._change(request))

    async def ReportSyncedThrough(
        self, request: pb.ReportSyncedThroughRequest, context: Any
    ) -> pb.ReportSyncedThroughResponse:
        time = from_timestamp(request.synced_through_time)
        if time > self._now():
            raise Invalid("SYNCED_IN_FUTURE", "the time is ahead of this service's clock")
        authorities = await self._feeds.authorities(request.brand_id)
        sources = {source for source, feed_id in authorities.items() if feed_id == request.feed_id}
        if not sources:
            raise NotFound("FEED_UNKNOWN", "no feed of that name is authoritative for anything")
        await self._feeds.report(request.brand_id, sources, time)
        feeds = await self._feeds.feeds(request.brand_id)
        through = min(
            (
                feed.synced_through_time
                for feed in feeds
                if feed.source in sources and feed.synced_through_time
            ),
            default=time,
        )
        return pb.ReportSyncedThroughResponse(synced_through_time=to_timestamp(through))

    async def ListFeeds(self, request: pb.ListFeedsRequest, context: Any) -> pb.ListFeedsResponse:
        feeds = await self._feeds.feeds(request.brand_id)
        return pb.ListFeedsResponse(feeds=[_message(feed) for feed in feeds])

    async def _change(self, request: pb.RegisterFeedRequest | pb.RetireFeedRequest) -> pb.Feed:
        """Registers or retires a feed, once for each request. Raises: Conflict FEEDS_CHANGED and others."""
        now = self._now()
        retires = isinstance(request, pb.RetireFeedRequest)
        key = f"{type(request).__name__}|{request.request_id}"
        standing = await self._feeds.find(request.brand_id)
        body = idempotency.body_hash(request, self._digest)
        first = idempotency.first_reply(standing["receipts"], key, body, pb.Feed)
        if first is not None:
            return first
        feeds = {feed.source: feed for feed in await self._feeds.with_reports(standing)}
        decide = rules.retired if retires else rules.registered
        changed = decide(feeds, _source(request), request.feed_id, now)
        reply = _message(changed)
        receipt = idempotency.receipt(key, body, reply, now)
        receipts = idempotency.with_receipt(standing["receipts"], receipt)
        after = feeds | {changed.source: changed}
        subject = {"brand_id": request.brand_id, "feed_id": request.feed_id, **_source(request)._asdict()}
        action = "RetireFeed" if retires else "RegisterFeed"
        # Whose word counts decides what is paid: recorded first, so that none counts unrecorded.
        await self._audit.record(caller(), action, subject, "", now)
        written: Document = {"feeds": [feed_document(feed) for feed in after.values()], "receipts": receipts}
        await self._feeds.replace({**standing, **written})
        return reply


def _source(request: pb.RegisterFeedRequest | pb.RetireFeedRequest) -> Source:
    return Source(channel_name(request.channel), request.shop_id)


def _message(feed: Feed) -> pb.Feed:
    return pb.Feed(
        channel=Channel.Value(f"CHANNEL_{feed.source.channel}"),
        shop_id=feed.source.shop_id,
        feed_id=feed.feed_id,
        from_time=to_timestamp(feed.from_time),
        synced_through_time=to_optional_timestamp(feed.synced_through_time),
        retire_time=to_optional_timestamp(feed.retire_time),
        former=[
            pb.Feed.Former(
                feed_id=one.feed_id,
                from_time=to_timestamp(one.from_time),
                until_time=to_timestamp(one.until_time),
            )
            for one in feed.former
        ],
    )
