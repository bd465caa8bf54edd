"""The retail day, chapter by chapter. Every figure it tells is asked of the services and compared."""

from __future__ import annotations

from pathlib import Path

from local.demo.cast import Cast
from local.demo.chapter_brand import brand_opens
from local.demo.chapter_handover import guide_resigns
from local.demo.chapter_month import begin_of_month, month_closes
from local.demo.chapter_order import customer_buys_on_tmall, month_so_far, one_item_comes_back
from local.demo.chapter_scan import customer_scans
from local.demo.stage import Stage


async def play(stage: Stage, folder: Path) -> Cast:
    """All chapters. `folder`: where files are put that people want to see. Raises: NotAsTold."""
    cast = Cast()
    begin_of_month(stage)
    await brand_opens(stage, cast)
    await customer_scans(stage, cast)
    await customer_buys_on_tmall(stage, cast)
    await one_item_comes_back(stage, cast)
    await guide_resigns(stage, cast)
    await month_closes(stage, cast, folder)
    await month_so_far(stage, cast)
    return cast
