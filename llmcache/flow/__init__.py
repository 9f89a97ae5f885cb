"""The way of one call: the rules, written once, and the drivers that carry them out.

`rules.answer` is a generator. It does no I/O: it yields what it needs (`Lookup`, `Acquire`, `Ask`,
`Store`, ...: see `steps`), is sent the result, and returns the answer. `driving` carries the steps
out for a synchronous caller and for a coroutine, `streaming` where the answer is a stream, so the
rules cannot differ between them, and are tested without a server. `refreshing` has a new answer
fetched behind a caller who was served a stale one, and `turns` keeps the loop going when many calls
begin at once.
"""

from llmcache.flow.driving import (
    Elsewhere,
    Shared,
    adrive,
    arefresh,
    drive,
    drive_but_asking,
    refresh,
)
from llmcache.flow.recording import Recording
from llmcache.flow.rules import answer
from llmcache.flow.steps import (
    Acquire,
    Ask,
    Lookup,
    NotStorable,
    Refresh,
    Request,
    Store,
    StreamRequest,
    Turn,
)
from llmcache.flow.streaming import adrive_stream, arefresh_stream, drive_stream, refresh_stream
from llmcache.flow.turns import take_first_turn, take_turn

__all__ = [
    "Acquire",
    "Ask",
    "Elsewhere",
    "Lookup",
    "NotStorable",
    "Recording",
    "Refresh",
    "Request",
    "Shared",
    "Store",
    "StreamRequest",
    "Turn",
    "adrive",
    "adrive_stream",
    "answer",
    "arefresh",
    "arefresh_stream",
    "drive",
    "drive_but_asking",
    "drive_stream",
    "refresh",
    "refresh_stream",
    "take_first_turn",
    "take_turn",
]
