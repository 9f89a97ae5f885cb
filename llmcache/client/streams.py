"""Streams: the shapes of what instructor yields, and the watch on the chunks that it hides.

Items are kept as their own JSON, not as the provider's chunks. So each has to be an instance of a
model that was asked for, and to come back the same; else the stream is not kept.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

from instructor import Mode
from instructor.v2.core.response_model import prepare_response_model
from instructor.v2.dsl.partial import PartialBase
from pydantic import BaseModel

from llmcache.client.shapes import PARALLEL_MODES, Parsing, is_model, model_shape, schema_part
from llmcache.codec import answers
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import NotReproducible
from llmcache.codec.quiet import Reader
from llmcache.discretion import without_content
from llmcache.exceptions import CorruptEntry
from llmcache.keys.forms import path_of
from llmcache.keys.request import digest
from llmcache.providers.streams import ReadChunks

logger = logging.getLogger("llmcache")


@dataclass(frozen=True, slots=True)
class StreamShape:
    """The items of `create_iterable`, or the last one of `create_partial` (`last_only`).

    What comes before the last of a partial stream is built past the model's validation, so it
    cannot be restored; a hit is the complete object alone.
    """

    response_model: Any
    schema: bytes
    path: str
    models: tuple[type[BaseModel], ...]
    last_only: bool = False

    @property
    def asked_for(self) -> Any:
        """What instructor is given for a response model. (A hit has no need of it.)"""
        return watched(self.response_model)

    def encode_item(self, item: Any, parsing: Parsing) -> bytes:
        """`item` for the store. Raises `NotReproducible` when a hit would differ from it."""
        if type(item) not in self.models:
            raise NotReproducible(f"a {type(item).__name__} was not asked for")
        whole = model_shape(type(item)).makes_defaults
        read = _reader(type(item), parsing)
        encoded = answers.encode(item, item.model_dump_json, read, whole=whole)
        number = self.models.index(type(item))
        note = json.dumps([number, encoded.by_name, encoded.fields_set.decode()]).encode()
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
        for length, number, by_name, fields_set in json.loads(stored.fields_set):
            data, noted = stored.answer[start : start + length], fields_set.encode()
            part = StoredAnswer(data, fields_set=noted, by_name=by_name)
            items.append(answers.decode(part, _reader(self.models[number], parsing)))
            start += length + 1
        if not items or start != len(stored.answer):
            raise CorruptEntry("not the items of a stream")
        return items


def _reader(model: type[BaseModel], parsing: Parsing) -> Reader:
    # Instructor validates items by the model itself, and not by a class derived from it.
    return parsing.by(model_shape(model).read_item)


def stream_shape_of(response_model: Any, mode: Mode) -> StreamShape | None:
    """The shape of the stream that instructor makes of `response_model`; None: of none known."""
    if mode.name in PARALLEL_MODES:
        return None
    if isinstance(response_model, type) and issubclass(response_model, PartialBase):
        return _partial_shape(response_model)
    is_iterable = get_origin(response_model) in {Iterable, list}
    return _iterable_shape(response_model) if is_iterable else None


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
    """Notes what the chunks of one stream of the SDK have `said`.

    It keeps no reference to the stream: that would be a cycle, and a stream that is dropped would
    be open until the garbage collector comes by.
    """

    def __init__(self) -> None:
        self._chunks: Any = None
        self.said = ReadChunks()

    def over(self, stream: Any, *, is_async: bool) -> Any:
        """The chunks of `stream`, which are looked at in passing. (LiteLLM's streams are both.)"""
        self._chunks = self._awatched(stream) if is_async else self._watched(stream)
        return self._chunks

    def close(self, stream: Any) -> None:
        """Close `stream`, also when none of its chunks was read yet."""
        if isinstance(self._chunks, Generator):
            with _logged():
                self._chunks.close()
                if close := getattr(stream, "close", None):
                    close()

    async def aclose(self, stream: Any) -> None:
        """`close` for a coroutine."""
        if isinstance(self._chunks, AsyncGenerator):
            with _logged():
                await self._chunks.aclose()
                # (of a generator, or of an SDK's own class)
                if close := getattr(stream, "aclose", None) or getattr(stream, "close", None):
                    await close()

    def _watched(self, stream: Any) -> Generator[Any, None, None]:
        for chunk in stream:
            self.said.read(chunk)
            yield chunk

    async def _awatched(self, stream: Any) -> AsyncGenerator[Any, None]:
        async for chunk in stream:
            self.said.read(chunk)
            yield chunk


# The watch over the stream that a response model `watched` is given next.
_opening: ContextVar[Watch | None] = ContextVar("llmcache_opening", default=None)


def watch_next_stream() -> Watch:
    watch = Watch()
    _opening.set(watch)
    return watch


def watched(response_model: Any) -> Any:
    """`response_model` for a stream of instructor, whose chunks pass the watch that is waiting.

    It is the response model that instructor gives a stream of any SDK to.
    """
    prepared: Any = prepare_response_model(response_model)
    names = ("__module__", "__qualname__", "__doc__")
    attributes = {name: getattr(prepared, name) for name in names}
    return type(prepared)(prepared.__name__, (_Watched, prepared), attributes)


class _Watched:
    @classmethod
    def from_streaming_response(cls, completion: Any, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        return parent.from_streaming_response(_passing(completion, False), *args, **kwargs)

    @classmethod
    def from_streaming_response_async(cls, completion: Any, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        return parent.from_streaming_response_async(_passing(completion, True), *args, **kwargs)


def _passing(completion: Any, is_async: bool) -> Any:
    watch = _opening.get()
    _opening.set(None)
    return completion if watch is None else watch.over(completion, is_async=is_async)


@contextmanager
def _logged() -> Iterator[None]:
    """What goes wrong at closing a stream is not the caller's."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - law A
        logger.warning("llmcache: a stream was not closed: %s", without_content(error))
