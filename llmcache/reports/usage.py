"""The ledger, read for a period: what was called, what that saved, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any, Final, NamedTuple, Self

from django.db.models import Q, Sum
from django.utils import timezone

from llmcache.outcomes import Outcome
from llmcache.reasons import ReasonCode
from llmcache.reports.periods import Period
from llmcache.store.rows.columns import moment
from llmcache.usage import rollup
from llmcache.usage.ledger import SUMS, Sums

# So many rows a table has.
TOP: Final = 10

SERVED: Final = (Outcome.HIT, Outcome.STALE)
# (another version of llmcache may have written others)
CODES: Final = {str(code): code for code in ReasonCode}
LOOKED_UP: Final = (*SERVED, Outcome.MISS)
SUMMED: Final = {f"sum_{name}": Sum(name) for name in SUMS}


@dataclass(slots=True)
class Totals(Sums):
    """Calls added up, and how many had each outcome."""

    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(map(str, Outcome), 0))

    def add(self, row: Mapping[str, Any], outcomes: Mapping[str, int]) -> None:
        """Add a row of sums, whose calls had these outcomes."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + int(row[f"sum_{name}"]))
        for outcome, calls in outcomes.items():
            self.outcomes[outcome] += calls

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


class Step(NamedTuple):
    """A part of the period."""

    start: datetime
    totals: Totals


class Line(NamedTuple):
    """What has one name (a namespace, a model or a response model) in common."""

    name: str
    totals: Totals


class ReasonCount(NamedTuple):
    """Why so many calls skipped the cache, or their answers were not stored."""

    outcome: str
    code: str
    calls: int
    words: str
    remedy: str


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
        totals, before, tiers = Totals(), Totals(), Counter[str]()
        steps = [Step(start, Totals()) for start in period.steps]
        for row in _series(period):
            calls = int(row["sum_calls"])
            outcomes = {row["outcome"]: calls}
            if not row["is_current"]:
                before.add(row, outcomes)
                continue
            totals.add(row, outcomes)
            if row["tier"]:
                tiers[row["tier"]] += calls
            begun = _aware(row["day"] if period.by_day else row["hour"])
            # (the day in which a period begins may have been added up)
            number = max(0, (begun - period.start) // period.step)
            steps[number].totals.add(row, outcomes)
        return cls(
            period,
            totals,
            before,
            dict(tiers),
            steps,
            _lines(period, "namespace", top),
            _lines(period, "model", top),
            _lines(period, "response_model", top),
            _reasons(period, 2 * top),
        )

    @property
    def bypasses(self) -> list[ReasonCount]:
        return [reason for reason in self.reasons if reason.outcome == Outcome.BYPASS]

    @property
    def not_stored(self) -> list[ReasonCount]:
        """Of calls that asked the model, and whose answer was not kept or did not come."""
        return [reason for reason in self.reasons if reason.outcome != Outcome.BYPASS]


def _series(period: Period) -> Iterable[Mapping[str, Any]]:
    """The sums of the period in its steps, and of the one before."""
    start, end, before, before_end = map(
        _at, (period.start, period.end, period.before, period.before_end)
    )
    rows = rollup.usage().filter(
        Q(hour__gte=before, hour__lt=before_end) | Q(hour__gte=start, hour__lt=end)
    )
    grouped = rows.annotate(is_current=Q(hour__gte=start)).values(
        "day" if period.by_day else "hour", "is_current", "outcome", "tier"
    )
    found: Iterable[Mapping[str, Any]] = grouped.annotate(**SUMMED).order_by()
    return found


def _lines(period: Period, name: str, top: int) -> list[Line]:
    by_outcome = {f"{each}s": Sum("calls", filter=Q(outcome=each), default=0) for each in Outcome}
    rows = _within(period).values(name).annotate(**SUMMED, **by_outcome)
    found = []
    for row in rows.order_by("-sum_cost_saved", "-sum_calls", name)[:top]:
        totals = Totals()
        totals.add(row, {str(outcome): int(row[f"{outcome}s"]) for outcome in Outcome})
        found.append(Line(row[name], totals))
    return found


def _reasons(period: Period, most: int) -> list[ReasonCount]:
    told = _within(period).exclude(reason_code="").exclude(outcome__in=SERVED)
    rows = told.values_list("outcome", "reason_code").annotate(calls=Sum("calls"))
    found = []
    for outcome, code, calls in rows.order_by("-calls", "reason_code")[:most]:
        known = CODES.get(code)
        words, remedy = (known.words, str(known.remedy)) if known else (code, "")
        found.append(ReasonCount(outcome, code, int(calls), words, remedy))
    return found


def _within(period: Period) -> Any:
    start, end = _at(period.start), _at(period.end)
    return rollup.usage().filter(hour__gte=start, hour__lt=end).order_by()


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
