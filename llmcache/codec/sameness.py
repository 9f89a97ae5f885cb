"""Whether two answers are the same, asked of what they hold and not of their ``__eq__``.

A model's ``__eq__`` may ignore fields or lie, and ``1 == 1.0 == True``. What a hit serves has to be
what the live call returned, so types, fields, which fields were set, extras and private attributes
are compared one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

# What instructor hangs on an answer; it is stored and compared as a completion of its own.
ATTACHMENTS = frozenset({"_raw_response", "_total_usage"})


def same(left: Any, right: Any) -> bool:
    """Whether `left` and `right` have the same type and hold the same, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, BaseModel):
        return _same_model(left, right)
    if isinstance(left, str | bytes | bytearray):
        return bool(left == right)
    if isinstance(left, datetime):
        return _same_moment(left, right)
    if is_dataclass(left):
        return all(same(getattr(left, f.name), getattr(right, f.name)) for f in fields(left))
    if isinstance(left, Mapping):
        return _same_mapping(left, right)
    if isinstance(left, Sequence):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Set):
        return len(left) == len(right) and _same_members(left, right)
    # By their written form too: 0.0 and -0.0, Decimal("1.0") and Decimal("1.00"), or one instant
    # in two zones are equal, and yet not the same answer. And NaN is not equal to itself.
    return repr(left) == repr(right) and bool(left == right or left != left)


def models_in(value: Any) -> Iterator[BaseModel]:
    """The models in `value`, itself first, in an order that depends on nothing but its shape."""
    if isinstance(value, BaseModel):
        yield value
        children = [*_attributes(value).values(), *(value.__pydantic_extra__ or {}).values()]
    elif is_dataclass(value) and not isinstance(value, type):
        children = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, Mapping):
        children = list(value.values())
    elif isinstance(value, list | tuple):
        children = list(value)
    else:
        return
    for child in children:
        yield from models_in(child)


def _same_moment(left: datetime, right: datetime) -> bool:
    # Pydantic reads UTC as a class of its own.
    return repr(left.replace(tzinfo=None)) == repr(right.replace(tzinfo=None)) and (
        repr(left.tzinfo) == repr(right.tzinfo) or left.tzname() == right.tzname() == "UTC"
    )


def _same_members(left: Set[Any], right: Set[Any]) -> bool:
    # Members that are equal need not be the same: {1} and {True}.
    counterparts = {member: member for member in right}
    return all(member in counterparts and same(member, counterparts[member]) for member in left)


def _same_model(left: BaseModel, right: BaseModel) -> bool:
    return (
        left.__pydantic_fields_set__ == right.__pydantic_fields_set__
        and same(left.__pydantic_extra__, right.__pydantic_extra__)
        and same(left.__pydantic_private__, right.__pydantic_private__)
        and _same_mapping(_attributes(left), _attributes(right))
    )


def _attributes(model: BaseModel) -> dict[str, Any]:
    return {name: value for name, value in vars(model).items() if name not in ATTACHMENTS}


def _same_mapping(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> bool:
    # In order, and with the types of the keys: {1: ...} is not {True: ...}.
    return same(list(left), list(right)) and all(same(left[key], right[key]) for key in left)
