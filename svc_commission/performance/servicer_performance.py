"""Sales performance over gRPC: figures by day and month, leaderboards, one's own rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, Final, TypeVar

from chassis.rpc.cursors import PAGE_SIZE_DEFAULT, Cursors
from daogou.commission.v1 import performance_pb2 as pb
from svc_commission.performance.periods import period_message, period_of, periods_of
from svc_commission.performance.store_sales import Ranked, SalesStore
from svc_commission.rules.period import Period
from svc_commission.rules.sales_credit import NOTHING, Amounts, Role

RANKED_MAX: Final = 1000
"""Of a leaderboard, on all its pages."""

OfLeaderboard = TypeVar("OfLeaderboard", pb.ListStoreLeaderboardRequest, pb.ListGuideLeaderboardRequest)


class PerformanceServicer:
    """Implements daogou.commission.v1.PerformanceService."""

    def __init__(self, store: SalesStore, cursors: Cursors) -> None:
        self._store = store
        self._cursors = cursors

    async def GetStorePerformance(
        self, request: pb.GetStorePerformanceRequest, context: Any
    ) -> pb.GetStorePerformanceResponse:
        by_period = await self._store.of_store(request.brand_id, request.store_id, periods_of(request.range))
        return pb.GetStorePerformanceResponse(
            periods=[_period(one, amounts) for one, amounts in by_period.items()],
            total=_figures(by_period.values()),
            currency_code=await self._store.currency_code(request.brand_id),
        )

    async def GetGuidePerformance(
        self, request: pb.GetGuidePerformanceRequest, context: Any
    ) -> pb.GetGuidePerformanceResponse:
        periods = periods_of(request.range)
        by_role = await self._store.of_guide(request.brand_id, request.guide_id, periods)
        return pb.GetGuidePerformanceResponse(
            periods=[_guide_period(one, by_role) for one in periods],
            total=_guide_figures(periods, by_role),
            currency_code=await self._store.currency_code(request.brand_id),
        )

    async def GetBrandPerformance(
        self, request: pb.GetBrandPerformanceRequest, context: Any
    ) -> pb.GetBrandPerformanceResponse:
        by_period = await self._store.of_brand(request.brand_id, periods_of(request.range))
        return pb.GetBrandPerformanceResponse(
            periods=[_period(one, amounts) for one, amounts in by_period.items()],
            total=_figures(by_period.values()),
            currency_code=await self._store.currency_code(request.brand_id),
        )

    async def ListStoreLeaderboard(
        self, request: pb.ListStoreLeaderboardRequest, context: Any
    ) -> pb.ListStoreLeaderboardResponse:
        ranked = await self._store.stores_ranked(request.brand_id, period_of(request.period), RANKED_MAX)
        page, token = self._page(request, ranked)
        return pb.ListStoreLeaderboardResponse(
            stores=[_store(one) for one in page],
            next_page_token=token,
            currency_code=await self._store.currency_code(request.brand_id),
        )

    async def ListGuideLeaderboard(
        self, request: pb.ListGuideLeaderboardRequest, context: Any
    ) -> pb.ListGuideLeaderboardResponse:
        ranked = await self._store.guides_ranked(request.brand_id, period_of(request.period), RANKED_MAX)
        page, token = self._page(request, ranked)
        return pb.ListGuideLeaderboardResponse(
            guides=[_guide(one) for one in page],
            next_page_token=token,
            currency_code=await self._store.currency_code(request.brand_id),
        )

    async def GetStoreRank(self, request: pb.GetStoreRankRequest, context: Any) -> pb.GetStoreRankResponse:
        own, count = await self._store.store_rank(
            request.brand_id, period_of(request.period), request.store_id
        )
        return pb.GetStoreRankResponse(
            store=_store(own) if own else None,
            ranked_count=count,
            currency_code=await self._store.currency_code(request.brand_id),
        )

    async def GetGuideRank(self, request: pb.GetGuideRankRequest, context: Any) -> pb.GetGuideRankResponse:
        own, count = await self._store.guide_rank(
            request.brand_id, period_of(request.period), request.guide_id
        )
        return pb.GetGuideRankResponse(
            guide=_guide(own) if own else None,
            ranked_count=count,
            currency_code=await self._store.currency_code(request.brand_id),
        )

    def _page(self, request: OfLeaderboard, ranked: Sequence[Ranked]) -> tuple[Sequence[Ranked], str]:
        """The page that was asked for, and the token of the next; empty: there is none.

        A page begins after a place, the last one's net and id, which is good for whatever list there is by
        then.
        """
        if place := self._cursors.place(request):
            net_minor, subject_id = place
            ranked = [one for one in ranked if _place(one) > (-net_minor, subject_id)]
        page = ranked[: request.page_size or PAGE_SIZE_DEFAULT]
        if len(page) == len(ranked):
            return page, ""
        last = page[-1]
        return page, self._cursors.token(request, last.amounts.net_minor, last.subject_id)


def _place(one: Ranked) -> tuple[int, str]:
    """By this a leaderboard is ordered."""
    return -one.amounts.net_minor, one.subject_id


def _figures(amounts: Iterable[Amounts]) -> pb.SalesFigures:
    """The sum of amounts."""
    sums = reduce(Amounts.plus, amounts, NOTHING)
    return pb.SalesFigures(
        sold_minor=sums.sold_minor,
        refunded_minor=sums.refunded_minor,
        net_minor=sums.net_minor,
        order_count=sums.order_count,
    )


def _period(one: Period, amounts: Amounts) -> pb.PeriodFigures:
    return pb.PeriodFigures(period=period_message(one), figures=_figures([amounts]))


def _guide_figures(
    periods: Sequence[Period], by_role: Mapping[tuple[Period, Role], Amounts]
) -> pb.GuidePeriodFigures:
    """A guide's figures over some periods. What she owns and served too counts in both, and once in all."""

    def of(*roles: Role) -> pb.SalesFigures:
        return _figures(by_role[one, role] for one in periods for role in roles)

    return pb.GuidePeriodFigures(
        all=of(Role.OWNER, Role.SERVING, Role.OWNER_AND_SERVING),
        owned=of(Role.OWNER, Role.OWNER_AND_SERVING),
        served=of(Role.SERVING, Role.OWNER_AND_SERVING),
    )


def _guide_period(one: Period, by_role: Mapping[tuple[Period, Role], Amounts]) -> pb.GuidePeriodFigures:
    figures = _guide_figures([one], by_role)
    figures.period.CopyFrom(period_message(one))
    return figures


def _store(one: Ranked) -> pb.RankedStore:
    return pb.RankedStore(rank=one.rank, store_id=one.subject_id, figures=_figures([one.amounts]))


def _guide(one: Ranked) -> pb.RankedGuide:
    return pb.RankedGuide(rank=one.rank, guide_id=one.subject_id, figures=_figures([one.amounts]))
