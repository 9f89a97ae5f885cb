"""The rules: one generator that does no I/O and says how a call is answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from llmcache import store
from llmcache.codec.answers import receipt_in
from llmcache.discretion import without_content
from llmcache.exceptions import CacheMiss
from llmcache.flow.steps import (
    Acquire,
    Ask,
    Flow,
    Lookup,
    NotRestorable,
    NotStorable,
    Refresh,
    Request,
    Step,
    Store,
)
from llmcache.leases import Ending, Lease, alone
from llmcache.outcomes import Call, Inside, Outcome, recorded_in
from llmcache.policy import UNSET, CacheMode, Policy
from llmcache.providers.errors import is_the_providers
from llmcache.reasons import Reason, ReasonCode
from llmcache.resilience.failsafe import ends_the_task
from llmcache.store.records import Draft, Found, Missing

logger = logging.getLogger("llmcache")

NOTHING: Final = object()
# Nobody has looked.
NOTHING_FOUND: Final = Missing()

# How long after its expiry an answer is served at once, and in the place of the provider's error.
REVALIDATE: Final = attrgetter("revalidate_seconds")
IF_ERROR: Final = attrgetter("if_error_seconds")


def answer(request: Request) -> Flow:
    """Answer `request` from the store or from the model, and say how in its `call`.

    Raises what the model raises, and `CacheMiss` when it must not be asked; nothing else.
    """
    call, mode = request.call, request.policy.mode
    bypass, found = request.bypass, NOTHING_FOUND
    if mode is CacheMode.NO_STORE:
        bypass, call.spoils = ReasonCode.NO_STORE(), True
    if bypass is not None:
        call.outcome = Outcome.BYPASS
        call.because(bypass)
    elif mode.reads:
        # (an entry that has expired is looked for, too, where it may be served)
        stale = mode is CacheMode.FORCE_CACHE or _seconds(request, REVALIDATE) > 0
        found = yield Lookup(call.key, stale)
        served = _served(request, found)
        if served is not NOTHING:
            if call.outcome is Outcome.STALE and mode is CacheMode.DEFAULT:
                yield Refresh()
            return served
    if mode is CacheMode.ONLY_IF_CACHED:
        raise CacheMiss(call.key, call.namespace, call.reason or "nothing is stored")
    if call.outcome is Outcome.BYPASS:
        return (yield from _ask(request))[0]
    return (yield from _coalesce(request, found))


def _served(request: Request, found: Found | Missing) -> Any:
    """The stored answer, when there is one that may be served; else `NOTHING`."""
    if isinstance(found, Missing):
        for reason in found.reasons:
            request.call.also_because(reason)
        return NOTHING
    # (what has expired, within the bounds of RFC 5861)
    forced = request.policy.mode is CacheMode.FORCE_CACHE
    if found.stale_for and not forced and found.stale_for > _seconds(request, REVALIDATE):
        return NOTHING
    return _restore(request, found)


def _seconds(request: Request, window: Callable[[Policy], float]) -> float:
    """How long after its expiry an answer will do: not at all by a wrong setting."""
    try:
        return window(request.policy)
    except ImproperlyConfigured as error:
        request.call.also_because(ReasonCode.WRONG_SETTING(why=error))
        return 0


def _restore(request: Request, found: Found) -> Any:
    """The answer that `found` holds, noted as a hit; `NOTHING` when it must not be served."""
    call = request.call
    try:
        restored = request.restore(found)
    except Exception as error:
        # (a validator may raise anything)
        if ends_the_task(error):
            raise
        call.because(ReasonCode.NOT_VALID(error=type(error).__name__))
        store.refuse(call.key, found.tier, error)
        return NOTHING
    call.outcome = Outcome.STALE if found.stale_for else Outcome.HIT
    call.tier = found.tier
    call.receipt = receipt_in(found.body)
    call.created, call.expires = found.created, found.expires
    return restored


def _coalesce(request: Request, found: Found | Missing) -> Flow:
    """Wait for another call that asks the same, or ask. `found` is what could not be served."""
    missing = found if isinstance(found, Missing) else NOTHING_FOUND
    refused: Found | None = None
    for _ in range(2):
        acquired = yield from _acquire(request, refused, missing)
        if isinstance(acquired, Lease):
            return (yield from _lead(request, acquired))
        restored = _restore(request, acquired)
        if restored is not NOTHING:
            request.call.because(ReasonCode.COALESCED())
            return restored
        refused, missing = acquired, NOTHING_FOUND
    return (yield from _lead(request, alone(request.call.key, None)))


def _acquire(request: Request, refused: Found | None, missing: Missing) -> Flow:
    """`Lease`, or `Found`. Where that cannot be told, the call asks for itself alone."""
    call, is_alone = request.call, not request.policy.mode.reads or request.asks_alone
    try:
        return (yield Acquire(call.key, is_alone, refused, missing))
    except ImproperlyConfigured as error:
        call.also_because(ReasonCode.WRONG_SETTING(why=error))
    except Exception as error:  # (law A)
        if ends_the_task(error):
            raise
        call.also_because(ReasonCode.NOT_COALESCED(error=type(error).__name__))
        logger.warning("llmcache: a call does not wait for others: %s", without_content(error))
    return alone(call.key, None)


def _lead(request: Request, lease: Lease) -> Flow:
    """Ask; where the provider fails, a stale answer will do."""
    request.call.outcome = Outcome.MISS if request.policy.mode.reads else Outcome.RELOAD
    try:
        return (yield from _ask_and_store(request, lease))
    except Exception as error:
        served = yield from _serve_instead(request, error)
        if served is NOTHING:
            raise
        return served


def _serve_instead(request: Request, error: Exception) -> Flow:
    """What is stale will do when the provider has failed (``stale-if-error`` of RFC 5861).

    It is looked up only now: it may have been invalidated while the model was asked.
    """
    call = request.call
    if request.begun or not request.policy.mode.reads:
        return NOTHING
    bound = _seconds(request, IF_ERROR)
    if not bound or not is_the_providers(error):
        return NOTHING
    found = yield Lookup(call.key, stale=True)
    if isinstance(found, Missing) or found.stale_for > bound:
        return NOTHING
    restored = _restore(request, found)
    if restored is not NOTHING:
        call.because(ReasonCode.PROVIDER_FAILED(error=type(error).__name__))
    return restored


def refreshed(request: Request, lease: Lease | None) -> Flow:
    """Ask for `request` once more, by the right of `lease`, and store the answer."""
    if lease is None:
        lease = yield Acquire(request.call.key, alone=True)
    request.call.outcome = Outcome.RELOAD
    return (yield from _ask_and_store(request, lease))


def _ask_and_store(request: Request, lease: Lease) -> Flow:
    """Ask the model, store the answer if it is to be, and let those go who wait for it."""
    ending, found = Ending.ABANDONED, None
    try:
        with _told(f"{request.call.key} will be stored without its request"):
            request.before_asking()
        asked = time.time()
        result, latency = yield from _ask(request)
        draft = _draft(request, result, asked, latency)
        ending = Ending.RELEASED
        if draft is not None and (yield from _store(request.call, draft, lease)):
            ending = Ending.STORED
            found = store.copy_of(draft) if lease.is_shared else None
        return result
    except Exception:
        ending = Ending.RELEASED
        raise
    finally:
        lease.end(ending, found)


def _ask(request: Request) -> Generator[Step, Any, tuple[Any, float]]:
    """The answer of the model, and how many seconds it took."""
    call, started = request.call, time.perf_counter()
    try:
        result = yield Ask()
    except BaseException as error:
        is_left = isinstance(error, GeneratorExit)
        raised = ReasonCode.RAISED(error=type(error).__name__)
        call.also_because(ReasonCode.STREAM_LEFT() if is_left else raised)
        raise
    seconds = time.perf_counter() - started
    with _told("what an answer has cost is not known"):
        request.bill(result, seconds)
    return result, seconds


@contextmanager
def _told(what: str) -> Iterator[None]:
    """The call goes on without it (law A), and `what` is written down."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - as said
        logger.warning("llmcache: %s: %s", what, without_content(error))


