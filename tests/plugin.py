"""Starts the servers of a test run before Django reads its settings, and says what is left out.

Servers cost seconds, so the unit tests of `make check`, which need none, start none. Where several
processes share the tests (pytest-xdist), each has servers and files of its own: they empty them.
"""

from __future__ import annotations

import os
import random
import re
import signal
from importlib.util import find_spec
from typing import Any

import pytest
from _pytest.nodeid import coerce_node_id
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from tests.support import servers

# The environment variable that tells `tests.settings`, and child processes, where a server is.
SERVERS: dict[str, type[servers.Server]] = {
    "LLMCACHE_TEST_POSTGRES": servers.PostgreSQLServer,
    "LLMCACHE_TEST_MARIADB": servers.MariaDBServer,
    "LLMCACHE_TEST_REDIS": servers.RedisServer,
}

# For LangChain's tracing, that of openai-agents, and LiteLLM's map of prices.
OFFLINE = {
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ

running: list[servers.Server] = []
left_out: list[str] = []


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    options = early_config.known_args_namespace
    # (a shell may have them ignore Ctrl-C, and then what they start and interrupt would, too)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if IS_WORKER:
        os.environ.pop("LLMCACHE_TEST_DIRECTORY", None)
    elif options.numprocesses:
        # (sets are in one order in all workers, and so are the tests that are made of them)
        os.environ.setdefault("PYTHONHASHSEED", str(random.randrange(2**32)))
    if "not (slow" in options.markexpr:
        return
    for variable, server_class in SERVERS.items():
        reason = server_class.available()
        if reason is not None:
            left_out.append(reason)
        elif IS_WORKER or not (options.numprocesses or variable in os.environ):
            server = server_class().start()
            running.append(server)
            os.environ[variable] = server.url


def leave_out_without(*libraries: str) -> list[str]:
    """The files that a conftest is to ignore: all tests beside it, where one of these is missing.

    Such tests have an environment of their own, and in CI nobody asks for them in another one.
    What these libraries would tell or ask over the network, they do not.
    """
    os.environ.update(OFFLINE)
    missing = [name for name in libraries if not find_spec(name)]
    if not missing:
        return []
    reason = f"{', '.join(missing)} (`make frameworks` has them)"
    if os.environ.get("CI"):
        raise pytest.UsageError(f"in CI nothing is left out: {reason}")
    left_out.append(reason)
    return ["test_*.py"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where an object is in memory is no part of a test's name: all workers have to agree on it."""
    for item in items:
        item._id = coerce_node_id(re.sub(r" at 0x[0-9a-f]+", "", item.nodeid))


class FileByFile(LoadFileScheduling):  # type: ignore[misc]
    """Hands files to workers; a test that ends its worker is not run again, to end the next one."""

    def remove_node(self, node: Any) -> str | None:
        units = self.assigned_work[node]
        for scope, unit in units.items():
            for name, is_done in unit.items():
                if not is_done:
                    unit[name] = True
                    if all(unit.values()):
                        del units[scope]
                    super().remove_node(node)
                    return str(name)
        super().remove_node(node)
        return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileByFile | None:
    return FileByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_sessionstart(session: pytest.Session) -> None:
    if left_out and os.environ.get("CI"):
        raise pytest.UsageError("in CI nothing is left out: " + "; ".join(left_out))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason in left_out:
        terminalreporter.write_line(f"left out: all tests that need {reason}", yellow=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in running:
        server.close()
