"""The way of one call: the rules, written once, and the drivers that carry them out.

`rules.answer` is a generator. It does no I/O: it yields what it needs (`Lookup`, `Acquire`, `Ask`,
`Store`, ...: see `steps`), is sent the result, and returns the answer. `drivers` carries the steps
out for a synchronous caller and for a coroutine, `stream_drivers` where the answer is a stream. So
the rules cannot differ between them, and are tested without a server.

`request` is what the calls of clients and of decorated functions have in common. `inside` records
what is asked while an answer is made, `revalidation` has a new answer fetched behind a caller who
was given a stale one, and `fairness` keeps the loop going when many calls begin at once.
"""

from llmcache.flow.drivers import (
    Elsewhere,
    Shared,
    adrive,
    arefresh,
    drive,
    drive_but_asking,
    refresh,
)
from llmcache.flow.fairness import take_first_turn, take_turn
from llmcache.flow.recording import Recording
from llmcache.flow.request import BaseRequest
from llmcache.flow.rules import answer
from llmcache.flow.steps import (
    Acquire,
    Ask,
    Leader,
    Lookup,
    NotRestorable,
    NotStorable,
    Refresh,
    Request,
    Store,
    StreamRequest,
)
from llmcache.flow.stream_drivers import (
    adrive_stream,
    arefresh_stream,
    drive_stream,
    refresh_stream,
)

__all__ = [
    "Acquire",
    "Ask",
    "BaseRequest",
    "Elsewhere",
    "Leader",
    "Lookup",
    "NotRestorable",
    "NotStorable",
    "Recording",
    "Refresh",
    "Request",
    "Shared",
    "Store",
    "StreamRequest",
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
