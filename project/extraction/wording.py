"""What happened, in words for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import openai
from django.urls import reverse
from pydantic import BaseModel

if TYPE_CHECKING:
    from llmcache.outcomes import Call

TIERS = {
    "local": "the copy in this process",
    "hot": "the hot tier, a copy in the shared cache",
    "durable": "the durable tier, the row in the database",
}

ASKED = {
    "miss": "Nothing was stored for this question.",
    "reload": "You wished it so. The new answer takes the place of the stored one.",
    "bypass": "This question went past the cache.",
}


@dataclass(frozen=True)
class Account:
    """How a call was answered."""

    call: Call

    @property
    def model_was_asked(self) -> bool:
        return self.call.outcome in ASKED

    @property
    def explanation(self) -> str:
        return ASKED.get(self.call.outcome) or _served(self.call)

    @property
    def duration(self) -> str:
        return duration(self.call.seconds)

    @property
    def admin_url(self) -> str:
        """The entry in the admin's list, which finds it by its key."""
        entries = reverse("admin:llmcache_cacheentry_changelist")
        return f"{entries}?{urlencode({'q': self.call.key})}"


def _served(call: Call) -> str:
    tier = TIERS.get(call.tier or "", "the cache")
    stale = " It is past its time and will be refreshed." if call.outcome == "stale" else ""
    return f"The answer came from {tier}.{stale}"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``3.4 ms``, ``0.84 s``."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"


@dataclass(frozen=True)
class Complaint:
    """Why there is no answer, what to do about it, and the status that says so over HTTP."""

    status: int
    problem: str
    way_out: str

    @classmethod
    def of(cls, error: Exception) -> Self:
        causes = (one for one in _chain(error) if isinstance(one, openai.OpenAIError))
        match next(causes, None):
            case openai.APITimeoutError():
                return cls(504, "The model did not answer in time.", "Try again in a moment.")
            case openai.APIConnectionError():
                return cls(503, "Nobody answers at the address of the model.", START_STAND_IN)
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return cls(502, "The provider does not accept the key.", "Check OPENAI_API_KEY.")
            case openai.RateLimitError():
                return cls(503, "The provider asks for a pause.", "Try again in a minute.")
            case openai.APIStatusError(status_code=status):
                return cls(502, f"The provider answered with status {status}.", TRY_ANOTHER)
        return cls(502, "The model’s answer does not fit the schema.", TRY_ANOTHER)


START_STAND_IN = (
    "Start the offline stand-in with “python manage.py standin --port 8001”, or set "
    "OPENAI_API_KEY to ask the real provider. Stored answers are served in the meantime."
)
TRY_ANOTHER = "Try again, or with another text. The server’s log has the details."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@dataclass(frozen=True)
class Field:
    """One field of an answer: a value, or a list of like things, each by the names of its parts."""

    label: str
    hint: str
    value: str | list[dict[str, str | None]] | None

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, list)


def fields(answer: BaseModel) -> list[Field]:
    """The answer, field by field, for a page."""
    return [
        Field(_label(name), described.description or "", _said_or_listed(getattr(answer, name)))
        for name, described in type(answer).model_fields.items()
    ]


def _said_or_listed(value: Any) -> str | list[dict[str, str | None]] | None:
    if not isinstance(value, list):
        return said(value)
    return [{_label(name): said(part) for name, part in thing} for thing in value]


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def said(value: Any) -> str | None:
    """One value in words; None where the text said nothing."""
    match value:
        case None:
            return None
        case bool():
            return "yes" if value else "no"
        case Enum():
            return str(value.value)
        case Decimal():
            return f"{value:,f}"
    return str(value)
