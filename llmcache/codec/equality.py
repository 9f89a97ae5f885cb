"""Whether two answers are the same, asked of what they hold and not of their ``__eq__``.

An ``__eq__`` may ignore fields or lie, and ``1 == 1.0 == True``. What a hit serves has to be what
the live call returned, so types, fields, which fields were set, extras and private attributes are
compared one by one; of objects of other types, what `copy` and `pickle` take them apart into.
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import datetime
from operator import methodcaller
from typing import Any

from pydantic import BaseModel

# What instructor hangs on an answer; it is stored and compared as a completion of its own.
ATTACHMENTS = frozenset({"_raw_response", "_total_usage"})

ATOMS = (str, bytes, bytearray)
NUMBERS = frozenset({int, float, complex, bool, type(None)})
# On these, nothing can be hung.
BARE = frozenset({dict, list, tuple, set, frozenset})


def same(left: Any, right: Any) -> bool:
    """Whether `left` and `right` have the same type and hold the same, all the way down."""
    if type(left) is not type(right):
        return False
    if left is right:
        return True
    if isinstance(left, BaseModel):
        return _same_model(left, right)
    if type(left) in ATOMS:
        return bool(left == right)
    if type(left) in NUMBERS:
        # By their written form: 0.0 and -0.0 are equal, NaN is not equal to itself.
        return repr(left) == repr(right)
    if isinstance(left, datetime):
        return _same_moment(left, right)
    if is_dataclass(left):
        return all(same(getattr(left, f.name), getattr(right, f.name)) for f in fields(left))
    if isinstance(left, ATOMS) or not isinstance(left, Mapping | Sequence | Set):
        return _same_object(left, right)
    if len(left) != len(right) or not (type(left) in BARE or _same_attributes(left, right)):
        return False
    if isinstance(left, Mapping):
        return _same_mapping(left, right)
    if isinstance(left, Set):
        # Members that are equal need not be the same: {1} and {True}.
        counterparts = {member: member for member in right}
        return all(each in counterparts and same(each, counterparts[each]) for each in left)
    return all(map(same, left, right))


def _same_object(left: Any, right: Any) -> bool:
    # Its `__eq__` may say no, and proves nothing. (Decimal("NaN") is not equal to itself.)
    if not (left == right or left != left):
        return False
    reduce = copyreg.dispatch_table.get(type(left)) or methodcaller("__reduce_ex__", 4)
    try:
        return same(reduce(left), reduce(right))
    except (TypeError, RecursionError):  # it cannot be taken apart
        return False


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


def _same_model(left: BaseModel, right: BaseModel) -> bool:
    return (
        left.__pydantic_fields_set__ == right.__pydantic_fields_set__
        and same(left.__pydantic_extra__, right.__pydantic_extra__)
        and same(left.__pydantic_private__, right.__pydantic_private__)
        and _same_attributes(left, right)
    )


def _same_attributes(left: Any, right: Any) -> bool:
    return _same_mapping(_attributes(left), _attributes(right))


def _attributes(value: Any) -> dict[str, Any]:
    own: dict[str, Any] = getattr(value, "__dict__", {})
    if ATTACHMENTS.isdisjoint(own):
        return own
    return {name: each for name, each in own.items() if name not in ATTACHMENTS}


def _same_mapping(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> bool:
    # In order, and with the types of the keys: {1: ...} is not {True: ...}.
    keys, others = list(left), list(right)
    are_names = set(map(type, keys + others)) <= {str}
    if not (keys == others if are_names else same(keys, others)):
        return False
    # (a loop, and what is the very same is not looked at: each answer that is stored comes by)
    for key in keys:
        mine, theirs = left[key], right[key]
        is_text = type(mine) is str and type(theirs) is str
        if mine is not theirs and not (mine == theirs if is_text else same(mine, theirs)):
            return False
    return True
