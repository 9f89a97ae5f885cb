"""Clients, processes and restarted processes share entries, on every backend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmcache.store.hot import tier as hot
from project.standin.server import StandIn
from tests.support import child
from tests.support.backends import Backend, backend_parameters

pytestmark = pytest.mark.slow


def order(model: StandIn, backend: Backend, **changes: Any) -> dict[str, Any]:
    return {"llmcache_settings": backend.llmcache, "base_url": model.url} | changes


def run(model: StandIn, backend: Backend, **changes: Any) -> list[Any]:
    return child.receive(child.start(order(model, backend, **changes)))


def test_processes_share_entries(model: StandIn, backend: Backend) -> None:
    first_tier = "hot" if backend.cache else "durable"
    # (No reason is asserted: under load, a tier may be asked in vain.)
    (first, _, _), (second, tier, _) = run(model, backend)
    assert (first, second) == ("miss", "hit")
    # (the copy is made behind the caller)
    assert tier in {first_tier, "durable"}
    # Another process, after the first has ended; a rotated key; then an asynchronous client.
    for change in ({"api_key": "rotated"}, {"is_async": True}):
        told = run(model, backend, **change)
        assert [outcome for outcome, _, _ in told] == ["hit", "hit"]
        assert told[-1][1] == first_tier

    # The rows survive the loss of the hot tier.
    cache = hot.backend()
    if cache is not None:
        cache.clear()
    assert run(model, backend)[0][:2] == ("hit", "durable")
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    "backend",
    backend_parameters(["default", "postgres", "mariadb"], [None])
    + backend_parameters(["postgres"], ["redis"]),
    indirect=True,
)
def test_processes_at_once(model: StandIn, backend: Backend) -> None:
    """One asks, and the others wait for its answer."""
    model.latency = 2.0
    receivers = [child.start(order(model, backend)) for _ in range(4)]
    outcomes = [outcome for receiver in receivers for outcome, _, _ in child.receive(receiver)]
    assert sorted(outcomes) == ["hit"] * 7 + ["miss"]
    assert len(model.calls) == 1


def test_no_setting_but_installed_apps_and_migrate(model: StandIn, tmp_path: Path) -> None:
    """A project of its own, in interpreters of their own: nothing of ours helps it."""
    program = f"""
import sys
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["llmcache"],
    DATABASES={{"default": {{
        "ENGINE": "django.db.backends.sqlite3", "NAME": {str(tmp_path / "db.sqlite3")!r}
    }}}},
)
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)

import llmcache
from pydantic import BaseModel
class Ticket(BaseModel):
    title: str
client = llmcache.from_provider("openai/gpt-4.1-mini", api_key="k", base_url={model.url!r})
with llmcache.capture() as calls:
    client.create(response_model=Ticket, messages=[{{"role": "user", "content": "Fire"}}])
print(calls[0].outcome, calls[0].tier)
"""
    seen = [
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": os.environ["PATH"]},
        ).stdout.strip()
        for _ in range(2)
    ]
    assert seen == ["miss None", "hit durable"]
    assert len(model.calls) == 1
