"""What the tests share: a model to ask, and the places where answers can be kept."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import pytest
from django.apps import apps
from django.core.management.commands import flush
from django.db.models.signals import post_migrate
from redis.connection import AbstractConnection

from llmcache import breakers, discretion
from llmcache.outcomes import Tier
from llmcache.resilience import failsafe, recovery
from llmcache.store.hot import aliases
from llmcache.usage import hits, ledger
from project.standin.server import StandIn
from tests.support.backends import (
    ALL_DATABASES,
    ALL_HOT_TIERS,
    Backend,
    backend_parameters,
    use_backend,
)


@pytest.fixture
def model() -> Iterator[StandIn]:
    """A language model over HTTP: `model.calls` is what it was asked."""
    with StandIn() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def django_db_modify_db_settings_xdist_suffix() -> None:
    """Workers have servers of their own (see `plugin`): their databases need no other names."""


@pytest.fixture(scope="session", autouse=True)
def _quick_flush() -> Iterator[None]:
    """A test that committed leaves its tables empty, in a tenth of the time that Django takes.

    Content types and permissions stay as they are, so they need not be made anew each time, and
    only llmcache hears of it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "sql_flush", _sql_to_flush)
        patch.setattr(flush, "emit_post_migrate_signal", _tell_llmcache)
        yield


def _sql_to_flush(style: Any, connection: Any, **options: bool) -> list[str]:
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    emptied = [name for name in tables if name not in ("django_content_type", "auth_permission")]
    statements: list[str] = connection.ops.sql_flush(style, emptied, **options)
    return statements


def _tell_llmcache(verbosity: int, interactive: bool, db: str) -> None:
    app = apps.get_app_config("llmcache")
    post_migrate.send(app, app_config=app, verbosity=verbosity, interactive=interactive, using=db)


def pytest_collection_finish() -> None:
    """What has been imported stays: no collection of garbage has to look through it again."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # (what reports about the run looks for what refers to what)


@pytest.fixture(scope="module", autouse=True)
def _leave_no_garbage() -> Iterator[None]:
    """What clients of SDKs have left open is no fault of the file that happens to run later."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        _end_threads_of_other_caches()
        gc.collect()
    gc.freeze()


def _end_threads_of_other_caches() -> None:
    """Each has sockets of the libraries of these caches, which nobody closes."""
    there = list(aliases._others._there)
    aliases._others.pause()
    for thread in there:
        thread.join(1)
    aliases._others.resume()


@pytest.fixture(autouse=True)
def _ignored_garbage(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test ignores the warnings of is gone before the next one, which would fail for it."""
    yield
    if request.node.get_closest_marker("filterwarnings"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


_connections: WeakSet[AbstractConnection] = WeakSet()
_make_connection = AbstractConnection.__init__


def _make_known_connection(connection: AbstractConnection, *args: Any, **kwargs: Any) -> None:
    _make_connection(connection, *args, **kwargs)
    _connections.add(connection)


AbstractConnection.__init__ = _make_known_connection  # type: ignore[assignment, method-assign]


@pytest.fixture(autouse=True)
def _close_connections() -> Iterator[None]:
    """What a test has opened to Redis is not left to whoever collects garbage.

    Also what it has left in use, as those of an event loop that is closed.
    """
    yield
    for connection in list(_connections):
        connection.disconnect()


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


@pytest.fixture(params=backend_parameters(ALL_DATABASES, ALL_HOT_TIERS))
def backend(request: pytest.FixtureRequest, settings: Any) -> Backend:
    """Each combination of rows and hot tier in turn."""
    return use_backend(request, settings, request.param)


@pytest.fixture
def _closed() -> Iterator[None]:
    """Breakers that are closed, and are closed again for the next test."""
    breakers.start_anew()
    yield
    breakers.start_anew()


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch, _closed: None) -> list[Tier]:
    """Tiers whose circuits were opened, and that nobody tries."""
    begun: list[Tier] = []
    monkeypatch.setattr(recovery, "start", lambda tier, use: begun.append(tier))
    return begun


@pytest.fixture(params=backend_parameters(ALL_DATABASES, [None]))
def database(request: pytest.FixtureRequest, settings: Any) -> str:
    """Each database in turn, without a hot tier."""
    return use_backend(request, settings, request.param).database
