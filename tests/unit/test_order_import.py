"""Order exports: what becomes of every row, what is refused and why, what a later export may add."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chassis.rpc import limits
from chassis.times import from_timestamp
from daogou.commission.v1.order_event_pb2 import EventOutcome, EventResult, OrderEvent, OrderEventKind
from daogou.common.v1.item_error_pb2 import ItemError
from local.orders import columns, files, forms, reading, sending
from local.orders.events import Order
from local.orders.rows import UNKNOWN_MAX, NoExport
from svc_commission.order import documents
from svc_commission.rules import admission
from svc_commission.rules.event import Event, Kind
from tests.order_exports import SAMPLE, SHANGHAI, cells, export, read

ORDER_1, ORDER_2, ORDER_3 = "3301250000000000010", "3301250000000000020", "3301250000000000030"
COAT_LINE, SCARF_LINE = "3301250000000000011", "3301250000000000012"
NOON = datetime(2026, 3, 5, 12, tzinfo=SHANGHAI)


def _events(orders: Sequence[Order]) -> dict[tuple[str, str], OrderEvent]:
    found = {(order.order_id, event.event_id): event for order in orders for event in order.events}
    assert len(found) == sum(len(order.events) for order in orders), "an event id comes twice in an order"
    return found


def _ids(orders: Sequence[Order]) -> list[str]:
    return [event.event_id for order in orders for event in order.events]


def _taken(*rows: dict[str, str]) -> dict[str, OrderEvent]:
    """The events of one order, none of whose rows is refused."""
    [order], refused = read(export(rows))
    assert refused == []
    return {event.event_id: event for event in order.events}


def _refused(*rows: dict[str, str]) -> set[tuple[int, str]]:
    """Lines and columns of what is refused; nothing else of it may come in."""
    orders, refused = read(export(rows))
    assert orders == []
    return {(one.line, one.column) for one in refused}


def _utc(event: OrderEvent) -> datetime:
    return from_timestamp(event.happened_time)


# ---- what becomes of the rows -----------------------------------------------------------------------


def test_the_sample_comes_to_what_a_person_reads_in_it() -> None:
    orders, refused = read(SAMPLE)
    assert refused == []
    found = _events(orders)
    assert set(found) == {
        *((ORDER_1, event) for event in ("PLACED", f"PAID:{ORDER_1}", "SHIPPED:SF1001", "RECEIVED")),
        *((ORDER_1, "REFUND:R77"), (ORDER_2, "PLACED"), (ORDER_3, "PLACED"), (ORDER_3, "CLOSED")),
    }
    paid = found[ORDER_1, f"PAID:{ORDER_1}"]
    assert _utc(paid) == datetime(2026, 3, 5, 2, 5, 30, tzinfo=UTC)
    assert from_timestamp(paid.order_placed_time) == datetime(2026, 3, 5, 2, tzinfo=UTC)
    assert [
        (
            one.line_id,
            one.sku_id,
            one.category_id,
            one.quantity,
            one.list_minor,
            one.paid_minor,
            one.subsidy_minor,
        )
        for one in paid.lines
    ] == [
        (COAT_LINE, "COAT-M", "外套", 1, 59_900, 159_900, 0),
        (SCARF_LINE, "SCARF", "配饰", 2, 25_900, 20_000, 1_005),
    ]
    refund = found[ORDER_1, "REFUND:R77"]
    assert [(one.line_id, one.refunded_minor) for one in refund.refund_lines] == [(SCARF_LINE, 10_000)]
    assert _utc(refund) == datetime(2026, 3, 12, 3, tzinfo=UTC)
    assert _utc(found[ORDER_1, "RECEIVED"]) == datetime(2026, 3, 10, 0, tzinfo=UTC)
    assert _utc(found[ORDER_3, "CLOSED"]) == datetime(2026, 3, 6, 4, tzinfo=UTC)
    assert {event.identity.value for event in found.values()} == {"极光小熊", "", "买家三号"}
    assert not found[ORDER_2, "PLACED"].HasField("identity")


def test_events_carry_amounts_and_lines_only_where_they_count() -> None:
    """A price that changes before payment must not make the order's placing another."""
    before = _taken(cells(订单状态="等待买家付款", 订单付款时间="", 发货时间=""))
    after = _taken(cells(买家实际支付金额="499.00"))
    assert before["PLACED"] == after["PLACED"]
    assert not before["PLACED"].lines


