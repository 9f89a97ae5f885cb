"""Positions of an invoice, an order or a receipt, one to a line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from project.standin.amounts import CURRENCY, MONEY, amount, amounts_in

_UNIT = (
    r"(?:pcs?\.?|pieces?|units?|Stück|Stk\.?|szt\.?|ks|adet|uds?\.?|un\.?|шт\.?|τεμ\.?|"
    r"件|個|个|개|台|h|hrs?|Std\.?|chiếc|ชิ้น|नग|عدد|יח['׳])"
)
# 3 x Widget @ 4.50 — 2 × Câble à 9,99 € — ٣ × لوحة مفاتيح بسعر 150
_LINE_QUANTITY_FIRST = re.compile(
    rf"^[\W_]{{0,4}}(?P<quantity>\d{{1,6}}(?:[.,٫]\d{{1,2}})?) ?{_UNIT}? ?[x×X*✕] ?{_UNIT}? ?"
    rf"(?P<description>[^\n]{{2,120}}?)[ ,，:]{{0,3}}"
    rf"(?:@|[–—-] ?|\bà\b|\bzu je\b|\bje\b|\bat\b|\beach\b|\bpo\b|\ba\b|\bpor\b|\bπρος\b|\bпо\b|"
    rf"بسعر|במחיר|هر عدد|单价|單價|単価|단가|ราคา|giá|दर|de)\s?(?P<price>{MONEY})"
)
# Widget | 3 | 4.50 | 13.50, with bars, tabs or wide gaps between the columns
_COLUMNS = re.compile(r"\s*(?:[|\t│]|\s{3,})\s*")
# 键盘 × 2，单价 199 元 — Widget x3 - 4.50
_LINE_QUANTITY_LATER = re.compile(
    rf"^[\W_]{{0,4}}(?P<description>[^\n|]{{2,120}}?) ?[x×✕] ?(?P<quantity>\d{{1,6}}) ?{_UNIT}?"
    rf"[^\d\n]{{1,12}}(?P<price>{MONEY})"
)


@dataclass(frozen=True)
class Item:
    """One position of an invoice, an order or a receipt."""

    description: str
    quantity: Decimal
    unit_price: Decimal

    @property
    def amount(self) -> Decimal:
        return self.quantity * self.unit_price


def item_in(line: str) -> Item | None:
    if re.search(r"[|\t│]", line):
        return _item_from_columns(line)
    match = _LINE_QUANTITY_FIRST.match(line) or _LINE_QUANTITY_LATER.match(line)
    return _item_from_match(match) if match else _item_from_columns(line)


def _item_from_match(match: re.Match[str]) -> Item | None:
    prices = amounts_in(match["price"])
    quantity = amount(match["quantity"])
    description = match["description"].strip(" -–—,，:")
    if not prices or quantity is None or not description:
        return None
    return Item(description, quantity, prices[0])


def _item_from_columns(line: str) -> Item | None:
    cells = [cell for cell in _COLUMNS.split(line.strip(" |\t│")) if cell]
    figures = [_only_figure(cell) for cell in cells]
    words = [cell for cell, figure in zip(cells, figures, strict=True) if figure is None]
    numbers = [figure for figure in figures if figure is not None]
    if not words or len(numbers) < 2:
        return None
    # A first column of running numbers is no quantity.
    quantity, price = numbers[1:3] if _is_numbered(figures, numbers) else numbers[:2]
    return Item(words[0], quantity, price)


def _is_numbered(figures: list[Decimal | None], numbers: list[Decimal]) -> bool:
    return figures[0] is not None and len(numbers) > 2 and figures[1] is None


def _only_figure(cell: str) -> Decimal | None:
    bare = CURRENCY.sub("", cell).strip()
    bare = re.sub(rf"\s?{_UNIT}$", "", bare).rstrip("%")
    return amount(bare) if bare[:1].isdecimal() else None
