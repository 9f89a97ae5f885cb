"""The settings: ``LLMCACHE = {...}`` in the project's settings, read at each access.

Nothing is remembered between two accesses, so `override_settings` works and nothing is read at
import. `llmcache.checks` reads every property below and turns what it raises into a system check.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

DEFAULTS: dict[str, Any] = {
    "CACHE": "default",
    "DATABASE": None,
    "NAMESPACE": "default",
    "TTL": timedelta(days=30),
    "HOT_TTL": timedelta(hours=1),
    "LOCAL_TTL": 0,
    "LOCAL_ENTRIES": 1000,
    "STALE_WHILE_REVALIDATE": 0,
    "STALE_IF_ERROR": 0,
    "REFRESH": None,
    "LEASE_SECONDS": 10,
    "WAIT_SECONDS": 120,
    "MAX_ENTRY_BYTES": 1024 * 1024,
    "STORE_REQUESTS": "full",
    "ADMIT": None,
    "ENCRYPTION_KEYS": (),
    "COMPRESS_ABOVE": 4096,
    "PRICES": {},
}

LONGEST_TTL = timedelta(days=36_525)
LONGEST_SECONDS = LONGEST_TTL.total_seconds()
LONGEST_NAME = 255
HIGHEST_PRICE = 1_000_000

Redactor = Callable[[dict[str, Any]], dict[str, Any]]
Admit = Callable[[Any, Any], bool]
Refresh = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens of one model cost, in US dollars.

    `cached_input` is for the part of the input that the provider read from its own cache; None: as
    much as the rest.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None


def to_seconds(value: object) -> float | None:
    """Seconds of a time to live: an int, a float, a `timedelta`, or None for "no expiry".

    Raises `TypeError` for other types (`bool` is one of them) and `ValueError` for numbers that
    are negative, not finite, or longer than a hundred years.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise TypeError(f"{value!r} is not a number of seconds, a timedelta or None")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError(f"{value!r} is not between 0 and {LONGEST_TTL.days} days")
    return float(seconds)


def is_name(value: object) -> bool:
    """Whether a namespace or a tag may be called so: what every database stores unchanged."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_NAME
        and "\0" not in value
        and value.isprintable()
    )


def _read_prices(prices: Mapping[str, Any]) -> Prices:
    return Prices(**{name: _read_price(price) for name, price in prices.items()})


def _read_price(value: Any) -> Decimal:
    if isinstance(value, bool):
        raise TypeError("a price is a number")
    # By its written form: 0.1 is meant as a tenth.
    price = Decimal(str(value))
    if not 0 <= price <= HIGHEST_PRICE:
        raise ValueError("a price is not less than 0, nor absurd")
    return price


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


class Settings:
    """`LLMCACHE`, a typed property for each entry; each raises `ImproperlyConfigured` when off."""

    @property
    def cache(self) -> str | None:
        """Alias of the hot tier in `CACHES`; None: rows only."""
        return self._alias("CACHE")

    @property
    def database(self) -> str | None:
        """Alias of the database for the rows; None: what the routers say."""
        return self._alias("DATABASE")

    @property
    def namespace(self) -> str:
        """The namespace of clients that name none."""
        value = self._value("NAMESPACE")
        if not is_name(value):
            raise self._off("NAMESPACE", f"a printable string of 1 to {LONGEST_NAME} characters")
        return str(value)

    @property
    def ttl(self) -> float | None:
        """Seconds that an answer stays fresh when the call does not say; None: for ever."""
        return self._seconds("TTL")

    @property
    def hot_ttl(self) -> float:
        """The longest that a hot copy lives, in seconds."""
        seconds = self._seconds("HOT_TTL")
        if not seconds:
            raise self._off("HOT_TTL", "more than 0 seconds")
        return seconds

    @property
    def local_ttl(self) -> float:
        """The longest that a copy in this process lives, in seconds; 0: there are none."""
        return self._finite_seconds("LOCAL_TTL")

    @property
    def local_entries(self) -> int:
        """The most copies that a process holds."""
        return self._count("LOCAL_ENTRIES", "entries")

    @property
    def stale_while_revalidate(self) -> float:
        """Seconds after its expiry that an answer is still served, while a new one is fetched."""
        return self._finite_seconds("STALE_WHILE_REVALIDATE")

    @property
    def stale_if_error(self) -> float:
        """Seconds after its expiry that an answer is served when the provider fails."""
        return self._finite_seconds("STALE_IF_ERROR")

    @property
    def refresh(self) -> Refresh | None:
        """What is told the key of a stale entry that is to be refreshed; None: a thread does it."""
        value = self._value("REFRESH")
        if value is None:
            return None
        refresh = self._imported(value)
        if refresh is None:
            raise self._off("REFRESH", "None or the dotted path to a function")
        return refresh

    @property
    def lease_seconds(self) -> float:
        """How long the right to ask for a key outlives its holder. It is renewed meanwhile."""
        seconds = self._finite_seconds("LEASE_SECONDS")
        if seconds < 1:
            raise self._off("LEASE_SECONDS", "1 second or more")
        return seconds

    @property
    def wait_seconds(self) -> float:
        """The longest that a call waits for another one's answer, before it asks for itself."""
        return self._finite_seconds("WAIT_SECONDS")

    @property
    def max_entry_bytes(self) -> int:
        """Larger answers are returned, not stored."""
        return self._count("MAX_ENTRY_BYTES")

    @property
    def compress_above(self) -> int:
        """Payloads of more bytes are compressed."""
        return self._count("COMPRESS_ABOVE")

    @property
    def store_requests(self) -> str | Redactor:
        """``"full"``, ``"digest"`` (no prompt at rest), or the function that the path names."""
        value = self._value("STORE_REQUESTS")
        if value in ("full", "digest"):
            return str(value)
        redactor = self._imported(value)
        if redactor is None:
            raise self._off("STORE_REQUESTS", '"full", "digest" or the dotted path to a function')
        return redactor

    @property
    def admit(self) -> Admit | None:
        """The team's own rule over answer and completion; None: there is none."""
        value = self._value("ADMIT")
        if value is None:
            return None
        admit = self._imported(value)
        if admit is None:
            raise self._off("ADMIT", "None or the dotted path to a function")
        return admit

    @property
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

    @property
    def prices(self) -> dict[str, Prices]:
        """The team's own prices, by the name of the model; they win over those of genai-prices."""
        value = self._value("PRICES")
        try:
            return {str(model): _read_prices(prices) for model, prices in value.items()}
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            wanted = (
                "a dictionary: for each model, US dollars for a million tokens, as in "
                '{"my-model": {"input": "0.40", "output": "1.60", "cached_input": "0.10"}}, where '
                "the last may be left out"
            )
            raise self._off("PRICES", wanted) from error

    def _value(self, name: str) -> Any:
        entries = of_project("LLMCACHE", {})
        if type(entries) is not dict and not isinstance(entries, Mapping):
            raise ImproperlyConfigured("LLMCACHE must be a dictionary.")
        return entries.get(name, DEFAULTS[name])

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
        if self._value(name) is DEFAULTS[name] == 0:  # as it mostly is, and each hit asks
            return 0.0
        seconds = self._seconds(name)
        if seconds is None:
            raise self._off(name, "seconds or a timedelta")
        return seconds

    def _off(self, name: str, wanted: str) -> ImproperlyConfigured:
        return ImproperlyConfigured(
            f"LLMCACHE[{name!r}] must be {wanted}; it is {self._value(name)!r}."
        )


settings = Settings()
