"""Where the processes of a test keep their entries: on servers that the test may hurt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.servers import MariaDBServer, PostgreSQLServer


@dataclass(frozen=True)
class Site:
    """What a process has to know; `environment` is what `tests.settings` reads."""

    database: str
    cache: str | None
    environment: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def llmcache(self) -> dict[str, Any]:
        return {"DATABASE": self.database, "CACHE": self.cache, **self.settings}

    def but(self, **settings: Any) -> Site:
        """The same with other settings of llmcache."""
        return replace(self, settings={**self.settings, **settings})


def on_postgres(server: PostgreSQLServer, redis_url: str | None, directory: Path) -> Site:
    return Site("postgres", *_hot(redis_url, directory, LLMCACHE_TEST_POSTGRES=server.url))


def on_mariadb(server: MariaDBServer, redis_url: str | None, directory: Path) -> Site:
    return Site("mariadb", *_hot(redis_url, directory, LLMCACHE_TEST_MARIADB=server.url))


def on_sqlite(redis_url: str | None, directory: Path) -> Site:
    return Site("default", *_hot(redis_url, directory))


def sqlite_file(site: Site) -> Path:
    """The database of a site on SQLite."""
    return Path(site.environment["LLMCACHE_TEST_DIRECTORY"]) / "default.sqlite3"


def _hot(redis_url: str | None, directory: Path, **urls: str) -> tuple[str | None, dict[str, str]]:
    environment = {"LLMCACHE_TEST_DIRECTORY": str(directory), **urls}
    if redis_url is None:
        return None, environment
    return "redis", environment | {"LLMCACHE_TEST_REDIS": redis_url}
