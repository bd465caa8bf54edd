"""Which column of an export becomes what: said here alone, and shown by `--mapping` and `--help`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from local.orders import forms


class Form(enum.StrEnum):
    """How a cell is written."""

    IDENTIFIER = "1 to 64 characters without spaces or |"
    BUYER = "1 to 128 characters, not masked with *"
    PARCELS = "one or several, separated by , or ;"
    YUAN = "yuan, at most two decimals"
    PIECES = "whole number from 1"
    TIME = "YYYY-MM-DD HH:MM[:SS], brand's time zone"
    ORDER_STATUS = "one of the order statuses below"
    REFUND_STATUS = "one of the refund statuses below"


@dataclass(frozen=True, slots=True)
class Column:
    """One of our fields. `names`: its headers; of several in a file the first that is not empty counts.

    `id_length_max`: of an identifier that becomes a part of an event id.
    """

    field: str
    names: tuple[str, ...]
    form: Form
    becomes: str
    column_required: bool = False
    cell_required: bool = False
    id_length_max: int = 64


def _needed(field: str, names: tuple[str, ...], form: Form, becomes: str, id_length_max: int = 64) -> Column:
    """A column without which no row can be read."""
    return Column(field, names, form, becomes, True, True, id_length_max)


COLUMNS: Final = (
    _needed("line_id", ("子订单编号",), Form.IDENTIFIER, "line_id of the line", 53),
    _needed(
        "order_id", ("主订单编号", "订单编号"), Form.IDENTIFIER, "order_id; without 支付单号 PAID:{}", 59
    ),
    Column("payment_id", ("支付单号",), Form.IDENTIFIER, "PAID:{}", id_length_max=59),
    Column("shop_id", ("店铺Id",), Form.IDENTIFIER, "must be --shop where it is not empty"),
    Column(
        "buyer", ("买家OpenId", "ouid", "买家会员名"), Form.BUYER, "buyer, a TAOBAO_OPEN_ID; empty: anonymous"
    ),
    _needed("sku_id", ("商家编码", "外部系统编号"), Form.IDENTIFIER, "sku_id of the line"),
    Column("category_id", ("类目",), Form.IDENTIFIER, "category_id of the line"),
    _needed("price_minor", ("价格",), Form.YUAN, "times 购买数量: list_minor of the line"),
    _needed("quantity", ("购买数量",), Form.PIECES, "quantity of the line"),
    _needed(
        "paid_minor",
        ("子单实际支付金额", "买家实际支付金额"),
        Form.YUAN,
        "paid_minor of the line",
    ),
    Column("subsidy_minor", ("平台补贴",), Form.YUAN, "subsidy_minor of the line"),
    _needed("status", ("订单状态",), Form.ORDER_STATUS, "whether it is paid or closed"),
    _needed("placed_time", ("订单创建时间",), Form.TIME, "PLACED; order_placed_time"),
    Column("paid_time", ("订单付款时间",), Form.TIME, "PAID, with all paid lines of the order", True),
    Column("shipped_time", ("发货时间",), Form.TIME, "SHIPPED; a parcel of several rows: the earliest"),
    Column(
        "parcels",
        ("物流单号",),
        Form.PARCELS,
        "SHIPPED:{}; empty: sub-{子订单编号}",
        id_length_max=56,
    ),
    Column("received_time", ("确认收货时间",), Form.TIME, "RECEIVED, once no open row lacks it: the latest"),
    Column("refund_status", ("退款状态",), Form.REFUND_STATUS, "whether 退款金额 was paid back"),
    Column("refund_minor", ("退款金额",), Form.YUAN, "refunded_minor of the line"),
    Column(
        "refund_id",
        ("退款编号",),
        Form.IDENTIFIER,
        "REFUND:{}; empty: sub-{子订单编号}",
        id_length_max=57,
    ),
    Column("refund_time", ("退款时间",), Form.TIME, "REFUND; empty: the latest of 关闭, 发货, 付款时间"),
    Column("closed_time", ("关闭时间",), Form.TIME, "CLOSED; empty: the latest time of the order's rows"),
)


class Stage(enum.Enum):
    """How far a sub-order has come, as far as it matters to its events."""

    WAITING = "not paid"
    PAID = "paid"
    CLOSED = "closed"


ORDER_STATUSES: Final = {
    "等待买家付款": Stage.WAITING,
    "买家已付款,等待卖家发货": Stage.PAID,
    "卖家部分发货": Stage.PAID,
    "卖家已发货,等待买家确认": Stage.PAID,
    "交易成功": Stage.PAID,
    "交易关闭": Stage.CLOSED,
    "付款以前,卖家或买家主动关闭交易": Stage.CLOSED,
    "付款以后用户退款成功,交易自动关闭": Stage.CLOSED,
}

REFUND_STATUSES: Final = {
    "退款成功": True,
    "没有申请退款": False,
    "无退款申请": False,
    "买家已经申请退款,等待卖家同意": False,
    "卖家已经同意退款,等待买家退货": False,
    "买家已经退货,等待卖家确认收货": False,
    "卖家拒绝退款": False,
    "退款关闭": False,
    "退款中": False,
}
"""Whether the money is back with the buyer."""

NOTES: Final = """\
- Give every row of an order at once: not an export filtered by status or article. Rows of one order may stand
  anywhere in the files. An order one of whose rows is refused is refused whole.
