"""The canonical form of a request, and its key.

The canonical form is a byte string that two requests share only if they are the same request. Each
value is written with its type and, where it has no fixed end, its length, so no value can be
mistaken for another: not ``1`` for ``True``, ``"1"`` or ``1.0``, not ``{1: x}`` for ``{"1": x}``,
not ``["a", "b"]`` for ``["ab"]``. Mappings and sets are sorted; text is not normalised. The key is
the SHA-256 (FIPS 180-4) of the parts in canonical form.

`VERSION` is part of each key. Whoever changes what this module writes for any value raises it:
then no old key is met again, and all entries are asked anew.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final, get_args
from uuid import UUID

from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from llmcache.exceptions import UncacheableRequest

VERSION: Final = 1

# The parts of a request, in the order in which the key reads them.
PARTS: Final = (
    "namespace",
    "provider",
    "endpoint",
    "model",
    "mode",
    "schema",
    "messages",
    "parameters",
    "context",
    "strict",
)

# Generation parameters that every provider reads as numbers: 0 and 0.0 ask for the same.
NUMERIC_PARAMETERS: Final = frozenset(
    {
        "frequency_penalty",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "min_p",
        "n",
        "presence_penalty",
        "repetition_penalty",
        "seed",
        "temperature",
        "top_k",
        "top_logprobs",
        "top_p",
    }
)


# What the calls of one client for one response model have in common comes first: its hash is kept.
COMMON_PARTS: Final = PARTS[:6]
OWN_PARTS: Final = PARTS[6:]


class CommonParts:
    """The parts of a request that many calls share, in canonical form, and what they hash to."""

    def __init__(self, parts: Mapping[str, bytes]) -> None:
        self.contents = tuple([parts[part] for part in COMMON_PARTS])
        self._sha256 = hashlib.sha256(b"llmcache %d" % VERSION)
        for content in self.contents:
            self._sha256.update(b"|%d:%b" % (len(content), content))

    def request(
        self, messages: bytes, parameters: bytes, context: bytes, strict: bytes
    ) -> CanonicalRequest:
        """The request of which these are the other parts."""
        sha256 = self._sha256.copy()
        sha256.update(b"|%d:%b" % (len(messages), messages))
        sha256.update(
            b"|%d:%b|%d:%b|%d:%b"
            % (len(parameters), parameters, len(context), context, len(strict), strict)
        )
        own = messages, parameters, context, strict
        return CanonicalRequest(sha256.hexdigest(), self.contents, own)


@dataclass(slots=True)
class CanonicalRequest:
    """A request in canonical form: each part as bytes, none left out.

    `key`: 64 hex digits, SHA-256 over the version and all parts.
    """

    key: str
    common: tuple[bytes, ...]
    own: tuple[bytes, ...]

    @classmethod
    def of(cls, parts: Mapping[str, bytes]) -> CanonicalRequest:
        """The request with these parts, of which none may be missing."""
        return CommonParts(parts).request(**{part: parts[part] for part in OWN_PARTS})

    def digests(self) -> dict[str, str]:
        """SHA-256 of each part, in hex: what `explain` compares."""
        contents = zip(PARTS, self.common + self.own, strict=True)
        return {part: digest(content).hex() for part, content in contents}


def digest(content: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(content).digest()


def canonical_part(part: str, value: Any) -> bytes:
    """`value` in canonical form. Raises `UncacheableRequest`, which names the place in `part`."""
    try:
        return _form(value)
    except _NoForm as error:
        place = part + "".join(f"[{step!r}]" for step in reversed(error.path))
        raise UncacheableRequest(place, error.why) from None
    except RecursionError:
        raise UncacheableRequest(part, "nested too deeply, or in itself") from None


def canonical_parameters(parameters: Mapping[str, Any]) -> bytes:
    """Generation parameters in canonical form, the numeric ones compared as numbers."""
    return canonical_part(
        "parameters",
        {
            name: _as_number(value) if name in NUMERIC_PARAMETERS else value
            for name, value in parameters.items()
        },
    )


def canonical_context(context: Any) -> bytes:
    """instructor's context in canonical form, the order inside of it included.

    A template that goes through a mapping writes it out in its order: there, another order is
    another prompt. The names of the context itself are known one by one.
    """
    form = canonical_part("context", context)
    if not isinstance(context, dict):
        return form
    names = sorted(context, key=str) if len(context) > 1 else context
    return form + b"".join([_order_form(context[name]) for name in names])


def _order_form(value: Any) -> bytes:
    """In which order the mappings inside `value` hold their keys."""
    if type(value) in WITHOUT_ORDER:
        return b""
    if isinstance(value, dict):
        items = [_form(key) + _order_form(item) for key, item in dict.items(value)]
        return b"<%d:%b" % (len(items), b"".join(items))
    if isinstance(value, list | tuple):
        return b"".join([_order_form(item) for item in value])
    return b""


def _as_number(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


# Most arguments are of these types, in which there is nothing to be in an order.
WITHOUT_ORDER: Final = frozenset({type(None), bool, int, float, str, bytes})

# The forms of names that have been met: "role", "content" and the like come in each request. Only
# of plain strings; what else is equal to one has another form.
_names: Final[dict[str, bytes]] = {}
MOST_NAMES: Final = 1000
LONGEST_NAME: Final = 64


class _NoForm(Exception):
    """A value has no canonical form; `path` leads to it, innermost step first."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.path: list[Any] = []


