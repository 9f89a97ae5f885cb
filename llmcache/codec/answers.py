"""An answer as bytes, and proof at the moment of storing that it comes back the same."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from llmcache.codec import completions
from llmcache.codec.completions import Dumped, NotReproducible
from llmcache.codec.sameness import models_in, same
from llmcache.exceptions import CorruptEntry

Model = TypeVar("Model", bound=BaseModel)

# Whether it is restored by parsing the completion; and the lengths of: answer, its fields set,
# class and JSON of the completion, class and JSON of the total usage, receipt.
LENGTHS: Final = struct.Struct("!?7I")


@dataclass(slots=True)
class Validation:
    """How instructor validates the answer of one call."""

    response_model: type[BaseModel]
    context: dict[str, Any] | None
    strict: bool | None


@dataclass(slots=True)
class StoredAnswer:
    """The parts of an answer at rest; all data is JSON.

    Where it is `parsed`, a hit is restored from the completion, and `answer` is for people.
    `fields_set` names for each model in the answer the fields that were set, where the answer holds
    all fields. `receipt` tells what the answer took, as the caller packs it.
    """

    answer: bytes
    completion: Dumped | None = None
    total_usage: Dumped | None = None
    parsed: bool = False
    fields_set: bytes = b""
    receipt: bytes = b""

    def pack(self) -> bytes:
        parts = (
            self.answer,
            self.fields_set,
            *_flat(self.completion),
            *_flat(self.total_usage),
            self.receipt,
        )
        return LENGTHS.pack(self.parsed, *map(len, parts)) + b"".join(parts)

    @classmethod
    def unpack(cls, body: bytes) -> StoredAnswer:
        try:
            parsed, *lengths = LENGTHS.unpack_from(body)
        except struct.error as error:
            raise CorruptEntry("not an answer") from error
        parts, start = [], LENGTHS.size
        for length in lengths:
            parts.append(body[start : start + length])
            start += length
        if start != len(body):
            raise CorruptEntry("not an answer")
        answer, fields_set, completion_class, completion, usage_class, usage, receipt = parts
        try:
            return cls(
                answer,
                _dumped(completion_class, completion),
                _dumped(usage_class, usage),
                parsed,
                fields_set,
                receipt,
            )
        except UnicodeDecodeError as error:
            raise CorruptEntry("not an answer") from error


def receipt_in(body: bytes) -> bytes:
    """The receipt of an answer that `StoredAnswer.unpack` takes, without unpacking the rest."""
    length = LENGTHS.unpack_from(body)[-1] if len(body) >= LENGTHS.size else 0
    return body[-length:] if length else b""


def encode(answer: BaseModel, validation: Validation, *, whole: bool = False) -> StoredAnswer:
    """`answer` for the store. Raises `NotReproducible` when a hit would differ from it.

    `whole`: with the fields that were not set, whose defaults another day may make up otherwise.
    """
    stored = StoredAnswer(
        _to_json(answer, exclude_unset=not whole),
        completions.dump(getattr(answer, "_raw_response", None)),
        completions.dump(getattr(answer, "_total_usage", None)),
        fields_set=_fields_set_of(answer) if whole else b"",
    )
    try:
        restored = decode(stored, validation)
    except ValueError as error:
        raise NotReproducible("its own JSON does not validate") from error
    if not same(restored, answer):
        raise NotReproducible("it would come back different")
    return stored


def decode(stored: StoredAnswer, validation: Validation) -> BaseModel:
    """The answer of a hit. Raises `pydantic.ValidationError` when it does not validate."""
    answer = validation.response_model.model_validate_json(
        stored.answer, context=validation.context, strict=validation.strict
    )
    if stored.fields_set:
        _set_fields(answer, stored.fields_set)
    attach(answer, stored)
    return answer


def attach(answer: Any, stored: StoredAnswer) -> None:
    """Hang on `answer` what instructor hangs on it, where there is any."""
    # As instructor does, and past the model's own `__setattr__` (it may be frozen).
    if stored.completion is not None:
        object.__setattr__(answer, "_raw_response", completions.load(stored.completion))
    if stored.total_usage is not None:
        object.__setattr__(answer, "_total_usage", completions.load(stored.total_usage))


def _to_json(answer: BaseModel, *, exclude_unset: bool) -> bytes:
    try:
        return answer.model_dump_json(
            by_alias=True, exclude_unset=exclude_unset, round_trip=True, warnings=False
        ).encode()
    except ValueError as error:
        raise NotReproducible("it has no JSON form") from error


def _fields_set_of(answer: BaseModel) -> bytes:
    names = [sorted(model.__pydantic_fields_set__) for model in models_in(answer)]
    return json.dumps(names).encode()


def _set_fields(answer: BaseModel, fields_set: bytes) -> None:
    for model, names in zip(models_in(answer), json.loads(fields_set), strict=True):
        object.__setattr__(model, "__pydantic_fields_set__", set(names))


def _flat(dumped: Dumped | None) -> tuple[bytes, bytes]:
    return (dumped.class_path.encode(), dumped.data) if dumped else (b"", b"")


def _dumped(class_path: bytes, data: bytes) -> Dumped | None:
    return Dumped(class_path.decode(), data) if class_path else None
