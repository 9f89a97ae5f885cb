"""What the names of a call's arguments tell: looked through once, as most calls have the same."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from llmcache.client.call.arguments import NOT_PARAMETERS
from llmcache.client.call.headers import ARGUMENTS, HOLDERS
from llmcache.client.call.world import WATCHED


@dataclass(frozen=True, slots=True)
class Names:
    """`counted`: those that count in the key as parameters; `doubtful`: those that may be meant for
    the cache; and whether there are arguments with headers in them, with more than what counts, and
    with what may look at the world.
    """

    counted: tuple[str, ...]
    doubtful: tuple[str, ...]
    have_headers: bool
    have_holders: bool
    are_watched: bool


def read_names(exclude: Set[str], names: tuple[str, ...]) -> Names:
    """What `names` tell of a call to a client that leaves `exclude` out of the key."""
    not_counted = NOT_PARAMETERS | exclude
    return Names(
        counted=tuple(name for name in names if name not in not_counted),
        doubtful=tuple(
            name for name in names if name[:4].lower() == "cach" and name not in exclude
        ),
        have_headers=not ARGUMENTS.keys().isdisjoint(names),
        have_holders=not HOLDERS.isdisjoint(names),
        are_watched=not WATCHED.isdisjoint(names),
    )
