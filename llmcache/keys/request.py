"""The canonical form of a request, and its key: the SHA-256 (FIPS 180-4) of its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel

from llmcache.exceptions import UncacheableRequest
from llmcache.keys.forms import WITHOUT_ORDER, _attributes, _dataclass_items, _form, _held, _NoForm

VERSION: Final = 2
# The parts of a request, in the order in which the key reads them. What the calls of one client for
# one response model have in common comes first: its hash is kept.
COMMON_PARTS: Final = ("namespace", "provider", "endpoint", "model", "mode", "schema")
OWN_PARTS: Final = ("messages", "parameters", "context", "strict")
PARTS: Final = COMMON_PARTS + OWN_PARTS

# Among the parameters, which of several answers to one question is meant. The first has none.
SAMPLE: Final = "cache_sample"
# Generation parameters that every provider reads as numbers: 0 and 0.0 ask for the same.
NUMERIC_PARAMETERS: Final = frozenset(
    {
        *("frequency_penalty", "presence_penalty", "repetition_penalty", "temperature"),
        *("max_completion_tokens", "max_output_tokens", "max_tokens", "n", "seed"),
        *("min_p", "top_k", "top_logprobs", "top_p"),
    }
)


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
        sha256.update(b"|%d:%b|%d:%b" % (len(messages), messages, len(parameters), parameters))
        sha256.update(b"|%d:%b|%d:%b" % (len(context), context, len(strict), strict))
        own = messages, parameters, context, strict
        return CanonicalRequest(sha256.hexdigest(), self.contents, own)


def common_parts(*values: Any) -> CommonParts:
    """`CommonParts` of these values, in their order; the last one is the digest of a schema."""
    *told, schema = values
    forms = [canonical_part(part, value) for part, value in zip(COMMON_PARTS, told, strict=False)]
    return CommonParts(dict(zip(COMMON_PARTS, [*forms, schema], strict=True)))


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
    as_numbers = {
        name: int(value)
        for name, value in parameters.items()
        if name in NUMERIC_PARAMETERS and type(value) is float and value.is_integer()
    }
    return canonical_part("parameters", {**parameters, **as_numbers})


def canonical_context(context: Any) -> bytes:
    """instructor's context in canonical form, the order inside of it included.

    A template that goes through a mapping writes it out in its order: there, another order is
    another prompt. The names of the context itself are known one by one.
    """
    form = canonical_part("context", context)
    if type(context) is not dict:
        return form + _order_form(context)
    names = sorted(context, key=str) if len(context) > 1 else context
    return form + b"".join([_order_form(context[name]) for name in names])


def _order_form(value: Any) -> bytes:
    """In which order the mappings inside `value` hold their keys, at any depth."""
    if type(value) in WITHOUT_ORDER or isinstance(value, type):
        return b""
    order = b""
    if isinstance(value, dict):
        items = [_form(key) + _order_form(key) + _order_form(v) for key, v in dict.items(value)]
        order = b"<%d:%b" % (len(items), b"".join(items))
    elif isinstance(value, list | tuple):
        order = b"".join([_order_form(item) for item in value])
    elif isinstance(value, set | frozenset):
        order = b"".join(sorted([_form(item) + _order_form(item) for item in value]))
    elif isinstance(value, Enum):
        return _order_form(value.value)
    elif isinstance(value, BaseModel):
        # The fields of a model, and what it has besides, can be gone through as well.
        return b"".join(map(_order_form, (*_held(value), value.__pydantic_private__ or {})))
    elif is_dataclass(value):
        return _values_order_form(_dataclass_items(value))
    elif not isinstance(value, str | bytes | int | float):  # (of a subclass, which has attributes)
        return b""
    return order + _values_order_form(_attributes(value))


def _values_order_form(values: dict[str, Any]) -> bytes:
    return b"".join([_order_form(values[name]) for name in sorted(values)]) if values else b""
