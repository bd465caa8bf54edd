"""What a month hands out: CSV for the books, the export for payroll, a pay slip for the person."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as pdfium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.plain import plain
from svc_commission.month.statement_csv import (
    PAYROLL_COLUMNS,
    STATEMENT_COLUMNS,
    NamedStatement,
    payroll_csv,
    statement_csv,
)
from svc_commission.month.statement_pdf import LINES_MAX, SlipLine, SlipNames, pay_slip
from svc_commission.rules.order import Account
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.statement import Statement
from tests.unit.statement_months import Posting, months, stated

NAMES: Final = SlipNames(brand="杏花楼服饰（中国）有限公司", payee="欧阳静怡", store="上海南京东路旗舰店")
ISSUED: Final = date(2026, 12, 3)
OWED: Final = [(Account.PAYABLE, PostingKind.EARNED, -123456), (Account.HELD, PostingKind.EARNED, -78900)]
HOSTILE: Final = '=HYPERLINK("https://example.org","王芳")'
MM: Final = 72 / 25.4

texts = st.text(st.characters(codec="utf-8"), max_size=120)


# ---- CSV -------------------------------------------------------------------------------------------


async def sent(made: Callable[..., AsyncIterator[bytes]], rows: Iterable[NamedStatement]) -> list[bytes]:
    """The pieces of an export."""

    async def found() -> AsyncIterator[NamedStatement]:
        for row in rows:
            yield row

    return [piece async for piece in made(found())]


async def read(
    made: Callable[..., AsyncIterator[bytes]], rows: Iterable[NamedStatement]
) -> list[dict[str, str]]:
    """An export as a spreadsheet reads it."""
    whole = b"".join(await sent(made, rows))
    assert whole.startswith(b"\xef\xbb\xbf"), "Excel takes it for another encoding"
    return list(csv.DictReader(io.StringIO(whole.decode("utf-8-sig"), newline="")))


@given(postings=months)
async def test_every_row_adds_up_as_it_is_written(postings: list[Posting]) -> None:
    """Whoever sums the columns in a spreadsheet comes to the closing amounts, to the fen."""
    (row,) = await read(statement_csv, [NamedStatement(stated(postings), "王芳", "南京东路店")])
    assert tuple(row) == STATEMENT_COLUMNS
    amount = {name: Decimal(row[name]) for name in STATEMENT_COLUMNS[6:-1]}
    closing = amount.pop("closing_payable") + amount.pop("closing_held")
    del amount["confirmed"]
    assert sum(amount.values()) == closing
    assert row["entry_count"] == str(len(postings))
    assert (row["month"], row["payee_name"], row["store_name"]) == ("2026-11", "王芳", "南京东路店")


@pytest.mark.parametrize(
    ("currency_code", "written"), [("CNY", "1234.56"), ("JPY", "123456"), ("KWD", "123.456")]
)
async def test_amounts_have_the_digits_of_their_currency(currency_code: str, written: str) -> None:
    """A number that a program reads: a point, no grouping, and no digits that the money does not have."""
    row = NamedStatement(stated(OWED, currency_code=currency_code), "王芳", "店")
    assert [one["closing_payable"] for one in await read(statement_csv, [row])] == [written]
    assert [one["amount"] for one in await read(payroll_csv, [row])] == [written]


@given(names=st.lists(st.tuples(texts, texts), max_size=5))
async def test_a_name_is_one_cell_of_text_whatever_is_in_it(names: list[tuple[str, str]]) -> None:
    """It opens no formula, no row and no column of its own, in whichever program it is opened."""
    rows = await read(statement_csv, [NamedStatement(stated(OWED), *pair) for pair in names])
    assert len(rows) == len(names)
    for row in rows:
        assert None not in row
        assert row["closing_held"] == "789.00"
        for cell in (row["payee_name"], row["store_name"]):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"))
            assert cell.isprintable()


async def test_a_formula_is_kept_as_the_text_that_it_is() -> None:
    """A person reads what the name is; and a negative amount stays a number."""
    owing = stated([(Account.PAYABLE, PostingKind.CLAWED_BACK, 1)])
    (row,) = await read(statement_csv, [NamedStatement(owing, HOSTILE, " \t-2+3")])
    assert (row["payee_name"], row["store_name"]) == (f"'{HOSTILE}", "'-2+3")
    assert (row["clawed_back"], row["closing_payable"]) == ("-0.01", "-0.01")


async def test_payroll_pays_guides_to_whom_something_is_payable() -> None:
    """Not what is only held, not a debt, not a store's pool, which is shared out first."""
    held = [(Account.HELD, PostingKind.EARNED, -100)]
    debt = [(Account.PAYABLE, PostingKind.CLAWED_BACK, 100)]
    rows = [
        NamedStatement(stated(OWED), "王芳", "南京东路店"),
        NamedStatement(stated(held, payee="guide:onlyheld23456777"), "李娜", "店"),
        NamedStatement(stated(debt, payee="guide:owesus2345677777"), "张敏", "店"),
        NamedStatement(stated(OWED, payee="pool:store23456777777"), "店", "店"),
        NamedStatement(stated([], payee="guide:nothing234567777"), "刘洋", "店"),
    ]
    paid = await read(payroll_csv, rows)
    assert [tuple(one) for one in paid] == [PAYROLL_COLUMNS]
    assert list(paid[0].values()) == [
        *("2026-11-000042", "mfrggzdfmztwq2lk", "王芳", "南京东路店", "1234.56", "CNY")
    ]


