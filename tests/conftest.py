"""What the tests share: a model to ask, and the places where answers can be kept."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import caches

from llmcache import breakers, discretion
from llmcache.resilience import failsafe
from llmcache.usage import hits, ledger
from project.standin.server import StandIn
from tests.plugin import SERVERS
from tests.support import servers


@pytest.fixture
def model() -> Iterator[StandIn]:
    """A language model over HTTP: `model.calls` is what it was asked."""
    with StandIn() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def django_db_modify_db_settings_xdist_suffix() -> None:
    """Workers have servers of their own (see `plugin`): their databases need no other names."""


@pytest.fixture(scope="module", autouse=True)
def _leave_no_garbage() -> Iterator[None]:
    """What clients of SDKs have left open is no fault of the file that happens to run later."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def _ignored_garbage(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test ignores the warnings of is gone before the next one, which would fail for it."""
    yield
    if request.node.get_closest_marker("filterwarnings"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


@pytest.fixture(autouse=True)
def _forget_hits() -> Iterator[None]:
    """What one test counted is not written into the database of the next."""
    yield
    hits._take()
    ledger._forget()


@pytest.fixture(autouse=True)
def _tiers_at_work() -> Iterator[None]:
    """A tier that failed in one test is asked in the next."""
    yield
    breakers.breakers.update({side: breakers.Breaker() for side in breakers.SIDES})


@pytest.fixture(autouse=True)
def _untold() -> Iterator[None]:
    """What was said in one test is said again in the next."""
    yield
    failsafe._hinted.clear()
    discretion.once_a_minute.told.clear()


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
    "redis": "LLMCACHE_TEST_REDIS",
}
MARKS = {"postgres": "postgres", "mariadb": "mariadb", "django-redis": "redis", "redis": "redis"}


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


@pytest.fixture(params=backend_parameters(ALL_DATABASES, ALL_HOT_TIERS))
def backend(request: pytest.FixtureRequest, settings: Any) -> Backend:
    """Each combination of rows and hot tier in turn."""
    return use_backend(request, settings, request.param)


@pytest.fixture(params=backend_parameters(ALL_DATABASES, [None]))
def database(request: pytest.FixtureRequest, settings: Any) -> str:
    """Each database in turn, without a hot tier."""
    return use_backend(request, settings, request.param).database


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
