"""Where the calls of one client come from, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any, Final

from instructor import Instructor

from llmcache.client.call.arguments import DENIED, NOT_PARAMETERS, looks_like_ours
from llmcache.client.call.endpoints import Endpoint, default_model_of
from llmcache.keys.request import CommonParts, common_parts
from llmcache.policy import Policy
from llmcache.providers.arguments import UNHEARD
from llmcache.providers.headers import ARGUMENTS as HEADER_ARGUMENTS
from llmcache.providers.headers import HOLDERS
from llmcache.providers.world import WATCHED

# So many namespaces, models and schemas of one client are remembered, and sets of arguments.
MOST_COMMON_PARTS: Final = 1000
MOST_NAMES: Final = 100


@dataclass(frozen=True)
class Origin:
    """The client that is asked, and what was said of it when it was wrapped."""

    client: Instructor
    policy: Policy
    model: str | None = None
    endpoint: str | None = None
    exclude: frozenset[str] = frozenset()
    # Whether its credentials are those of the environment.
    is_of_environment: bool = False
    # Where it had calls (lately, where they are very many).
    namespaces: set[str] = field(default_factory=set, init=False, compare=False, repr=False)

    @cached_property
    def told_by(self) -> Callable[[tuple[str, ...]], Names]:
        """What the names of a call's arguments tell."""
        return lru_cache(maxsize=MOST_NAMES)(partial(_read_names, self.exclude))

    @cached_property
    def unheard(self) -> frozenset[str]:
        return UNHEARD | self.exclude

    @cached_property
    def not_copied(self) -> frozenset[str]:
        """The names of arguments that do not count in the key, or that validators write into."""
        return DENIED - HEADER_ARGUMENTS.keys() | self.exclude | {"context"}

    @cached_property
    def default_model(self) -> str | None:
        return self.model or default_model_of(self.client.create_fn)

    @cached_property
    def where(self) -> Endpoint:
        return Endpoint(self.endpoint, self.client.client, self.client.create_fn)

    @cached_property
    def common_parts(self) -> Callable[[str, str, str, str, str, bytes], CommonParts]:
        """What calls have in common that differ in their messages and parameters only."""
        return lru_cache(maxsize=MOST_COMMON_PARTS)(partial(_common_parts, self.namespaces))


def _common_parts(namespaces: set[str], namespace: str, *others: Any) -> CommonParts:
    if len(namespaces) >= MOST_COMMON_PARTS:
        namespaces.clear()
    namespaces.add(namespace)
    return common_parts(namespace, *others)


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of a call's arguments tell: looked through once, as most calls have the same.

    `counted`: those that count in the key as parameters; `doubtful`: those that may be meant for
    the cache; and whether there are arguments with headers in them, with more than what counts, and
    with what may look at the world.
    """

    counted: tuple[str, ...]
    doubtful: tuple[str, ...]
    have_headers: bool
    have_holders: bool
    are_watched: bool


def _read_names(exclude: Set[str], names: tuple[str, ...]) -> Names:
    not_counted = NOT_PARAMETERS | exclude
    return Names(
        counted=tuple(name for name in names if name not in not_counted),
        doubtful=tuple(name for name in names if looks_like_ours(name) and name not in exclude),
        have_headers=not HEADER_ARGUMENTS.keys().isdisjoint(names),
        have_holders=not HOLDERS.isdisjoint(names),
        are_watched=not WATCHED.isdisjoint(names),
    )
