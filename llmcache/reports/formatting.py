"""Amounts and tiers in few words, for a table or a tile."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from typing import Final

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmcache.outcomes import Tier
from llmcache.providers.pricing import dollars

# Amounts of less are shown with as many digits as it takes to see something.
SMALL: Final = Decimal("0.1")
DIGITS: Final = 2
MOST_DIGITS: Final = 9
MINUTE, HOUR, DAY = 60, 3600, 86_400

TIERS: Final = {
    Tier.LOCAL: gettext_lazy("local (copy in the process)"),
    Tier.HOT: gettext_lazy("hot (fast copy)"),
    Tier.DURABLE: gettext_lazy("durable (stored copy)"),
}


def money(cost: int) -> str:
    """Billionths of a US dollar in dollars, rounded; what is not nothing never looks like it."""
    amount = dollars(cost)
    places = DIGITS
    if 0 < abs(amount) < SMALL:
        places = min(MOST_DIGITS, DIGITS - 1 - amount.adjusted())
    return f"${_decimal(amount, places)}"


def count(number: int) -> str:
    """A whole number, with thousands told apart."""
    return str(number_format(number, force_grouping=True))


def rough(number: int) -> str:
    """A whole number in at most three digits and a unit."""
    for size, unit in ((10**9, _("bn")), (10**6, _("M")), (10**3, _("k"))):
        if abs(number) >= size:
            part = number / size
            return f"{_decimal(part, 0 if part >= 99.95 else 1)} {unit}"
    return str(number)


def part(ratio: float | None) -> str:
    """A part of one as a percentage; a dash for None."""
    if ratio is None:
        return "–"
    return _("%(number)s %%") % {"number": _decimal(100 * ratio, 1)}


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = round(seconds)
    units = [(DAY, _("d")), (HOUR, _("h")), (MINUTE, _("min")), (1, _("s"))]
    for (size, unit), (smaller, small_unit) in pairwise(units):
        if whole >= size:
            return f"{count(whole // size)} {unit} {whole % size // smaller} {small_unit}"
    return f"{_decimal(seconds, 1)} {units[-1][1]}"


def change(now: float, before: float) -> str:
    """How `now` differs from `before`, in per cent; empty where there is nothing to compare."""
    if not before:
        return ""
    ratio = (now - before) / before
    if abs(ratio) < 0.005:
        return "±0 %"
    return f"{ratio:+.0%}".replace("%", " %") if abs(ratio) < 10 else f"×{now / before:.0f}"


def points(now: float | None, before: float | None) -> str:
    """How a part of one differs, in percentage points; empty where one is not known."""
    if now is None or before is None:
        return ""
    difference = 100 * (now - before)
    number = "±0" if abs(difference) < 0.05 else f"{difference:+.1f}"
    return _("%(number)s points") % {"number": number}


def _decimal(number: float | Decimal, places: int) -> str:
    # (Django does not round, it cuts)
    rounded = Decimal(number).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
    return str(number_format(rounded, decimal_pos=places, force_grouping=True))
