"""What the story asks of the ledger, and how it shows the answers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from rich.table import Table

from daogou.commission.v1 import ledger_pb2
from daogou.commission.v1.ledger_pb2_grpc import LedgerServiceStub
from daogou.commission.v1.month_pb2 import Statement
from daogou.common.v1.channel_pb2 import Channel
from local.demo.cast import Cast
from local.demo.stage import PATIENCE_S, Stage, money

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.commission.v1.ledger_pb2_grpc import LedgerServiceAsyncStub


async def explain(stage: Stage, cast: Cast) -> ledger_pb2.ExplainOrderResponse:
    """The whole way from the order's events to its entries, once it is known whose sale it is."""
    request = ledger_pb2.ExplainOrderRequest(
        brand_id=cast.brand_id, channel=Channel.CHANNEL_TMALL, order_id=cast.order_id
    )
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        told = await stage.call(ledger_of(stage, cast).ExplainOrder, request)
        # Events that came while the members service was away are attributed a few seconds later.
        if told.HasField("attribution") or time.monotonic() > deadline_s:
            return told
        await asyncio.sleep(0.3)


def ledger_of(stage: Stage, cast: Cast) -> LedgerServiceAsyncStub:
    """The ledger as head office reads it."""
    office = stage.channel("commission", "BRAND_ADMIN", brand=cast.brand_id)
    ledger: LedgerServiceAsyncStub = LedgerServiceStub(office)
    return ledger


async def owed_to(stage: Stage, cast: Cast, guide: str) -> int:
    """What a guide is owed, in fen."""
    request = ledger_pb2.GetBalanceRequest(brand_id=cast.brand_id, guide_id=cast.guides[guide])
    balance = await stage.call(ledger_of(stage, cast).GetBalance, request)
    return balance.payable_minor


def show_why(stage: Stage, told: ledger_pb2.ExplainOrderResponse) -> None:
    """Shows how each item came to its commission."""
    table = _table("Why this amount")
    for heading in ("item", "paid", "refunded", "rule", "earned", "taken back", "owed"):
        table.add_column(heading, justify="left" if heading in {"item", "rule"} else "right", no_wrap=True)
    for line in told.lines:
        table.add_row(
            line.line_id,
            money(line.paid_minor),
            money(line.refunded_minor),
            line.rule_id,
            money(line.distributable_minor),
            money(line.reversed_minor),
            money(line.distributable_minor - line.reversed_minor),
        )
    stage.console.print(table)
    stage.console.print(
        f"  [dim]decided by binding row {told.attribution.binding_id}; "
        f"journal entries: {len(told.entries)}[/dim]"
    )


def _table(title: str) -> Table:
    return Table(title=f"  {title}", title_justify="left", title_style="dim", box=None, padding=(0, 0, 0, 2))


def show_statement(stage: Stage, name: str, statement: Statement) -> None:
    """Shows a statement's amounts."""
    stage.say(f"Statement {statement.statement_number}, {name}:")
    table = Table(box=None, padding=(0, 0, 0, 2), show_header=False)
    table.add_column("")
    table.add_column("amount", justify="right")
    for label, amount in (
        ("opening", statement.opening_payable_minor + statement.opening_held_minor),
        ("earned", statement.earned_minor),
        ("taken back", statement.clawed_back_minor),
        ("to be paid", statement.closing_payable_minor),
    ):
        table.add_row(label, money(amount))
    stage.console.print(table)


def show_trial_balance(stage: Stage, balance: ledger_pb2.GetTrialBalanceResponse) -> None:
    """Shows the sum of every account."""
    table = _table("Trial balance")
    table.add_column("account")
    table.add_column("amount", justify="right")
    for one in balance.accounts:
        name = ledger_pb2.Account.Name(one.account).removeprefix("ACCOUNT_").lower()
        table.add_row(name, money(one.amount_minor))
    table.add_row("[bold]total[/bold]", f"[bold]{money(balance.total_minor)}[/bold]")
    stage.console.print(table)
