"""Where rows and hot copies are in a test: databases and hot tiers, and how each fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import caches
from django.db import connection, connections
from django.db.backends.utils import CursorWrapper

from llmcache.models import CacheEntry
from tests.plugin import SERVERS
from tests.support import servers
from tests.support.servers import free_port


@dataclass(frozen=True)
class Backend:
    """Where rows and hot copies are."""

    database: str
    cache: str | None

    @property
    def llmcache(self) -> dict[str, Any]:
        return {"DATABASE": self.database, "CACHE": self.cache}


NEEDS = {
    "postgres": "LLMCACHE_TEST_POSTGRES",
    "mariadb": "LLMCACHE_TEST_MARIADB",
    "django-redis": "LLMCACHE_TEST_REDIS",
    "django": "LLMCACHE_TEST_REDIS",
    "redis": "LLMCACHE_TEST_REDIS",
}

MARKS = {
    "postgres": "postgres",
    "mariadb": "mariadb",
    **dict.fromkeys(["redis", "django-redis", "django"], "redis"),
}


def backend_parameters(databases: list[str], hot_tiers: list[str | None]) -> list[Any]:
    """Every combination, marked with the servers it needs and the databases it touches."""
    return [
        pytest.param(
            Backend(database, cache),
            id=f"{'sqlite' if database == 'default' else database}+{cache or 'rows only'}",
            marks=[
                pytest.mark.django_db(transaction=True, databases=sorted({"default", database})),
                *(getattr(pytest.mark, MARKS[name]) for name in (database, cache) if name in MARKS),
            ],
        )
        for database in databases
        for cache in hot_tiers
    ]


ALL_DATABASES = ["default", "postgres", "mariadb"]

ALL_HOT_TIERS: list[str | None] = [None, "database", "redis", "django-redis"]


def use_backend(request: pytest.FixtureRequest, settings: Any, chosen: Backend) -> Backend:
    for name in (chosen.database, chosen.cache):
        if name in NEEDS:
            servers.require(SERVERS[NEEDS[name]])
    request.getfixturevalue("_django_db_helper")
    settings.LLMCACHE = chosen.llmcache
    if chosen.cache is not None:
        caches[chosen.cache].clear()
    assert chosen.database in django_settings.DATABASES
    return chosen


# The backend of llmcache, and others on Redis.
OWN = "llmcache.backends.RedisCache"

REDIS = "django.core.cache.backends.redis.RedisCache"

DJANGO_REDIS = "django_redis.cache.RedisCache"

each = pytest.mark.parametrize(
    "backend_path", [OWN, REDIS, DJANGO_REDIS], ids=["own", "redis", "django-redis"]
)


@contextmanager
def unreachable(alias: str) -> Iterator[None]:
    """The database is not there for connections made inside; open ones are closed."""
    parameters = connections.settings[alias]
    original = dict(parameters)
    if alias == "default":
        parameters["NAME"] = "/a/directory/that/is/not/there/db.sqlite3"
    else:
        parameters["PORT"] = free_port()
    connections[alias].close()
    try:
        yield
    finally:
        connections[alias].close()
        parameters.update(original)


@contextmanager
def without_table() -> Iterator[None]:
    """Inside, every statement of llmcache fails: it names a table that is not there."""
    meta = CacheEntry._meta
    assert all(field.cached_col for field in meta.fields)  # kept for ever, with the table's name
    name, meta.db_table = meta.db_table, "a_table_that_is_not_there"
    try:
        yield
    finally:
        meta.db_table = name


def hold_the_write_lock() -> None:
    """As a view that has written something."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE llmcache_writegate SET id = id")


# One hot tier for each database: which it is does not matter here.
places = pytest.mark.parametrize(
    "backend",
    [
        *backend_parameters(["default"], ["database"]),
        *backend_parameters(["postgres"], ["redis"]),
        *backend_parameters(["mariadb"], [None]),
    ],
    indirect=True,
)


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements on all connections; those of the cache are on threads of their own."""
    seen: list[str] = []
    execute = CursorWrapper.execute

    def noted(self: Any, sql: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(sql)
        return execute(self, sql, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CursorWrapper, "execute", noted)
        yield seen


def parameters(backend_path: str, location: Any, **options: Any) -> dict[str, Any]:
    """An entry of ``CACHES``; no backend unpickles."""
    names = {REDIS: "serializer", DJANGO_REDIS: "SERIALIZER"}
    if backend_path in names:
        options[names[backend_path]] = "llmcache.serializers.BytesSerializer"
    return {"BACKEND": backend_path, "LOCATION": location, "OPTIONS": options}


def use(settings: Any, backend_path: str, location: str, **options: Any) -> None:
    params = parameters(backend_path, location, **options)
    settings.CACHES = {**settings.CACHES, "hot": params}
    settings.LLMCACHE = {"CACHE": "hot"}


class Undo(Exception):
    """The caller's transaction is rolled back."""
