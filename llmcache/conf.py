"""The settings: ``LLMCACHE = {...}`` in the project's settings.

Each entry is read once for each such dictionary, so `override_settings` works, nothing is read at
import, and a hit does not pay for it. (A dictionary that is changed in place is the same one.)
`llmcache.checks` reads every entry below and turns what it raises into a system check.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, Generic, Self, TypeVar, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from llmcache.values import LONGEST_NAME, Prices, is_name, read_prices, to_seconds

DEFAULTS: dict[str, Any] = {
    "CACHE": "default",
    "DATABASE": None,
    "NAMESPACE": "default",
    "REQUIRE_NAMESPACE": False,
    "REQUEST_NAMESPACE": None,
    "TTL": timedelta(days=30),
    "HOT_TTL": timedelta(hours=1),
    "LOCAL_TTL": 0,
    "LOCAL_ENTRIES": 1000,
    "STALE_WHILE_REVALIDATE": 0,
    "STALE_IF_ERROR": 0,
    "REFRESH": None,
    "TASKS": "celery",
    "LEASE_SECONDS": 10,
    "WAIT_SECONDS": 120,
    "MAX_ENTRY_BYTES": 1024 * 1024,
    "STORE_REQUESTS": "full",
    "ADMIT": None,
    "FINISHED_REASONS": (),
    "ENCRYPTION_KEYS": (),
    "COMPRESS_ABOVE": 4096,
    "PRICES": {},
    "KEY_HEADERS": (),
}

T = TypeVar("T")

Redactor = Callable[[dict[str, Any]], dict[str, Any]]
Admit = Callable[[Any, Any], bool]
Refresh = Callable[[str], object]
RequestNamespace = Callable[[Any], Any]


def of_project(name: str, default: Any = None) -> Any:
    """The project's setting of that name."""
    # Where Django keeps what was read before: each hit reads some settings, and an attribute of
    # Django's lazy object takes ten times as long.
    try:
        return _read_before[name]
    except KeyError:
        return getattr(django_settings, name, default)


# (It is emptied when a setting is changed.)
_read_before: Final = vars(django_settings)


