"""What settings and arguments are made of: lengths of time, names, prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

LONGEST_TTL: Final = timedelta(days=36_525)
LONGEST_SECONDS: Final = LONGEST_TTL.total_seconds()
LONGEST_NAME: Final = 255
HIGHEST_PRICE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens of one model cost, in US dollars.

    `cached_input` is for the part of the input that the provider read from its own cache; None: as
    much as the rest.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None


def to_seconds(value: object) -> float | None:
    """Seconds of a time to live: an int, a float, a `timedelta`, or None for "no expiry".

    Raises `TypeError` for other types (`bool` is one of them) and `ValueError` for numbers that
    are negative, not finite, or longer than a hundred years.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise TypeError(f"{value!r} is not a number of seconds, a timedelta or None")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError(f"{value!r} is not between 0 and {LONGEST_TTL.days} days")
    return float(seconds)


def is_name(value: object) -> bool:
    """Whether a namespace or a tag may be called so: what every database stores unchanged."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_NAME
        and "\0" not in value
        and value.isprintable()
    )


def read_prices(prices: Mapping[str, Any]) -> Prices:
    """The prices of one model in the settings. Raises whatever it may where they are none."""
    return Prices(**{name: _read_price(price) for name, price in prices.items()})


def _read_price(value: Any) -> Decimal:
    if isinstance(value, bool):
        raise TypeError("a price is a number")
    # By its written form: 0.1 is meant as a tenth.
    price = Decimal(str(value))
    if not 0 <= price <= HIGHEST_PRICE:
        raise ValueError("a price is not less than 0, nor absurd")
    return price
