"""Arguments by the names of the parameters: what `inspect.Signature.bind` tells, only quicker."""

from __future__ import annotations

import inspect
from typing import Any, Final

PLAIN: Final = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


class Binder:
    """Binds arguments to one signature."""

    def __init__(self, signature: inspect.Signature) -> None:
        self._signature = signature
        parameters = signature.parameters.values()
        self._is_plain = all(parameter.kind in PLAIN for parameter in parameters)
        self._names = [parameter.name for parameter in parameters]
        self._by_place = [
            parameter.name
            for parameter in parameters
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]
        self._defaults = {
            parameter.name: parameter.default
            for parameter in parameters
            if parameter.default is not inspect.Parameter.empty
        }

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments in the order of the parameters, with defaults. Raises `TypeError`."""
        if self._is_plain and len(args) <= len(self._by_place):
            given = dict(zip(self._by_place, args, strict=False))
            if len(given) == len(self._names) and not kwargs:
                return given
            if given.keys().isdisjoint(kwargs):
                given = {**self._defaults, **given, **kwargs}
                if len(given) == len(self._names) and all(map(given.__contains__, self._names)):
                    return {name: given[name] for name in self._names}
        # What is unusual, and what is wrong.
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments
