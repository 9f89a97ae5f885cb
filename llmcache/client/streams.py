"""Streams: the shapes of what instructor yields, and the watch on the chunks that it hides.

Items are kept as their own JSON, not as the provider's chunks. So each has to be an instance of a
model that was asked for, and to come back the same; else the stream is not kept.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

from instructor import Mode
from instructor.v2.core.response_model import prepare_response_model
from instructor.v2.dsl.partial import PartialBase
from instructor.v2.dsl.response_list import ListResponse
from pydantic import BaseModel

from llmcache.admission import is_end, why_chunk_not_admitted
from llmcache.client.shapes import PARALLEL_MODES, Parsing, is_model, model_shape, schema_part
from llmcache.codec import answers
from llmcache.codec.answers import StoredAnswer, Validation
from llmcache.codec.completions import NotReproducible
from llmcache.exceptions import CorruptEntry
from llmcache.keys import digest, path_of

logger = logging.getLogger("llmcache")


@dataclass(frozen=True, slots=True)
class StreamShape:
    """The items of `create_iterable`, or the last one of `create_partial` (`last_only`).

    What comes before the last of a partial stream is built past the model's validation, so it
    cannot be restored; a hit is the complete object alone.
    """

    asked_for: Any
    schema: bytes
    path: str
    models: tuple[type[BaseModel], ...]
    last_only: bool = False

    def encode_item(self, item: Any, parsing: Parsing) -> bytes:
        """`item` for the store. Raises `NotReproducible` when a hit would differ from it."""
        if type(item) not in self.models:
            raise NotReproducible(f"a {type(item).__name__} was not asked for")
        number = self.models.index(type(item))
        whole = model_shape(type(item)).makes_defaults
        encoded = answers.encode(item, self._validation(number, parsing), whole=whole)
        note = json.dumps([number, encoded.fields_set.decode()]).encode()
        return StoredAnswer(encoded.answer, fields_set=note).pack()

    def encode(self, items: list[bytes]) -> StoredAnswer:
        """The encoded items as one answer: a JSON array, and where in it each item is."""
        parts = [StoredAnswer.unpack(item) for item in items]
        notes = [[len(part.answer), *json.loads(part.fields_set)] for part in parts]
        array = b"[" + b",".join(part.answer for part in parts) + b"]"
        return StoredAnswer(array, fields_set=json.dumps(notes).encode())

    def decode(self, stored: StoredAnswer, parsing: Parsing) -> list[Any]:
        """All items of a hit. Raises whatever validation raises."""
        items, start = [], 1
        for length, number, fields_set in json.loads(stored.fields_set):
            part = StoredAnswer(
                stored.answer[start : start + length], fields_set=fields_set.encode()
            )
            items.append(answers.decode(part, self._validation(number, parsing)))
            start += length + 1
        if not items or start != len(stored.answer):
            raise CorruptEntry("not the items of a stream")
        return items

    def _validation(self, number: int, parsing: Parsing) -> Validation:
        # Instructor validates items by the model itself, and not by a class derived from it.
        return Validation(self.models[number], parsing.context, parsing.strict)


def stream_shape_of(response_model: Any, mode: Mode) -> StreamShape | None:
    """The shape of the stream that instructor makes of `response_model`; None: of none known."""
    if mode.name in PARALLEL_MODES:
        return None
    if isinstance(response_model, type) and issubclass(response_model, PartialBase):
        return _partial_shape(response_model)
    if get_origin(response_model) in {Iterable, list}:
        return _iterable_shape(response_model)
    return None


def as_instructor_gives_it(shape: StreamShape, items: Iterable[Any]) -> Any:
    """A synchronous stream of partial models is read to its end before the caller gets it."""
    return ListResponse(items) if shape.last_only else items


# Not kept: instructor makes a new class for each call of `create_partial`.
def _partial_shape(response_model: Any) -> StreamShape | None:
    original: Any = getattr(response_model, "_original_model", None)
    if not is_model(original):
        return None
    schema = digest(b"partial stream" + schema_part(response_model))
    # What is kept is an instance of the model, and an invalidation by that finds it.
    return StreamShape(response_model, schema, path_of(original), (original,), last_only=True)


@lru_cache(maxsize=256)
def _iterable_shape(response_model: Any) -> StreamShape | None:
    item: Any = get_args(response_model)[0]
    models: tuple[Any, ...] = get_args(item) if get_origin(item) in {Union, UnionType} else (item,)
    if not all(is_model(model) for model in models):
        return None
    prepared: Any = prepare_response_model(response_model)
    schema = digest(b"stream" + schema_part(prepared))
    return StreamShape(response_model, schema, path_of(response_model), models)


class Watch:
    """What the chunks of one stream of the SDK say of its end.

    It keeps no reference to the stream: that would be a cycle, and a stream that is dropped would
    be open until the garbage collector comes by.
    """

    def __init__(self, stream: Any) -> None:
        self._refusal = ""
        self._ended = False
        self._chunks: Any = None
        # Of the SDKs of OpenAI and Anthropic; what comes without cannot be watched.
        chunks = getattr(stream, "_iterator", None)
        if chunks is not None:
            is_async = hasattr(chunks, "__anext__")
            self._chunks = self._awatched(chunks) if is_async else self._watched(chunks)
            stream._iterator = self._chunks  # noqa: SLF001 - there is no public way
        #: What the chunks say of the tokens used, as a response that is no stream would.
        self.usage: dict[str, Any] = {"usage": {}}

    def why_not_admitted(self) -> str:
        """Why what was streamed is not to be kept; empty when it is. Asked at its end."""
        if self._chunks is None:
            return "the provider's stream cannot be watched, so it may have been cut short"
        if self._refusal or self._ended:
            return self._refusal
        return "the provider did not say that the answer is complete"

    def close(self, stream: Any) -> None:
        """Close `stream`, also when none of its chunks was read yet."""
        if self._chunks is not None:
            with _logged():
                self._chunks.close()
                stream.close()

    async def aclose(self, stream: Any) -> None:
        """`close` for a coroutine."""
        if self._chunks is not None:
            with _logged():
                await self._chunks.aclose()
                await stream.close()

    def _watched(self, chunks: Any) -> Generator[Any, None, None]:
        try:
            for chunk in chunks:
                self._note(chunk)
                yield chunk
        finally:
            chunks.close()

    async def _awatched(self, chunks: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(chunks):
            async for chunk in chunks:
                self._note(chunk)
                yield chunk

    def _note(self, chunk: Any) -> None:
        try:
            self._refusal = self._refusal or why_chunk_not_admitted(chunk)
            self._ended = self._ended or is_end(chunk)
            # Anthropic's first chunk has a message, OpenAI's last one of Responses a response.
            for name in ("message", "response"):
                self._note_usage(getattr(chunk, name, None))
            self._note_usage(chunk)
        except Exception as error:  # noqa: BLE001 - law A
            self._refusal = f"a chunk could not be read ({type(error).__name__})"

    def _note_usage(self, holder: Any) -> None:
        usage = getattr(holder, "usage", None)
        if isinstance(usage, BaseModel):
            # (the counts of a later chunk are of all so far)
            self.usage["usage"] |= usage.model_dump(exclude_none=True)
        if model := getattr(holder, "model", None):
            self.usage["model"] = model


@contextmanager
def _logged() -> Iterator[None]:
    """What goes wrong at closing a stream is not the caller's."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - law A
        logger.warning("llmcache: a stream was not closed: %r", error)
