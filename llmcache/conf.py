"""The settings: ``LLMCACHE = {...}`` in the project's settings.

Each entry is read once for each such dictionary, so `override_settings` works, nothing is read at
import, and a hit does not pay for it. Whether it is another dictionary is asked as each call and
each invalidation begins (one that is changed in place is the same one). `llmcache.checks` reads
every entry below and turns what it raises into a system check.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Generic, Self, TypeVar, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from llmcache.values import LONGEST_NAME, Prices, is_name, read_prices, to_seconds

T = TypeVar("T")

Redactor = Callable[[dict[str, Any]], dict[str, Any]]
Admit = Callable[[Any, Any], bool]
Refresh = Callable[[str], object]
RequestNamespace = Callable[[Any], Any]

NOTHING: Final[Mapping[str, Any]] = {}
#: What holds where the project says nothing, by the names of the entries.
DEFAULTS: Final[dict[str, Any]] = {}


class entry(Generic[T]):  # noqa: N801 - it is used as `cached_property` is
    """An attribute that is read once for each dictionary `LLMCACHE`. What it raises is not kept."""

    def __init__(
        self, default: object, wanted: str, read: Callable[[Any], T], *, is_secret: bool = False
    ) -> None:
        """`read` raises what `OFF` names for a value that is not what is `wanted`."""
        self._default = default
        self._wanted = wanted
        self._read = read
        self._is_secret = is_secret

    def __set_name__(self, owner: Any, name: str) -> None:
        self._attribute, self._name = name, name.upper()
        DEFAULTS[self._name] = self._default

    @overload
    def __get__(self, holder: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, holder: Settings, owner: Any) -> T: ...
    def __get__(self, holder: Settings | None, owner: Any) -> Self | T:
        if holder is None:
            return self
        known = holder.compare()
        value = known[self._attribute] = self._read_from(known["entries"])
        return value

    def _read_from(self, entries: Any) -> T:
        if not isinstance(entries, Mapping):
            raise ImproperlyConfigured("LLMCACHE must be a dictionary.")
        default = self._default
        if self._name == "NAMESPACE" and entries.get("REQUEST_NAMESPACE"):
            default = None  # where requests have namespaces, what is outside of them has none
        value = entries.get(self._name, default)
        try:
            return self._read(value)
        except OFF:
            shown = "" if self._is_secret else f"; it is {value!r}"
        # (here: the error above may show the value as well)
        raise ImproperlyConfigured(f"LLMCACHE[{self._name!r}] must be {self._wanted}{shown}.")


OFF: Final = (ArithmeticError, AttributeError, ImportError, TypeError, ValueError)


def _of_type(of: type[T]) -> Callable[[Any], T]:
    def read(value: Any) -> T:
        if not isinstance(value, of):
            raise TypeError
        return value

    return read


def _or_none(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else read(value)


def _seconds(*, least: float = 0, more_than: float = -1) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        seconds = to_seconds(value)
        if seconds is None or seconds < least or seconds <= more_than:
            raise ValueError
        return seconds

    return read


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _name(value: Any) -> str:
    if not is_name(value):
        raise ValueError
    return str(value)


def _function(path: Any) -> Callable[..., Any]:
    found = import_string(path)
    if not callable(found):
        raise TypeError
    return found  # type: ignore[no-any-return]


def _queue(value: Any) -> str:
    if value not in ("celery", "django"):
        raise ValueError
    return str(value)


def _requests(value: Any) -> str | Redactor:
    return str(value) if value in ("full", "redacted", "digest") else _function(value)


def _words(value: Any) -> frozenset[str]:
    if isinstance(value, str) or not all(isinstance(word, str) and word for word in value):
        raise TypeError
    return frozenset(map(str.lower, value))


def _keys(value: Any) -> tuple[bytes, ...]:
    if not isinstance(value, list | tuple):  # an empty string is no "no keys"
        raise TypeError
    keys = tuple(base64.b64decode(key, validate=True) for key in value)
    if any(len(key) not in {16, 24, 32} for key in keys):
        raise ValueError
    return keys


def _prices(value: Any) -> dict[str, Prices]:
    return {str(model): read_prices(prices) for model, prices in value.items()}


def _headers(value: Any) -> frozenset[str]:
    if not isinstance(value, list | tuple | set | frozenset) or not all(map(is_name, value)):
        raise TypeError
    return frozenset({name.lower() for name in value})


_A_FUNCTION: Final = "None or the dotted path to a function"
_BYTES: Final = "a whole number of bytes, 0 or more"
_LENGTH: Final = "seconds or a timedelta"
_NAME: Final = f"a printable string of 1 to {LONGEST_NAME} characters, or None"
_PRICES: Final = (
    "a dictionary: for each model, US dollars for a million tokens, as in "
    '{"my-model": {"input": "0.40", "output": "1.60", "cached_input": "0.10"}}, where the last may '
    "be left out"
)


class Settings:
    """`LLMCACHE`, a typed attribute for each entry; each raises `ImproperlyConfigured` when off."""

    def compare(self) -> dict[str, Any]:
        """What was read of `LLMCACHE`, beside it: nothing yet, where it is another dictionary."""
        known, entries = vars(self), getattr(django_settings, "LLMCACHE", NOTHING)
        if known.get("entries", self) is not entries:
            # (a new one: another thread may be about to note what it has read of the old)
            known = self.__dict__ = {"entries": entries}
        return known

    def forget(self) -> None:
        """Read each entry anew."""
        self.__dict__ = {}

    #: Alias of the hot tier in `CACHES`; None: rows only.
    cache = entry("default", "an alias or None", _or_none(_of_type(str)))
    #: Alias of the database for the rows; None: what the routers say.
    database = entry(None, "an alias or None", _or_none(_of_type(str)))
    #: The namespace of clients that name none; None: such calls are not cached.
    namespace = entry("default", _NAME, _or_none(_name))
    #: Whether a call without a namespace of its own is an error.
    require_namespace = entry(False, "True or False", _of_type(bool))
    #: The function that tells the namespace of a request; None: requests have none.
    request_namespace: entry[RequestNamespace | None] = entry(
        None, _A_FUNCTION, _or_none(_function)
    )
    #: Seconds that an answer stays fresh when the call does not say; None: for ever.
    ttl = entry(timedelta(days=30), "seconds, a timedelta or None", to_seconds)
    #: The longest that a hot copy lives, in seconds.
    hot_ttl = entry(timedelta(hours=1), "more than 0 seconds", _seconds(more_than=0))
    #: The longest that a copy in this process lives, in seconds; 0: there are none.
    local_ttl = entry(0, _LENGTH, _seconds())
    #: The most copies that a process holds.
    local_entries = entry(1000, "a whole number of entries, 0 or more", _count)
    #: Seconds after its expiry that an answer is still served, while a new one is fetched.
    stale_while_revalidate = entry(0, _LENGTH, _seconds())
    #: Seconds after its expiry that an answer is served when the provider fails.
    stale_if_error = entry(0, _LENGTH, _seconds())
    #: What is told the key of a stale entry that is to be refreshed; None: a thread does it.
    refresh: entry[Refresh | None] = entry(None, _A_FUNCTION, _or_none(_function))
    #: The queue that work is handed over to: ``"celery"``, ``"django"``, or None for none.
    tasks = entry("celery", '"celery", "django" or None', _or_none(_queue))
    #: How long the right to ask for a key outlives its holder. It is renewed meanwhile.
    lease_seconds = entry(10, "1 second or more", _seconds(least=1))
    #: The longest that a call waits for another one's answer, before it asks for itself.
    wait_seconds = entry(120, _LENGTH, _seconds())
    #: Larger answers are returned, not stored.
    max_entry_bytes = entry(1024 * 1024, _BYTES, _count)
    #: ``"full"``, ``"redacted"``, ``"digest"`` (no prompt at rest), or the function of the path.
    store_requests = entry(
        "full", '"full", "redacted", "digest" or the dotted path to a function', _requests
    )
    #: The team's own rule over answer and completion; None: there is none.
    admit: entry[Admit | None] = entry(None, _A_FUNCTION, _or_none(_function))
    #: Words of a gateway for an answer that is whole, in lower case, besides the known ones.
    finished_reasons = entry((), 'a list of words, as in ["eos"]', _words)
    #: AES keys, newest first.
    encryption_keys = entry(
        (), "a list of base64 strings, each of 16, 24 or 32 bytes", _keys, is_secret=True
    )
    #: Payloads of more bytes are compressed.
    compress_above = entry(4096, _BYTES, _count)
    #: The team's own prices, by the name of the model; they win over those of genai-prices.
    prices = entry({}, _PRICES, _prices)
    #: Headers that count in the key besides the known ones, by their names in lower case.
    key_headers = entry((), "a list of names of HTTP headers", _headers)


settings = Settings()


def _settings_changed(*, setting: str, **_: Any) -> None:
    """A test may have put the same dictionary back, with more in it."""
    if setting == "LLMCACHE":
        settings.forget()


setting_changed.connect(_settings_changed)
