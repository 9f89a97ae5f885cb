"""The dashboard: what the cache saves, which calls skip it, and whether it is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from llmcache.admin import charts, phrases
from llmcache.admin.base import ReadOnlyAdmin
from llmcache.admin.charts import Column, Drawing, Part
from llmcache.exceptions import InvalidArgument
from llmcache.models import Dashboard
from llmcache.outcomes import Outcome, Tier
from llmcache.providers.pricing import PER_DOLLAR
from llmcache.reports import formatting
from llmcache.reports.formatting import count
from llmcache.reports.health import Health
from llmcache.reports.periods import DAY, DEFAULT, NAMES, Period, read_period
from llmcache.reports.stored import Stored
from llmcache.reports.usage import Line, Totals, Usage

PERIODS: Final = {
    "24h": gettext_lazy("24 hours"),
    "7d": gettext_lazy("7 days"),
    "30d": gettext_lazy("30 days"),
}


OUTCOMES: Final = {
    Outcome.HIT: gettext_lazy("hit"),
    Outcome.STALE: gettext_lazy("stale"),
    Outcome.MISS: gettext_lazy("miss"),
    Outcome.RELOAD: gettext_lazy("reload"),
    Outcome.BYPASS: gettext_lazy("bypass"),
}
# A chart of calls goes up to two of them at least,
LEAST_CALLS: Final = 2
# and one of money to a thousandth of a dollar.
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


class PeriodForm(forms.Form):
    """Two days."""

    first = forms.DateField(label=gettext_lazy("From"), widget=forms.DateInput({"type": "date"}))
    last = forms.DateField(
        label=gettext_lazy("To"), required=False, widget=forms.DateInput({"type": "date"})
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            try:
                cleaned["period"] = read_period(first=cleaned["first"], last=cleaned["last"])
            except InvalidArgument:
                raise forms.ValidationError(
                    _("The first day is not after the last, nor in the future, nor ten years ago.")
                ) from None
        return cleaned


@admin.register(Dashboard)
class DashboardAdmin(ReadOnlyAdmin):
    """The ledger's own page, in the place of a list of its rows."""

    class Media:
        css = {"all": ("llmcache/admin.css", "llmcache/charts.css", "llmcache/dashboard.css")}

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [path("", self.admin_site.admin_view(self.page_view), name=name)]

    def page_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        period, form = _asked_for(request)
        context = {
            "title": _("Dashboard"),
            "period": period,
            "periods": [(name, PERIODS[name], name == period.name) for name in NAMES],
            "form": form,
            "span": _span(period),
            **_contents(period),
        }
        return self.page(request, "page", context)


def _asked_for(request: HttpRequest) -> tuple[Period, PeriodForm]:
    """The period that the address names; the usual one where it names none that there is."""
    if "first" in request.GET or "last" in request.GET:
        form = PeriodForm(request.GET)
        if form.is_valid():
            return form.cleaned_data["period"], form
    else:
        form = PeriodForm()
    name = request.GET.get("period", DEFAULT)
    return read_period(name if name in NAMES else DEFAULT), form


def _span(period: Period) -> str:
    """When it begins and ends."""
    last = period.end - (DAY if period.by_day and not period.end.hour else 0 * DAY)
    shape = "DATE_FORMAT" if period.by_day else "DATETIME_FORMAT"
    return _("%(first)s to %(last)s") % {
        "first": date_format(period.start, shape),
        "last": date_format(last, shape),
    }


def _contents(period: Period) -> dict[str, Any]:
    """All of it, by the names that the template knows."""
    health = Health.read()
    if health.tiers[0].error:
        return {"health": health}
    usage, stored = Usage.of(period), Stored.read(is_small=health.is_small_store)
    return {
        "health": health,
        "is_new": not (usage.totals.calls or usage.before.calls or stored.largest),
        "usage": usage,
        "tiles": _tiles(usage.totals, usage.before),
        "tiers": [
            (formatting.TIERS[tier], count(usage.tiers[tier]))
            for tier in Tier
            if tier in usage.tiers
        ],
        "drawings": [_calls(usage), _money(usage)] if usage.totals.calls else [],
        "heads": HEADS,
        # (each with its id, its title, the head of its first column, and its rows)
        "tables": [
            ("namespaces", _("By namespace"), _("Namespace"), _rows(usage.namespaces)),
            ("models", _("By model"), _("Model"), _rows(usage.models)),
            (
                "response-models",
                _("By response model"),
                _("Response model"),
                _rows(usage.response_models, phrases.class_name),
            ),
        ],
        # (each with what is said where there are none)
        "reasons": [
            (
                "bypasses",
                _("What skips the cache"),
                [(count(reason.calls), reason) for reason in usage.bypasses],
                _("Nothing. Every call could look into the store."),
            ),
            (
                "not-stored",
                _("What was asked and not stored"),
                [(count(reason.calls), reason) for reason in usage.not_stored],
                _("Nothing. Every answer of the model was stored."),
            ),
        ],
        "stored": stored,
        "most_valuable": [
            (entry, formatting.money(entry.saved), count(entry.hits))
            for entry in stored.most_valuable
        ],
        "spaces": [
            (space, count(space.entries), formatting.part(space.size / (stored.size or 1)))
            for space in stored.namespaces
        ],
    }


