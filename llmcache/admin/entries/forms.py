"""The forms of the pages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from llmcache.admin.entries.search import prompt_help
from llmcache.background.transactions import database_alias
from llmcache.exceptions import InvalidArgument
from llmcache.policy import read_tags
from llmcache.removal.criteria import InvalidationCriteria, read_criteria
from llmcache.store.rows.search import can_search
from llmcache.values import LONGEST_NAME

# Criteria of which the values that there are can be suggested.
VALUES: Final = ("namespace", "model", "response_model")

TIMES: Final[dict[str, tuple[timedelta | None, Any]]] = {
    "hour": (timedelta(hours=1), _("in an hour")),
    "day": (timedelta(days=1), _("in a day")),
    "week": (timedelta(days=7), _("in a week")),
    "month": (timedelta(days=30), _("in 30 days")),
    "year": (timedelta(days=365), _("in a year")),
    "never": (None, _("never")),
    "now": (timedelta(), _("now")),
}


class TimeForm(forms.Form):
    """When an entry is to expire, from now."""

    expires = forms.ChoiceField(
        label=_("Expires"),
        choices=[(name, label) for name, (_time, label) in TIMES.items()],
        initial="week",
    )

    @property
    def ttl(self) -> float | None:
        """Seconds; None: never."""
        time, _label = TIMES[self.cleaned_data["expires"]]
        return None if time is None else time.total_seconds()


class TagsForm(forms.Form):
    """The labels of an entry."""

    tags = forms.CharField(
        label=_("Tags, one a line"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "cols": 40}),
    )

    def clean_tags(self) -> frozenset[str]:
        return _read_lines(self.cleaned_data["tags"])


class CriteriaForm(forms.Form):
    """Which entries are to be invalidated; what is left empty does not count."""

    namespace = forms.CharField(label=_("Namespace"), required=False, max_length=LONGEST_NAME)
    model = forms.CharField(label=_("Model"), required=False, max_length=LONGEST_NAME)
    response_model = forms.CharField(
        label=_("Response model"),
        required=False,
        max_length=LONGEST_NAME,
        help_text=_("The dotted path of the class, as in “shop.models.Ticket”."),
    )
    tags = forms.CharField(
        label=_("Tags"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("One a line. Entries that have one of them."),
    )
    age = forms.IntegerField(label=_("Stored more than"), required=False, min_value=1)
    unit = forms.ChoiceField(
        choices=[("hours", _("hours ago")), ("days", _("days ago")), ("weeks", _("weeks ago"))],
        initial="days",
        required=False,
        widget=forms.Select(attrs={"aria-label": _("Unit of the age")}),
    )
    text = forms.CharField(label=_("Words of the prompt"), required=False, max_length=1000)
    everything = forms.BooleanField(
        label=_("All entries of all namespaces"),
        required=False,
        help_text=_("To be ticked where nothing else is given."),
    )

    def __init__(self, *args: Any, may_read: bool, **kwargs: Any) -> None:
        """`may_read`: who asks may read prompts, and so may look for them by their words."""
        super().__init__(*args, **kwargs)
        self._now = timezone.now()
        text, forbidden = (
            self.fields["text"],
            _("Takes the permission to read prompts and answers."),
        )
        text.disabled = not (may_read and can_search(database_alias()))
        text.help_text = prompt_help() if may_read else forbidden
        for name in VALUES:
            self.fields[name].widget.attrs["list"] = f"llmcache-{name}"

    def clean_tags(self) -> frozenset[str] | None:
        return _read_lines(self.cleaned_data["tags"]) or None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                cleaned["criteria"] = read_criteria(**self._arguments(cleaned))
            except InvalidArgument as error:
                raise forms.ValidationError(str(error)) from None
        return cleaned

    def _arguments(self, cleaned: dict[str, Any]) -> InvalidationCriteria:
        given = {name: cleaned.get(name) or None for name in (*VALUES, "tags", "text")}
        if age := cleaned.get("age"):
            try:
                given["before"] = self._now - timedelta(**{cleaned.get("unit") or "days": age})
            except OverflowError:
                raise forms.ValidationError(_("So long ago nothing was stored.")) from None
        is_narrowed = any(value is not None for value in given.values())
        if is_narrowed is bool(cleaned.get("everything")):
            raise forms.ValidationError(
                _("Give at least one criterion, or tick “all entries of all namespaces”; not both.")
            )
        arguments: Any = given | {"everything": not is_narrowed}
        return arguments  # type: ignore[no-any-return]


def _read_lines(text: str) -> frozenset[str]:
    """Tags, one a line."""
    try:
        return read_tags([tag for line in text.splitlines() if (tag := line.strip())])
    except InvalidArgument as error:
        raise forms.ValidationError(str(error)) from None


def first_error(form: forms.Form) -> str:
    """What is wrong with a form, for a message."""
    errors: Any = form.errors
    return str(next(iter(errors.values()))[0])
