"""What the dashboard shows of a period: numbers, charts and tables, made ready for its template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from llmcache.admin import charts, phrases
from llmcache.admin.charts import Chart, Column, Part
from llmcache.admin.drawings import Drawing
from llmcache.outcomes import Outcome, Tier
from llmcache.providers.pricing import PER_DOLLAR
from llmcache.reports import formatting
from llmcache.reports.health import Health
from llmcache.reports.periods import DAY, Period
from llmcache.reports.stored import Stored
from llmcache.reports.usage import Line, ReasonCount, Totals, Usage

OUTCOMES: Final = {
    Outcome.HIT: gettext_lazy("hit"),
    Outcome.STALE: gettext_lazy("stale"),
    Outcome.MISS: gettext_lazy("miss"),
    Outcome.RELOAD: gettext_lazy("reload"),
    Outcome.BYPASS: gettext_lazy("bypass"),
}
SAVED: Final = "saved"
# A chart of money goes up to a thousandth of a dollar at least.
LEAST_MONEY: Final = PER_DOLLAR // 1000
HEADS: Final = (
    gettext_lazy("Calls"),
    gettext_lazy("Hit ratio"),
    gettext_lazy("Saved"),
    gettext_lazy("Spent"),
    gettext_lazy("Tokens saved"),
    gettext_lazy("Time saved"),
    gettext_lazy("Unpriced"),
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One number, what it was in the period before, and how it differs."""

    name: str
    value: str
    before: str
    change: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """What has one name in common; `shown` may be less than the name."""

    name: str
    shown: str
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Table:
    id: str
    title: str
    head: str
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class ReasonTable:
    """Reasons, each with how many calls it was; `none` is said where there are none."""

    id: str
    title: str
    rows: list[tuple[str, ReasonCount]]
    none: str


def contents(period: Period) -> dict[str, Any]:
    """All of it, by the names that the template knows."""
    health = Health.read()
    if health.tiers[0].error:
        return {"health": health}
    usage, stored = Usage.of(period), Stored.read(is_small=health.is_small_store)
    return {
        "health": health,
        "is_new": not (usage.totals.calls or usage.before.calls or stored.largest),
        "usage": usage,
        "tiles": _tiles(usage),
        "drawings": [_calls(usage), _money(usage)] if usage.totals.calls else [],
        "heads": HEADS,
        "tables": [
            Table("namespaces", _("By namespace"), _("Namespace"), _rows(usage.namespaces)),
            Table("models", _("By model"), _("Model"), _rows(usage.models)),
            Table(
                "response-models",
                _("By response model"),
                _("Response model"),
                _rows(usage.response_models, phrases.class_name),
            ),
        ],
        "tiers": [
            (formatting.TIERS[tier], formatting.count(usage.tiers[tier]))
            for tier in Tier
            if tier in usage.tiers
        ],
        "reasons": [
            ReasonTable(
                "bypasses",
                _("What skips the cache"),
                _counted(usage.bypasses),
                _("Nothing. Every call could look into the store."),
            ),
            ReasonTable(
                "not-stored",
                _("What was asked and not stored"),
                _counted(usage.not_stored),
                _("Nothing. Every answer of the model was stored."),
            ),
        ],
        "stored": stored,
        "most_valuable": [
            (entry, formatting.money(entry.saved), formatting.count(entry.hits))
            for entry in stored.most_valuable
        ],
        "spaces": [
            (
                space,
                formatting.count(space.entries),
                formatting.part(space.size / (stored.size or 1)),
            )
            for space in stored.namespaces
        ],
    }


