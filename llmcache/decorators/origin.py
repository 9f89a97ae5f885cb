"""What the calls of one decorated function have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

from asgiref.sync import iscoroutinefunction

from llmcache.decorators.naming import (
    closed_over,
    form_of_class,
    free_variables,
    name_of,
    origin_of,
)
from llmcache.decorators.returns import Returns, read_returns
from llmcache.keys.forms import copied
from llmcache.keys.request import CommonParts, common_parts
from llmcache.policy import Policy

PROVIDER: Final = "python"
MODE: Final = "cached"
# So many namespaces of one function are remembered.
MOST_NAMESPACES: Final = 1000
PLAIN: Final = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


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

    @cached_property
    def name(self) -> str:
        return name_of(self.function)

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

    @cached_property
    def common_parts(self) -> Callable[[str], CommonParts]:
        """The parts of the key that all calls in a namespace share."""
        return lru_cache(maxsize=MOST_NAMESPACES)(self._common_parts)

    def _common_parts(self, namespace: str) -> CommonParts:
        endpoint = self.version, origin_of(self.function)
        schema = self.returns.schema
        return common_parts(namespace, PROVIDER, endpoint, self.name, MODE, schema)

    def closed_over(self) -> dict[str, Any]:
        """The variables that the function closes over, and that count in the key."""
        closed = closed_over(self.function) if self.closes_over else {}
        return {name: value for name, value in closed.items() if name not in self.exclude}

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments in the order of the parameters, with defaults. Raises `TypeError`."""
        by_place, names, defaults = self._plain_parameters
        if len(args) <= len(by_place):
            given = dict(zip(by_place, args, strict=False))
            if len(given) == len(names) and not kwargs:
                return given
            if given.keys().isdisjoint(kwargs):
                given = {**defaults, **given, **kwargs}
                if len(given) == len(names) and all(map(given.__contains__, names)):
                    return {name: given[name] for name in names}
        # What is unusual, and what is wrong.
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    @cached_property
    def _plain_parameters(self) -> tuple[list[str], list[str], dict[str, Any]]:
        """For `bind`, which tells what `Signature.bind` does, only quicker.

        The parameters that are given by their place, all of them, and their defaults; none of a
        function with other kinds of parameters.
        """
        parameters = self.signature.parameters
        if any(parameter.kind not in PLAIN for parameter in parameters.values()):
            return [], [""], {}
        return (
            [name for name, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD],
            list(parameters),
            {
                name: each.default
                for name, each in parameters.items()
                if each.default is not each.empty
            },
        )

    def copied(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The arguments, those copied that count in the key. Raises where one cannot be."""
        bound = self.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name == self.rest_name:
                bound.arguments[name] = {
                    key: item if key in self.exclude else copied(item)
                    for key, item in value.items()
                }
            elif name not in self.exclude:
                bound.arguments[name] = copied(value)
        return bound

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
