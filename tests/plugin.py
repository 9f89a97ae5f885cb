"""Starts the servers of a test run before Django reads its settings, and says what is left out.

Servers cost seconds, so the unit tests of `make check`, which need none, start none.
"""

from __future__ import annotations

import os

import pytest

from tests import servers

# The environment variable that tells `tests.settings`, and child processes, where a server is.
SERVERS: dict[str, type[servers.Server]] = {
    "LLMCACHE_TEST_POSTGRES": servers.PostgreSQLServer,
    "LLMCACHE_TEST_MARIADB": servers.MariaDBServer,
    "LLMCACHE_TEST_REDIS": servers.RedisServer,
}

running: list[servers.Server] = []
left_out: list[str] = []


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if "not (slow" in early_config.known_args_namespace.markexpr:
        return
    for variable, server_class in SERVERS.items():
        reason = server_class.available()
        if reason is not None:
            left_out.append(reason)
        elif variable not in os.environ:
            server = server_class().start()
            running.append(server)
            os.environ[variable] = server.url


def pytest_sessionstart(session: pytest.Session) -> None:
    if left_out and os.environ.get("CI"):
        raise pytest.UsageError("in CI nothing is left out: " + "; ".join(left_out))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason in left_out:
        terminalreporter.write_line(f"left out: all tests that need {reason}", yellow=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in running:
        server.close()
