"""The private servers do what the tests ask of them, and never outlive the tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from tests.support.paths import ROOT
from tests.support.programs import ServerError, is_alive
from tests.support.servers import (
    MariaDBServer,
    PostgreSQLServer,
    RedisServer,
    Server,
    free_port,
    require,
)


def redis_answers(url: str) -> bool:
    limits = {"socket_timeout": 1, "socket_connect_timeout": 1, "retry": None}
    try:
        with redis.Redis.from_url(url, **limits) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def postgresql_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


def mariadb_answers(url: str) -> bool:
    driver = import_module("MySQLdb")
    parts = urlsplit(url)
    try:
        connection = driver.connect(
            host=parts.hostname,
            port=parts.port,
            user=parts.username,
            db=parts.path[1:],
            connect_timeout=1,
        )
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT @@character_set_server")
            return bool(cursor.fetchone() == ("utf8mb4",))
        finally:
            connection.close()
    except driver.Error:
        return False


ANSWERS: dict[type[Server], Callable[[str], bool]] = {
    RedisServer: redis_answers,
    PostgreSQLServer: postgresql_answers,
    MariaDBServer: mariadb_answers,
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(RedisServer, marks=pytest.mark.redis),
        pytest.param(PostgreSQLServer, marks=pytest.mark.postgres),
        pytest.param(MariaDBServer, marks=pytest.mark.mariadb),
    ],
)
def server_class(request: pytest.FixtureRequest) -> type[Server]:
    require(request.param)
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def shared(server_class: type[Server]) -> Iterator[Server]:
    with server_class() as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    """A server that runs, whatever the test before has done to it."""
    shared.resume()
    return shared.start()


def answers(server: Server) -> bool:
    return ANSWERS[type(server)](server.url)


def test_it_answers_once_started(server: Server) -> None:
    assert answers(server)


def test_starting_it_twice_changes_nothing(server: Server) -> None:
    before = server._family()[0].pid
    server.start()
    assert server._family()[0].pid == before


def test_paused_it_is_silent_until_resumed(server: Server) -> None:
    server.pause()
    assert server.running
    assert not answers(server)
    server.resume()
    assert answers(server)


@pytest.mark.parametrize("end", [Server.stop, Server.kill])
@pytest.mark.parametrize("paused", [False, True])
def test_it_ends_and_comes_back_on_its_port(
    server: Server, end: Callable[[Server], None], paused: bool
) -> None:
    url, family = server.url, server._family()
    if paused:
        server.pause()
    end(server)
    assert not server.running
    assert not any(map(is_alive, family))
    assert not answers(server)
    server.start()
    assert server.url == url
    assert answers(server)


def test_it_runs_without_roots_rights(server: Server) -> None:
    assert server._family()[0].uids().effective != 0


def test_closed_it_leaves_nothing(server_class: type[Server]) -> None:
    with server_class() as server:
        family = server._family()
    assert not any(map(is_alive, family))
    assert not server.directory.exists()


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_it_ends_with_a_process_that_is_killed(server_class: type[Server]) -> None:
    killed = run_python(f"""
import os
from tests.support.servers import {server_class.__name__} as Class
server = Class().start()
print(server.directory, *(process.pid for process in server._family()), flush=True)
os.kill(os.getpid(), 9)
""")
    directory, *pids = killed.stdout.split()
    assert pids, killed.stderr
    family = [psutil.Process(pid) for pid in map(int, pids) if psutil.pid_exists(pid)]
    psutil.wait_procs(family, timeout=10)
    assert not any(map(is_alive, family))
    shutil.rmtree(directory)


@pytest.mark.redis
def test_a_fork_that_exits_leaves_its_parents_server_alone() -> None:
    require(RedisServer)
    forked = run_python("""
import os, sys
from tests.support.servers import RedisServer
server = RedisServer().start()
if os.fork() == 0:
    sys.exit()
os.wait()
print(server.running, server.directory.exists())
""")
    assert forked.stdout == "True True\n", forked.stderr


@pytest.mark.redis
def test_options_reach_the_server() -> None:
    require(RedisServer)
    with RedisServer("--maxmemory", "3mb") as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(3 * 1024 * 1024)}


@pytest.mark.redis
def test_a_server_that_cannot_start_shows_its_log() -> None:
    require(RedisServer)
    server = RedisServer("--no-such-option", "1")
    with pytest.raises(ServerError, match=r"ended while it started(?s:.*)no-such-option"):
        server.start()
    server.close()


class Elsewhere(Server):
    user = "nobody"
    programs = ("no-such-program",)


class Undriven(Server):
    user = "nobody"
    modules = ("no_such_module",)
    programs = ()


@pytest.mark.parametrize(
    ("server_class", "missing"), [(Elsewhere, "no-such-program"), (Undriven, "no_such_module")]
)
class TestRequire:
    def test_skips_with_the_reason(
        self, server_class: type[Server], missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CI", raising=False)
        with pytest.raises(pytest.skip.Exception, match=missing):
            require(server_class)

    def test_fails_in_ci(
        self, server_class: type[Server], missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CI", "true")
        with pytest.raises(pytest.fail.Exception, match=missing):
            require(server_class)


def test_a_free_port_is_not_one_of_an_outgoing_connection() -> None:
    port_range = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not port_range.exists():
        pytest.skip("the kernel's range of ports is only known on Linux")
    first, _ = map(int, port_range.read_text().split())
    assert free_port() < first


@pytest.mark.slow
@pytest.mark.timeout(290)  # (it imports all tests)
def test_without_the_driver_of_mariadb_all_other_tests_are_found() -> None:
    code = "import sys, pytest; sys.modules['MySQLdb'] = None; sys.exit(pytest.main())"
    collecting = ["-p", "no:cacheprovider", "--collect-only", "-q", "tests"]
    done = subprocess.run(
        [sys.executable, "-c", code, *collecting],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "CI"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MySQLdb is not installed" in done.stdout
