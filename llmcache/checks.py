"""System checks: what would go wrong at a call is said before, with an id and a way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from math import inf
from typing import Any, Final

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, router
from django.utils.module_loading import import_string

from llmcache.conf import DEFAULTS, Settings, entry, settings
from llmcache.serializers import BytesSerializer

PER_PROCESS: Final = {
    "django.core.cache.backends.locmem.LocMemCache",
    "django.core.cache.backends.dummy.DummyCache",
}
OWN: Final = "llmcache.backends.RedisCache"
DJANGO_REDIS: Final = "django_redis.cache.RedisCache"
DJANGOS_REDIS: Final = "django.core.cache.backends.redis.RedisCache"
# The option that names the serializer, by backend.
SERIALIZER_OPTIONS: Final = {DJANGO_REDIS: "SERIALIZER", DJANGOS_REDIS: "serializer"}

# The module of each queue, and how to get it.
QUEUES: Final = {
    "celery": ("celery", 'Install it: pip install "django-llmcache[celery]".'),
    "django": ("django.tasks", 'It takes Django 6.0 or newer; before, use "celery" or None.'),
}
REFRESH_LATER: Final = "llmcache.tasks.refresh_later"

MIDDLEWARE: Final = "llmcache.middleware.NamespaceMiddleware"

HINT_SETTINGS: Final = "See llmcache's docs/reference/settings.md."
HINT_SERIALIZER: Final = (
    f'Make "BACKEND": "{OWN}" of it, and use CACHES[{{alias!r}}] for llmcache alone. (Or add '
    '"OPTIONS": {{"{option}": "llmcache.serializers.BytesSerializer"}}.)'
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
    """E003: no such alias; W002: per process; E004: it would unpickle; E007: it cannot be used.

    W005: it waits for Redis otherwise than llmcache waits for it.
    """
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


@register("llmcache")
def check_tasks(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E008: the queue that work is to be handed over to is not there."""
    entries = getattr(django_settings, "LLMCACHE", {})
    is_wanted = isinstance(entries, Mapping) and (
        "TASKS" in entries or entries.get("REFRESH") == REFRESH_LATER
    )
    module, hint = QUEUES.get(_or_none("tasks"), ("", ""))
    if not is_wanted or not module or find_spec(module) is not None:
        return []
    said = f"The queue of LLMCACHE['TASKS'], {settings.tasks!r}, is not installed."
    return [Error(said, hint=hint, id="llmcache.E008")]


@register("llmcache")
def check_middleware(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W004: the namespace of requests is told, and nobody asks; or the other way round."""
    try:
        is_told = settings.request_namespace is not None
    except ImproperlyConfigured:  # (`check_settings` says so)
        return []
    is_asked = any(MIDDLEWARE in _class_and_its_bases(path) for path in django_settings.MIDDLEWARE)
    if is_told == is_asked:
        return []
    there, missing = "LLMCACHE['REQUEST_NAMESPACE']", f"{MIDDLEWARE!r} in MIDDLEWARE"
    if is_asked:
        there, missing = missing, there
    return [
        CheckWarning(
            f"There is {there}, but no {missing}: requests have no namespace of their own.",
            hint="Add the one, after what the function needs of the request, or remove the other.",
            id="llmcache.W004",
        )
    ]


def _entries_that_are_off() -> Iterator[CheckMessage]:
    for name, attribute in vars(Settings).items():
        if isinstance(attribute, entry):
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
            "skipped: answers come from the database.",
            hint="Name an alias on Redis or on Django's database cache, or set it to None.",
            id="llmcache.W002",
        )


def _unpickles(alias: str, cache: Mapping[str, Any]) -> Iterator[CheckMessage]:
    bases = _backend_and_its_bases(cache)
    if OWN in bases:
        return
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
    if not SERIALIZER_OPTIONS.keys() & set(_backend_and_its_bases(cache)):
        return
    try:
        timeouts = _timeouts_of(caches.create_connection(alias))
    except Exception as error:  # noqa: BLE001 - a backend's own classes may raise anything
        yield Error(
            f"CACHES[{alias!r}] cannot be used: {error} ({type(error).__name__}). "
            "Answers come from the database.",
            hint=f"Look for a typing error in LOCATION and OPTIONS of CACHES[{alias!r}].",
            id="llmcache.E007",
        )
    else:
        yield from _waits_otherwise(alias, cache, timeouts)


def _timeouts_of(cache: Any) -> list[float]:
    """How long a cache on Redis waits for a connection, and for a reply. No server is asked.

    Raises what its classes raise where the settings are off.
    """
    if hasattr(cache, "patience"):
        return [cache.patience]
    if hasattr(cache, "client"):  # (of django-redis)
        factory, [url, *_] = cache.client.connection_factory, cache.client._server  # noqa: SLF001
        pool = factory.get_connection_pool(factory.make_connection_params(url))
    else:
        pool = cache._cache._get_connection_pool(write=True)  # noqa: SLF001
    connection = pool.connection_class(**pool.connection_kwargs)
    return [each or inf for each in (connection.socket_connect_timeout, connection.socket_timeout)]


def _waits_otherwise(
    alias: str, cache: Mapping[str, Any], timeouts: list[float]
) -> Iterator[CheckMessage]:
    from llmcache.store.hot.aliases import OTHERS_SECONDS  # it takes a while, and is seldom needed

    lease = _or_none("lease_seconds")
    longest = max(timeouts, default=0.0)
    if OWN in _backend_and_its_bases(cache):
        if lease is not None and longest > lease / 2:
            yield CheckWarning(
                f"A question to CACHES[{alias!r}] may take {longest:g} seconds, and a lease runs "
                f"out after {lease:g}: it could be lost before it is renewed.",
                hint="Lower SOCKET_TIMEOUT and SOCKET_CONNECT_TIMEOUT in its OPTIONS, or raise "
                f"LLMCACHE['LEASE_SECONDS'] to at least {2 * longest:g}.",
                id="llmcache.W005",
            )
    elif longest > OTHERS_SECONDS:
        yield CheckWarning(
            f"CACHES[{alias!r}] waits for Redis for up to {longest:g} seconds, and llmcache waits "
            f"for {OTHERS_SECONDS:g}: a server that hangs holds its threads up for longer.",
            hint=f'Make "BACKEND": "{OWN}" of it, or set the timeouts in its OPTIONS to '
            f"{OTHERS_SECONDS:g} seconds or less.",
            id="llmcache.W005",
        )


def _backend_and_its_bases(cache: Mapping[str, Any]) -> list[str]:
    return _class_and_its_bases(cache.get("BACKEND", ""))


def _class_and_its_bases(path: str) -> list[str]:
    """The dotted paths of a class and what it inherits from; none when there is no such class."""
    try:
        found = import_string(path)
    except ImportError:
        return []
    bases = getattr(found, "__mro__", ())
    return [f"{base.__module__}.{base.__qualname__}" for base in bases]


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
