"""The shapes of answers: what instructor is asked for, and how such an answer is kept.

A Pydantic model is kept as its own JSON: that is the quickest to restore. Where that does not bring
the same object back (validators that are not idempotent, fields left out of dumps), and for all
other shapes (lists, plain types, parallel tools), what validation was given live is kept instead,
the provider's response; a hit parses it once more, as instructor did.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, Union

from instructor import Mode, OpenAISchema, Provider, openai_schema
from instructor.v2.core.registry import mode_registry
from instructor.v2.core.response_model import prepare_response_model
from instructor.v2.core.retry import _finalize_parsed_response
from instructor.v2.dsl.iterable import IterableBase
from instructor.v2.dsl.parallel import get_types_array
from instructor.v2.dsl.partial import PartialBase
from instructor.v2.dsl.simple_type import AdapterBase
from instructor.v2.validation.async_validators import reject_async_validators
from pydantic import BaseModel
from pydantic.errors import PydanticUserError
from pydantic_core import to_json

from llmcache.codec import answers, completions
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped, NotReproducible
from llmcache.codec.equality import same
from llmcache.codec.quiet import Reader, has_other_validators, makes_defaults, quiet_of, reader_of
from llmcache.exceptions import CorruptEntry, UncacheableRequest
from llmcache.keys.forms import path_of
from llmcache.keys.request import digest

# Models by which instructor spells other shapes: lists, partial models, plain types.
OTHER_SHAPES: Final = (IterableBase, PartialBase, AdapterBase)

# (by their names: what is hashed of a member is its name, and by a function)
PARALLEL_MODES: Final = frozenset(mode.name for mode in Mode.parallel_modes())

NO_RESPONSE: Final = "the provider's response is missing"

# The shape is kept on the class itself: it refers to the class, so a weak dictionary would keep
# both for ever, and so they go together.
SHAPE_ATTRIBUTE: Final = "__llmcache_shape__"


@dataclass(slots=True)
class Parsing:
    """How instructor parses the response of one call: all but the response."""

    provider: Provider
    mode: Mode
    context: dict[str, Any] | None
    strict: bool | None

    def by(self, read: Reader) -> Reader:
        """What `read` reads, as instructor would in this call."""
        return partial(read, context=self.context, strict=self.strict)

    def parse(self, completion: Any, asked_for: Any) -> Any:
        """What instructor makes of `completion`, by the same two steps as after a live call."""
        handlers = mode_registry.get_handlers(self.provider, self.mode)
        parsed = handlers.response_parser(
            response=completion,
            response_model=asked_for,
            validation_context=self.context,
            strict=self.strict,
            stream=False,
            is_async=False,
        )
        return _finalize_parsed_response(parsed, completion)


@dataclass(frozen=True, slots=True)
class Shape:
    """How answers of one response model are asked for, kept and restored.

    Here: by the provider's response, as only that brings lists, plain types and parallel tools
    back. `asked_for` is what instructor is given for a response model, and `parsed_as` the same
    for parsing a response once more, which asks nobody (see `codec.quiet`). `schema` is the
    schema's part of the key, and `path` the response model in words, as the row has it.
    """

    asked_for: Any
    parsed_as: Any
    schema: bytes
    path: str

    def encode(self, answer: Any, completion: Any, parsing: Parsing) -> StoredAnswer:
        """`answer` for the store. Raises `NotReproducible` when a hit would differ from it."""
        dumped = completions.dump(completion)
        if dumped is None:
            raise NotReproducible("the provider's response is not known")
        usage = completions.dump(getattr(answer, "_total_usage", None))
        seen = self.as_read(answer, completion, parsing)
        stored = StoredAnswer(_readable(seen), dumped, usage, parsed=True)
        try:
            restored = Shape.decode(self, stored, parsing)
        except Exception as error:
            raise NotReproducible("the provider's response does not parse again") from error
        read = list(restored) if isinstance(restored, Iterator) else restored
        if type(restored) is not type(answer) or not same(read, seen):
            raise NotReproducible("it would come back different")
        return stored

    def decode(self, stored: StoredAnswer, parsing: Parsing) -> Any:
        """The answer of a hit. Raises whatever validation raises."""
        answer = parsing.parse(completions.load(_seen(stored)), self.parsed_as)
        if isinstance(answer, Generator):
            # Validated now: what does not validate any more is a miss, and not the caller's error.
            return (item for item in list(answer))
        if stored.total_usage is not None:
            object.__setattr__(answer, "_total_usage", completions.load(stored.total_usage))
        return answer

    def as_read(self, answer: Any, completion: Any, parsing: Parsing) -> Any:
        """`answer`; of an iterator, which only the caller may read, the list of what it will give.

        Of a generator that comes from another one, of the same response. Raises `NotReproducible`
        where there is none.
        """
        if not isinstance(answer, Iterator):
            return answer
        try:
            if isinstance(answer, Generator):
                return list(parsing.parse(completion, self.asked_for))
            return list(copy.copy(answer))
        except Exception as error:
            raise NotReproducible(f"a {type(answer).__name__} can be read only once") from error


@dataclass(frozen=True, slots=True)
class ModelShape(Shape):
    """A Pydantic model.

    For each call, instructor derives a new class from the response model and answers with an
    instance of it; so of two calls, no answer would equal the other. `asked_for` is that class,
    derived once: then live answers and hits are of one class, and a miss is half a millisecond
    faster. `read` reads such answers from JSON, and `read_item` those in a stream, which are of
    the response model itself. `is_checked`: it has no asynchronous validators, which instructor
    refuses.
    """

    validator: Any
    has_validators: bool
    makes_defaults: bool
    is_checked: bool
    read: Reader
    read_item: Reader

    def encode(self, answer: Any, completion: Any, parsing: Parsing) -> StoredAnswer:
        if not isinstance(answer, BaseModel):
            raise NotReproducible(f"it is a {type(answer).__name__}, not a Pydantic model")
        dump_json, whole = answer.model_dump_json, self.makes_defaults
        dump = partial(answers.encode, answer, dump_json, parsing.by(self.read), whole=whole)
        # (no `super()`: a class with slots is made anew)
        parse = partial(Shape.encode, self, answer, completion, parsing)
        # Defaults that a function makes may be others on another day, and have to be kept.
        if self.makes_defaults:
            return dump()
        # Validators may change, and then have to see what they saw live.
        first, second = (parse, dump) if self.has_validators else (dump, parse)
        try:
            return first()
        except NotReproducible as error:
            try:
                return second()
            except NotReproducible:
                raise error from None

    def decode(self, stored: StoredAnswer, parsing: Parsing) -> Any:
        if stored.parsed:
            return Shape.decode(self, stored, parsing)
        if stored.completion is None:
            raise CorruptEntry(NO_RESPONSE)
        context, strict = parsing.context, parsing.strict
        return answers.decode(stored, self.read, context=context, strict=strict)


class CompletionShape(Shape):
    """``response_model=None``: the provider's response itself."""

    def encode(self, answer: Any, completion: Any, parsing: Parsing) -> StoredAnswer:
        return StoredAnswer(b"null", completions.dump(answer), parsed=True)

    def decode(self, stored: StoredAnswer, parsing: Parsing) -> Any:
        return completions.load(_seen(stored))