def test_rows_of_one_payment_are_one_event_and_payments_are_told_apart_by_their_number() -> None:
    second = cells(子订单编号="300012", 买家实际支付金额="1.00")
    assert [line.line_id for line in _taken(cells(), second)["PAID:300010"].lines] == ["300011", "300012"]
    numbered = _taken(cells(支付单号="P1"), {**second, "支付单号": "P2"})
    assert {"PAID:P1", "PAID:P2"} < numbered.keys()
    assert "PAID:300010" not in numbered


def test_a_parcel_is_sent_once_and_what_needs_none_is_named_by_its_row() -> None:
    second = cells(子订单编号="300012", 物流单号="No:SF1；SF2", 发货时间="2026-03-06 08:00:00")
    third = cells(子订单编号="300013", 物流单号="")
    sent = {name: _utc(event) for name, event in _taken(cells(), second, third).items() if "SHIP" in name}
    assert {name: time.hour for name, time in sent.items()} == {
        "SHIPPED:SF1": 0,
        "SHIPPED:SF2": 0,
        "SHIPPED:sub-300013": 1,
    }


def test_an_order_is_received_when_the_last_of_its_open_rows_is() -> None:
    received = cells(订单状态="交易成功", 确认收货时间="2026-03-09 10:00:00")
    open_row = cells(子订单编号="300012")
    assert "RECEIVED" not in _taken(received, open_row)
    refund = {"退款状态": "退款成功", "退款金额": "599", "退款时间": "2026-03-10 10:00:00"}
    returned = {**open_row, **refund, "订单状态": "交易关闭", "关闭时间": "2026-03-10 10:00:00"}
    assert _utc(_taken(received, returned)["RECEIVED"]) == datetime(2026, 3, 9, 2, tzinfo=UTC)


def test_a_refund_without_number_or_time_has_ones_that_do_not_change() -> None:
    refund = {"退款状态": "退款成功", "退款金额": "10.00"}
    on_the_way = _taken(cells(**refund))["REFUND:sub-300011"]
    assert _utc(on_the_way) == datetime(2026, 3, 6, 1, tzinfo=UTC), "when it was sent"
    received = _taken(cells(**refund, 订单状态="交易成功", 确认收货时间="2026-03-09 10:00:00"))
    assert received["REFUND:sub-300011"] == on_the_way
    assert "REFUND:R1" in _taken(cells(**refund, 退款编号="R1"))


def test_a_refund_that_was_asked_for_is_none_yet() -> None:
    for status in ("退款中", "退款关闭", "买家已经申请退款，等待卖家同意"):
        assert not [one for one in _taken(cells(退款状态=status, 退款金额="10")) if "REFUND" in one]


def test_a_refund_over_what_was_paid_is_a_fact() -> None:
    """The service tells of it; here it must not be lost."""
    refund = _taken(cells(退款状态="退款成功", 退款金额="1,000.00"))["REFUND:sub-300011"]
    assert refund.refund_lines[0].refunded_minor == 100_000


def test_an_order_is_closed_only_where_its_refunds_do_not_say_it_all() -> None:
    closed = {"订单状态": "交易关闭", "关闭时间": "2026-03-08 10:00:00"}
    refund = {"退款状态": "退款成功", "退款金额": "599"}
    assert "CLOSED" in _taken(cells(**closed))
    assert "CLOSED" in _taken(cells(**closed, 退款状态="退款成功", 退款金额="598.99"))
    # An export that was filtered by this status must not take the order's other lines with it.
    assert "CLOSED" not in _taken(cells(**closed, **refund))
    assert "CLOSED" not in _taken(cells(**closed, **refund), cells(子订单编号="300012"))
    without_time = _taken(cells(订单状态="交易关闭", 订单付款时间="", 发货时间="", 物流单号=""))
    assert _utc(without_time["CLOSED"]) == datetime(2026, 3, 5, 2, tzinfo=UTC)


