"""`./daogou import-orders` against the services: what comes in, once, and what a later export adds."""

from __future__ import annotations

import asyncio
import csv
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from chassis.times import EPOCH
from daogou.common.v1.identity_pb2 import IdentityKind
from local.stack import ROOT
from tests.order_exports import SHANGHAI, Cells, cells, export
from tests.rpc.running import Running, eventually
from tests.rpc.world import Order, World, a_world, plan_of

COAT_EARNED_MINOR: Final = 1_797
SCARF_EARNED_MINOR: Final = 389
"""3 % of 599.00 and of 129.50."""
KILLED_ORDERS: Final = 3000
"""Nine calls of a thousand events, of which four are under way at once."""


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    return await a_world(running, plan=plan_of(), member=False)


@dataclass(frozen=True)
class Told:
    """What the command said."""

    status: int
    out: str
    err: str

    def count(self, outcome: str) -> int:
        """How many events it says became this."""
        lines = [line.split() for line in self.out.splitlines() if line.startswith(outcome)]
        return int(lines[0][1].replace(",", "")) if lines else 0


async def _started(world: World, path: Path, *options: str) -> asyncio.subprocess.Process:
    targets = world.running.stack.targets
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local.orders", str(path)),
        *("--brand", world.brand_id, "--shop", world.shop_id),
        *("--target", targets["commission"], "--members-target", targets["members"], *options),
        cwd=ROOT,
        env={**os.environ, "DAOGOU_TOKEN": world.connector.token, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _imported(world: World, path: Path, *options: str) -> Told:
    process = await _started(world, path, *options)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Told(process.returncode, out.decode(), err.decode())


class Bought:
    """An order of two articles by a customer of the first guide, as exports show it."""

    def __init__(self, world: World, buyer: str) -> None:
        self.order: Order = world.order()
        # To the second: exports have no more.
        since = self.order.placed_time.replace(microsecond=0)
        self.at = {
            minutes: f"{(since + timedelta(minutes=minutes)).astimezone(SHANGHAI):%F %T}"
            for minutes in range(119)
        }
        self._common = {
            "主订单编号": self.order.order_id,
            "买家会员名": buyer,
            "店铺Id": world.shop_id,
            "订单创建时间": self.at[0],
            "订单付款时间": self.at[1],
            "发货时间": self.at[30],
        }

    def rows(self, *, coat: Cells | None = None, scarf: Cells | None = None) -> list[Cells]:
        """Both sub-orders, with what is different about them."""
        scarf_cells = {
            "子订单编号": "scarf",
            "商家编码": "SCARF",
            "价格": "129.50",
            "买家实际支付金额": "129.50",
        }
        return [
            cells(**{**self._common, "子订单编号": "coat", **(coat or {})}),
            cells(**{**self._common, **scarf_cells, **(scarf or {})}),
        ]


async def _bought(world: World) -> Bought:
    _, buyer = await world.bound(0)
    assert buyer.kind == IdentityKind.IDENTITY_KIND_TAOBAO_OPEN_ID
    world.running.later(hours=3)
    return Bought(world, buyer.value)


def _file(folder: Path, rows: Iterable[Cells], encoding: str = "gb18030") -> Path:
    path = folder / "export.csv"
    path.write_text(export(rows), encoding=encoding, newline="")
    return path


async def test_a_dry_run_lists_every_refused_row_and_writes_nothing(world: World, tmp_path: Path) -> None:
    good, bad = await _bought(world), await _bought(world)
    path = _file(tmp_path, [*good.rows(), *bad.rows(coat={"价格": "1.234", "购买数量": "0"})])
    with world.running.nothing_written(world.brand_id):
        told = await _imported(world, path, "--dry-run", "--refused", str(tmp_path / "refused.csv"))
    assert told.status == 1
    for said in ("export.csv:4: 价格: ", "export.csv:4: 购买数量: ", "export.csv:5: refused with the order"):
        assert said in told.out
    assert told.out.count("would send") == 3
    with (tmp_path / "refused.csv").open(encoding="utf-8-sig", newline="") as file:
        refused = list(csv.DictReader(file))
    assert [(row["line"], row["column"]) for row in refused] == [("4", "价格"), ("4", "购买数量"), ("5", "")]
    assert {row["order_id"].strip() for row in refused} == {bad.order.order_id}


async def test_an_export_comes_in_once_and_a_later_one_takes_a_refund_back_to_the_fen(
    world: World, tmp_path: Path
) -> None:
    bought = await _bought(world)
    before = await world.owed(0)
    first = await _imported(world, _file(tmp_path, bought.rows()))
    assert (first.status, first.count("applied")) == (0, 3), first
    assert await world.owed(0) - before == COAT_EARNED_MINOR + SCARF_EARNED_MINOR

    with world.running.nothing_written(world.brand_id):
        again = await _imported(world, _file(tmp_path, reversed(bought.rows()), "utf-8-sig"))
    assert (again.status, again.count("duplicate"), again.count("applied")) == (0, 3, 0)

    received = {"订单状态": "交易成功", "确认收货时间": bought.at[60]}
    refund = {"退款状态": "退款成功", "退款金额": "129.50", "退款编号": "R1", "退款时间": bought.at[70]}
    later = bought.rows(coat=received, scarf={**refund, "订单状态": "交易关闭", "关闭时间": bought.at[70]})
    second = await _imported(world, _file(tmp_path, later))
    assert (second.status, second.count("applied"), second.count("duplicate")) == (0, 2, 3), second
    assert await world.owed(0) - before == COAT_EARNED_MINOR
    told = await world.explained(bought.order)
    assert told.books_agree
    assert told.attribution.owner.guide_id == world.guides[0]


async def test_amounts_that_a_shop_edits_later_are_quarantined_and_move_nothing(
    world: World, tmp_path: Path
) -> None:
    bought = await _bought(world)
    await _imported(world, _file(tmp_path, bought.rows()))
    owed = await world.owed(0)
    edited = await _imported(world, _file(tmp_path, bought.rows(coat={"买家实际支付金额": "1.00"})))
    assert (edited.status, edited.count("quarantined"), edited.count("duplicate")) == (1, 1, 2), edited
    assert f"PAID:{bought.order.order_id} QUARANTINED EVENT_BODY_CHANGED" in edited.out
    assert await world.owed(0) == owed


async def test_an_import_that_was_killed_is_completed_by_the_next(world: World, tmp_path: Path) -> None:
    """It is killed as soon as anything is in, with most of its calls not made."""
    of_nobody = Bought(world, "")
    rows = [
        {**of_nobody.rows()[0], "主订单编号": f"{of_nobody.order.order_id}-{n}"} for n in range(KILLED_ORDERS)
    ]
    path = _file(tmp_path, rows)
    before = await world.owed_to_pool(world.flagship)

    async def anything_is_in() -> bool:
        return await world.owed_to_pool(world.flagship) > before

    process = await _started(world, path)
    await eventually(anything_is_in, "the import wrote something", within_s=60)
    process.kill()
    await process.communicate()
    second = await _imported(world, path)
    assert second.status == 0, second
    assert second.count("applied") > 0
    assert second.count("duplicate") > 0
    assert second.count("applied") + second.count("duplicate") == 3 * KILLED_ORDERS
    assert await world.owed_to_pool(world.flagship) - before == KILLED_ORDERS * COAT_EARNED_MINOR


async def test_what_the_service_rejects_is_told_with_its_reason(world: World, tmp_path: Path) -> None:
    bought = await _bought(world)
    future = f"{(EPOCH + timedelta(days=365 * 200)).astimezone(SHANGHAI):%F %T}"
    told = await _imported(world, _file(tmp_path, bought.rows(coat={"发货时间": future, "物流单号": "SF2"})))
    assert (told.status, told.count("rejected"), told.count("applied")) == (1, 1, 3), told
    assert "SHIPPED:SF2 REJECTED EVENT_IN_FUTURE" in told.out


async def test_an_order_of_a_shop_that_is_not_known_yet_is_parked_and_in(
    running: Running, tmp_path: Path
) -> None:
    """In a brand of its own: the service writes it again whenever it looks whether the shop is there."""
    world = await a_world(running, member=False)
    bought = Bought(world, "")
    unknown = {"店铺Id": "shop-of-tomorrow"}
    path = _file(tmp_path, bought.rows(coat=unknown, scarf=unknown))
    told = await _imported(world, path, "--shop", "shop-of-tomorrow")
    assert (told.status, told.count("parked")) == (0, 3), told
    assert "SHOP_UNKNOWN 3" in told.out


async def test_nothing_comes_in_of_what_is_no_export_or_nobodys(running: Running, tmp_path: Path) -> None:
    world = await a_world(running, member=False)
    path = _file(tmp_path, Bought(world, "").rows())
    with world.running.nothing_written(world.brand_id):
        missing = await _imported(world, tmp_path / "none.csv")
        other_shop = await _imported(world, path, "--shop", "another")
        other_brand = await _imported(world, path, "--brand", "a" * 16)
        path.write_text("name,phone\nx,1\n", encoding="utf-8")
        no_export = await _imported(world, path)
    assert (missing.status, no_export.status) == (2, 2)
    assert "the column 子订单编号 is missing" in no_export.err
    assert other_shop.status == 1
    assert other_shop.out.count("is another shop than another") == 2
    assert other_brand.status == 1
    assert "Traceback" not in other_brand.err
    assert "PERMISSION_DENIED" in other_brand.err


async def test_a_brand_that_counts_in_another_currency_is_told_before_anything_is_read(
    running: Running, tmp_path: Path
) -> None:
    world = await a_world(running, member=False, currency_code="EUR")
    path = _file(tmp_path, [cells(店铺Id=world.shop_id)])
    told = await _imported(world, path)
    assert told.status == 2
    assert "exports are in yuan, and the brand's amounts are in EUR" in told.err