def _tiles(usage: Usage) -> list[Tile]:
    now, before = usage.totals, usage.before
    unpriced = ngettext(
        "%(count)s call has no price.", "%(count)s calls have no price.", now.unpriced
    ) % {"count": formatting.count(now.unpriced)}
    return [
        Tile(
            _("Hit ratio"),
            *_amounts(formatting.part, now.hit_ratio, before.hit_ratio, formatting.points),
            _("%(served)s of %(calls)s calls came from the store.")
            % {"served": formatting.count(now.served), "calls": formatting.count(now.calls)},
        ),
        Tile(
            _("Money saved"),
            *_amounts(formatting.money, now.cost_saved, before.cost_saved),
            unpriced if now.unpriced else "",
        ),
        Tile(
            _("Money spent"),
            *_amounts(formatting.money, now.cost_spent, before.cost_spent),
            _("By calls that asked the model."),
        ),
        Tile(
            _("Tokens saved"),
            *_amounts(formatting.rough, now.tokens_saved, before.tokens_saved),
            _("%(in)s in, %(out)s out")
            % {
                "in": formatting.rough(now.input_tokens_saved),
                "out": formatting.rough(now.output_tokens_saved),
            },
        ),
        Tile(
            _("Time saved"),
            *_amounts(formatting.duration, now.seconds_saved, before.seconds_saved),
            _("That callers did not wait for a model."),
        ),
    ]


def _amounts(
    shown: Callable[[Any], str],
    now: Any,
    before: Any,
    change: Callable[[Any, Any], str] = formatting.change,
) -> tuple[str, str, str]:
    """An amount, the one before it, and how they differ."""
    return shown(now), shown(before), change(now, before)


def _calls(usage: Usage) -> Drawing:
    return Drawing(
        "calls",
        _("Calls over time, by outcome"),
        _drawn(usage, _parts_by_outcome, lambda value: formatting.rough(round(value)), least=2),
        [(str(outcome), str(name)) for outcome, name in OUTCOMES.items()],
        [str(name) for name in OUTCOMES.values()],
        _by_step(
            usage, lambda totals: [formatting.count(totals.outcomes[each]) for each in OUTCOMES]
        ),
    )


def _money(usage: Usage) -> Drawing:
    return Drawing(
        "money",
        _("Money saved over time"),
        _drawn(usage, _part_saved, lambda value: formatting.money(round(value)), least=LEAST_MONEY),
        [],
        [_("saved"), _("spent")],
        _by_step(usage, _cells_of_money),
    )


def _parts_by_outcome(totals: Totals) -> list[Part]:
    calls = totals.outcomes
    return [
        Part(str(outcome), calls[outcome], f"{name}, {formatting.count(calls[outcome])}")
        for outcome, name in OUTCOMES.items()
    ]


def _part_saved(totals: Totals) -> list[Part]:
    return [Part(SAVED, totals.cost_saved, formatting.money(totals.cost_saved))]


def _cells_of_money(totals: Totals) -> list[str]:
    return [formatting.money(totals.cost_saved), formatting.money(totals.cost_spent)]


def _drawn(
    usage: Usage,
    parts: Callable[[Totals], list[Part]],
    label: Callable[[float], str],
    *,
    least: float,
) -> Chart:
    """A chart with a column for each step of the period."""
    name_of = _namer(usage.period)
    columns = [
        Column(_label(usage.period, step.start), name_of(step.start), parts(step.totals))
        for step in usage.steps
    ]
    return charts.stacked(columns, label, least=least)


def _by_step(usage: Usage, cells: Callable[[Totals], list[str]]) -> list[tuple[str, list[str]]]:
    """A row for each step of the period."""
    name_of = _namer(usage.period)
    return [(name_of(step.start), cells(step.totals)) for step in usage.steps]


def _label(period: Period, moment: datetime) -> str:
    """What stands below a chart; short, since there is no room on a phone."""
    return date_format(moment, "H:i" if period.end - period.start <= DAY else "j M")


def _namer(period: Period) -> Callable[[datetime], str]:
    """How the moments of a period are told apart."""
    return lambda moment: date_format(moment, "j M" if period.by_day else "j M, H:i")


def _counted(reasons: Sequence[ReasonCount]) -> list[tuple[str, ReasonCount]]:
    return [(formatting.count(reason.calls), reason) for reason in reasons]


def _rows(lines: Sequence[Line], shown: Callable[[str], str] = str) -> list[Row]:
    return [Row(line.name, shown(line.name), _cells(line.totals)) for line in lines]


def _cells(totals: Totals) -> list[str]:
    return [
        formatting.count(totals.calls),
        formatting.part(totals.hit_ratio),
        formatting.money(totals.cost_saved),
        formatting.money(totals.cost_spent),
        formatting.rough(totals.tokens_saved),
        formatting.duration(totals.seconds_saved),
        formatting.count(totals.unpriced),
    ]
