"""Bringing a tier back: while its circuit is open, it is tried from time to time.

No caller tries it, so none has to wait for that; and it comes back although nobody asks. Once it
answers, what has to be done first is done (`before_closing`): hot copies that could not be
removed in the meantime are, before anyone may read them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Final

from django.core.signals import setting_changed
from django.db import connections
from django.utils import timezone

from llmcache import breakers, signals
from llmcache.background import database, scheduler
from llmcache.background.forks import now_and_in_children
from llmcache.breakers import Breaker, Side, State, Use
from llmcache.discretion import without_content
from llmcache.outcomes import Tier
from llmcache.resilience import outages

logger = logging.getLogger("llmcache")

OF_THE_TIERS: Final = {"LLMCACHE", "CACHES", "DATABASES", "DATABASE_ROUTERS"}


def start(tier: Tier, use: Use) -> None:
    """A breaker of `tier` has opened: try the tier in the background until it is well again."""
    side, its, since = (tier, use), breakers.breakers[tier, use], timezone.now()

    def tell() -> None:
        _tell(side, its, since)
        scheduler.later(its.wait(), partial(_try_again, side, its, since))

    scheduler.later(0.0, tell)


def distrust(tier: Tier, error: Exception) -> None:
    """Do not read `tier` before what is to be done first is done: it could not be just now."""
    if breakers.breakers[tier, Use.READ].distrust(error):
        start(tier, Use.READ)


def tried_by(tier: Tier, use: Use, probe: Callable[[], object]) -> None:
    """Have `probe` try `tier`: it uses it once, and raises what that raises."""
    _probes[tier, use] = probe


def before_closing(tier: Tier, use: Use, hook: Callable[[], object]) -> None:
    """Have `hook` called when `tier` is found well again, before it is used so by anyone else.

    It runs in the background, on the one thread that may ask the tier already. When it raises, the
    circuit stays open.
    """
    _hooks[tier, use].append(hook)


def when_a_probe_fails(tier: Tier, use: Use, hook: Callable[[], object]) -> None:
    """Have `hook` called, in the background, each time when `tier` was tried in vain."""
    _hooks_of_failure[tier, use].append(hook)


def probe(tier: Tier, use: Use) -> None:
    """Use `tier` once, whether its circuit is open or not. Raises what it raises."""
    with breakers.trying(tier):
        _probes[tier, use]()


def _try_again(side: Side, its: Breaker, since: datetime) -> float | None:
    """After how many seconds to try once more; None: it is well again, or another tier by now."""
    if its is not breakers.breakers[side] or (its.may_probe() and _is_well(side, its, since)):
        return None
    return its.wait()


def _is_well(side: Side, its: Breaker, since: datetime) -> bool:
    """Try the tier, tell what came of it, and whether its breaker has closed."""
    try:
        probe(*side)
        # (for as long as it takes: nobody waits for this thread)
        database.run_removal(partial(_run_hooks, side))
    except Exception as error:  # noqa: BLE001 - a probe is for what fails
        its.probe_failed(error)
        outages.record(*side, since, error)
        for hook in _hooks_of_failure[side]:
            hook()
        return False
    has_closed = its.probe_succeeded()
    _tell(side, its, since)
    return has_closed


def _run_hooks(side: Side) -> None:
    with breakers.trying(side[0]):
        for hook in _hooks[side]:
            hook()


def _tell(side: Side, its: Breaker, since: datetime) -> None:
    (tier, use), error = side, its.error
    if error is None:
        logger.info("llmcache: the %s tier is well again (%s).", tier, use)
        outages.forget(tier)
    else:
        logger.warning(
            "llmcache: the %s tier keeps failing (%s), and is skipped for that (circuit open): %s",
            tier,
            use,
            without_content(error),
        )
        outages.record(tier, use, since, error)
    state = State.CLOSED if error is None else State.OPEN
    signals.send(signals.tier_changed, tier, tier=tier, use=str(use), state=str(state), error=error)
    # (who was told may have asked a database)
    connections.close_all()


def with_other_tiers(begin: Callable[[], object]) -> None:
    """Have `begin` called when a test overrides the settings of the tiers."""

    def changed(*, setting: str, **_: Any) -> None:
        if setting in OF_THE_TIERS:
            begin()

    setting_changed.connect(changed, weak=False)


# How each tier is tried; what is done before it is used again, and when it was tried in vain.
_probes: Final[dict[Side, Callable[[], object]]] = {}
_hooks: Final[defaultdict[Side, list[Callable[[], object]]]] = defaultdict(list)
_hooks_of_failure: Final[defaultdict[Side, list[Callable[[], object]]]] = defaultdict(list)

# (nobody tries them in a forked child)
now_and_in_children(breakers.start_anew)
with_other_tiers(breakers.start_anew)