def _form(value: Any) -> bytes:
    exact = FORMS.get(type(value))
    return exact(value) if exact is not None else _form_by_kind(value)


def _framed(tag: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(content), content)


def _str_form(value: str) -> bytes:
    # "surrogatepass": a lone surrogate is no valid text, and still a value of its own.
    content = value.encode("utf-8", "surrogatepass")
    return b"s%d:%b" % (len(content), content)


def _float_form(value: float) -> bytes:
    if math.isnan(value):
        raise _NoForm("NaN is not equal to itself")
    return b"d%b;" % repr(value).encode()


def _dict_form(value: dict[Any, Any]) -> bytes:
    # What it holds, not what a subclass shows of it: the items of a `MultiValueDict` are not all.
    items = []
    for key, item in dict.items(value):
        try:
            name = _names.get(key) if type(key) is str else None
            exact = FORMS.get(type(item))  # (as `_form`, without the call)
            form = exact(item) if exact is not None else _form_by_kind(item)
            items.append((name or _name_form(key)) + form)
        except _NoForm as error:
            error.path.append(key)
            raise
    items.sort()
    return b"{%d:%b" % (len(items), b"".join(items))


def _name_form(key: Any) -> bytes:
    form = _form(key)
    framed = b"k%d:%b" % (len(form), form)
    if type(key) is str and len(key) <= LONGEST_NAME and len(_names) < MOST_NAMES:
        _names[key] = framed
    return framed


def _list_form(value: list[Any]) -> bytes:
    return b"[%d:%b" % (len(value), _sequence_form(value))


def _tuple_form(value: tuple[Any, ...]) -> bytes:
    # Not as a list: in a template, which instructor fills from the context, they look different.
    return b"(%d:%b" % (len(value), _sequence_form(value))


def _sequence_form(value: list[Any] | tuple[Any, ...]) -> bytes:
    members = []
    for index, member in enumerate(value):
        try:
            members.append(_form(member))
        except _NoForm as error:
            error.path.append(index)
            raise
    return b"".join(members)


def _set_form(value: set[Any] | frozenset[Any]) -> bytes:
    return b"<%d:%b" % (len(value), b"".join(sorted(map(_form, value))))


def _typed_form(value: Any, content: bytes) -> bytes:
    """`content` marked with the class of `value`: of two classes, never the same form."""
    return _named_form(path_of(type(value)), content)


def _named_form(name: str, content: bytes) -> bytes:
    # Framed as a whole: classes of one name and of different kinds cannot run into what follows.
    return _framed(b"t", _str_form(name) + content)


def path_of(annotation: Any) -> str:
    """A type in words: the dotted path of a class, and as written for others (``list[int]``)."""
    if isinstance(annotation, type) and not get_args(annotation):
        return f"{annotation.__module__}.{annotation.__qualname__}"
    return str(annotation)


def _written_form(value: Any) -> bytes:
    return _typed_form(value, _str_form(str(value)))


def _moment_form(value: datetime | time) -> bytes:
    # The zone and the fold too: a template can write both.
    zone = "" if value.tzinfo is None else f"{value.tzinfo} {value.fold}"
    return _typed_form(value, _str_form(value.isoformat()) + _str_form(zone))


def _enum_form(value: Enum) -> bytes:
    return _typed_form(value, _form(value.name) + _form(value.value))


def _model_form(value: BaseModel) -> bytes:
    # What the model holds, not what it dumps: a dump may leave fields out. And which fields were
    # set: SDKs send only those. Not what it has worked out, nor what was hung on it.
    attributes = value.__dict__
    held = {name: attributes[name] for name in type(value).model_fields if name in attributes}
    return _typed_form(
        value,
        _dict_form(held | (value.__pydantic_extra__ or {}))
        + _dict_form(value.__pydantic_private__ or {})
        + _set_form(value.__pydantic_fields_set__),
    )


def _class_form(value: type[BaseModel]) -> bytes:
    try:
        return b"S" + _dict_form(value.model_json_schema())
    except PydanticUserError as error:
        raise _NoForm(f"{path_of(value)} has no schema: {error.message}") from None


def _path_form(value: PurePath) -> bytes:
    # Not by the name of its module, which depends on the version of Python.
    return _named_form(f"pathlib.{type(value).__qualname__}", _str_form(str(value)))


def _dataclass_form(value: Any) -> bytes:
    held = {field.name: getattr(value, field.name) for field in fields(value)}
    return _typed_form(value, _dict_form(held | _attributes(value)))


def _attributes(value: Any) -> dict[str, Any]:
    """What was hung on an object besides what its kind holds: a template sees that, too."""
    return getattr(value, "__dict__", {})


FORMS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda value: b"N;",
    bool: lambda value: b"T;" if value else b"F;",
    int: lambda value: b"i%x;" % value if value >= 0 else b"i-%x;" % -value,
    float: _float_form,
    str: _str_form,
    bytes: lambda value: _framed(b"b", value),
    bytearray: lambda value: _typed_form(value, _framed(b"b", bytes(value))),
    list: _list_form,
    tuple: _tuple_form,
    dict: _dict_form,
    set: _set_form,
    frozenset: _set_form,
    datetime: _moment_form,
    time: _moment_form,
    date: _written_form,
    timedelta: lambda value: _typed_form(
        value, _form((value.days, value.seconds, value.microseconds))
    ),
    Decimal: _written_form,
    Fraction: _written_form,
    complex: _written_form,
    UUID: _written_form,
}


def _form_by_kind(value: Any) -> bytes:
    """The form of a value whose exact type is not in `FORMS`: by what it is an instance of."""
    if isinstance(value, Enum):
        return _enum_form(value)
    if isinstance(value, BaseModel):
        return _model_form(value)
    if isinstance(value, type) and issubclass(value, BaseModel):
        return _class_form(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _dataclass_form(value)
    if isinstance(value, PurePath):
        return _path_form(value)
    for base in (str, bytes, int, float, dict, list, tuple, set, frozenset):
        if isinstance(value, base):
            return _typed_form(value, FORMS[base](value) + _dict_form(_attributes(value)))
    raise _NoForm(f"{path_of(type(value))} has no canonical form")
