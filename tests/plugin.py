"""Starts the servers of the test run before Django reads its settings.

Servers cost seconds, so a run that selects no test which needs one (`make check`) starts none:
that is told by the marker expression. What cannot be started is left out, and said.
"""

from __future__ import annotations

import os

import pytest

from tests import servers

# The environment variable that tells `tests.settings` where a server is.
SERVERS = {
    "LLMCACHE_TEST_POSTGRES": servers.PostgreSQLServer,
    "LLMCACHE_TEST_MARIADB": servers.MariaDBServer,
    "LLMCACHE_TEST_REDIS": servers.RedisServer,
}

running: dict[str, servers.Server] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if "not (slow" in early_config.known_args_namespace.markexpr:
        return
    for variable, server_class in SERVERS.items():
        if server_class.available() is None and variable not in os.environ:
            running[variable] = server_class().start()
            os.environ[variable] = running[variable].url


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in running.values():
        server.close()
