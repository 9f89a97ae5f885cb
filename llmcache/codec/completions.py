"""The provider's own response: stored as the JSON it came from, and built when looked at.

A hit carries a *pending* completion: an instance of the SDK's own class (so `isinstance` holds)
that holds JSON and nothing else. The first look at any attribute builds it and turns it into a
plain instance of that class. Most hits are never asked for their completion.

What SDKs hang on a response beside its fields, such as its `_request_id`, stands in that JSON under
a name of ours.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from types import NoneType, SimpleNamespace
from typing import Any, Final

from pydantic import BaseModel

from llmcache.codec.equality import same
from llmcache.exceptions import CorruptEntry, LLMCacheError

PENDING: Final = "llmcache pending JSON"
DICT: Final = "builtins:dict"
ATTRIBUTES: Final = "llmcache:attributes"
DAMAGED: Final = "the provider's response is damaged"
# What an object of a model consists of, besides its `__dict__`.
SLOTS: Final = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")

# Of what is hung on a response, ids, times, prices and the like are kept. LiteLLM hides more, in
# a dict: headers, addresses, whatever its options hold. What may be a credential is not kept.
PLAIN: Final = (str, int, float, bool, NoneType)
LONGEST: Final = 200
SENSITIVE: Final = re.compile(
    r"key|token|secret|passw|auth|credential|cookie|signature|header|bearer|jwt|session|url|api_base"
)
SENSITIVE_TEXT: Final = re.compile(
    r"://|\b(bearer|basic) |\b(sk|pk|ghp|xox[a-z])[-_]|^ey[\w-]+\.", re.IGNORECASE
)


class NotReproducible(LLMCacheError):
    """An answer or its completion would not come back from the store as it is."""

    is_without_content = True


@dataclass(slots=True)
class Dumped:
    """A completion as it is stored: the class as ``module:qualified name``, and its JSON."""

    class_path: str
    data: bytes


def dump(completion: Any) -> Dumped | None:
    """`completion` for the store; None for None. Raises `NotReproducible`."""
    if completion is None:
        return None
    if type(completion) is dict:
        return _dump_dict(completion)
    if not isinstance(completion, BaseModel):
        raise NotReproducible(f"the completion is a {type(completion).__name__}")
    cls = completion.__class__  # not `type`: to look at a pending one builds it
    class_path = f"{cls.__module__}:{cls.__qualname__}"
    if _at(class_path) is not cls:
        raise NotReproducible(f"no other process would find the class {class_path}")
    why = f"a {cls.__name__} does not come back from its JSON"
    try:
        data = completion.model_dump_json(by_alias=True, exclude_unset=True, warnings=False)
        built = _build(cls, data.encode())
        if not _same_completion(built, completion):
            raise NotReproducible(why)
    except (ValueError, CorruptEntry) as error:
        raise NotReproducible(why) from error
    return Dumped(class_path, _with_attributes(data, completion, built).encode())


def _with_attributes(data: str, completion: BaseModel, built: BaseModel) -> str:
    """The JSON `data`, with what is hung on `completion`, and is not on what was built of it."""
    hung = {**vars(completion), **(completion.__pydantic_private__ or {})}
    kept = {}
    for name, value in hung.items():
        if name[:1] != "_" or not (_is_hung(name) and _is_harmless(name, value)):
            continue
        if type(value) is dict:
            value = {at: each for at, each in value.items() if _is_harmless(at, each, PLAIN)}
        if value != {} and not same(getattr(built, name, {}), value):
            kept[name] = value
    if not kept:
        return data
    return f"{data[:-1]}{'' if data == '{}' else ','}{json.dumps({ATTRIBUTES: kept})[1:]}"


def _is_harmless(name: Any, value: Any, kinds: tuple[type, ...] = (*PLAIN, dict)) -> bool:
    if type(name) is not str or SENSITIVE.search(name.lower()) or type(value) not in kinds:
        return False
    if isinstance(value, int | float):
        return abs(value) < 2**63  # (no NaN, and nothing that JSON is not read for)
    if isinstance(value, str):
        return len(value) <= LONGEST and not SENSITIVE_TEXT.search(value)
    return True


def _is_hung(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _dump_dict(completion: dict[str, Any]) -> Dumped:
    """Bedrock's SDK gives plain ones."""
    try:
        data = json.dumps(completion).encode()
        if same(json.loads(data), completion):
            return Dumped(DICT, data)
    except (TypeError, ValueError, RecursionError):  # it has no JSON form
        pass
    raise NotReproducible("a dict does not come back from its JSON")


def class_of(dumped: Dumped | None) -> Any:
    """The class of a completion, where this process knows it; else None."""
    return None if dumped is None else _at(dumped.class_path)


def load(dumped: Dumped | None) -> Any:
    """The completion, pending. A class that this process does not know: a `SimpleNamespace`.

    Raises `CorruptEntry` for damaged JSON, as does the first look at what is pending.
    """
    if dumped is None:
        return None
    if dumped.class_path == DICT:
        return _read_json(dumped.data)
    cls = _at(dumped.class_path)
    pending_class = _pending_classes.get(cls) or _new_pending_class(cls)
    if pending_class is None:
        namespace = _read_json(dumped.data, lambda fields: SimpleNamespace(**fields))
        vars(namespace).update(_attributes_in(vars(namespace)))
        return namespace
    pending = object.__new__(pending_class)
    object.__setattr__(pending, "__dict__", {PENDING: dumped.data})
    return pending


def _at(class_path: str) -> Any:
    # Looked up among what is imported, never imported: the path comes from the store, and whoever
    # can write there must not choose which modules run.
    module, _, qualified_name = class_path.partition(":")
    found: Any = sys.modules.get(module)
    for name in qualified_name.split("."):
        # Past `getattr`: a lazy module imports what it is asked for.
        found = getattr(found, "__dict__", {}).get(name)
    return found if isinstance(found, type) else None


def _read_json(data: bytes, object_hook: Any = None) -> Any:
    try:
        read = json.loads(data, object_hook=object_hook)
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptEntry(DAMAGED) from error
    if not isinstance(read, dict if object_hook is None else SimpleNamespace):
        raise CorruptEntry(DAMAGED)
    return read


def _attributes_in(fields: dict[str, Any]) -> dict[str, Any]:
    """Takes what is hung on a completion out of its `fields`."""
    found = fields.pop(ATTRIBUTES, {})
    attributes = getattr(found, "__dict__", found)  # (of a namespace, its own)
    if not isinstance(attributes, dict) or not all(map(_is_hung, attributes)):
        raise CorruptEntry(DAMAGED)
    return attributes


def _build(cls: type[BaseModel], data: bytes, *, checked: bool = True) -> BaseModel:
    fields = _read_json(data)
    attributes = _attributes_in(fields)
    built = _build_of(cls, fields) if checked else cls.model_construct(**fields)
    for name, value in attributes.items():
        # Not in the place of a method, which the class may have got since.
        if name in cls.__private_attributes__ or not hasattr(cls, name):
            BaseModel.__setattr__(built, name, value)
    return built


def _build_of(cls: type[BaseModel], fields: dict[str, Any]) -> BaseModel:
    # (where a class makes itself, as LiteLLM's do, its own way is the right one)
    makes_itself = cls.__pydantic_custom_init__
    if not makes_itself and cls.construct.__func__ is not BaseModel.construct.__func__:  # type: ignore[attr-defined]
        # The SDKs of OpenAI and Anthropic build nested models so, and keep unknown fields.
        return cls.construct(**fields)
    built = cls.model_validate(fields)
    if makes_itself:
        _put_back(built, fields)
    if isinstance(parsed := fields.get("parsed"), dict) and "parsed" in cls.model_fields:
        # google-genai's, an instance of a class that instructor made for one call: no process finds
        # it again, and Pydantic would read an empty model here.
        object.__setattr__(built, "parsed", parsed)
    return built


def _put_back(built: Any, fields: Any) -> None:
    """What a class of LiteLLM leaves out where it is None, as its functions do not."""
    if isinstance(built, list) and isinstance(fields, list):
        for each, its_fields in zip(built, fields, strict=False):
            _put_back(each, its_fields)
    elif isinstance(built, BaseModel) and isinstance(fields, dict):
        for name, value in fields.items():
            if value is None:
                built.__dict__.setdefault(name, None)
                built.__pydantic_fields_set__.add(name)
            else:
                _put_back(built.__dict__.get(name), value)


_pending_classes: Final[dict[type[BaseModel], type[BaseModel]]] = {}


def _new_pending_class(cls: Any) -> type[BaseModel] | None:
    """A class in the place of `cls`; None where that is no model."""
    if cls is None or not issubclass(cls, BaseModel):
        return None

    def built(self: BaseModel, name: str) -> Any:
        _settle(self, cls)
        return getattr(self, name)

    # The metaclass of Pydantic would build a schema for it, and needs none of that.
    pending_class: type[BaseModel] = type.__new__(
        type(cls), cls.__name__, (cls,), {"__slots__": (), "__getattribute__": built}
    )
    return _pending_classes.setdefault(cls, pending_class)


def _settle(pending: BaseModel, cls: type[BaseModel]) -> None:
    """Make `pending` what its JSON says. Raises `CorruptEntry`."""
    data = object.__getattribute__(pending, "__dict__").get(PENDING)
    if data is not None:
        built = _rebuilt(cls, data)
        # State before class: another thread that looks meanwhile settles it again, to the same.
        # The last of it tells that it is there.
        for name in (*SLOTS, "__dict__"):
            object.__setattr__(pending, name, getattr(built, name, None))
    object.__setattr__(pending, "__class__", cls)


def _rebuilt(cls: type[BaseModel], data: bytes) -> BaseModel:
    try:
        try:
            return _build(cls, data)
        except ValueError:  # the class has changed since, as by an upgrade of the SDK
            return _build(cls, data, checked=False)
    except CorruptEntry:
        raise
    except Exception as error:  # what a class raises when it is given what no provider has sent
        raise CorruptEntry(DAMAGED) from error


def _same_completion(left: BaseModel, right: BaseModel) -> bool:
    if type(left) is not type(right):
        return False
    if right.__pydantic_custom_init__:
        # LiteLLM's classes order their fields as they come, and fill in others than its functions.
        dumps = (each.model_dump(exclude_unset=True, warnings=False) for each in (left, right))
        return same(*map(_sorted, dumps))
    return same(left.model_dump(warnings=False), right.model_dump(warnings=False))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
