"""Validation that asks nobody.

The validators that `instructor.llm_validator` and `openai_moderation` make ask a model. They did so
when the answer was live; to restore it, or to prove that it can be, they are skipped. They are
known by the code of the functions that these two make, and by nothing that another function could
have as well. All other validators run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import chain
from types import CodeType
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import SchemaValidator

# Looked up among what is imported: without it, no such validator can be there.
MODULE: Final = "instructor.v2.validation.llm_validators"
MAKERS: Final = ("llm_validator", "openai_moderation")

# Keys of a node in Pydantic's core schema.
NOT_VALIDATION: Final = frozenset({"serialization", "metadata", "default"})

# What a default's function may be without making up anything.
EMPTY: Final = (list, dict, set, frozenset, tuple, str, int, float, bool, bytes)

Reader = Callable[..., Any]


def reader_of(model: type[BaseModel]) -> Reader:
    """What makes an instance of `model` of JSON, and asks nobody."""
    quiet = quiet_validator(model.__pydantic_core_schema__)
    return model.model_validate_json if quiet is None else quiet.validate_json


def quiet_validator(core_schema: Any, config: Any = None) -> SchemaValidator | None:
    """The validator of `core_schema` without those that ask; None where it has none of them."""
    askers = _askers()
    if not askers or not any(_asks(node, askers) for node in core_nodes(core_schema)):
        return None
    quiet = _without(core_schema, askers)
    try:  # not built of the validators that classes have already
        return SchemaValidator(quiet, config, _use_prebuilt=False)
    except TypeError:  # an older Pydantic, where it never is
        return SchemaValidator(quiet, config)


def quiet_of(model: Any) -> Any:
    """What instructor can be given for `model` to parse a response without asking.

    `model` itself where nobody is asked. The answers are instances of `model` in any case.
    """
    quiet = quiet_validator(model.__pydantic_core_schema__)
    if quiet is None:
        return model

    def read(validate: Reader) -> Any:
        return staticmethod(lambda data, **options: validate(data, **options))

    attributes = {
        "__module__": model.__module__,
        "__qualname__": model.__qualname__,
        "model_validate_json": read(quiet.validate_json),
        "model_validate": read(quiet.validate_python),
    }
    # The metaclass of Pydantic would build a validator for it, and needs none of that.
    return type.__new__(type(model), model.__name__, (model,), attributes)


def has_other_validators(core_schema: Any) -> bool:
    """Whether functions take part in it, besides those that ask."""
    askers = _askers()
    return any(
        str(node.get("type", "")).startswith("function-") and not _asks(node, askers)
        for node in core_nodes(core_schema)
    )


def makes_defaults(core_schema: Any) -> bool:
    """Whether some default in it is made by a function, and not by a type's empty call."""
    factories = (node.get("default_factory") for node in core_nodes(core_schema))
    return any(factory is not None and factory not in EMPTY for factory in factories)


def core_nodes(core_schema: Any) -> Iterator[dict[str, Any]]:
    """All nodes of Pydantic's core schema, but for what serializes."""
    waiting: list[Any] = [core_schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += [value for name, value in node.items() if _validates(name, node)]
        elif isinstance(node, list | tuple):
            waiting += node


def _validates(name: str, node: dict[str, Any]) -> bool:
    # (what has no type is a mapping of fields, and these may have any name)
    return name not in NOT_VALIDATION or not isinstance(node.get("type"), str)


def _askers() -> set[CodeType]:
    """The code of the functions that the makers make."""
    module = vars(sys.modules.get(MODULE, object))
    codes = [getattr(module.get(maker), "__code__", None) for maker in MAKERS]
    constants = chain.from_iterable(getattr(code, "co_consts", ()) for code in codes)
    return {each for each in constants if isinstance(each, CodeType)}


def _asks(node: dict[str, Any], askers: set[CodeType]) -> bool:
    function = node.get("function")
    called = function.get("function") if isinstance(function, dict) else None
    return getattr(called, "__code__", None) in askers


def _without(node: Any, askers: set[CodeType]) -> Any:
    """A copy of `node` in which those that ask let everything through as it is."""
    if isinstance(node, list):
        return [_without(each, askers) for each in node]
    if isinstance(node, tuple):
        return tuple(_without(each, askers) for each in node)
    if not isinstance(node, dict):
        return node
    copied = {
        name: _without(value, askers) if _validates(name, node) else value
        for name, value in node.items()
    }
    if _asks(node, askers):
        copied["function"] = {"type": "no-info", "function": lambda value: value}
    return copied
