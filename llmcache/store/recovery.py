"""Bringing a tier back: while it is given a rest, a thread of ours tries it from time to time.

No caller tries it, so none has to wait for that; and it comes back although nobody asks. Once it
answers, what has to be done first is done (`breaker.before_closing`): hot copies that could not be
removed in the meantime are, before anyone may read them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Final

from django.core.signals import setting_changed
from django.db import connections
from django.utils import timezone

from llmcache import signals
from llmcache.outcomes import Tier
from llmcache.store import breaker, durable, hot, outages, placement
from llmcache.store.breaker import Breaker, State

logger = logging.getLogger("llmcache")

# With other settings it is another tier.
OF_THE_TIERS: Final = {"LLMCACHE", "CACHES", "DATABASES", "DATABASE_ROUTERS"}


def begin(tier: Tier) -> None:
    """The breaker of `tier` has opened: try the tier in the background until it is well again."""
    # (no more threads: the process ends)
    with suppress(RuntimeError):
        threading.Thread(
            target=_watch,
            args=(tier, breaker.breakers[tier], _given_up),
            name=f"llmcache-{tier}",
            daemon=True,
        ).start()


def probe(tier: Tier) -> None:
    """Use `tier` once, whether it is given a rest or not. Raises what it raises."""
    with breaker.trying(tier):
        PROBES[tier]()


def _watch(tier: Tier, its: Breaker, given_up: threading.Event) -> None:
    since = timezone.now()
    _tell(tier, its, since)
    while not its.is_closed and not given_up.wait(max(0.0, its.wait())):
        if its.may_probe():
            _probe_and_tell(tier, its, since)
        # (who was told may have asked a database)
        connections.close_all()
    connections.close_all()


def _probe_and_tell(tier: Tier, its: Breaker, since: datetime) -> None:
    try:
        _bring_back(tier)
    except Exception as error:  # noqa: BLE001 - a probe is for what fails
        its.probe_failed(error)
        outages.note(tier, since, error)
    else:
        its.probe_succeeded()
        _tell(tier, its, since)


def _bring_back(tier: Tier) -> None:
    probe(tier)
    # (for as long as it takes: nobody waits for this thread)
    placement.run_removal(partial(breaker.run_hooks, tier))


def _probe_rows() -> None:
    placement.run(lambda: durable.entries().order_by("pk").values_list("pk").first())


def _tell(tier: Tier, its: Breaker, since: datetime) -> None:
    error = its.error
    if error is None:
        logger.info("llmcache: the %s tier is well again.", tier)
        outages.forget(tier)
    else:
        logger.warning(
            "llmcache: the %s tier keeps failing, and is passed over for now: %r", tier, error
        )
        outages.note(tier, since, error)
    state = State.CLOSED if error is None else State.OPEN
    signals.send(signals.tier_changed, tier, tier=tier, state=str(state), error=error)


def _start_anew() -> None:
    """At the start, and in a forked child, where the thread that tries does not exist."""
    global _given_up
    _given_up = threading.Event()
    breaker.start_anew()


def _settings_changed(*, setting: str, **_: Any) -> None:
    if setting in OF_THE_TIERS:
        _given_up.set()
        _start_anew()


PROBES: Final[dict[Tier, Callable[[], object]]] = {Tier.HOT: hot.probe, Tier.DURABLE: _probe_rows}

_given_up: threading.Event
_start_anew()
os.register_at_fork(after_in_child=_start_anew)
setting_changed.connect(_settings_changed)