async def test_an_export_is_sent_as_it_is_made() -> None:
    """Tens of thousands of payees are never held at once."""
    asked = 0

    async def found() -> AsyncIterator[NamedStatement]:
        nonlocal asked
        row = NamedStatement(stated(OWED), "欧阳静怡", "上海南京东路旗舰店")
        for _ in range(5_000):
            asked += 1
            yield row

    made = statement_csv(found())
    first = await anext(made)
    assert asked < 1_000
    pieces = [first, *[piece async for piece in made]]
    assert asked == 5_000
    assert max(len(piece) for piece in pieces) < 100_000
    rows = b"".join(pieces).decode("utf-8-sig").splitlines()
    assert len(rows) == 1 + 5_000
    assert len(set(rows)) == 2, "the pieces do not fit together"


async def test_an_export_of_nobody_still_says_what_its_columns_are() -> None:
    """An import that reads the header finds it."""
    assert b"".join(await sent(payroll_csv, [])).decode("utf-8-sig") == ",".join(PAYROLL_COLUMNS) + "\r\n"


# ---- pay slips -------------------------------------------------------------------------------------


def lines_of(postings: list[Posting]) -> list[SlipLine]:
    """A line for each posting."""
    return [
        SlipLine(
            date=ISSUED,
            order_id=f"26112233445566{at:05}",
            line_id=str(at),
            kind=kind,
            cause="",
            held_minor=-amount if account is Account.HELD else 0,
            payable_minor=-amount if account is Account.PAYABLE else 0,
        )
        for at, (account, kind, amount) in enumerate(postings, start=1)
    ]


def slip_of(postings: list[Posting], names: SlipNames = NAMES, **stated_as: Any) -> bytes:
    """A pay slip on which the whole month stands."""
    return pay_slip(stated(postings, **stated_as), names, ISSUED, lines_of(postings))


def pages_of(slip: bytes) -> list[str]:
    """What can be read, and copied, page by page; the lines as they run across."""
    with pypdfium2.PdfDocument(slip) as document:
        return [page.get_textpage().get_text_range().replace("\r\n", "\n") for page in document]