COMPLETION: Final = CompletionShape(None, None, schema=b"completion", path="")


def shape_of(response_model: Any, mode: Mode) -> Shape:
    """The shape of answers for `response_model`. Raises `UncacheableRequest` without a schema."""
    if response_model is None:
        return COMPLETION
    if mode._name_ in PARALLEL_MODES:
        return _parallel_shape(response_model)
    known = known_model_shape(response_model)
    if known is None:
        is_one = is_model(response_model)
        return model_shape(response_model) if is_one else _other_shape(response_model)
    return known


def is_model(response_model: Any) -> bool:
    return (
        isinstance(response_model, type)
        and issubclass(response_model, BaseModel)
        and not issubclass(response_model, OTHER_SHAPES)
    )


def _seen(stored: StoredAnswer) -> Dumped:
    """The provider's response, without which no answer of a client is stored."""
    if stored.completion is None:
        raise CorruptEntry(NO_RESPONSE)
    return stored.completion


def _readable(answer: Any) -> bytes:
    """JSON for people who read the entry; nothing is restored from it."""
    try:
        return to_json(answer, serialize_unknown=True)
    except ValueError:
        return b"null"


def model_shape(response_model: type[BaseModel]) -> ModelShape:
    """The shape kept on the class, worked out when it is first asked for, or was rebuilt since."""
    shape = known_model_shape(response_model)
    if shape is None:
        shape = _new_model_shape(response_model)
        type.__setattr__(response_model, SHAPE_ATTRIBUTE, shape)
    return shape


def known_model_shape(response_model: Any) -> ModelShape | None:
    """The shape that is kept on a class and holds; None where there is none."""
    if not isinstance(response_model, type):
        return None
    shape: ModelShape | None = response_model.__dict__.get(SHAPE_ATTRIBUTE)
    if shape is None or shape.validator is not getattr(response_model, "__pydantic_validator__"):  # noqa: B009
        return None
    return shape


def _new_model_shape(response_model: type[BaseModel]) -> ModelShape:
    schema = schema_part(response_model)
    derived = issubclass(response_model, OpenAISchema)
    asked_for = response_model if derived else openai_schema(response_model)
    return ModelShape(
        asked_for=asked_for,
        parsed_as=quiet_of(asked_for),
        schema=schema,
        path=path_of(response_model),
        validator=response_model.__pydantic_validator__,
        has_validators=has_other_validators(response_model.__pydantic_core_schema__),
        makes_defaults=makes_defaults(response_model.__pydantic_core_schema__),
        is_checked=_is_checked(response_model),
        read=reader_of(asked_for),
        read_item=reader_of(response_model),
    )


def _is_checked(response_model: type[BaseModel]) -> bool:
    try:
        reject_async_validators(response_model)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=256)
def _other_shape(response_model: Any) -> Shape:
    prepared: Any = prepare_response_model(response_model)
    parsed_as = quiet_of(prepared) if hasattr(prepared, "model_validate_json") else prepared
    return Shape(prepared, parsed_as, schema_part(prepared), path_of(response_model))


@lru_cache(maxsize=256)
def _parallel_shape(response_model: Any) -> Shape:
    models = get_types_array(response_model)
    schemas = b"".join(map(schema_part, models))
    quiet = tuple(map(quiet_of, models))
    parsed_as: Any = response_model
    if quiet != models:
        parsed_as = Iterable[Union[quiet]]  # type: ignore[valid-type]  # noqa: UP007 - of a tuple
    schema = digest(b"parallel" + schemas)
    return Shape(response_model, parsed_as, schema, path_of(response_model))


def schema_part(response_model: type[BaseModel]) -> bytes:
    try:
        # In the order of the fields, which is the order in which the model fills them in.
        return digest(json.dumps(response_model.model_json_schema()).encode())
    except PydanticUserError as error:
        raise UncacheableRequest("schema", error.message) from None
