"""An answer as bytes, and proof at the moment of storing that it comes back the same."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from llmcache.codec import completions
from llmcache.codec.completions import Dumped, NotReproducible
from llmcache.codec.equality import models_in, same
from llmcache.codec.quiet import Reader
from llmcache.exceptions import CorruptEntry

# How it is restored; and the lengths of: answer, its fields set, class and JSON of the completion,
# class and JSON of the total usage, receipt.
LENGTHS: Final = struct.Struct("!B7I")
PARSED, BY_NAME = 1, 2


@dataclass(slots=True)
class StoredAnswer:
    """The parts of an answer at rest; all data is JSON.

    Where it is `parsed`, a hit is restored from the completion, and `answer` is for people. Where
    it is `by_name`, fields have their own names in `answer`, else their aliases.
    `fields_set` names for each model in the answer the fields that were set, where the answer holds
    all fields. `receipt` tells what the answer took, as the caller packs it.
    """

    answer: bytes
    completion: Dumped | None = None
    total_usage: Dumped | None = None
    parsed: bool = False
    fields_set: bytes = b""
    receipt: bytes = b""
    by_name: bool = False

    def pack(self) -> bytes:
        parts = [self.answer, self.fields_set]
        for dumped in (self.completion, self.total_usage):
            parts += (dumped.class_path.encode(), dumped.data) if dumped else (b"", b"")
        parts.append(self.receipt)
        how = PARSED * self.parsed + BY_NAME * self.by_name
        return LENGTHS.pack(how, *map(len, parts)) + b"".join(parts)

    @classmethod
    def unpack(cls, body: bytes) -> StoredAnswer:
        parts, start = [], LENGTHS.size
        try:
            how, *lengths = LENGTHS.unpack_from(body)
            for length in lengths:
                parts.append(body[start : start + length])
                start += length
            if start != len(body):
                raise ValueError("the lengths do not match")
            answer, fields_set, completion_class, completion, usage_class, usage, receipt = parts
            return cls(
                answer,
                Dumped(completion_class.decode(), completion) if completion_class else None,
                Dumped(usage_class.decode(), usage) if usage_class else None,
                how & PARSED != 0,
                fields_set,
                receipt,
                how & BY_NAME != 0,
            )
        except (struct.error, ValueError) as error:
            raise CorruptEntry("not an answer") from error


def receipt_in(body: bytes) -> bytes:
    """The receipt of an answer that `StoredAnswer.unpack` takes, without unpacking the rest."""
    length = LENGTHS.unpack_from(body)[-1] if len(body) >= LENGTHS.size else 0
    return body[-length:] if length else b""


def encode(
    value: Any, dump: Callable[..., Any], read: Reader, *, whole: bool = False
) -> StoredAnswer:
    """`value` for the store, which `dump` makes JSON of, and `read` makes of its JSON.

    `whole`: with the fields that were not set, whose defaults another day may make up otherwise.
    By the aliases of fields, as whoever reads the entry expects it; by their own names where
    aliases do not bring it back: those for reading and for writing may differ.

    Raises `NotReproducible` when a hit would differ from it.
    """
    try:
        stored = _encoded(value, dump, read, whole=whole, by_name=False)
    except NotReproducible as error:
        try:
            stored = _encoded(value, dump, read, whole=whole, by_name=True)
        except (NotReproducible, TypeError):  # (before Pydantic 2.11, none can be read by name)
            raise error from None
    if isinstance(value, BaseModel):
        stored.completion = completions.dump(getattr(value, "_raw_response", None))
        stored.total_usage = completions.dump(getattr(value, "_total_usage", None))
    return stored


def encode_completion(completion: BaseModel) -> StoredAnswer:
    """A provider's response that is an answer itself. Raises `NotReproducible`."""
    stored = StoredAnswer(b"null", completions.dump(completion), parsed=True)
    restored = completions.load(stored.completion)
    vars(restored)  # (the first look builds it)
    if not same(restored, completion):
        raise NotReproducible("it would come back different")
    return stored


def decode(stored: StoredAnswer, read: Reader, **how: Any) -> Any:
    """The value of a hit, made by `read`, with what instructor hangs on it, where there is any.

    Raises what `read` raises.
    """
    if stored.by_name:
        how |= {"by_alias": False, "by_name": True}
    value = read(stored.answer, **how)
    if stored.fields_set:
        for model, names in zip(models_in(value), json.loads(stored.fields_set), strict=True):
            object.__setattr__(model, "__pydantic_fields_set__", set(names))
    # As instructor does, and past the model's own `__setattr__` (it may be frozen).
    if stored.completion is not None:
        object.__setattr__(value, "_raw_response", completions.load(stored.completion))
    if stored.total_usage is not None:
        object.__setattr__(value, "_total_usage", completions.load(stored.total_usage))
    return value


def together(items: list[StoredAnswer]) -> StoredAnswer:
    """Lists of values, encoded, as one list. Raises `NotReproducible`."""
    if len({item.by_name for item in items}) > 1:
        raise NotReproducible("its items are not all written by the same names")
    is_whole = any(item.fields_set for item in items)
    return StoredAnswer(
        _joined([item.answer for item in items]),
        fields_set=_joined([item.fields_set for item in items]) if is_whole else b"",
        by_name=any(item.by_name for item in items),
    )


def _joined(lists: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(inner for each in lists if (inner := each[1:-1]))


def _encoded(
    value: Any, dump: Callable[..., Any], read: Reader, *, whole: bool, by_name: bool
) -> StoredAnswer:
    try:
        data = dump(by_alias=not by_name, exclude_unset=not whole, round_trip=True, warnings=False)
    except ValueError as error:
        raise NotReproducible("it has no JSON form") from error
    names = [sorted(model.__pydantic_fields_set__) for model in models_in(value)] if whole else []
    stored = StoredAnswer(
        data if isinstance(data, bytes) else data.encode(),
        fields_set=json.dumps(names).encode() if whole else b"",
        by_name=by_name,
    )
    try:
        restored = decode(stored, read)
    except ValueError as error:
        raise NotReproducible("its own JSON does not validate") from error
    if not same(restored, value):
        raise NotReproducible("it would come back different")
    return stored