- An order is PLACED without lines, as prices may change until it is paid: amounts come from PAID alone.
- Importing the same rows again answers DUPLICATE and changes nothing; a later export adds what happened
  since: parcels, receipt, refunds, closing.
- What was sent once stays in force. If the shop edits amounts, articles, times or the buyer of what was sent,
  the service answers QUARANTINED (EVENT_BODY_CHANGED) for that event and keeps the other version for a person
  to look at; with another 订单创建时间 it is REJECTED (PLACED_TIME_CHANGED).
- Export the same columns every time. Event ids are made of 支付单号, 物流单号 and 退款编号 where they are
  there: one payment or refund that comes with its number, and in another export without, counts twice.
- Without 退款编号 a sub-order has one refund: a second one, which raises 退款金额, is QUARANTINED.
- Without 退款时间 a refund counts when the sub-order was closed, or sent, or paid, whichever is latest; not
  when it was received, as that may come after the refund and would change what was sent.
- A refund of less than was paid counts as money alone: exports do not say how many pieces came back.
- An order is CLOSED when all its rows are and not all that was paid was refunded; else its refunds say it.
- Amounts are of all pieces (价格: of one), contain no freight, and are in yuan: the brand's currency is CNY.
- Ignored: 标题 and all other columns; empty rows; rows that repeat another to the letter; what spreadsheets
  leave (="1234", leading apostrophes and tabs, thousands commas, ¥; null, - and -- for nothing).
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the columns stand in one file. `places`: per field the columns' numbers, preferred first."""

    width: int
    header: tuple[str, ...]
    places: dict[str, tuple[int, ...]]

    def name(self, field: str) -> str:
        """The header of a field in this file; where it has none, the one it should have."""
        at = self.places[field]
        return self.header[at[0]] if at else BY_FIELD[field].names[0]


BY_FIELD: Final = {column.field: column for column in COLUMNS}
_NAMES: Final = {name.casefold(): column.field for column in COLUMNS for name in column.names}


def layout(cells: Sequence[str]) -> tuple[Layout, list[str]]:
    """Where the columns stand, by the header row; and all that is wrong with it."""
    header = tuple(forms.clean(cell) for cell in cells)
    while header and not header[-1]:
        header = header[:-1]
    keys = [name.casefold() for name in header]
    doubled = sorted({header[keys.index(key)] for key in keys if key in _NAMES and keys.count(key) > 1})
    problems = [f"the column {name} stands there twice" for name in doubled]
    places = {
        column.field: tuple(keys.index(name.casefold()) for name in column.names if name.casefold() in keys)
        for column in COLUMNS
    }
    problems += [
        f"the column {' or '.join(column.names)} is missing"
        for column in COLUMNS
        if column.column_required and not places[column.field]
    ]
    return Layout(len(header), header, places), problems


def number_of_line(line_id: str) -> str:
    """Stands for a refund or a parcel without a number: the sub-order's own, so that it never changes."""
    return f"sub-{line_id}"
