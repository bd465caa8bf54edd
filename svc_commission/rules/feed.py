"""Which feed's word on a shop's orders counts, and for which feeds a month must wait.

A source is a channel and a shop; orders that name no shop are a source of their own, with an empty shop id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from chassis.errors import Refused, Violation
from svc_commission.rules.attribution import FLAGSHIP_CHANNELS

SOURCES_MAX: Final = 1000
"""Channels and shops of one brand that have feeds."""
HANDOVERS_MAX: Final = 100
"""Of one channel and shop."""


class Source(NamedTuple):
    """Where orders come from. `shop_id`: empty for the channel's orders that name no shop."""

    channel: str
    shop_id: str


@dataclass(frozen=True, slots=True)
class Tenure:
    """A feed was authoritative in [from, until)."""

    feed_id: str
    from_time: datetime
    until_time: datetime


@dataclass(frozen=True, slots=True)
class Feed:
    """The authoritative feed of a source.

    `synced_through_time`: up to when all events of the source were delivered; None: nobody has said.
    `retire_time`: since when nobody waits for it; None: it is waited for.
    """

    source: Source
    feed_id: str
    from_time: datetime
    synced_through_time: datetime | None = None
    retire_time: datetime | None = None
    former: tuple[Tenure, ...] = ()

    def behind(self, now: datetime) -> timedelta:
        """How far it is behind: since its last report, or since it should report."""
        return max(now - (self.synced_through_time or self.from_time), timedelta(0))


def problems(source: Source) -> list[Violation]:
    """What is wrong with a source for which a feed is to be registered."""
    if source.channel in FLAGSHIP_CHANNELS and not source.shop_id:
        return [Violation("shop_id", "is required on this channel: every order of it names one")]
    return []


def refused(
    authorities: Mapping[Source, str], sources: Collection[Source], feed_id: str
) -> frozenset[Source]:
    """The sources of which a feed's events are not taken in. `feed_id`: empty where none is named.

    A source without an authoritative feed takes events from anybody.
    """
    return frozenset(source for source in sources if authorities.get(source, feed_id) != feed_id)


def not_authoritative() -> Refused:
    """The error NOT_AUTHORITATIVE_FEED."""
    return Refused("NOT_AUTHORITATIVE_FEED", "another feed is authoritative for this channel and shop")


def registered(feeds: Mapping[Source, Feed], source: Source, feed_id: str, now: datetime) -> Feed:
    """The feed of a source after one has been registered for it.

    What was delivered before a handover stays delivered, and so does how far that is known.
    Raises: Refused TOO_MANY_FEEDS, TOO_MANY_HANDOVERS.
    """
    standing = feeds.get(source)
    if standing is None:
        if len(feeds) >= SOURCES_MAX:
            raise Refused("TOO_MANY_FEEDS", f"a brand has feeds for at most {SOURCES_MAX} channels and shops")
        return Feed(source, feed_id, now)
    if standing.feed_id == feed_id:
        return replace(standing, retire_time=None)
    if len(standing.former) >= HANDOVERS_MAX:
        raise Refused("TOO_MANY_HANDOVERS", f"a channel and shop has at most {HANDOVERS_MAX} handovers")
    ended = Tenure(standing.feed_id, standing.from_time, now)
    return replace(
        standing, feed_id=feed_id, from_time=now, retire_time=None, former=(*standing.former, ended)
    )


def retired(feeds: Mapping[Source, Feed], source: Source, feed_id: str, now: datetime) -> Feed:
    """The feed of a source after it has been retired. Raises: Refused NOT_AUTHORITATIVE_FEED."""
    standing = feeds.get(source)
    if standing is None or standing.feed_id != feed_id:
        raise not_authoritative()
    return standing if standing.retire_time else replace(standing, retire_time=now)


def feeds_behind(feeds: Iterable[Feed], month_end: datetime) -> list[Feed]:
    """The feeds for which the closing of a month must wait, by source.

    `month_end` is the moment at which the next month begins: all that happened before it must be there.
    """
    waited_for = [
        feed
        for feed in feeds
        if feed.retire_time is None
        and (feed.synced_through_time is None or feed.synced_through_time < month_end)
    ]
    return sorted(waited_for, key=lambda feed: feed.source)


def furthest_behind(feeds: Iterable[Feed], now: datetime) -> timedelta:
    """How far the feed is behind that is furthest, of those that are waited for; zero without any."""
    return max((feed.behind(now) for feed in feeds if feed.retire_time is None), default=timedelta(0))
