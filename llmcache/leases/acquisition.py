"""Getting the lease that all processes share, or the answer for which another one holds it.

As the flow, this is a generator that does no I/O: it yields work to be done, or for how long to
pause, and one small driver runs it on a thread, another on an event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar
from uuid import uuid4

from llmcache import store, trampoline
from llmcache.background import database, scheduler
from llmcache.conf import settings
from llmcache.leases import places
from llmcache.leases.flights import Ending, Flight, join
from llmcache.leases.kinds import Seen
from llmcache.leases.places import Place
from llmcache.outcomes import Tier
from llmcache.resilience.failsafe import ends_the_task, report
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found, Missing

# Whoever waits looks again after a twentieth of the time that it has waited, within these bounds:
# it wakes soon after the answer, and a thousand who wait do not keep the tier busy.
SHORTEST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.15
PAUSES: Final = 20

# A lease may miss its renewal twice before it is lost.
RENEWALS: Final = 3
# Who was told so long ago that nothing is stored looks again, although nobody has asked meanwhile.
LOOK_SECONDS: Final = 1.0

NOT_LOOKED: Final = Missing()


class Pause(NamedTuple):
    """So long, or until the flight has ended."""

    flight: Flight
    seconds: float


T = TypeVar("T")
Steps = Generator[Pause | Callable[[], Any], Any, T]
#: What is stored under a key, and the generation.
Stored = tuple[Found | Missing, int | None]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to ask the model. Whoever has it ends it, whatever happens."""

    flight: Flight
    place: Place | None
    token: str
    #: What `store.generation` said when it was had.
    generation: int | None
    #: What keeps it alive. (Without that, it lasts for ``LEASE_SECONDS``.)
    renewal: scheduler.Job | None = None

    @property
    def is_shared(self) -> bool:
        """Whether others may wait for the answer."""
        return bool(self.token)

    def may_be_stored(self) -> bool:
        """Whether an answer may have been stored lately: who has looked before looks again."""
        return self.place is not places.HOT or places.may_be_stored(self.flight.key)

    def settle(self) -> None:
        """The answer is about to be stored: it is not for who begins to wait after this."""
        self.flight.settle()

    def end(self, ending: Ending, found: Found | None = None) -> None:
        """Let the waiters go. Takes no time, and raises nothing."""
        if self.renewal is not None:
            self.renewal.cancel()
        self.flight.end(ending, found)
        if self.place is not None:
            places.free_later(self.place, self.flight.key, self.token, ending)


def alone(key: str, generation: int | None) -> Lease:
    """The right to ask whatever others do: nobody waits for the answer."""
    return Lease(Flight(key), None, "", generation)


def acquire(
    key: str, seconds: float, refused: Found | None = None, missing: Missing = NOT_LOOKED
) -> Lease | Found | None:
    """The lease for `key`, or the answer for which another one had it.

    That may have been stored after the caller looked it up, and found `missing`. `refused` is what
    is stored and no answer. None: after so many seconds neither was to be had, or another one's
    call has failed; each is to ask for itself. Raises nothing.
    """
    return trampoline.run(_acquire(key, seconds, refused, missing), _carry_out)


async def aacquire(
    key: str, seconds: float, refused: Found | None = None, missing: Missing = NOT_LOOKED
) -> Lease | Found | None:
    """`acquire` for a coroutine. Cancelling it harms nobody else."""
    return await trampoline.arun(_acquire(key, seconds, refused, missing), _acarry_out)


def start(key: str) -> Flight | None:
    """The flight for `key`, to be led on another thread; None when it is led already."""
    flight, leads = join(key)
    return flight if leads else None


def lead(flight: Flight) -> Lease | Found | None:
    """The lease for a flight that has begun, or the answer where a fresh one is stored by now.

    None: another process has the lease.
    """
    return trampoline.run(_lead(flight), _carry_out)


async def alead(flight: Flight) -> Lease | Found | None:
    """`lead` for a coroutine."""
    return await trampoline.arun(_lead(flight), _acarry_out)


def _acquire(
    key: str, seconds: float, refused: Found | None, missing: Missing
) -> Steps[Lease | Found | None]:
    ends = time.monotonic() + seconds
    while True:
        joined = time.monotonic()
        flight, leads = join(key)
        if leads:
            return (yield from _lead(flight, ends, refused, missing))
        yield Pause(flight, ends - joined)
        if flight.ending is None:
            flight.give_up()
        if flight.serves(joined):
            return flight.found


