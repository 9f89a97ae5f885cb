"""The ledger, read for a period: what was called, what that saved, and what it cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any, Final, Self

from django.db.models import Case, IntegerField, Q, Sum, Value, When
from django.utils import timezone

from llmcache.outcomes import Outcome
from llmcache.reasons import ReasonCode
from llmcache.reports.periods import Period
from llmcache.store.rows.columns import moment
from llmcache.usage import rollup
from llmcache.usage.ledger import SUMS

# So many rows a table has.
TOP: Final = 10

SERVED: Final = (Outcome.HIT, Outcome.STALE)
# (another version of llmcache may have written others)
CODES: Final = {str(code): code for code in ReasonCode}
LOOKED_UP: Final = (*SERVED, Outcome.MISS)


@dataclass(slots=True)
class Totals:
    """Calls added up. Money is in billionths of a US dollar."""

    calls: int = 0
    stored: int = 0
    unpriced: int = 0
    input_tokens_saved: int = 0
    output_tokens_saved: int = 0
    cost_saved: int = 0
    microseconds_saved: int = 0
    input_tokens_spent: int = 0
    output_tokens_spent: int = 0
    cost_spent: int = 0
    bytes_stored: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(map(str, Outcome), 0))

    def add(self, outcome: str, row: Mapping[str, Any]) -> None:
        """Add a row of sums, all of whose calls had that outcome."""
        self.add_sums(row)
        self.outcomes[outcome] += int(row["sum_calls"])

    def add_sums(self, row: Mapping[str, Any]) -> None:
        for name in SUMS:
            setattr(self, name, getattr(self, name) + int(row[f"sum_{name}"]))

    @property
    def served(self) -> int:
        """Calls that were answered from the store."""
        return sum(self.outcomes[outcome] for outcome in SERVED)

    @property
    def hit_ratio(self) -> float | None:
        """Of the calls that looked into the store, the part that it answered; None: none did."""
        looked_up = sum(self.outcomes[outcome] for outcome in LOOKED_UP)
        return self.served / looked_up if looked_up else None

    @property
    def tokens_saved(self) -> int:
        return self.input_tokens_saved + self.output_tokens_saved

    @property
    def seconds_saved(self) -> float:
        return self.microseconds_saved / 1_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the period."""

    start: datetime
    totals: Totals


@dataclass(frozen=True, slots=True)
class Line:
    """What has one name (a namespace, a model or a response model) in common."""

    name: str
    totals: Totals


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """Why so many calls skipped the cache, or their answers were not stored."""

    outcome: str
    code: str
    calls: int

    @property
    def words(self) -> str:
        code = CODES.get(self.code)
        return code.words if code else self.code

    @property
    def remedy(self) -> str:
        code = CODES.get(self.code)
        return str(code.remedy) if code else ""


@dataclass(frozen=True, slots=True)
class Usage:
    """All that the ledger says of a period."""

    period: Period
    totals: Totals
    before: Totals
    tiers: dict[str, int]
    steps: list[Step]
    namespaces: list[Line]
    models: list[Line]
    response_models: list[Line]
    reasons: list[ReasonCount]

    @classmethod
    def of(cls, period: Period, *, top: int = TOP) -> Self:
        """In five queries. `top`: the most rows of each table."""
        series = _Series(period)
        return cls(
            period,
            series.totals,
            series.before,
            dict(series.tiers),
            series.steps,
            namespaces=_lines(period, "namespace", top),
            models=_lines(period, "model", top),
            response_models=_lines(period, "response_model", top),
            reasons=_reasons(period, 2 * top),
        )

    @property
    def bypasses(self) -> list[ReasonCount]:
        return [reason for reason in self.reasons if reason.outcome == Outcome.BYPASS]

    @property
    def not_stored(self) -> list[ReasonCount]:
        """Of calls that asked the model, and whose answer was not kept or did not come."""
        return [reason for reason in self.reasons if reason.outcome != Outcome.BYPASS]


class _Series:
    """The period in its steps, and the one before as a whole: by one query."""

    def __init__(self, period: Period) -> None:
        self.totals, self.before = Totals(), Totals()
        self.tiers: defaultdict[str, int] = defaultdict(int)
        self.steps = [Step(start, Totals()) for start in period.steps]
        self._period = period
        for row in _series(period):
            self._add(row)

    def _add(self, row: Mapping[str, Any]) -> None:
        outcome = row["outcome"]
        if not row["is_current"]:
            self.before.add(outcome, row)
            return
        self.totals.add(outcome, row)
        if row["tier"]:
            self.tiers[row["tier"]] += int(row["sum_calls"])
        begun = _aware(row["day"] if self._period.by_day else row["hour"])
        number = (begun - self._period.start) // self._period.step
        # (the day in which a period begins may have been added up)
        self.steps[max(0, number)].totals.add(outcome, row)


def _series(period: Period) -> Iterable[Mapping[str, Any]]:
    start, end = _at(period.start), _at(period.end)
    before, before_end = _at(period.before), _at(period.before_end)
    is_current = Case(
        When(hour__gte=start, then=Value(1)), default=Value(0), output_field=IntegerField()
    )
    rows = rollup.usage().filter(
        Q(hour__gte=before, hour__lt=before_end) | Q(hour__gte=start, hour__lt=end)
    )
    grouped = rows.annotate(is_current=is_current).values(
        "day" if period.by_day else "hour", "is_current", "outcome", "tier"
    )
    found: Iterable[Mapping[str, Any]] = grouped.annotate(**_sums()).order_by()
    return found


def _lines(period: Period, name: str, top: int) -> list[Line]:
    rows = _within(period).values(name).annotate(**_sums(), **_calls_by_outcome())
    found = []
    for row in rows.order_by("-sum_cost_saved", "-sum_calls", name)[:top]:
        totals = Totals()
        totals.add_sums(row)
        totals.outcomes = {str(outcome): int(row[f"{outcome}s"] or 0) for outcome in Outcome}
        found.append(Line(row[name], totals))
    return found


def _reasons(period: Period, most: int) -> list[ReasonCount]:
    told = _within(period).exclude(reason_code="").exclude(outcome__in=SERVED)
    rows = told.values("outcome", "reason_code").annotate(sum_calls=Sum("calls"))
    return [
        ReasonCount(row["outcome"], row["reason_code"], int(row["sum_calls"]))
        for row in rows.order_by("-sum_calls", "reason_code")[:most]
    ]


def _within(period: Period) -> Any:
    start, end = _at(period.start), _at(period.end)
    return rollup.usage().filter(hour__gte=start, hour__lt=end).order_by()


def _sums() -> dict[str, Sum]:
    return {f"sum_{name}": Sum(name) for name in SUMS}


def _calls_by_outcome() -> dict[str, Sum]:
    return {f"{outcome}s": Sum("calls", filter=Q(outcome=outcome)) for outcome in Outcome}


def _at(point: datetime) -> datetime:
    """A moment as the project keeps times."""
    return moment(point.timestamp())


def _aware(begun: date | datetime) -> datetime:
    """When an hour or a day of the ledger began, in UTC."""
    if not isinstance(begun, datetime):
        return datetime.combine(begun, time(), UTC)
    if timezone.is_naive(begun):
        begun = timezone.make_aware(begun, timezone.get_default_timezone())
    return begun.astimezone(UTC)
