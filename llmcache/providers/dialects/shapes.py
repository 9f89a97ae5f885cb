"""What an answer has to have, so that who reads it finds something: in words of its protocol.

Providers add fields, and servers that speak like them leave out others, so only that counts which
tells the answer. A shape is one of these:

    str                 of this type
    (str, shape)        of one of these
    {"name": shape}     an object in which each name is there, and of its shape; "name?" may lack
    AnyOf(name=shape)   an object in which some of the names are there, each with its shape
    ByType(name=shape)  an object of a type that stands in it, and of the shape of that type
    [shape]             a list, and each of it of that shape
    Filled([shape])     one that is not empty
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AnyOf(dict[str, Any]):
    """See above."""


class ByType(dict[str, Any]):
    """See above. A type that is not named here may look like anything."""


class Filled(list[Any]):
    """See above."""


def fits(value: Any, shape: Any) -> bool:
    """Whether `value`, of JSON, has this shape."""
    if isinstance(shape, list):
        is_list = isinstance(value, list) and (bool(value) or not isinstance(shape, Filled))
        return is_list and all(fits(each, shape[0]) for each in value)
    if isinstance(shape, tuple):
        return any(fits(value, each) for each in shape)
    if not isinstance(shape, dict):
        return isinstance(value, shape) and not (shape is int and isinstance(value, bool))
    if not isinstance(value, Mapping):
        return False
    if isinstance(shape, ByType):
        kind = value.get("type")
        return isinstance(kind, str) and fits(value, shape.get(kind, {}))
    there = [name for name in shape if value.get(name.rstrip("?")) is not None]
    missing = [name for name in shape.keys() - there if not name.endswith("?")]
    is_there = bool(there) if isinstance(shape, AnyOf) else not missing
    return is_there and all(fits(value[name.rstrip("?")], shape[name]) for name in there)
