"""A statement as a pay slip: PDF, in Chinese and English, its font embedded. How it looks is `statement.typ`.

Typst sets it: in a tenth of the time of libraries that subset the font in Python, and off the interpreter's
lock, so that a thread can do it beside the event loop. It is given data, never markup: nothing in a name is
an instruction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import typst

from chassis.plain import plain
from svc_commission.rules.attribution import guide_of
from svc_commission.rules.currency import major_text
from svc_commission.rules.order import Account
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.statement import Statement

LINES_MAX: Final = 2_000
"""Lines that are printed, some fifty pages; the total is of all."""
_TEMPLATE: Final = Path(__file__).with_name("statement.typ")
_NAME_MAX: Final = 100
_ID_MAX: Final = 64
# How wide a word may be, in ems, before it is broken: less than its column.
_NAME_WORD, _ID_WORD, _CAUSE_WORD = 18, 11, 8
# Kinds of which a row is shown also in a month without any, in the order in which money moves.
_ALWAYS: Final = (
    *(PostingKind.EARNED, PostingKind.CLAWED_BACK, PostingKind.CONFIRMED),
    *(PostingKind.ADJUSTED, PostingKind.PAID_OUT),
)
_ORDER: Final = (
    *(PostingKind.OPENING_BALANCE, PostingKind.EARNED, PostingKind.CLAWED_BACK, PostingKind.CONFIRMED),
    *(PostingKind.POOL_SHARED, PostingKind.ADJUSTED, PostingKind.WRITTEN_OFF, PostingKind.PAID_OUT),
)


@dataclass(frozen=True, slots=True)
class SlipLine:
    """One entry of the month. Amounts are the payee's, minor units: what is owed to her is positive.

    `order_id` and `line_id` are empty where an entry is of no order. `cause`: the event, or the reason given
    by a person; empty: none. A confirmation is one line, of what leaves `held_minor` for `payable_minor`.
    """

    date: date
    order_id: str
    line_id: str
    kind: PostingKind
    cause: str
    held_minor: int
    payable_minor: int


@dataclass(frozen=True, slots=True)
class SlipNames:
    """What people call those whom the slip names."""

    brand: str
    payee: str
    store: str


def pay_slip(
    statement: Statement, names: SlipNames, issue_date: date, lines: Iterable[SlipLine] = ()
) -> bytes:
    """The PDF. The same statement, names, date and lines give the same bytes.

    `lines` are all entries of the month, as they are to be listed. Takes CPU, about 35 ms, and 0.3 s for
    300 lines; to be called in a thread.

    Raises: ValueError when the lines do not come to what the month changed.
    """
    listed, count, total = _listed(lines, statement.currency_code)
    changed = tuple(sum(statement.on(account).values()) for account in (Account.HELD, Account.PAYABLE))
    if total != changed:
        raise ValueError(f"{statement.statement_number}: its lines come to {total}, the month to {changed}")
    figures = _Figures(statement.currency_code)
    data = {
        "brand": _breakable(names.brand, _NAME_MAX, _NAME_WORD),
        "payee": _breakable(names.payee, _NAME_MAX, _NAME_WORD),
        "payee_short": plain(names.payee, 30),
        "store": _breakable(names.store, _NAME_MAX, _NAME_WORD),
        "employee": guide_of(statement.payee) or "—",
        "number": statement.statement_number,
        "month": f"{statement.month:%Y-%m}",
        "issued": [issue_date.year, issue_date.month, issue_date.day],
        "issued_text": f"{issue_date:%Y-%m-%d}",
        "currency": statement.currency_code,
        "opening": figures.row(statement.opening_held_minor, statement.opening_payable_minor),
        "changes": _changes(statement, figures),
        "closing": figures.row(statement.closing_held_minor, statement.closing_payable_minor),
        "negative": statement.closing_payable_minor < 0,
        "lines": listed,
        "line_count": count,
        "total": figures.row(*total)[:2],
    }
    made = typst.Compiler(font_paths=_fonts(), ignore_system_fonts=True).compile(
        _template(),
        format="pdf",
        sys_inputs={"slip": json.dumps(data, ensure_ascii=False)},
        timestamp=datetime(issue_date.year, issue_date.month, issue_date.day, tzinfo=UTC),
        pdf_tags=False,
    )
    assert isinstance(made, bytes)
    return made


@dataclass(frozen=True, slots=True)
class _Figures:
    currency_code: str

    def text(self, amount_minor: int) -> str:
        return major_text(amount_minor, self.currency_code, grouped=True)

    def row(self, held_minor: int, payable_minor: int) -> list[str]:
        """Held, payable, both."""
        return [self.text(held_minor), self.text(payable_minor), self.text(held_minor + payable_minor)]


def _changes(statement: Statement, figures: _Figures) -> list[list[str]]:
    held, payable = statement.on(Account.HELD), statement.on(Account.PAYABLE)
    shown = [kind for kind in _ORDER if kind in _ALWAYS or held[kind] or payable[kind]]
    return [[kind.value, *figures.row(held[kind], payable[kind])] for kind in shown]


def _listed(
    lines: Iterable[SlipLine], currency_code: str
) -> tuple[list[Sequence[str | list[str]]], int, tuple[int, int]]:
    """Those that are printed, how many there are, and what all come to: held, payable."""
    listed: list[Sequence[str | list[str]]] = []
    count = held = payable = 0
    figures = _Figures(currency_code)
    for line in lines:
        count += 1
        held += line.held_minor
        payable += line.payable_minor
        if count <= LINES_MAX:
            listed.append(
                (
                    f"{line.date:%Y-%m-%d}",
                    _breakable(line.order_id, _ID_MAX, _ID_WORD),
                    _breakable(line.line_id, _ID_MAX, _ID_WORD),
                    *(line.kind.value, _breakable(line.cause, _NAME_MAX, _CAUSE_WORD)),
                    *(
                        figures.text(amount) if amount else ""
                        for amount in (line.held_minor, line.payable_minor)
                    ),
                )
            )
    return listed, count, (held, payable)


def _breakable(text: str, length_max: int, width_max: float) -> list[str]:
    """The text on one line, in pieces between which it may be broken: one, if no word is too wide."""
    line = plain(text, length_max)
    if all(_width(word) <= width_max for word in line.split(" ")):
        return [line]
    return [line[at : at + 2] for at in range(0, len(line), 2)]


def _width(word: str) -> float:
    """At most how wide it is, in ems. Chinese counts nothing: it is broken anywhere as it is."""
    latin = [character for character in word if character < "\u2e80"]
    wide = sum(character.isupper() or character in "mw@%&—…" for character in latin)
    digits = sum(character.isdecimal() for character in latin)
    return wide * 0.95 + digits * 0.56 + (len(latin) - wide - digits) * 0.6


@cache
def _fonts() -> typst.Fonts:
    """The one font of the package: what is installed beside it must not change how a slip looks."""
    folder = Path(str(files("noto_cjk_sans_otc")))
    return typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=[folder])


@cache
def _template() -> bytes:
    return _TEMPLATE.read_bytes()