def _lead(
    flight: Flight,
    ends: float = 0.0,
    refused: Found | None = None,
    missing: Missing = NOT_LOOKED,
) -> Steps[Lease | Found | None]:
    token = uuid4().hex
    try:
        return (yield from _contend(flight, token, ends, refused, missing))
    except BaseException as error:
        if not isinstance(error, Exception) or ends_the_task(error):
            # Let another one lead. The claim may be under way on another thread, or have succeeded.
            flight.end(Ending.ABANDONED)
            _free_everywhere(flight, token)
            raise
        # (law A: each process asks for itself then)
        report(Tier.DURABLE, "lease from", error)
        return Lease(flight, None, token, None)


def _contend(
    flight: Flight, token: str, ends: float, refused: Found | None, missing: Missing
) -> Steps[Lease | Found | None]:
    """Claim the lease; while another one holds it, wait for what becomes of that."""
    while True:
        place, holder, stored = yield partial(_claim, flight, token, missing)
        if stored is not None:
            found, generation = stored
            if not _is_answer(found, refused):
                # (not known where a copy was found first, or the rows were too busy to tell)
                if generation is None:
                    generation = yield store.generation
                return _held(flight, place, token, generation)
            Lease(flight, place, token, generation).end(Ending.STORED, found)
            return found  # type: ignore[no-any-return]
        seen = yield from _watch(place, flight, holder, ends)
        if seen is not Seen.GONE:
            flight.end(Ending.RELEASED if seen is Seen.RELEASED else Ending.ABANDONED)
            return None
        found, _ = yield partial(_stored_by_now, flight)
        if _is_answer(found, refused):
            flight.end(Ending.STORED, found)
            return found  # type: ignore[no-any-return]


def _claim(
    flight: Flight, token: str, missing: Missing
) -> tuple[Place | None, str | None, Stored | None]:
    """Where the lease is, who holds it, and what is stored by now if that is us.

    One piece of work: a coroutine waits for a thread once.
    """
    place, holder = places.first(flight.key, token), None
    is_first = place is not None
    if not is_first:
        place, holder = places.acquire(flight.key, token)
    if flight.ending is not None:  # whoever wanted it went away meanwhile
        _free_everywhere(flight, token)
    if place is not None and holder is not None:
        return place, holder, None
    is_recent = time.monotonic() - missing.looked < LOOK_SECONDS
    if is_first and is_recent and not places.may_be_stored(flight.key):
        return place, None, (missing, missing.generation)
    return place, None, _stored_by_now(flight)


def _stored_by_now(flight: Flight) -> Stored:
    flight.settle()
    return store.peek_before_asking(flight.key)


def _is_answer(found: Found | Missing, refused: Found | None) -> bool:
    """Whether what is stored by now is one, and not what was refused."""
    return isinstance(found, Found) and not (refused and found.body == refused.body)


def _watch(place: Place, flight: Flight, holder: str, ends: float) -> Steps[Seen]:
    """What became of `holder`; `ASKING` when the time is up."""
    began = now = time.monotonic()
    while now < ends:
        pause = min(max((now - began) / PAUSES, SHORTEST_PAUSE), LONGEST_PAUSE, ends - now)
        yield Pause(flight, pause)
        seen: Seen = yield partial(places.observe, place, flight.key, holder)
        if seen is not Seen.ASKING:
            return seen
        now = time.monotonic()
    return Seen.ASKING


def _held(flight: Flight, place: Place | None, token: str, generation: int | None) -> Lease:
    if place is None:
        return Lease(flight, place, token, generation)
    renew = partial(_renew, place, flight, token)
    renewal = scheduler.later(place.seconds() / RENEWALS, renew)
    if renewal is None:
        renew()
    return Lease(flight, place, token, generation, renewal)


def _renew(place: Place, flight: Flight, token: str) -> float | None:
    """After how many seconds to renew it again."""
    if flight.is_given_up:
        return None
    places.renew(place, flight.key, token)
    if flight.ending is not None:  # it was freed meanwhile, and may be back
        places.free_later(place, flight.key, token, Ending.STORED)
        return None
    return settings.lease_seconds / RENEWALS


def _free_everywhere(flight: Flight, token: str) -> None:
    for place in places.EVERYWHERE:
        places.free_later(place, flight.key, token, Ending.ABANDONED)


def _carry_out(step: Pause | Callable[[], Any]) -> Any:
    if not isinstance(step, Pause):
        return step()
    with suppress(TimeoutError):
        step.flight.over.result(step.seconds)
    return None


async def _acarry_out(step: Pause | Callable[[], Any]) -> Any:
    if not isinstance(step, Pause):
        # (for longer than the thread will try)
        patience = places.HOT.patience + max(database.READ_SECONDS, hot.patience())
        return await database.arun(step, patience=patience)
    with suppress(TimeoutError):
        async with asyncio.timeout(step.seconds):
            await asyncio.wrap_future(step.flight.over)
    return None
