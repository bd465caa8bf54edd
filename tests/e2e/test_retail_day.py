"""The retail day, whole, against the real services: what `./daogou demo` plays."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from local.demo import __main__ as demo
from local.demo import chapters
from local.demo.stage import NotAsTold, Stage
from local.stack import Stack


async def test_the_day_goes_as_told_and_says_so() -> None:
    said = io.StringIO()
    assert await demo.run(Console(file=said, width=100)) == 0, said.getvalue()
    told = said.getvalue()
    assert "Lin Mei is owed commission once: ¥21.86" in told
    assert "¥3.89 is taken back; she is owed ¥17.97" in told
    assert "All 24 figures are as told." in told


async def test_the_day_is_not_told_when_a_figure_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demonstration compares: with another expectation it fails, so its ticks mean something."""
    monkeypatch.setattr("local.demo.chapter_order.COMMISSION_MINOR", 2_187)
    async with (
        Stack(tmp_path, testing=True) as stack,
        Stage(stack, Console(file=io.StringIO())).open() as stage,
    ):
        with pytest.raises(NotAsTold, match="2187"):
            await chapters.play(stage, tmp_path)
