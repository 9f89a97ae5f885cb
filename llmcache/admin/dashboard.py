"""The dashboard: what the cache saves, which calls skip it, and whether it is well."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmcache.admin.base import ReadOnlyAdmin
from llmcache.admin.figures import contents
from llmcache.exceptions import InvalidArgument
from llmcache.reports.periods import DAY, DEFAULT, NAMES, Period, read_period

PERIODS: Final = {
    "24h": gettext_lazy("24 hours"),
    "7d": gettext_lazy("7 days"),
    "30d": gettext_lazy("30 days"),
}


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
            **contents(period),
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
