"""Dates, in whatever way they are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from project.standin import vocabulary

_ISO = re.compile(r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_NUMERIC = re.compile(r"(?<![\d.])(\d{1,2})[./-] ?(\d{1,2})[./-] ?(\d{4})(?!\d)")
_EAST_ASIAN = re.compile(r"(\d{4}) ?[年년] ?(\d{1,2}) ?[月월] ?(\d{1,2}) ?[日일]")
_VIETNAMESE = re.compile(r"(\d{1,2}) tháng (\d{1,2})(?:,? năm)? (\d{4})", re.IGNORECASE)
_DAY_FIRST = re.compile(
    r"(?<!\d)(\d{1,2})(?:st|nd|rd|th|er|\.|º)? (?:de |ב)?([^\W\d_]{3,12})\.?,?(?: de| del)? (\d{4})"
)
_MONTH_FIRST = re.compile(r"\b([A-Za-z]{3,9})\.? (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})")


def dates_in(text: str) -> Iterator[tuple[int, date]]:
    """Every date with its position, in whatever way it is written."""
    for pattern, order in (
        (_ISO, "ymd"),
        (_EAST_ASIAN, "ymd"),
        (_NUMERIC, "dmy"),
        (_VIETNAMESE, "dmy"),
        (_DAY_FIRST, "dmy"),
        (_MONTH_FIRST, "mdy"),
    ):
        for match in pattern.finditer(text):
            if day := _date(dict(zip(order, match.groups(), strict=True))):
                yield match.start(), day


def _date(parts: dict[str, str]) -> date | None:
    year, day = int(parts["y"]), int(parts["d"])
    month = int(parts["m"]) if parts["m"].isdecimal() else _month(parts["m"])
    if 2400 < year < 2700:
        year -= 543  # the Buddhist era, in which Thailand counts
    if month > 12 >= day:
        month, day = day, month
    try:
        return date(year, month, day) if 1900 <= year <= 2100 else None
    except ValueError:
        return None


def _month(word: str) -> int:
    folded = word.casefold()
    return vocabulary.MONTHS.get(folded) or vocabulary.MONTHS.get(folded[1:]) or 0


def looks_like_date(text: str) -> bool:
    """Whether the figures are those of a date, and of nothing else."""
    return bool(_ISO.fullmatch(text) or _NUMERIC.search(text))
