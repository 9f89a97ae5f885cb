"""A value of any type that Pydantic validates, as bytes, and proof that it comes back the same."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

from llmcache.codec import answers, completions
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import NotReproducible
from llmcache.codec.sameness import same

# So that all bytes, infinities and NaN have a JSON form.
LOSSLESS: Final = ConfigDict(
    ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants"
)


class ValueCodec:
    """Turns values of one annotation into JSON and back.

    Building it costs milliseconds, so whoever owns the annotation keeps it. Raises whatever
    Pydantic raises for an annotation that it cannot validate, or of which it has no JSON schema.
    """

    def __init__(self, annotation: Any) -> None:
        self._adapter = _adapter_of(annotation)
        self.schema: Final = self._adapter.json_schema()

    def encode(self, value: Any) -> StoredAnswer:
        """`value` for the store. Raises `NotReproducible` when a hit would differ from it.

        With a model that instructor made come the provider's response and the total usage.
        """
        attached = value if isinstance(value, BaseModel) else None
        return StoredAnswer(
            self.dump(value),
            completions.dump(getattr(attached, "_raw_response", None)),
            completions.dump(getattr(attached, "_total_usage", None)),
        )

    def decode(self, stored: StoredAnswer) -> Any:
        """The value of a hit. Raises `pydantic.ValidationError` when it does not validate."""
        value = self.load(stored.answer)
        answers.attach(value, stored)
        return value

    def dump(self, value: Any) -> bytes:
        """`value` as JSON. Raises `NotReproducible` when it would not come back as it is."""
        try:
            data = self._adapter.dump_json(
                value, by_alias=True, exclude_unset=True, round_trip=True, warnings=False
            )
        except ValueError as error:
            raise NotReproducible("it has no JSON form") from error
        try:
            restored = self.load(data)
        except ValueError as error:
            raise NotReproducible("its own JSON does not validate") from error
        if not same(restored, value):
            raise NotReproducible("it would come back different")
        return data

    def load(self, data: bytes) -> Any:
        return self._adapter.validate_json(data)


def without_derived_class(value: Any) -> Any:
    """`value`, or its like of the class it was declared with.

    instructor answers with an instance of a class that it derives from the response model anew for
    each call, and calls by the same name. No other process could find that class, and of two calls
    no answer would equal the other.
    """
    declared = _declared_class(type(value))
    if declared is None:
        return value
    plain: Any = object.__new__(declared)
    object.__setattr__(plain, "__dict__", dict(value.__dict__))
    for slot in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        object.__setattr__(plain, slot, getattr(value, slot))
    return plain


def _declared_class(cls: type) -> type | None:
    if not issubclass(cls, BaseModel) or len(cls.__bases__) < 2:
        return None
    declared, *mixed_in = cls.__bases__
    is_derived = (declared.__module__, declared.__qualname__) == (
        cls.__module__,
        cls.__qualname__,
    ) and all(base.__module__.startswith("instructor.") for base in mixed_in)
    return declared if is_derived else None


def _adapter_of(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=LOSSLESS)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":  # a model has its own
            raise
    return TypeAdapter(annotation)
