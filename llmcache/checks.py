"""System checks: what would go wrong at a call is said before, with an id and a way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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


@register("llmcache")
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Whatever is known to go wrong with these settings. No server is asked."""
    checks = (_entries, _encryption, _hot_tier, _database, _queue, _middleware)
    return [message for check in checks for message in check()]


def _entries() -> Iterator[CheckMessage]:
    entries = getattr(django_settings, "LLMCACHE", {})
    if not isinstance(entries, Mapping):
        yield Error("LLMCACHE must be a dictionary.", hint=HINT_SETTINGS, id="llmcache.E001")
        return
    for name in sorted(set(entries) - set(DEFAULTS), key=repr):
        said = f"LLMCACHE[{name!r}] is not a setting of llmcache."
        yield CheckWarning(said, hint=HINT_SETTINGS, id="llmcache.W001")
    for name, attribute in vars(Settings).items():
        if isinstance(attribute, entry):
            try:
                getattr(settings, name)
            except ImproperlyConfigured as error:
                yield Error(str(error), hint=HINT_SETTINGS, id="llmcache.E002")


def _or_none(name: str) -> Any:
    """A setting, or None where `_entries` has something to say about it."""
    try:
        return getattr(settings, name)
    except ImproperlyConfigured:
        return None


@register("security", deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """What is no error, and should not be so where the prompts are those of other people."""
    if _or_none("encryption_keys") != ():
        return []
    return [
        CheckWarning(
            "LLMCACHE['ENCRYPTION_KEYS'] is empty: prompts and answers are stored in the clear, "
            "and whoever can write to Redis or to the rows can read them all, and put in answers "
            "of their own, which would be served.",
            hint="Make a key as llmcache's docs/how-to/security.md says.",
            id="llmcache.W006",
        )
    ]


def _encryption() -> Iterator[CheckMessage]:
    keys = _or_none("encryption_keys") or ()
    if len(set(keys)) < len(keys) or any(len(set(key)) == 1 for key in keys):
        yield Error(
            "LLMCACHE['ENCRYPTION_KEYS'] has a key twice, or one of which all bytes are the same: "
            "anybody could guess it.",
            hint="Make a key as llmcache's docs/how-to/security.md says.",
            id="llmcache.E009",
        )
    if keys and find_spec("cryptography") is None:
        yield Error(
            "LLMCACHE['ENCRYPTION_KEYS'] needs the library cryptography, which is not installed: "
            "nothing would be stored.",
            hint='Install it: pip install "django-llmcache[encryption]".',
            id="llmcache.E006",
        )


def _hot_tier() -> Iterator[CheckMessage]:
    alias = _or_none("cache")
    cache = django_settings.CACHES.get(alias, {})
    bases = _class_and_its_bases(cache.get("BACKEND", ""))
    if alias is not None and alias not in django_settings.CACHES:
        yield Error(
            f"LLMCACHE['CACHE'] is {alias!r}, which is not in CACHES.",
            hint="Name an alias of CACHES, or None to keep entries in the database only.",
            id="llmcache.E003",
        )
    elif PER_PROCESS.intersection(bases):
        yield CheckWarning(
            f"LLMCACHE['CACHE'] is {alias!r}, whose backend is not shared between processes. It is "
            "skipped: answers come from the database.",
            hint="Name an alias on Redis or on Django's database cache, or set it to None.",
            id="llmcache.W002",
        )
    elif options := [SERIALIZER_OPTIONS[base] for base in bases if base in SERIALIZER_OPTIONS]:
        yield from _redis(alias, options[0], cache.get("OPTIONS") or {}, is_own=OWN in bases)


def _redis(
    alias: str, option: str, options: Mapping[str, Any], *, is_own: bool
) -> Iterator[CheckMessage]:
    """`option` names the serializer in the `options` of the alias."""
    if not (is_own or _is_bytes_serializer(options.get(option))):
        yield Error(
            f"CACHES[{alias!r}] unpickles what it reads from Redis: whoever can write to Redis "
            "can run code here.",
            hint=f'Make "BACKEND": "{OWN}" of it, and use CACHES[{alias!r}] for llmcache alone. '
            f'(Or add "OPTIONS": {{"{option}": "llmcache.serializers.BytesSerializer"}}.)',
            id="llmcache.E004",
        )
        return
    try:
        longest = max(_timeouts_of(caches.create_connection(alias)))
    except Exception as error:  # noqa: BLE001 - a backend's own classes may raise anything
        yield Error(
            f"CACHES[{alias!r}] cannot be used: {error} ({type(error).__name__}). "
            "Answers come from the database.",
            hint=f"Look for a typing error in LOCATION and OPTIONS of CACHES[{alias!r}].",
            id="llmcache.E007",
        )
    else:
        yield from _waits_otherwise(alias, longest, is_own=is_own)


def _is_bytes_serializer(serializer: Any) -> bool:
    with suppress(ImportError):
        serializer = import_string(serializer) if isinstance(serializer, str) else serializer
    kind = serializer if isinstance(serializer, type) else type(serializer)
    return issubclass(kind, BytesSerializer)


def _timeouts_of(cache: Any) -> list[float]:
    """How long a cache on Redis waits for a connection, and for a reply.

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


def _waits_otherwise(alias: str, longest: float, *, is_own: bool) -> Iterator[CheckMessage]:
    from llmcache.store.hot.aliases import OTHERS_SECONDS  # it takes a while, and is seldom needed

    lease = _or_none("lease_seconds") or inf
    if is_own and longest > lease / 2:
        yield CheckWarning(
            f"A question to CACHES[{alias!r}] may take {longest:g} seconds, and a lease runs "
            f"out after {lease:g}: it could be lost before it is renewed.",
            hint="Lower SOCKET_TIMEOUT and SOCKET_CONNECT_TIMEOUT in its OPTIONS, or raise "
            f"LLMCACHE['LEASE_SECONDS'] to at least {2 * longest:g}.",
            id="llmcache.W005",
        )
    if not is_own and longest > OTHERS_SECONDS:
        yield CheckWarning(
            f"CACHES[{alias!r}] waits for Redis for up to {longest:g} seconds, and llmcache waits "
            f"for {OTHERS_SECONDS:g}: a server that hangs holds its threads up for longer.",
            hint=f'Make "BACKEND": "{OWN}" of it, or set the timeouts in its OPTIONS to '
            f"{OTHERS_SECONDS:g} seconds or less.",
            id="llmcache.W005",
        )


def _database() -> Iterator[CheckMessage]:
    from llmcache.models import CacheEntry  # checks are registered while models still load

    alias = _or_none("database")
    if alias is None:
        return
    if alias not in django_settings.DATABASES:
        yield Error(
            f"LLMCACHE['DATABASE'] is {alias!r}, which is not in DATABASES.",
            hint="Name an alias of DATABASES, or None to leave it to the routers.",
            id="llmcache.E005",
        )
    elif (routed := router.db_for_write(CacheEntry) or DEFAULT_DB_ALIAS) != alias:
        yield CheckWarning(
            f"LLMCACHE['DATABASE'] is {alias!r}, but the routers send the models of llmcache to "
            f"{routed!r}: migrations and queries of your own go there.",
            hint='Add "llmcache.routers.LLMCacheRouter" to the front of DATABASE_ROUTERS.',
            id="llmcache.W003",
        )


def _queue() -> Iterator[CheckMessage]:
    entries = getattr(django_settings, "LLMCACHE", {})
    is_wanted = isinstance(entries, Mapping) and (
        "TASKS" in entries or entries.get("REFRESH") == REFRESH_LATER
    )
    module, hint = QUEUES.get(_or_none("tasks"), ("", ""))
    if is_wanted and module and find_spec(module) is None:
        said = f"The queue of LLMCACHE['TASKS'], {settings.tasks!r}, is not installed."
        yield Error(said, hint=hint, id="llmcache.E008")


def _middleware() -> Iterator[CheckMessage]:
    try:
        is_told = settings.request_namespace is not None
    except ImproperlyConfigured:  # (`_entries` says so)
        return
    is_asked = any(MIDDLEWARE in _class_and_its_bases(path) for path in django_settings.MIDDLEWARE)
    if is_told == is_asked:
        return
    there, missing = "LLMCACHE['REQUEST_NAMESPACE']", f"{MIDDLEWARE!r} in MIDDLEWARE"
    if is_asked:
        there, missing = missing, there
    yield CheckWarning(
        f"There is {there}, but no {missing}: requests have no namespace of their own.",
        hint="Add the one, after what the function needs of the request, or remove the other.",
        id="llmcache.W004",
    )


def _class_and_its_bases(path: str) -> list[str]:
    """The dotted paths of a class and what it inherits from; none when there is no such class."""
    try:
        bases = getattr(import_string(path), "__mro__", ())
    except ImportError:
        return []
    return [f"{base.__module__}.{base.__qualname__}" for base in bases]
