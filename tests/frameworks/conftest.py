"""What these tests need is in an environment of its own, which `make frameworks` makes."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

NEEDED = ("agents", "langchain", "langchain_anthropic", "langchain_openai", "langchain_tests")
MISSING = [name for name in (*NEEDED, "langgraph", "pydantic_ai") if not find_spec(name)]
REASON = f"left out: tests/frameworks, for want of {', '.join(MISSING)}; `make frameworks` has them"

collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_sessionstart() -> None:
    if MISSING and os.environ.get("CI"):
        raise pytest.UsageError(f"in CI nothing is left out: {REASON}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MISSING:
        terminalreporter.write_line(REASON, yellow=True)
