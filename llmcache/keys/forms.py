"""The canonical form of any value.

The canonical form is a byte string that two values share only if they are the same. Each value
is written with its type and, where it has no fixed end, its length, so no value can be mistaken for
another: not ``1`` for ``True``, ``"1"`` or ``1.0``, not ``{1: x}`` for ``{"1": x}``, not
``["a", "b"]`` for ``["ab"]``. Mappings and sets are sorted; text is not normalised.

Whoever changes what this module writes for any value raises `request.VERSION`, which is part of
each key: then no old key is met again, and all entries are asked anew.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from pathlib import PurePath
from typing import Any, Final, get_args
from uuid import UUID

from django.utils.functional import Promise
from pydantic import BaseModel
from pydantic.errors import PydanticUserError

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


def _sequence_form(mark: bytes, value: list[Any] | tuple[Any, ...]) -> bytes:
    members = []
    for index, member in enumerate(value):
        try:
            members.append(_form(member))
        except _NoForm as error:
            error.path.append(index)
            raise
    return b"%b%d:%b" % (mark, len(value), b"".join(members))


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


def _model_form(value: BaseModel) -> bytes:
    # What the model holds, not what it dumps: a dump may leave fields out. And which fields were
    # set: SDKs send only those. Not what it has worked out, nor what was hung on it.
    fields_of_it, extra = _held(value)
    return _typed_form(
        value,
        _dict_form(fields_of_it | extra)
        + _dict_form(value.__pydantic_private__ or {})
        + _set_form(value.__pydantic_fields_set__),
    )


def _held(value: BaseModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a model as it holds them, and what it was given besides."""
    names = type(value).model_fields
    held = {name: item for name, item in value.__dict__.items() if name in names}
    return held, value.__pydantic_extra__ or {}


def _class_form(value: type[BaseModel]) -> bytes:
    try:
        return b"S" + _dict_form(value.model_json_schema())
    except PydanticUserError as error:
        raise _NoForm(f"{path_of(value)} has no schema: {error.message}") from None


def _dataclass_items(value: Any) -> dict[str, Any]:
    held = {field.name: getattr(value, field.name) for field in fields(value)}
    return held | _attributes(value)


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
    list: partial(_sequence_form, b"["),
    # Not as a list: in a template, which instructor fills from the context, they look different.
    tuple: partial(_sequence_form, b"("),
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
        return _typed_form(value, _form(value.name) + _form(value.value))
    if isinstance(value, BaseModel):
        return _model_form(value)
    if isinstance(value, type) and issubclass(value, BaseModel):
        return _class_form(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _typed_form(value, _dict_form(_dataclass_items(value)))
    if isinstance(value, PurePath):
        # Not by the name of its module, which depends on the version of Python.
        return _named_form(f"pathlib.{type(value).__qualname__}", _str_form(str(value)))
    if isinstance(value, Promise):
        if not hasattr(value, "casefold"):
            raise _NoForm("a lazy value that is no text has no canonical form")
        return _str_form(str(value))  # in the language that is active now
    for base in (str, bytes, int, float, dict, list, tuple, set, frozenset):
        if isinstance(value, base):
            return _typed_form(value, FORMS[base](value) + _dict_form(_attributes(value)))
    raise _NoForm(f"{path_of(type(value))} has no canonical form")


def copied(value: Any, copy_of: Callable[[Any], Any] = copy.deepcopy) -> Any:
    """`value` with the same canonical form, and as nobody else can change it.

    `copy_of` copies what is neither a list nor a mapping; of a lazy translation, the copy is its
    text. Raises whatever copying raises.
    """
    kind = type(value)
    if kind in WITHOUT_ORDER:
        return value
    if kind is dict:
        return {copied(key, copy_of): copied(item, copy_of) for key, item in value.items()}
    if kind is list:
        return [copied(item, copy_of) for item in value]
    if kind is tuple:
        return tuple([copied(item, copy_of) for item in value])
    return str(value) if isinstance(value, Promise) else copy_of(value)
