"""How calls were answered: a `Call` for each, for `capture` and the signal `call_answered`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from llmcache.reasons import Reason, ReasonCode


class Outcome(StrEnum):
    """How a call was answered."""

    HIT = "hit"
    STALE = "stale"
    MISS = "miss"
    RELOAD = "reload"
    BYPASS = "bypass"


class Tier(StrEnum):
    """Which copy of an entry served a hit."""

    LOCAL = "local"
    HOT = "hot"
    DURABLE = "durable"


# Tokens in and out, money, microseconds; less than 0: not known.
RECEIPT: Final = struct.Struct("!iiqq")
MOST_TOKENS: Final = 2**31 - 1
UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one answer of the model took; None is what is not known.

    `cost` is in billionths of a US dollar (so sums are exact), `microseconds` how long the model
    took.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: int | None = None
    microseconds: int | None = None

    def pack(self) -> bytes:
        """As it is kept beside an answer: 24 bytes."""
        fields = (self.input_tokens, self.output_tokens, self.cost, self.microseconds)
        tokens_in, tokens_out, *rest = (UNKNOWN if value is None else value for value in fields)
        return RECEIPT.pack(min(tokens_in, MOST_TOKENS), min(tokens_out, MOST_TOKENS), *rest)

    @classmethod
    def unpack(cls, data: bytes) -> Self | None:
        """What `pack` gave; None for anything else."""
        if len(data) != RECEIPT.size:
            return None
        return cls(*(None if value < 0 else value for value in RECEIPT.unpack(data)))


NO_RECEIPT: Final = Receipt()


@dataclass(slots=True)
class Call:
    """One call of a client.

    `outcome` and `tier` compare as strings (``call.outcome == "hit"``). `tier` is None unless a
    copy was served; `key` is empty when the request has none; `reason` says in words why the
    outcome is not a plain hit or miss, and `reason_code` is the code of it (of several reasons, of
    the last one), which knows what to do about it; `stored` tells whether this call
    stored its answer (on SQLite inside a transaction: will, when that ends), and `size` in how many
    bytes; `seconds` is how long the whole call took.

    `spent` is what asking the model took, None when it was not asked or did not answer; `saved` is
    what the stored answer took that was served instead.
    """

    outcome: Outcome = Outcome.MISS
    tier: Tier | None = None
    key: str = ""
    namespace: str = ""
    model: str = ""
    reason: str = ""
    reason_code: ReasonCode | None = None
    stored: bool = False
    seconds: float = 0.0
    provider: str = ""
    response_model: str = ""
    size: int = 0
    spent: Receipt | None = None
    #: The packed receipt of the copy that was served. Most are never looked at.
    receipt: bytes = field(default=b"", repr=False)
    #: For what is made of this answer (see `Inside`): when it was asked for, as stored (0: it may
    #: not be), when it expires, and that it must not be stored itself: never, or without a ttl.
    created: float = field(default=0.0, repr=False)
    expires: float | None = field(default=None, repr=False)
    spoils: bool = field(default=False, repr=False)
    needs_ttl: bool = field(default=False, repr=False)

    @property
    def saved(self) -> Receipt | None:
        return Receipt.unpack(self.receipt)

    @property
    def is_answered(self) -> bool:
        return self.tier is not None or self.spent is not None

    @property
    def has_entry(self) -> bool:
        """Whether the answer is stored, or may be."""
        return bool(self.key) and self.outcome is not Outcome.BYPASS

    def because(self, reason: Reason) -> None:
        """Note `reason` in the place of what was noted before."""
        self.reason, self.reason_code = reason.text, reason.code

    def also_because(self, reason: Reason) -> None:
        """Note `reason` beside what was noted before."""
        self.reason = f"{self.reason}; {reason}" if self.reason else reason.text
        self.reason_code = reason.code

    def once_more(self) -> Call:
        """A record for asking the same again."""
        return Call(
            key=self.key,
            namespace=self.namespace,
            model=self.model,
            provider=self.provider,
            response_model=self.response_model,
        )


#: The lists that are shown each call: those of the blocks around it.
captures: ContextVar[tuple[list[Call], ...]] = ContextVar("llmcache_captures", default=())


@contextmanager
def capture() -> Iterator[list[Call]]:
    """A list that fills with one `Call` for each call that is made inside the block.

    It sees the calls of this thread, and of the asyncio tasks started inside; the calls of other
    threads and other tasks it does not see. Blocks may be nested; each sees its own calls and
    those of the blocks inside.
    """
    calls: list[Call] = []
    with recorded_in(calls):
        yield calls


@contextmanager
def recorded_in(calls: list[Call]) -> Iterator[None]:
    """`capture` into a list that is there."""
    token = captures.set((*captures.get(), calls))
    try:
        yield
    finally:
        captures.reset(token)


class Inside(list[Call]):
    """The calls that one answer is made of, hits included. It fills as the list of `capture` does.

    `streams` are those that were begun: one that is not read to its end is told too late, or never.
    `is_one_call`: the answer is that of one call of a model, and what is sent for it is not counted
    once more where it passes the HTTP client.
    """

    def __init__(self, *, is_one_call: bool = False) -> None:
        super().__init__()
        self.streams: list[Call] = []
        self.is_one_call = is_one_call

    def spoiled(self, *, has_ttl: bool) -> str:
        """Why the answer is not to be stored, because of one of them; empty: it is.

        One that failed is none when it was repeated, and answered then. `has_ttl`: somebody has
        said how long the answer stays fresh.
        """
        answered = {call.key for call in self if call.is_answered} - {""}
        for call in (*self, *self.streams):
            if call.outcome is Outcome.STALE:
                return "it was stale"
            failed = not call.is_answered and call.key not in answered
            if failed or call.spoils or (call.needs_ttl and not has_ttl):
                return call.reason or "it is missing"
        return ""

    def parts(self) -> dict[str, float]:
        """The keys under which they are stored, or may be, and when each was asked for (or 0)."""
        return {call.key: call.created for call in self if call.has_entry}

    def expires(self) -> float | None:
        """When the first of them does (seconds since the epoch); None: none ever does."""
        times = [call.expires for call in self if call.has_entry]
        return min((time for time in times if time is not None), default=None)


def is_inside_one_call() -> bool:
    """Whether what is asked now is asked for a call that keeps the answer itself."""
    insides = [calls for calls in captures.get() if isinstance(calls, Inside)]
    return bool(insides) and insides[-1].is_one_call


def start_stream(call: Call) -> None:
    """Note that a stream was begun, whose end may never come."""
    for calls in captures.get():
        if isinstance(calls, Inside):
            calls.streams.append(call)