def month_of_sales(count: int) -> tuple[Statement, list[SlipLine]]:
    """A guide's month of as many sales, some taken back, some confirmed."""
    postings: list[Posting] = []
    lines: list[SlipLine] = []
    for at in range(count):
        kind = (PostingKind.EARNED, PostingKind.EARNED, PostingKind.CONFIRMED, PostingKind.CLAWED_BACK)[
            at % 4
        ]
        amount = 1_000 + 7 * at
        held, payable = {
            PostingKind.EARNED: (amount, 0),
            PostingKind.CONFIRMED: (-amount, amount),
            PostingKind.CLAWED_BACK: (-amount // 3, 0),
        }[kind]
        postings += [(Account.HELD, kind, -held), (Account.PAYABLE, kind, -payable)]
        day = date(2026, 11, 1) + timedelta(days=at * 30 // count)
        lines.append(SlipLine(day, f"26110011223344{at:05}", "1", kind, f"PAID:{at}", held, payable))
    return stated(postings), lines


def test_a_slip_says_whose_it_is_and_what_is_owed() -> None:
    """Brand, guide, store, month, number, day, and the table by which the amount came about."""
    before = stated(
        [(Account.PAYABLE, PostingKind.EARNED, -500000), (Account.HELD, PostingKind.EARNED, -20000)]
    )
    postings: list[Posting] = [
        (Account.HELD, PostingKind.EARNED, -128000),
        (Account.HELD, PostingKind.CLAWED_BACK, 3050),
        *((Account.HELD, PostingKind.CONFIRMED, 90000), (Account.PAYABLE, PostingKind.CONFIRMED, -90000)),
        (Account.PAYABLE, PostingKind.ADJUSTED, -6600),
        (Account.PAYABLE, PostingKind.PAID_OUT, 500000),
    ]
    (page,) = pages_of(pay_slip(stated(postings, before), NAMES, ISSUED, lines_of(postings)))
    for said in (
        "杏花楼服饰（中国）有限公司 佣金工资单\nCommission pay slip",
        "姓名 Name 欧阳静怡 月份 Month 2026-12",
        "门店 Store 上海南京东路旗舰店 编号 Number 2026-12-000042",
        "工号 Employee no. mfrggzdfmztwq2lk 开具日期 Issued 2026-12-03",
        "期末应付 Payable at month end\nCNY 966.00",
        "暂存待确认 Held until confirmed\nCNY 549.50",
        "期初 Opening 200.00 5,000.00 5,200.00",
        "本月佣金 Earned 1,280.00 0.00 1,280.00",
        "退款扣回 Clawed back -30.50 0.00 -30.50",
        "确认转应付 Confirmed -900.00 900.00 0.00",
        "调整 Adjustments 0.00 66.00 66.00",
        "已发放 Paid out 0.00 -5,000.00 -5,000.00",
        "期末 Closing 549.50 966.00 1,515.50",
        "2026-12-03 2611223344556600002 2 退款扣回 Clawed back -30.50",
        "合计 Total 349.50 -4,034.00",
        "对任何一行有疑问，请把本单编号和该行的订单号告诉店长或人事",
        "To ask about a line, tell your store manager or HR the number of this slip",
        "第 1 页 / 共 1 页",
    ):
        assert said in page, said
    assert "核销" not in page, "a kind of which there is nothing needs no row"
    assert "carried into the next month" not in page


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (PostingKind.POOL_SHARED, "门店奖金池 Store pool 0.00 0.07 0.07"),
        (PostingKind.OPENING_BALANCE, "外部结转 Brought in 0.00 0.07 0.07"),
        (PostingKind.WRITTEN_OFF, "核销 Written off 0.00 0.07 0.07"),
    ],
)
def test_what_happens_seldom_has_a_row_when_it_happens(kind: PostingKind, read: str) -> None:
    """Else the table would not add up before the reader's eyes."""
    (page,) = pages_of(slip_of([(Account.PAYABLE, kind, -7)]))
    assert read in page


def test_the_same_statement_is_the_same_file() -> None:
    """A slip that is handed out twice can be compared; only its day of issue may differ."""
    assert slip_of(OWED) == slip_of(OWED)
    assert pay_slip(stated(OWED), NAMES, date(2026, 12, 4), lines_of(OWED)) != slip_of(OWED)


def test_a_slip_brings_its_font() -> None:
    """Whoever opens it sees her name, though her machine has no Chinese font; and it can be mailed."""
    slip = slip_of(OWED)
    assert len(slip) < 60_000
    with pypdfium2.PdfDocument(slip) as document:
        shown = [part for part in document[0].get_objects() if part.type == pdfium.FPDF_PAGEOBJ_TEXT]
        assert len(shown) > 20
        fonts = [pdfium.FPDFTextObj_GetFont(part.raw) for part in shown]
        assert all(pdfium.FPDFFont_GetIsEmbedded(font) == 1 for font in fonts)


def test_a_long_month_takes_several_pages_and_lists_every_line_once() -> None:
    """Each page says which it is and what its columns are; the last says what all lines come to."""
    month, lines = month_of_sales(300)
    slip = pay_slip(month, NAMES, ISSUED, lines)
    assert len(slip) < 200_000
    pages = pages_of(slip)
    assert 5 <= len(pages) <= 8
    for number, page in enumerate(pages, start=1):
        assert f"第 {number} 页 / 共 {len(pages)} 页 · Page {number} of {len(pages)}" in page
        assert "日期 Date 订单 Order 行 Line 事项 Item 暂存 Held 应付 Payable" in page
        assert "2026-11-000042 · 欧阳静怡" in page
    whole = "\n".join(pages)
    assert [whole.count(line.order_id) for line in lines] == [1] * 300
    assert whole.count("合计 Total") == 2
    assert (
        f"合计 Total {month.closing_held_minor / 100:,.2f} {month.closing_payable_minor / 100:,.2f}"
        in pages[-1]
    )


