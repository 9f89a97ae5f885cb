"""A time to look at, and the one before it to compare with. All of it is in UTC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from llmcache.exceptions import InvalidArgument

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)

NAMES: Final = ("24h", "7d", "30d")
DEFAULT: Final = "7d"
LONGEST: Final = 10 * 366 * DAY

# How finely a period is divided, by how long it is.
STEPS: Final = ((2 * DAY, HOUR), (8 * DAY, 6 * HOUR), (92 * DAY, DAY))
COARSEST: Final = 7 * DAY


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` until before `end`, compared with as long a time that begins at `before`.

    All three are at full hours. A period that is not over ends with this hour, and what it is
    compared with is cut short as much.
    """

    name: str
    start: datetime
    end: datetime
    before: datetime
    step: timedelta

    @property
    def before_end(self) -> datetime:
        return self.before + (self.end - self.start)

    @property
    def steps(self) -> Iterator[datetime]:
        """When each step begins."""
        moment = self.start
        while moment < self.end:
            yield moment
            moment += self.step

    @property
    def by_day(self) -> bool:
        return self.step >= DAY


def read_period(
    name: str = DEFAULT,
    first: date | None = None,
    last: date | None = None,
    *,
    now: datetime | None = None,
) -> Period:
    """The period that is called so, or that goes from the first day until the last.

    ``24h`` ends with this hour; ``7d`` and ``30d`` are whole days and end with today.

    Args:
        name: one of `NAMES`; what it says does not count when days are given.
        first: the first day. Without `last`, until today.
        last: the last day, which may not be without the first.
        now: the time; None: what the clock says.

    Raises:
        InvalidArgument: when there is no such period.
    """
    hour = (now or datetime.now(UTC)).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    end, today = hour + HOUR, hour.date()
    if first is not None or last is not None:
        start, length = _days(first, last or today, end)
        # The hours of long ago may be added up into days.
        name, step = "custom", max(_step(length), DAY if end - start > 31 * DAY else HOUR)
    elif name == "24h":
        return Period(name, end - DAY, end, end - 2 * DAY, HOUR)
    elif name in NAMES:
        length = int(name.removesuffix("d")) * DAY
        start, step = _midnight(today) + DAY - length, _step(length)
    else:
        raise InvalidArgument(f"a period is one of {', '.join(NAMES)}, or two days; not {name!r}.")
    return Period(name, start, min(start + length, end), start - length, step)


def _days(first: date | None, last: date, end: datetime) -> tuple[datetime, timedelta]:
    """When the first of these days begins, and how long they are."""
    if first is None:
        raise InvalidArgument("a period that ends with a day has to begin with one.")
    start, length = _midnight(first), last - first + DAY
    if not DAY <= length <= LONGEST or start >= end:
        raise InvalidArgument(
            "a period begins on a day that is not later than the one it ends with, nor than today, "
            f"and is at most {LONGEST.days} days long."
        )
    return start, length


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _step(length: timedelta) -> timedelta:
    return next((step for longest, step in STEPS if length <= longest), COARSEST)