@given(st.permutations(SAMPLE.splitlines(keepends=True)[1:]))
def test_rows_in_any_order_give_the_same_events(lines: list[str]) -> None:
    header = SAMPLE.splitlines(keepends=True)[0]
    orders, refused = read(header + "".join(lines))
    assert refused == []
    assert _events(orders) == _events(read(SAMPLE)[0])


def test_rows_of_one_order_may_stand_in_two_files_and_repeat() -> None:
    first, second = cells(), cells(子订单编号="300012")
    together = _events(read(export([first, second]))[0])
    assert _events(read(export([second]), export([first]))[0]) == together
    assert _events(read(export([first, second]), export([second]))[0]) == together


# ---- later exports ----------------------------------------------------------------------------------


@st.composite
def _lives(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What happens to the sub-orders of one order, by hours after it was placed; None: never."""
    paid = draw(st.one_of(st.none(), st.integers(1, 3)))
    unpaid_close = draw(st.one_of(st.none(), st.integers(4, 9))) if paid is None else None
    lives = []
    for number in range(draw(st.integers(1, 3))):
        shipped = received = refunded = closed = None
        amount = draw(st.integers(0, 5)) * 100
        back = draw(st.integers(1, amount)) if amount else 0
        if paid:
            shipped = draw(st.one_of(st.none(), st.integers(paid, 9)))
            received = draw(st.one_of(st.none(), st.integers(shipped, 15))) if shipped else None
            refunded = draw(st.one_of(st.none(), st.integers(shipped or paid, 20))) if amount else None
            whole = refunded is not None and (not shipped or draw(st.booleans()))
            back = amount if whole else back
            if whole and (received is None or received > (refunded or 0)):
                closed, received = refunded, None
        lives.append(
            {
                "line": number,
                "amount": amount,
                "back": back,
                "paid": paid,
                "shipped": shipped,
                "received": received,
                "refunded": refunded,
                "closed": closed or unpaid_close,
            }
        )
    return lives


def _seen(life: dict[str, Any], hour: int, *, refund_times: bool) -> dict[str, str]:
    """The row of a sub-order in an export of this hour."""

    def at(name: str) -> str:
        when = life[name]
        return "" if when is None or when > hour else f"{NOON + timedelta(hours=when):%F %T}"

    status = "卖家已发货,等待买家确认" if at("paid") else "等待买家付款"
    status = "交易关闭" if at("closed") else "交易成功" if at("received") else status
    return cells(
        子订单编号=f"line{life['line']}",
        订单状态=status,
        买家实际支付金额=f"{life['amount'] / 100:.2f}",
        订单创建时间=f"{NOON:%F %T}",
        订单付款时间=at("paid"),
        发货时间=at("shipped"),
        确认收货时间=at("received"),
        关闭时间=at("closed"),
        退款状态="退款成功" if at("refunded") else "",
        退款金额=f"{life['back'] / 100:.2f}" if at("refunded") else "",
        退款时间=at("refunded") if refund_times else "",
    )


@given(_lives(), st.integers(0, 21), st.integers(0, 21), st.booleans())
def test_a_later_export_only_adds(
    lives: list[dict[str, Any]], one: int, other: int, refund_times: bool
) -> None:
    """What an event says is the same to the letter whenever it is exported: else it is quarantined."""

    def events(hour: int) -> dict[tuple[str, str], OrderEvent]:
        orders, refused = read(export(_seen(life, hour, refund_times=refund_times) for life in lives))
        assert refused == []
        return _events(orders)

    earlier, later = events(min(one, other)), events(max(one, other))
    assert earlier.items() <= later.items()


@given(_lives())
def test_what_is_sent_is_what_the_contract_accepts(lives: list[dict[str, Any]]) -> None:
    for order in read(export(_seen(life, 21, refund_times=True) for life in lives))[0]:
        for event in order.events:
            assert limits.violations(event) == []
            assert documents.event_problems(event, "") == []
            kind = Kind(OrderEventKind.Name(event.kind).removeprefix("ORDER_EVENT_KIND_"))
            admission.check_event_id(Event(event.event_id, kind, _utc(event)))


# ---- what is refused --------------------------------------------------------------------------------

BAD_CELLS = {
    "子订单编号": ["", "3.30125E+18", "a b", "a|b", "x" * 65],
    "主订单编号": ["", "3.30125E+18"],
    "支付单号": ["a b", "x" * 60],
    "买家会员名": ["极***熊", "x" * 129, "a\x07b"],
    "商家编码": ["", "A B"],
    "类目": ["a|b"],
    "价格": ["", "-1", "1.234", "1,23", "12,34.00", "1e3", "NaN", "10,000,000,000.01", "9" * 5000, "5 分"],
    "购买数量": ["", "0", "1.5", "-1", "1000001", "9" * 5000, "三"],
    "买家实际支付金额": ["", "1.999", "¥", "$5"],
    "平台补贴": ["x"],
    "订单状态": ["", "已完成"],
    "订单创建时间": [
        "",
        "2026/3/5 10:00",
        "2026-02-30 10:00:00",
        "2026-03-05",
        "46086.4",
        "0000-01-01 00:00:00",
    ],
    "订单付款时间": ["", "2026-03-05 25:00:00"],
    "发货时间": ["昨天"],
    "物流单号": ["SF 1", "x" * 57, ",".join(f"SF{number}" for number in range(21))],
    "确认收货时间": ["?"],
    "退款状态": ["好像退了", "退款成功"],
    "退款金额": ["5", "-5"],
    "退款编号": ["a b", "x" * 58],
    "退款时间": ["x"],
    "关闭时间": ["x", "2026-03-06 10:00:00"],
    "店铺Id": ["58501946"],
}
INSTEAD = {("退款状态", "退款成功"): "退款金额", ("退款金额", "5"): "退款状态"}
"""Where the cell beside is the one that lacks something."""


@pytest.mark.parametrize(
    ("column", "value"), [(name, bad) for name, all_of in BAD_CELLS.items() for bad in all_of]
)
def test_every_refusal_names_its_column(column: str, value: str) -> None:
    _, refused = read(export([cells(**{column: value})]))
    assert [(one.line, one.column) for one in refused] == [(2, INSTEAD.get((column, value), column))]
    assert len(refused[0].problem) < 250


def test_all_that_is_wrong_with_a_row_is_said_at_once_and_no_buyer_is_named() -> None:
    _, refused = read(export([cells(买家会员名="张*三", 价格="x", 购买数量="0", 订单付款时间="")]))
    assert {one.column for one in refused} == {"买家会员名", "价格", "购买数量", "订单付款时间"}
    assert not [one for one in refused if "张" in one.problem]


def test_an_order_is_refused_whole_with_its_other_rows_named() -> None:
    rows = [cells(), cells(子订单编号="300012", 价格="x"), cells(主订单编号="300020", 子订单编号="300021")]
    orders, refused = read(export(rows))
    assert [order.order_id for order in orders] == ["300020"]
    assert [(one.line, one.column) for one in refused] == [(2, ""), (3, "价格")]
    assert refused[0].problem == "refused with the order, for a.csv:3"


@pytest.mark.parametrize(
    ("second", "lines"),
    [
        ({"订单创建时间": "2026-03-05 10:00:01"}, {(2, ""), (3, "订单创建时间")}),
        ({"买家会员名": "别人"}, {(2, ""), (3, "买家会员名")}),
        ({"订单付款时间": "2026-03-05 10:06:00"}, {(2, ""), (3, "订单付款时间")}),
        ({"订单付款时间": "", "订单状态": "等待买家付款"}, {(2, ""), (3, "订单付款时间")}),
        ({"订单状态": "交易关闭"}, {(2, ""), (3, "退款状态")}),
        ({"子订单编号": "300011", "价格": "1"}, {(2, ""), (3, "子订单编号")}),
    ],
)
def test_rows_of_one_order_must_not_contradict_each_other(
    second: dict[str, str], lines: set[tuple[int, str]]
) -> None:
    assert _refused(cells(), cells(**{"子订单编号": "300012", **second})) == lines


def test_an_order_of_more_lines_than_an_event_holds_is_refused() -> None:
    assert len(_taken(*(cells(子订单编号=f"L{n}") for n in range(500)))["PAID:300010"].lines) == 500
    orders, refused = read(export(cells(子订单编号=f"L{n}") for n in range(501)))
    assert orders == []
    assert {one.line for one in refused} == set(range(2, 503))


def test_a_buyers_open_id_goes_before_his_name() -> None:
    text = (
        export([cells()])
        .replace("类目", "OUID")
        .replace("极光小熊,大衣,599.00,1,COAT,", "小熊,大衣,599.00,1,COAT,AAH-1")
    )
    [order], _ = read(text)
    assert order.events[0].identity.value == "AAH-1"


def test_headers_that_are_missing_or_doubled_are_named_all_at_once() -> None:
    _, problems = columns.layout(
        ["\ufeff子订单编号", "子订单编号 ", "价格", "备注", "备注", "退款金额", "退款金额"]
    )
    said = "\n".join(problems)
    assert [name for name in ("子订单编号", "退款金额") if f"the column {name} stands there twice" in said]
    for name in ("主订单编号 or 订单编号", "购买数量", "订单状态", "订单创建时间", "订单付款时间"):
        assert f"the column {name} is missing" in said
    assert "备注" not in said
    assert "类目" not in said


# ---- cells ------------------------------------------------------------------------------------------


@given(
    st.integers(0, 10**12),
    st.sampled_from(["{}", "¥{}", "￥{}", " {} ", '="{}"', "'{}", "\t{}"]),
    st.booleans(),
)
@example(5, "{}", False)
def test_amounts_come_back_to_the_fen(minor: int, around: str, grouped: bool) -> None:
    yuan = f"{minor // 100:,}" if grouped else f"{minor // 100}"
    assert forms.yuan(forms.clean(around.format(f"{yuan}.{minor % 100:02}"))) == minor
    if minor % 100 == 0:
        assert forms.yuan(forms.clean(around.format(yuan))) == minor


@given(st.text(max_size=30))
def test_whatever_stands_in_a_cell_is_read_or_refused_in_words(text: str) -> None:
    clean = forms.clean(text)
    said: list[str] = []
    for form in (
        forms.identifier,
        forms.buyer,
        forms.yuan,
        forms.pieces,
        lambda one: forms.time(one, SHANGHAI),
    ):
        try:
            form(clean)
        except ValueError as error:
            said.append(str(error))
    assert all(said)


def test_times_that_the_clocks_skip_are_refused_and_of_two_the_first_is_meant() -> None:
    paris = ZoneInfo("Europe/Paris")
    with pytest.raises(ValueError, match="skip"):
        forms.time("2026-03-29 02:30:00", paris)
    assert forms.time("2026-10-25 02:30", paris) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


# ---- hostile files ----------------------------------------------------------------------------------


def _written(folder: Path, content: bytes) -> Path:
    path = folder / "export.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_an_export_reads_the_same_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    path = _written(tmp_path, SAMPLE.encode(encoding))
    [export_], problems = reading.opened([path])
    assert problems == []
    text = path.read_text(encoding=export_.encoding)
    assert _events(read(text)[0]) == _events(read(SAMPLE)[0])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is missing"),
        (b"PK\x03\x04\x00\x00rest", "is a spreadsheet"),
        (SAMPLE.encode("utf-16"), "is in UTF-16"),
        (b"\x7fELF\x00\x00", "is no text"),
        (b"\xef\xbb\xbf\xff\xff", "begins as UTF-8 and is not"),
        (b"\xff\xff\xff", "is neither UTF-8 nor GB18030"),
        (b"<html><body>login</body></html>", "is missing"),
        (b'"' + b"x" * 200_000, "the header is no CSV"),
    ],
)
def test_what_is_no_export_is_told_in_words(tmp_path: Path, content: bytes, said: str) -> None:
    _, problems = reading.opened([_written(tmp_path, content), tmp_path / "none.csv"])
    assert said in problems[0]
    assert "No such file" in problems[-1]


GOOD = export([cells(主订单编号="900000", 子订单编号="900001")]).splitlines(keepends=True)
HALF = export([cells(子订单编号="300012")]).splitlines(keepends=True)[1]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("300013,300010\r\n", "has 2 columns where the header has 23"),
        (HALF.rstrip() + ",more\r\n", "has 24 columns"),
        (HALF.replace("大衣", '"大" 衣'), "is no CSV"),
        (HALF.replace("大衣", "x" * 140_000), "field larger than field limit"),
        (HALF.replace("大衣", "大\0衣"), "NUL"),
        ("300010," + "x," * 600_000 + "\r\n", "a line of over 1,048,576 characters"),
    ],
)
def test_an_order_of_which_a_row_cannot_be_read_is_refused_and_others_come_in(bad: str, said: str) -> None:
    """Were it let in without that row, its payment would stand without a line for good."""
    first = export([cells()]).splitlines(keepends=True)[1]
    orders, refused = read(GOOD[0] + first + bad + GOOD[1])
    assert [order.order_id for order in orders] == ["900000"]
    assert [one.line for one in refused] == [2, 3]
    assert said in refused[1].problem


def test_rows_that_an_open_quote_swallowed_have_their_orders_refused() -> None:
    first = export([cells()]).splitlines(keepends=True)[1]
    orders, refused = read(GOOD[0] + first + HALF.replace("大衣", '"大衣') + HALF + GOOD[1])
    assert orders == []
    assert [one.line for one in refused] == [2, 3]
    assert "up to line 5" in refused[1].problem


def test_a_file_of_rows_that_are_nobodys_is_given_up() -> None:
    with pytest.raises(NoExport, match="order export"):
        read(GOOD[0] + "x\r\n" * (UNKNOWN_MAX + 1))


def test_records_know_their_lines_where_cells_have_several() -> None:
    text = 'a,b\r\n"1\n2",3\r\n4,5\r\n'
    assert [(one.line, one.cells) for one in files.records(io.StringIO(text, newline=""))] == [
        (1, ("a", "b")),
        (2, ("1\n2", "3")),
        (4, ("4", "5")),
    ]


@given(st.binary(max_size=400))
def test_no_bytes_stop_the_reading(content: bytes) -> None:
    """Each becomes a record, or is told as none."""
    for record in files.records(io.StringIO(content.decode("utf-8", "replace"), newline="")):
        assert record.cells or record.problem or record.text == ""


# ---- sending ----------------------------------------------------------------------------------------


def test_calls_hold_at_most_a_thousand_events_and_every_event_once() -> None:
    orders, _ = read(export(cells(主订单编号=f"O{n}", 子订单编号=f"L{n}") for n in range(700)))
    random.Random(7).shuffle(orders)
    calls = list(sending.batches(orders))
    assert [len(call) for call in calls] == [1000, 1000, 100]
    assert [event for call in calls for _, event in call] == [
        event for order in orders for event in order.events
    ]


def test_what_the_service_refuses_is_told_with_its_order_and_reason() -> None:
    [order], _ = read(export([cells()]))
    came = sending.Outcomes()
    error = ItemError(reason="EVENT_BODY_CHANGED", message="known with other content")
    quarantined = EventResult(outcome=EventOutcome.EVENT_OUTCOME_QUARANTINED, error=error)
    came.add(order, order.events[1], quarantined)
    came.add(order, order.events[0], EventResult(outcome=EventOutcome.EVENT_OUTCOME_DUPLICATE))
    assert came.events == {"QUARANTINED": 1, "DUPLICATE": 1}
    assert came.reasons == {("QUARANTINED", "EVENT_BODY_CHANGED"): 1}
    [told] = came.bad
    assert (told.line, told.order_id) == (2, "300010")
    assert told.problem == "PAID:300010 QUARANTINED EVENT_BODY_CHANGED: known with other content"
