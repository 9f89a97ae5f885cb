"""Servers that fail, settings that change, and processes that fork: nobody is kept waiting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from llmcache import breakers
from llmcache.leases import places
from llmcache.leases.flights import Ending
from llmcache.outcomes import Tier
from llmcache.store.hot import aliases
from llmcache.store.hot import tier as hot
from tests.faults.proxy import Proxy
from tests.support.backends import each
from tests.support.copies import write_copy
from tests.support.forks import in_a_fork
from tests.support.patience import BOUND, KEY, OTHER_KEY, seconds_to_fail
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db


# A server that fails


@each
def test_a_paused_server_keeps_nobody_waiting(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path)
    write_copy(KEY, b"copy", None)
    redis.pause()
    for _ in range(2):  # on a connection that is open, and on a new one
        assert seconds_to_fail(lambda: hot.read(KEY)) < BOUND
    assert seconds_to_fail(lambda: write_copy(KEY, b"copy", None)) < BOUND
    assert seconds_to_fail(lambda: hot.delete([KEY])) < BOUND
    redis.resume()

    # (what nobody waited for is done now)
    def write_and_read() -> bool:
        write_copy(KEY, b"copy", None)
        return hot.read(KEY) == b"copy"

    wait_until(write_and_read)


@pytest.mark.slow
@each
def test_client_pause_keeps_nobody_waiting(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path)
    write_copy(KEY, b"copy", None)
    with Redis.from_url(redis.url) as operator:
        operator.execute_command("CLIENT", "PAUSE", "3000", "ALL")
        assert seconds_to_fail(lambda: hot.read(KEY)) < BOUND
        operator.execute_command("CLIENT", "UNPAUSE")
    assert hot.read(KEY) == b"copy"


@each
def test_a_restart_costs_no_failure(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    """Connections that the server has closed are replaced when they are taken."""
    use(backend_path)
    write_copy(KEY, b"copy", None)
    redis.kill()
    redis.start()
    assert hot.read(KEY) is None
    write_copy(KEY, b"copy", None)
    assert hot.read(KEY) == b"copy"


@pytest.mark.slow
def test_a_server_that_is_far_away_is_used_where_the_timeouts_allow_it(
    use: Callable[..., None], redis: RedisServer, settings: Any
) -> None:
    with Proxy(redis.port) as far:
        far.delay = 0.12
        use(LOCATION=far.url)
        assert seconds_to_fail(lambda: hot.read(KEY)) < BOUND
        use(LOCATION=far.url, options={"SOCKET_TIMEOUT": 0.5})
        write_copy(KEY, b"copy", None)
        assert hot.read(KEY) == b"copy"
        token = "0" * 32
        assert places.acquire(KEY, token) == (places.HOT, None)
        assert places.acquire(KEY, "1" * 32) == (places.HOT, token)
        places.free(places.HOT, KEY, token, Ending.ABANDONED)
        assert breakers.is_up(Tier.HOT)


@each
def test_without_memory_copies_can_still_be_read_and_removed(
    use: Callable[..., None], backend_path: str
) -> None:
    with RedisServer("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as full:
        use(backend_path, LOCATION=full.url)
        write_copy(KEY, b"copy", None)
        write_copy(OTHER_KEY, b"copy", None)
        with Redis.from_url(full.url) as operator:
            operator.config_set("maxmemory", 1)
        assert seconds_to_fail(lambda: write_copy(KEY, b"new", None)) < BOUND
        with pytest.raises(RedisError):
            hot.probe()
        assert hot.read(KEY) == b"copy"
        hot.delete([KEY])
        assert hot.read_many([KEY, OTHER_KEY]) == {OTHER_KEY: b"copy"}


# Settings that change, and processes that fork


@each
def test_other_settings_are_another_tier(
    use: Callable[..., None], redis: RedisServer, backend_path: str
) -> None:
    use(backend_path)
    write_copy(KEY, b"copy", None)
    with RedisServer() as other:
        use(backend_path, LOCATION=other.url)
        assert hot.read(KEY) is None
        write_copy(KEY, b"another", None)
    use(backend_path)
    assert hot.read(KEY) != b"another"


def test_there_is_one_for_all_threads(use: Callable[..., None]) -> None:
    use()
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(hot.backend).result() is hot.backend()


@each
def test_no_connection_crosses_a_fork(use: Callable[..., None], backend_path: str) -> None:
    use(backend_path)
    write_copy(KEY, b"copy", None)
    assert in_a_fork(lambda: [hot.read(KEY), hot.read(OTHER_KEY)]) == [b"copy", None]
    assert hot.read(KEY) == b"copy"


def test_the_backend_is_imported_when_django_is_set_up() -> None:
    """A child that is forked while a thread imports it would wait for the import for ever."""
    program = """
import sys, django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["llmcache"],
    CACHES={"default": {"BACKEND": "llmcache.backends.RedisCache", "LOCATION": "redis://nowhere"}},
)
django.setup()
print("llmcache.backends" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "True", run.stderr


def test_a_forked_child_begins_with_nothing(use: Callable[..., None]) -> None:
    use()
    write_copy(KEY, b"copy", None)
    with aliases._lock:  # as if another thread were making the backend
        assert in_a_fork(lambda: [len(aliases._aliases), hot.read(KEY)]) == [0, b"copy"]