class entry(Generic[T]):  # noqa: N801 - it is used as `property` is
    """A property that is read once for each dictionary `LLMCACHE`. What it raises is not kept."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self._name = read.__name__
        self.__doc__ = read.__doc__

    @overload
    def __get__(self, holder: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, holder: Settings, owner: Any) -> T: ...
    def __get__(self, holder: Settings | None, owner: Any) -> Self | T:
        if holder is None:
            return self
        entries, known = holder.known
        # (a call of `of_project` is what most have no need of)
        if entries is not (_read_before.get("LLMCACHE") or of_project("LLMCACHE", NOTHING)):
            known = holder.start_anew()
        if self._name not in known:
            known[self._name] = self._read(holder)
        return known[self._name]  # type: ignore[no-any-return]


NOTHING: Final[Mapping[str, Any]] = {}


class Settings:
    """`LLMCACHE`, a typed property for each entry; each raises `ImproperlyConfigured` when off."""

    #: A dictionary `LLMCACHE`, and what was read of it by now.
    known: tuple[Any, dict[str, Any]] = (None, {})

    def start_anew(self) -> dict[str, Any]:
        """Forget what was read of another dictionary."""
        self.known = of_project("LLMCACHE", NOTHING), {}
        return self.known[1]

    @entry
    def cache(self) -> str | None:
        """Alias of the hot tier in `CACHES`; None: rows only."""
        return self._alias("CACHE")

    @entry
    def database(self) -> str | None:
        """Alias of the database for the rows; None: what the routers say."""
        return self._alias("DATABASE")

    @entry
    def namespace(self) -> str | None:
        """The namespace of clients that name none; None: such calls are not cached.

        Where requests have namespaces, what is outside of them has none, unless it is said here.
        """
        value = self._value("NAMESPACE")
        entries = of_project("LLMCACHE", NOTHING)
        if entries.get("REQUEST_NAMESPACE") and "NAMESPACE" not in entries:
            return None
        if value is not None and not is_name(value):
            wanted = f"a printable string of 1 to {LONGEST_NAME} characters, or None"
            raise self._off("NAMESPACE", wanted)
        return None if value is None else str(value)

    @entry
    def require_namespace(self) -> bool:
        """Whether a call without a namespace of its own is an error."""
        value = self._value("REQUIRE_NAMESPACE")
        if not isinstance(value, bool):
            raise self._off("REQUIRE_NAMESPACE", "True or False")
        return value

    @entry
    def request_namespace(self) -> RequestNamespace | None:
        """The function that tells the namespace of a request; None: requests have none."""
        return self._function("REQUEST_NAMESPACE")

    @entry
    def ttl(self) -> float | None:
        """Seconds that an answer stays fresh when the call does not say; None: for ever."""
        return self._seconds("TTL")

    @entry
    def hot_ttl(self) -> float:
        """The longest that a hot copy lives, in seconds."""
        seconds = self._seconds("HOT_TTL")
        if not seconds:
            raise self._off("HOT_TTL", "more than 0 seconds")
        return seconds

    @entry
    def local_ttl(self) -> float:
        """The longest that a copy in this process lives, in seconds; 0: there are none."""
        return self._finite_seconds("LOCAL_TTL")

    @entry
    def local_entries(self) -> int:
        """The most copies that a process holds."""
        return self._count("LOCAL_ENTRIES", "entries")

    @entry
    def stale_while_revalidate(self) -> float:
        """Seconds after its expiry that an answer is still served, while a new one is fetched."""
        return self._finite_seconds("STALE_WHILE_REVALIDATE")

    @entry
    def stale_if_error(self) -> float:
        """Seconds after its expiry that an answer is served when the provider fails."""
        return self._finite_seconds("STALE_IF_ERROR")

    @entry
    def refresh(self) -> Refresh | None:
        """What is told the key of a stale entry that is to be refreshed; None: a thread does it."""
        return self._function("REFRESH")

    @entry
    def tasks(self) -> str | None:
        """The queue that work is handed over to: ``"celery"``, ``"django"``, or None for none."""
        value = self._value("TASKS")
        if value not in ("celery", "django", None):
            raise self._off("TASKS", '"celery", "django" or None')
        return None if value is None else str(value)

    @entry
    def lease_seconds(self) -> float:
        """How long the right to ask for a key outlives its holder. It is renewed meanwhile."""
        seconds = self._finite_seconds("LEASE_SECONDS")
        if seconds < 1:
            raise self._off("LEASE_SECONDS", "1 second or more")
        return seconds

    @entry
    def wait_seconds(self) -> float:
        """The longest that a call waits for another one's answer, before it asks for itself."""
        return self._finite_seconds("WAIT_SECONDS")

    @entry
    def max_entry_bytes(self) -> int:
        """Larger answers are returned, not stored."""
        return self._count("MAX_ENTRY_BYTES")

    @entry
    def compress_above(self) -> int:
        """Payloads of more bytes are compressed."""
        return self._count("COMPRESS_ABOVE")

    @entry
    def store_requests(self) -> str | Redactor:
        """``"full"``, ``"digest"`` (no prompt at rest), or the function that the path names."""
        value = self._value("STORE_REQUESTS")
        if value in ("full", "digest"):
            return str(value)
        redactor = self._imported(value)
        if redactor is None:
            raise self._off("STORE_REQUESTS", '"full", "digest" or the dotted path to a function')
        return redactor

    @entry
    def admit(self) -> Admit | None:
        """The team's own rule over answer and completion; None: there is none."""
        return self._function("ADMIT")

    @entry
    def finished_reasons(self) -> frozenset[str]:
        """Words of a gateway for an answer that is whole, in lower case, besides the known ones."""
        value = self._value("FINISHED_REASONS")
        if isinstance(value, str) or not isinstance(value, Iterable):
            value = ("",)
        words = tuple(value)
        if not all(isinstance(word, str) and word for word in words):
            raise self._off("FINISHED_REASONS", 'a list of words, as in ["eos"]')
        return frozenset(map(str.lower, words))

    @entry
    def encryption_keys(self) -> tuple[bytes, ...]:
        """AES keys, newest first; base64 of 16, 24 or 32 bytes in the settings."""
        value = self._value("ENCRYPTION_KEYS")
        if value == () or value == []:
            return ()
        try:
            keys = tuple(base64.b64decode(key, validate=True) for key in value)
        except (TypeError, ValueError):
            keys = (b"",)
        if not isinstance(value, list | tuple):  # an empty string is no "no keys"
            keys = (b"",)
        if any(len(key) not in {16, 24, 32} for key in keys):
            # The value stays out of the message: it is a secret.
            raise ImproperlyConfigured(
                "LLMCACHE['ENCRYPTION_KEYS'] must be a list of base64 strings, each of 16, 24 or "
                "32 bytes."
            )
        return keys

    @entry
    def prices(self) -> dict[str, Prices]:
        """The team's own prices, by the name of the model; they win over those of genai-prices."""
        value = self._value("PRICES")
        try:
            return {str(model): read_prices(prices) for model, prices in value.items()}
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            wanted = (
                "a dictionary: for each model, US dollars for a million tokens, as in "
                '{"my-model": {"input": "0.40", "output": "1.60", "cached_input": "0.10"}}, where '
                "the last may be left out"
            )
            raise self._off("PRICES", wanted) from error

    @entry
    def key_headers(self) -> frozenset[str]:
        """Headers that count in the key besides the known ones, by their names in lower case."""
        value = self._value("KEY_HEADERS")
        if not isinstance(value, list | tuple | set | frozenset) or not all(map(is_name, value)):
            raise self._off("KEY_HEADERS", "a list of names of HTTP headers")
        return frozenset({name.lower() for name in value})

    def _value(self, name: str) -> Any:
        entries = of_project("LLMCACHE", NOTHING)
        if not isinstance(entries, Mapping):
            raise ImproperlyConfigured("LLMCACHE must be a dictionary.")
        return entries.get(name, DEFAULTS[name])

    def _function(self, name: str) -> Callable[..., Any] | None:
        value = self._value(name)
        if value is None:
            return None
        function = self._imported(value)
        if function is None:
            raise self._off(name, "None or the dotted path to a function")
        return function

    def _imported(self, path: Any) -> Callable[..., Any] | None:
        """The function with this dotted path; None when there is none."""
        try:
            found = import_string(path)
        except (ImportError, TypeError, ValueError, AttributeError):
            return None
        return found if callable(found) else None

    def _alias(self, name: str) -> str | None:
        value = self._value(name)
        if value is not None and not isinstance(value, str):
            raise self._off(name, "an alias or None")
        return value

    def _count(self, name: str, of: str = "bytes") -> int:
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._off(name, f"a whole number of {of}, 0 or more")
        return value

    def _seconds(self, name: str) -> float | None:
        try:
            return to_seconds(self._value(name))
        except (TypeError, ValueError) as error:
            raise self._off(name, "seconds, a timedelta or None") from error

    def _finite_seconds(self, name: str) -> float:
        seconds = self._seconds(name)
        if seconds is None:
            raise self._off(name, "seconds or a timedelta")
        return seconds

    def _off(self, name: str, wanted: str) -> ImproperlyConfigured:
        return ImproperlyConfigured(
            f"LLMCACHE[{name!r}] must be {wanted}; it is {self._value(name)!r}."
        )


settings = Settings()


def _settings_changed(*, setting: str, **_: Any) -> None:
    """A test may have put the same dictionary back, with more in it."""
    if setting == "LLMCACHE":
        settings.start_anew()


setting_changed.connect(_settings_changed)
