"""The provider's own response: stored as the JSON it came from, and built when looked at.

A hit carries a *pending* completion: an instance of the SDK's own class (so `isinstance` holds)
that holds JSON and nothing else. The first look at any attribute builds it and turns it into a
plain instance of that class. Most hits are never asked for their completion.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final

from pydantic import BaseModel

from llmcache.codec.sameness import same
from llmcache.exceptions import LLMCacheError

PENDING: Final = "llmcache pending JSON"


class NotReproducible(LLMCacheError):
    """An answer or its completion would not come back from the store as it is."""


@dataclass(slots=True)
class Dumped:
    """A completion as it is stored: the class as ``module:qualified name``, and its JSON."""

    class_path: str
    data: bytes


def dump(completion: Any) -> Dumped | None:
    """`completion` for the store; None for None. Raises `NotReproducible`."""
    if completion is None:
        return None
    if not isinstance(completion, BaseModel):
        raise NotReproducible(f"the completion is a {type(completion).__name__}")
    cls = completion.__class__  # not `type`: to look at a pending one builds it
    class_path = f"{cls.__module__}:{cls.__qualname__}"
    if _at(class_path) is not cls:
        raise NotReproducible(f"no other process would find the class {class_path}")
    try:
        dumped = Dumped(
            class_path,
            completion.model_dump_json(by_alias=True, exclude_unset=True, warnings=False).encode(),
        )
        comes_back = _same_completion(_build(cls, dumped.data), completion)
    except ValueError as error:
        raise NotReproducible(f"a {cls.__name__} does not come back from its JSON") from error
    if not comes_back:
        raise NotReproducible(f"a {cls.__name__} does not come back from its JSON")
    return dumped


def load(dumped: Dumped | None) -> Any:
    """The completion, pending. A class that this process does not know: a `SimpleNamespace`."""
    if dumped is None:
        return None
    cls = _at(dumped.class_path)
    pending_class = _pending_classes.get(cls) or _new_pending_class(cls)
    if pending_class is None:
        return json.loads(dumped.data, object_hook=lambda fields: SimpleNamespace(**fields))
    pending = object.__new__(pending_class)
    object.__setattr__(pending, "__dict__", {PENDING: dumped.data})
    return pending


def _at(class_path: str) -> Any:
    # Looked up among what is imported, never imported: the path comes from the store, and whoever
    # can write there must not choose which modules run.
    module, *names = _steps_to(class_path)
    found: Any = sys.modules.get(module)
    for name in names:
        # Past `getattr`: a lazy module imports what it is asked for.
        found = getattr(found, "__dict__", {}).get(name)
    return found if isinstance(found, type) else None


@lru_cache(maxsize=256)
def _steps_to(class_path: str) -> tuple[str, ...]:
    module, _, qualified_name = class_path.partition(":")
    return module, *qualified_name.split(".")


def _build(cls: type[BaseModel], data: bytes) -> BaseModel:
    fields = json.loads(data)
    if cls.construct.__func__ is not BaseModel.construct.__func__:  # type: ignore[attr-defined]
        # The SDKs of OpenAI and Anthropic build nested models so, and keep unknown fields.
        return cls.construct(**fields)
    return cls.model_validate(fields)


_pending_classes: Final[dict[type[BaseModel], type[BaseModel]]] = {}


def _new_pending_class(cls: Any) -> type[BaseModel] | None:
    """A class in the place of `cls`; None where that is no model."""
    if cls is None or not issubclass(cls, BaseModel):
        return None

    def look(self: BaseModel, name: str) -> Any:
        _settle(self, cls)
        return getattr(self, name)

    # The metaclass of Pydantic would build a schema for it, and needs none of that.
    pending_class: type[BaseModel] = type.__new__(
        type(cls), cls.__name__, (cls,), {"__slots__": (), "__getattribute__": look}
    )
    return _pending_classes.setdefault(cls, pending_class)


def _settle(pending: BaseModel, cls: type[BaseModel]) -> None:
    state = object.__getattribute__(pending, "__dict__")
    data = state.get(PENDING)
    if data is not None:
        try:
            built = _build(cls, data)
        except ValueError:  # the class has changed since, as by an upgrade of the SDK
            built = cls.model_construct(**json.loads(data))
        # State before class: another thread that looks meanwhile settles it again, to the same.
        for slot in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
            object.__setattr__(pending, slot, getattr(built, slot, None))
        object.__setattr__(pending, "__dict__", built.__dict__)
    object.__setattr__(pending, "__class__", cls)


def _same_completion(left: BaseModel, right: BaseModel) -> bool:
    return type(left) is type(right) and same(
        left.model_dump(warnings=False), right.model_dump(warnings=False)
    )