def _draft(request: Request, result: Any, asked: float, latency: float) -> Draft | None:
    """The answer as an entry; None, and the reason in the call, when it is not to be kept."""
    inside = Inside() if request.inside is None else request.inside
    try:
        if why := inside.spoiled(has_ttl=request.policy.ttl is not UNSET):
            raise NotStorable(ReasonCode.MADE_OF_UNSTORED(why=why))
        # (a validator that asks is asked again to prove that the answer can come back)
        with recorded_in(inside):
            return request.draft(result, asked, latency)
    except NotStorable as error:
        request.call.because(error.reason)
        request.call.spoils = not isinstance(error, NotRestorable)
    except ImproperlyConfigured as error:
        _note(request.call, ReasonCode.WRONG_SETTING(why=without_content(error)), error)
    except Exception as error:
        if ends_the_task(error):
            raise
        _note(request.call, ReasonCode.NOT_ENCODABLE(error=type(error).__name__), error)
    return None


def _note(call: Call, reason: Reason, error: Exception) -> None:
    call.because(reason)
    why = without_content(error)
    logger.warning("llmcache: an answer was not stored under %s: %s", call.key, why)


def _store(call: Call, draft: Draft, lease: Lease) -> Flow:
    """Whether the entry is stored."""
    lease.settle()
    refusal: Reason | None = yield Store(draft, lease.generation)
    call.stored = refusal is None
    if refusal is None:
        call.size = len(draft.payload)
        call.created, call.expires = draft.created, draft.expires
        return True
    # (what is made of it could not be found by an invalidation, where it is not known to be stored)
    call.spoils = refusal.code is not ReasonCode.TOO_LARGE
    call.because(refusal)
    return False
