"""Bringing a tier back: while it is given a rest, a thread of ours tries it from time to time.

No caller tries it, so none has to wait for that; and it comes back although nobody asks. Once it
answers, what has to be done first is done (`breakers.before_closing`): hot copies that could not be
removed in the meantime are, before anyone may read them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Final

from django.core.signals import setting_changed
from django.db import connections
from django.utils import timezone

from llmcache import breakers, signals
from llmcache.background import database
from llmcache.background.pool import start_thread
from llmcache.breakers import Breaker, Side, State, Use
from llmcache.discretion import without_content
from llmcache.outcomes import Tier
from llmcache.resilience import outages

logger = logging.getLogger("llmcache")

# With other settings it is another tier.
OF_THE_TIERS: Final = {"LLMCACHE", "CACHES", "DATABASES", "DATABASE_ROUTERS"}


def begin(tier: Tier, use: Use) -> None:
    """A breaker of `tier` has opened: try the tier in the background until it is well again."""
    watch = partial(_watch, (tier, use), breakers.breakers[tier, use], _given_up)
    start_thread(watch, f"{tier} {use}")


def distrust(tier: Tier, error: Exception) -> None:
    """Do not read `tier` before what is to be done first is done: it could not be just now."""
    if breakers.breakers[tier, Use.READ].distrust(error):
        begin(tier, Use.READ)


def tried_by(tier: Tier, use: Use, probe: Callable[[], object]) -> None:
    """Have `probe` try `tier`: it uses it once, and raises what that raises."""
    _probes[tier, use] = probe


def probe(tier: Tier, use: Use) -> None:
    """Use `tier` once, whether it is given a rest or not. Raises what it raises."""
    with breakers.trying(tier):
        _probes[tier, use]()


def _watch(side: Side, its: Breaker, given_up: threading.Event) -> None:
    since = timezone.now()
    _tell(side, its, since)
    while not its.is_closed and not given_up.wait(max(0.0, its.wait())):
        if its.may_probe():
            _probe_and_tell(side, its, since)
        # (who was told may have asked a database)
        connections.close_all()
    connections.close_all()


def _probe_and_tell(side: Side, its: Breaker, since: datetime) -> None:
    try:
        _bring_back(*side)
    except Exception as error:  # noqa: BLE001 - a probe is for what fails
        its.probe_failed(error)
        outages.note(*side, since, error)
        breakers.run_hooks_of_failure(*side)
    else:
        its.probe_succeeded()
        _tell(side, its, since)


def _bring_back(tier: Tier, use: Use) -> None:
    probe(tier, use)
    # (for as long as it takes: nobody waits for this thread)
    database.run_removal(partial(breakers.run_hooks, tier, use))


def _tell(side: Side, its: Breaker, since: datetime) -> None:
    (tier, use), error = side, its.error
    if error is None:
        logger.info("llmcache: the %s tier is well again (%s).", tier, use)
        outages.forget(tier)
    else:
        logger.warning(
            "llmcache: the %s tier keeps failing (%s), and is passed over for that: %s",
            tier,
            use,
            without_content(error),
        )
        outages.note(tier, use, since, error)
    state = State.CLOSED if error is None else State.OPEN
    signals.send(signals.tier_changed, tier, tier=tier, use=str(use), state=str(state), error=error)


def _start_anew() -> None:
    """At the start, and in a forked child, where the thread that tries does not exist."""
    global _given_up
    _given_up = threading.Event()
    breakers.start_anew()


def _settings_changed(*, setting: str, **_: Any) -> None:
    if setting in OF_THE_TIERS:
        _given_up.set()
        _start_anew()


# How each tier is tried.
_probes: Final[dict[Side, Callable[[], object]]] = {}

_given_up: threading.Event
_start_anew()
os.register_at_fork(after_in_child=_start_anew)
setting_changed.connect(_settings_changed)
