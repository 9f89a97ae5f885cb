"""Amounts and currencies, in whatever way they are written."""

from __future__ import annotations

import re
from decimal import Decimal

from project.standin import vocabulary

_SIGNS = "|".join(re.escape(sign) for sign in vocabulary.CURRENCY_SIGNS)
_CODES = "|".join(sorted(vocabulary.CURRENCY_CODES))
CURRENCY = re.compile(rf"{_SIGNS}|\b(?:{_CODES})\b")
FIGURE = r"\d{1,12}(?:[.,'’٫٬\u00a0\u202f ]\d{2,3}){0,4}(?:[.,٫]\d)?"
MONEY = rf"(?:{_SIGNS}|{_CODES})?\s?(?:{FIGURE})\s?(?:{_SIGNS}|(?:{_CODES})\b)?"


def amount(figure: str) -> Decimal | None:
    """``1.234,56``, ``1,234.56``, ``1 234,56`` and ``١٬٢٣٤٫٥٦`` are one number.

    The last separator is the decimal one, unless three digits follow it.
    """
    digits = figure.replace("−", "-").replace("٫", ".").replace("٬", ",")
    match = re.fullmatch(r"(-?)([\d.,'’\s]*\d)", digits.strip())
    if match is None:
        return None
    whole, separator, cents = _split_decimal(match[2])
    plain = "".join(character for character in whole if character.isdecimal())
    return Decimal(f"{match[1]}{plain or 0}{separator and '.'}{cents}")


def _split_decimal(figure: str) -> tuple[str, str, str]:
    at = max(figure.rfind("."), figure.rfind(","))
    cents = figure[at + 1 :]
    if at < 0 or len(cents) == 3 or not cents.isdecimal():
        return figure, "", ""
    return figure[:at], ".", cents


def amounts_in(line: str) -> list[Decimal]:
    figures = re.findall(FIGURE, line)
    return [value for figure in figures if (value := amount(figure)) is not None]
