"""What the calls of one decorated function have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from asgiref.sync import iscoroutinefunction

from llmcache.decorators.arguments import Binder
from llmcache.decorators.naming import (
    form_of_class,
    free_variables,
    name_of,
    origin_of,
)
from llmcache.decorators.returns import Returns, read_returns
from llmcache.keys.forms import copied
from llmcache.keys.request import (
    CommonParts,
    canonical_part,
)
from llmcache.policy import Policy

PROVIDER: Final = "python"
MODE: Final = "cached"
# So many namespaces of one function are remembered.
MOST_NAMESPACES: Final = 1000


@dataclass(frozen=True)
class Origin:
    """A function, and what the decorator was told of it.

    `class_argument` is the name under which a class method gets its class; empty for others.
    """

    function: Callable[..., Any]
    signature: inspect.Signature
    policy: Policy
    tags: Callable[..., Iterable[str]] | None
    tag_arguments: frozenset[str] | None
    exclude: frozenset[str]
    version: int | str
    class_argument: str
    _common_parts: dict[str, CommonParts] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @cached_property
    def name(self) -> str:
        return name_of(self.function)

    @property
    def endpoint_name(self) -> str:
        return f"version={self.version!r}"

    @cached_property
    def closes_over(self) -> bool:
        return bool(free_variables(self.function))

    @cached_property
    def is_coroutine(self) -> bool:
        return iscoroutinefunction(self.function)

    @cached_property
    def returns(self) -> Returns:
        """Read when first asked for: by then, what an annotation names has been defined.

        Raises `UncacheableRequest`, and then it is read anew by the next call.
        """
        return read_returns(self.function, self.is_coroutine)

    def common_parts(self, namespace: str) -> CommonParts:
        """The parts of the key that all calls in this namespace share."""
        known = self._common_parts.get(namespace)
        if known is not None:
            return known
        if len(self._common_parts) >= MOST_NAMESPACES:
            self._common_parts.clear()
        parts = {
            "namespace": namespace,
            "provider": PROVIDER,
            "endpoint": (self.version, origin_of(self.function)),
            "model": self.name,
            "mode": MODE,
        }
        forms = {name: canonical_part(name, value) for name, value in parts.items()}
        common = CommonParts(forms | {"schema": self.returns.schema})
        self._common_parts[namespace] = common
        return common

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments by the names of the parameters, with defaults. Raises `TypeError`."""
        return self.binder.bind(args, kwargs)

    @cached_property
    def binder(self) -> Binder:
        return Binder(self.signature)

    def copied(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The arguments, those copied that count in the key. Raises where one cannot be."""
        bound = self.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name == self.rest_name:
                bound.arguments[name] = self._copied(value)
            elif name not in self.exclude:
                bound.arguments[name] = copied(value)
        return bound

    def _copied(self, rest: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value if name in self.exclude else copied(value) for name, value in rest.items()
        }

    @cached_property
    def counts_all(self) -> bool:
        return not (self.exclude or self.class_argument or self.rest_name)

    def counted(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Those of the bound arguments that count in the key."""
        if self.counts_all:
            return arguments
        counted = {name: value for name, value in arguments.items() if name not in self.exclude}
        if isinstance(cls := counted.get(self.class_argument), type):
            counted[self.class_argument] = form_of_class(cls)
        if (rest := self.rest_name) in counted:
            counted[rest] = {k: v for k, v in counted[rest].items() if k not in self.exclude}
        return counted

    @cached_property
    def rest_name(self) -> str:
        return rest_name_of(self.signature)


def rest_name_of(signature: inspect.Signature) -> str:
    """The name of the parameter ``**kwargs``; empty when there is none."""
    kinds = {parameter.kind: name for name, parameter in signature.parameters.items()}
    return kinds.get(inspect.Parameter.VAR_KEYWORD, "")
