"""What a place for leases is asked."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, Protocol

from llmcache.leases.flights import Ending
from llmcache.outcomes import Tier

# So long the waiters have to notice that they are to ask for themselves.
NOTICE_SECONDS: Final = 10


class Seen(Enum):
    """What a waiter sees of the holder it waits for."""

    ASKING = auto()
    RELEASED = auto()
    GONE = auto()


class Place(Protocol):
    """Where leases are kept. Each function may raise what the tier raises."""

    tier: Tier
    #: A claim that fails is tried again for so many seconds: it may be a moment's trouble (a
    #: thousand who ask at once), and elsewhere, another one would have the lease as well.
    patience: float

    def seconds(self) -> float:
        """How long a lease that was just taken lasts."""

    def acquire(self, key: str, token: str) -> str | None:
        """Take the lease for `key`. None: it is ours; else the token of its holder.

        That is empty where the holder has just let it go: nobody has it.
        """

    def observe(self, key: str, holder: str) -> Seen: ...

    def renew(self, key: str, token: str) -> None: ...

    def free(self, key: str, token: str, ending: Ending) -> None: ...
