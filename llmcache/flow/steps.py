"""What the flow has to know of a call, and the steps that it asks to have carried out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmcache.leases import Lease
from llmcache.outcomes import Call, Inside
from llmcache.policy import Policy
from llmcache.reasons import Reason
from llmcache.store.records import Draft, Found, Missing


class Request(Protocol):
    """What the flow has to know of a call; the ways in (`client`) provide it."""

    @property
    def call(self) -> Call:
        """The record of this call, with key, namespace and model; the flow fills in the rest."""

    @property
    def policy(self) -> Policy: ...

    @property
    def bypass(self) -> Reason | None:
        """Why this call cannot be cached; None when it can."""

    @property
    def asks_alone(self) -> bool:
        """Whether it asks whatever others ask. Nobody should wait for one that reads a stream."""

    #: Whether a part of the answer has been handed on: then it cannot be another one any more.
    begun: bool

    #: The calls that the answer was made of; None before anybody is asked.
    inside: Inside | None

    @property
    def wait_seconds(self) -> float:
        """How long it waits for another call that asks the same, at most."""

    @property
    def is_one_call(self) -> bool:
        """Whether one model is asked for it, and for nothing else."""

    def restore(self, found: Found) -> Any:
        """The answer that `found` holds. Raises whatever it may when it does not validate."""

    def before_asking(self) -> None:
        """Note what is to be kept of the request while it is still as the caller gave it."""

    def bill(self, answer: Any, seconds: float) -> None:
        """Note what asking took: in the call what was spent, and for `draft` what a hit will save.

        Called after every answer of the model; raises whatever it may.
        """

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        """`answer` as an entry. Raises `NotStorable` when it should not be kept."""

    def again(self) -> Callable[[Lease], Any]:
        """What asks the same once more and stores the answer; a coroutine function of an `adrive`.

        The arguments are copied: the caller goes on meanwhile, and may change them. Raises whatever
        it may when they cannot be.
        """


class StreamRequest(Request, Protocol):
    """A call whose answer is a stream.

    Its `restore` gives back the items of a hit, all of them validated; its `draft` is given a
    `Recording` as the answer.
    """

    def encode_item(self, item: Any) -> bytes:
        """One item for the store. Raises `NotStorable` when the stream should not be kept."""


class NotStorable(Exception):
    """An answer is returned and not stored, for this reason. Nor is what is made of it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class NotRestorable(NotStorable):
    """An answer that the store cannot hold. What is made of it can be stored."""


# (not frozen: that would take longer to make, and each hit makes one)
@dataclass(slots=True)
class Lookup:
    """Find the entry under `key`. The result: `Found` or `Missing`."""

    key: str
    stale: bool


@dataclass(frozen=True, slots=True)
class Acquire:
    """Get ready to ask the model. The result: a `Lease`, or `Found` when another call has asked.

    `alone`: ask whatever others do; `refused`: what is stored and does not validate, so that it is
    no answer; `missing`: what was found instead of one.
    """

    key: str
    alone: bool
    refused: Found | None = None
    missing: Missing = field(default=Missing(), compare=False)


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the model. The result: the answer; the model's error is thrown into the flow."""


@dataclass(frozen=True, slots=True)
class Store:
    """Keep the entry. The result: None, or why it is not kept.

    `generation` tells which invalidations had begun before (see `late_answers`); None: it is not
    known.
    """

    draft: Draft
    generation: int | None


@dataclass(frozen=True, slots=True)
class Refresh:
    """Have a new answer fetched behind the caller. No result."""


Step = Lookup | Acquire | Ask | Store | Refresh
Flow = Generator[Step, Any, Any]