def _tiles(now: Totals, before: Totals) -> list[tuple[str, ...]]:
    """Numbers, each with its name, what it was before, how it differs, and a note."""
    unpriced = ngettext(
        "%(count)s call has no price.", "%(count)s calls have no price.", now.unpriced
    )
    return [
        (
            _("Hit ratio"),
            formatting.part(now.hit_ratio),
            formatting.part(before.hit_ratio),
            formatting.points(now.hit_ratio, before.hit_ratio),
            _("%(served)s of %(calls)s calls came from the store.")
            % {"served": count(now.served), "calls": count(now.calls)},
        ),
        (
            _("Money saved"),
            *_amounts(formatting.money, now.cost_saved, before.cost_saved),
            unpriced % {"count": count(now.unpriced)} if now.unpriced else "",
        ),
        (
            _("Money spent"),
            *_amounts(formatting.money, now.cost_spent, before.cost_spent),
            _("By calls that asked the model."),
        ),
        (
            _("Tokens saved"),
            *_amounts(formatting.rough, now.tokens_saved, before.tokens_saved),
            _("%(in)s in, %(out)s out")
            % {
                "in": formatting.rough(now.input_tokens_saved),
                "out": formatting.rough(now.output_tokens_saved),
            },
        ),
        (
            _("Time saved"),
            *_amounts(formatting.duration, now.seconds_saved, before.seconds_saved),
            _("That callers did not wait for a model."),
        ),
    ]


def _amounts(shown: Callable[[Any], str], now: Any, before: Any) -> tuple[str, str, str]:
    """An amount, the one before it, and how they differ."""
    return shown(now), shown(before), formatting.change(now, before)


def _calls(usage: Usage) -> Drawing:
    columns = []
    for label, name, totals in _steps(usage):
        calls = {outcome: totals.outcomes[outcome] for outcome in OUTCOMES}
        cells = [count(each) for each in calls.values()]
        parts = [
            Part(str(outcome), calls[outcome], f"{said}, {cell}")
            for (outcome, said), cell in zip(OUTCOMES.items(), cells, strict=True)
        ]
        columns.append(Column(label, name, parts, cells))
    chart = charts.stacked(columns, lambda value: formatting.rough(round(value)), least=LEAST_CALLS)
    legend = [(str(outcome), str(said)) for outcome, said in OUTCOMES.items()]
    heads = [said for _outcome, said in legend]
    return Drawing("calls", _("Calls over time, by outcome"), chart, columns, heads, legend)


def _money(usage: Usage) -> Drawing:
    columns = []
    for label, name, totals in _steps(usage):
        saved, spent = formatting.money(totals.cost_saved), formatting.money(totals.cost_spent)
        columns.append(
            Column(label, name, [Part("saved", totals.cost_saved, saved)], [saved, spent])
        )
    chart = charts.stacked(columns, lambda value: formatting.money(round(value)), least=LEAST_MONEY)
    heads = [_("saved"), _("spent")]
    return Drawing("money", _("Money saved over time"), chart, columns, heads)


def _steps(usage: Usage) -> Iterator[tuple[str, str, Totals]]:
    """For each step of the period, a label that fits below a chart on a phone, and its name."""
    period = usage.period
    label = "H:i" if period.end - period.start <= DAY else "j M"
    name = "j M" if period.by_day else "j M, H:i"
    for step in usage.steps:
        yield date_format(step.start, label), date_format(step.start, name), step.totals


def _rows(
    lines: Sequence[Line], shown: Callable[[str], str] = str
) -> list[tuple[str, str, list[str]]]:
    """For each line its name, what is shown of the name, and its cells."""
    return [(line.name, shown(line.name), _cells(line.totals)) for line in lines]


def _cells(totals: Totals) -> list[str]:
    return [
        count(totals.calls),
        formatting.part(totals.hit_ratio),
        formatting.money(totals.cost_saved),
        formatting.money(totals.cost_spent),
        formatting.rough(totals.tokens_saved),
        formatting.duration(totals.seconds_saved),
        count(totals.unpriced),
    ]
