"""Where the calls of one client come from, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Final

from instructor import Instructor

from llmcache.client.call.arguments import (
    DENIED,
    UNHEARD,
)
from llmcache.client.call.endpoints import Endpoint, default_model_of
from llmcache.client.call.headers import ARGUMENTS as HEADER_ARGUMENTS
from llmcache.client.call.names import Names, read_names
from llmcache.client.call.world import searches
from llmcache.keys.request import (
    CommonParts,
    canonical_part,
)
from llmcache.policy import Policy

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
    _common_parts: dict[tuple[tuple[str, ...], bytes], tuple[CommonParts, bool]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @cached_property
    def told_by(self) -> Callable[[tuple[str, ...]], Names]:
        """What the names of a call's arguments tell."""
        return lru_cache(maxsize=MOST_NAMES)(partial(read_names, self.exclude))

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

    def common_parts(
        self, namespace: str, endpoint: str, model: str, schema: bytes
    ) -> tuple[CommonParts, bool]:
        """What calls have in common that differ in their messages and parameters only.

        And whether their model looks at the world by itself.
        """
        client = self.client
        told = (namespace, client.provider._value_, endpoint, model, client.mode._value_)
        known = self._common_parts.get((told, schema))
        if known is not None:
            return known
        if len(self._common_parts) >= MOST_COMMON_PARTS:
            self._common_parts.clear()
        names = ("namespace", "provider", "endpoint", "model", "mode")
        forms = {name: canonical_part(name, value) for name, value in zip(names, told, strict=True)}
        common = CommonParts(forms | {"schema": schema}), searches(model)
        self._common_parts[told, schema] = common
        return common

    def has_calls_in(self, namespace: str) -> bool:
        """Whether it had calls in this namespace (lately, where it has calls in very many)."""
        return any(told[0] == namespace for told, _ in list(self._common_parts))