def test_a_slip_of_more_lines_than_anybody_reads_says_so() -> None:
    """The total is of all of them."""
    postings: list[Posting] = [(Account.PAYABLE, PostingKind.EARNED, -100)] * (LINES_MAX + 1)
    pages = pages_of(slip_of(postings))
    assert f"The first {LINES_MAX} of {LINES_MAX + 1} entries; the total is of all." in pages[0]
    assert "合计 Total 0.00 2,001.00" in pages[-1]


def test_a_negative_closing_is_explained() -> None:
    """Nobody is asked for money, and nobody waits for it."""
    (page,) = pages_of(slip_of([(Account.PAYABLE, PostingKind.CLAWED_BACK, 123456)]))
    assert "期末应付 Payable at month end\nCNY -1,234.56" in page
    assert "期末应付为负：本月不发放，差额结转下月抵减。" in page
    assert "nothing is paid, and the difference is carried into the next month" in page


def test_a_month_of_nothing_is_a_slip_too() -> None:
    """In yen, which have no digits behind the point."""
    (page,) = pages_of(slip_of([], currency_code="JPY"))
    assert "期末应付 Payable at month end\nJPY 0\n" in page
    assert "期末 Closing 0 0 0" in page
    assert "No entries this month." in page


def test_lines_that_do_not_come_to_the_month_make_no_slip() -> None:
    """A person adds them up."""
    for lines in ([], lines_of(OWED)[:1], lines_of([*OWED, OWED[0]])):
        with pytest.raises(ValueError, match="come to"):
            pay_slip(stated(OWED), NAMES, ISSUED, lines)


def test_a_name_is_text_and_never_markup() -> None:
    """What would be an instruction to a typesetter, a browser or a PDF reader is printed as it stands."""
    name = '<b>*张*</b> #sys.inputs $x^2$ \\ "@a" [b] (Tj) //c'
    (page,) = pages_of(slip_of(OWED, SlipNames(name, name, name)))
    assert page.count("<b>*张*</b> #sys.inputs $x^2$") == 4
    for mark in ('"@a"', "(Tj)", "//c"):
        assert page.count(mark) >= 3


def test_a_name_does_not_turn_or_break_the_lines_around_it() -> None:
    """Control characters, marks of direction, line ends and heaps of accents are left out."""
    name = "王\x00芳\u202e\n刘\u2066洋\x1b[31m" + "é" + "\u0301" * 50
    assert plain(name, 100) == "王芳 刘洋[31mé\u0301\u0301"
    (page,) = pages_of(slip_of(OWED, SlipNames("品牌", name, "店")))
    assert "姓名 Name 王芳 刘洋[31m" in page
    assert "月份 Month 2026-11" in page


@pytest.mark.parametrize("long", ["W" * 100, "龘" * 100, "mw" * 50, "1234567890" * 10, "😀" * 100])
def test_what_is_long_is_wrapped_and_stays_on_the_page(long: str) -> None:
    """And in its column: no word runs into the amounts."""
    amount = 10**14
    month = stated([(Account.HELD, PostingKind.ADJUSTED, amount)])
    line = SlipLine(ISSUED, long[:64], long[:64], PostingKind.ADJUSTED, long, -amount, 0)
    with pypdfium2.PdfDocument(pay_slip(month, SlipNames(long, long, long), ISSUED, [line])) as document:
        for page in document:
            text = page.get_textpage()
            for at in range(text.count_chars()):
                left, _, right, _ = text.get_charbox(at)
                assert 17.5 * MM <= left <= right <= 192.5 * MM, text.get_text_range(at, 20)
        found = document[0].get_textpage().search("-1,000,000,000,000.00")
        places = []
        while (place := found.get_next()) is not None:
            places.append(place)
        assert len(places) >= 6, "an amount is covered or broken"


def test_text_that_is_too_long_is_cut_where_it_shows() -> None:
    """A sign says that there was more."""
    assert plain("店" * 101, 100) == "店" * 99 + "…"
    assert plain("店" * 100, 100) == "店" * 100


@settings(max_examples=25, deadline=None)
@given(texts, texts)
def test_any_text_makes_a_slip_that_can_be_read(first: str, second: str) -> None:
    """Whatever a connector sends as a name, she gets her slip."""
    line = SlipLine(ISSUED, second, first, PostingKind.ADJUSTED, second, 100, 0)
    month = stated([(Account.HELD, PostingKind.ADJUSTED, -100)])
    pages = pages_of(pay_slip(month, SlipNames(first, second, first), ISSUED, [line]))
    assert "调整 Adjustments 1.00 0.00 1.00" in pages[0]
