"""A value of any type that Pydantic validates, as bytes, and proof that it comes back the same."""

from __future__ import annotations

from functools import partial
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

from llmcache.codec import answers, completions
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import NotReproducible
from llmcache.codec.quiet import makes_defaults, quiet_validator
from llmcache.exceptions import CorruptEntry

# So that all bytes, infinities and NaN have a JSON form.
LOSSLESS: Final = ConfigDict(
    ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants"
)
# The value of an annotation with one of these is of what stands inside.
OPEN: Final = frozenset({Annotated, Union, UnionType})


class ValueCodec:
    """Turns values of one annotation into JSON and back.

    Building it costs milliseconds, so whoever owns the annotation keeps it. Raises whatever
    Pydantic raises for an annotation that it cannot validate, or of which it has no JSON schema.
    """

    def __init__(self, annotation: Any) -> None:
        config: ConfigDict | None = LOSSLESS
        try:
            self._adapter = TypeAdapter(annotation, config=config)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":  # a model has its own
                raise
            config = None
            self._adapter = TypeAdapter(annotation)
        self.schema: Final = self._adapter.json_schema()
        quiet = quiet_validator(self._adapter.core_schema, config)
        declared = get_args(annotation) if get_origin(annotation) in OPEN else (annotation,)
        # What may be a provider's response. (No SDK's class asks, and to build one would.)
        self._classes: Final = [cls for cls in declared if is_model(cls) and quiet is None]
        # (it asks nobody)
        self._load: Final = (quiet or self._adapter).validate_json
        self._whole: Final = makes_defaults(self._adapter.core_schema)

    def encode(self, value: Any) -> StoredAnswer:
        """`value` for the store. Raises `NotReproducible` when a hit would differ from it.

        With a model that instructor made come the provider's response and the total usage. What an
        SDK made may hold more than its fields, and comes back as a provider's response.
        """
        dump = partial(self._adapter.dump_json, value)
        try:
            return answers.encode(value, dump, self._load, whole=self._whole)
        except NotReproducible as error:
            # Not of a class that the annotation leaves open: its schema is not in the key.
            if self._whole or value.__class__ not in self._classes:
                raise
            try:
                return answers.encode_completion(value)
            except NotReproducible:
                raise error from None

    def decode(self, stored: StoredAnswer) -> Any:
        """The value of a hit. Raises `pydantic.ValidationError` when it does not validate."""
        if stored.parsed:
            if completions.class_of(stored.completion) not in self._classes:
                raise CorruptEntry("the response is of no class that is returned")
            completion = completions.load(stored.completion)
            vars(completion)  # (the first look builds it: what is damaged is a miss)
            return completion
        return answers.decode(stored, self._load)


def without_derived_class(value: Any) -> Any:
    """`value`, or its like of the class it was declared with.

    instructor answers with an instance of a class that it derives from the response model anew for
    each call, and calls by the same name. No other process could find that class, and of two calls
    no answer would equal the other.
    """
    cls = type(value)
    if not is_model(cls) or len(cls.__bases__) < 2:
        return value
    declared, *mixed_in = cls.__bases__
    of_both = {(each.__module__, each.__qualname__) for each in (declared, cls)}
    is_instructors = all(base.__module__.startswith("instructor.") for base in mixed_in)
    if len(of_both) > 1 or not is_instructors:
        return value
    plain: Any = object.__new__(declared)
    object.__setattr__(plain, "__dict__", dict(value.__dict__))
    for slot in completions.SLOTS:
        object.__setattr__(plain, slot, getattr(value, slot))
    return plain


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
