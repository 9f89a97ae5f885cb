"""System checks: what would go wrong at a call is said before, with an id and a way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, router
from django.utils.module_loading import import_string

from llmcache.conf import DEFAULTS, Settings, settings
from llmcache.serializers import BytesSerializer

PER_PROCESS: Final = {
    "django.core.cache.backends.locmem.LocMemCache",
    "django.core.cache.backends.dummy.DummyCache",
}
DJANGO_REDIS: Final = "django_redis.cache.RedisCache"
DJANGOS_REDIS: Final = "django.core.cache.backends.redis.RedisCache"
# The option that names the serializer, by backend.
SERIALIZER_OPTIONS: Final = {DJANGO_REDIS: "SERIALIZER", DJANGOS_REDIS: "serializer"}

HINT_SETTINGS: Final = "See the table of settings in llmcache's README."
HINT_SERIALIZER: Final = (
    'Add "OPTIONS": {{"{option}": "llmcache.serializers.BytesSerializer"}} to '
    "CACHES[{alias!r}], and use that alias for llmcache alone."
)


@register("llmcache")
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001: the setting is not a dictionary; W001: an unknown entry; E002: an entry that is off."""
    entries = getattr(django_settings, "LLMCACHE", {})
    if not isinstance(entries, Mapping):
        return [Error("LLMCACHE must be a dictionary.", hint=HINT_SETTINGS, id="llmcache.E001")]
    unknown = [
        CheckWarning(
            f"LLMCACHE[{name!r}] is not a setting of llmcache.",
            hint=HINT_SETTINGS,
            id="llmcache.W001",
        )
        for name in sorted(set(entries) - set(DEFAULTS), key=repr)
    ]
    return [*unknown, *_entries_that_are_off()]


@register("llmcache")
def check_encryption(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E006: keys are configured, and the library that encrypts is not installed."""
    if not _or_none("encryption_keys") or find_spec("cryptography") is not None:
        return []
    return [
        Error(
            "LLMCACHE['ENCRYPTION_KEYS'] needs the library cryptography, which is not installed: "
            "nothing would be stored.",
            hint='Install it: pip install "django-llmcache[encryption]".',
            id="llmcache.E006",
        )
    ]


@register("llmcache")
def check_hot_tier(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E003: no such alias; W002: per process; E004: it would unpickle; E007: it cannot be used."""
    alias = _or_none("cache")
    if alias is None:
        return []
    cache = django_settings.CACHES.get(alias)
    if cache is None:
        return [
            Error(
                f"LLMCACHE['CACHE'] is {alias!r}, which is not in CACHES.",
                hint="Name an alias of CACHES, or None to keep entries in the database only.",
                id="llmcache.E003",
            )
        ]
    wrong = [*_per_process(alias, cache), *_unpickles(alias, cache)]
    return wrong or [*_cannot_be_used(alias, cache)]


@register("llmcache")
def check_database(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E005: no such alias; W003: the routers send the tables elsewhere."""
    alias = _or_none("database")
    if alias is None:
        return []
    if alias not in django_settings.DATABASES:
        return [
            Error(
                f"LLMCACHE['DATABASE'] is {alias!r}, which is not in DATABASES.",
                hint="Name an alias of DATABASES, or None to leave it to the routers.",
                id="llmcache.E005",
            )
        ]
    return [*_routed_elsewhere(alias)]


def _entries_that_are_off() -> Iterator[CheckMessage]:
    for name, attribute in vars(Settings).items():
        if isinstance(attribute, property):
            try:
                getattr(settings, name)
            except ImproperlyConfigured as error:
                yield Error(str(error), hint=HINT_SETTINGS, id="llmcache.E002")


def _or_none(name: str) -> Any:
    """A setting, or None where `check_settings` has something to say about it."""
    try:
        return getattr(settings, name)
    except ImproperlyConfigured:
        return None


def _per_process(alias: str, cache: Mapping[str, Any]) -> Iterator[CheckMessage]:
    if PER_PROCESS.intersection(_backend_and_its_bases(cache)):
        yield CheckWarning(
            f"LLMCACHE['CACHE'] is {alias!r}, whose backend is not shared between processes. It is "
            "passed over: answers come from the database.",
            hint="Name an alias on Redis or on Django's database cache, or set it to None.",
            id="llmcache.W002",
        )


def _unpickles(alias: str, cache: Mapping[str, Any]) -> Iterator[CheckMessage]:
    bases = _backend_and_its_bases(cache)
    option = next((SERIALIZER_OPTIONS[base] for base in bases if base in SERIALIZER_OPTIONS), None)
    if option is None:
        return
    serializer = (cache.get("OPTIONS") or {}).get(option)
    if not _is_bytes_serializer(serializer):
        yield Error(
            f"CACHES[{alias!r}] unpickles what it reads from Redis: whoever can write to Redis "
            "can run code here.",
            hint=HINT_SERIALIZER.format(option=option, alias=alias),
            id="llmcache.E004",
        )


def _cannot_be_used(alias: str, cache: Mapping[str, Any]) -> Iterator[CheckMessage]:
    from llmcache.store import twins  # it takes a while, and most starts check nothing

    if not SERIALIZER_OPTIONS.keys() & set(_backend_and_its_bases(cache)):
        return
    try:
        twins.try_out(cache)
    except Exception as error:  # noqa: BLE001 - a backend's own classes may raise anything
        yield Error(
            f"CACHES[{alias!r}] cannot be used: {error} ({type(error).__name__}). "
            "Answers come from the database.",
            hint=f"Look for a typing error in LOCATION and OPTIONS of CACHES[{alias!r}].",
            id="llmcache.E007",
        )


def _backend_and_its_bases(cache: Mapping[str, Any]) -> list[str]:
    """The dotted paths of a backend's class and what it inherits from; none when it has none."""
    try:
        backend = import_string(cache.get("BACKEND", ""))
    except ImportError:
        return []
    return [f"{base.__module__}.{base.__qualname__}" for base in backend.__mro__]


def _is_bytes_serializer(serializer: Any) -> bool:
    try:
        found = import_string(serializer) if isinstance(serializer, str) else serializer
    except ImportError:
        return False
    return isinstance(found, BytesSerializer) or (
        isinstance(found, type) and issubclass(found, BytesSerializer)
    )


def _routed_elsewhere(alias: str) -> Iterator[CheckMessage]:
    from llmcache.models import CacheEntry  # checks are registered while models still load

    routed = router.db_for_write(CacheEntry) or DEFAULT_DB_ALIAS
    if routed != alias:
        yield CheckWarning(
            f"LLMCACHE['DATABASE'] is {alias!r}, but the routers send the models of llmcache to "
            f"{routed!r}: migrations and queries of your own go there.",
            hint='Add "llmcache.routers.LLMCacheRouter" to the front of DATABASE_ROUTERS.',
            id="llmcache.W003",
        )
