"""What a function returns, by its annotation: a value, or a stream of items."""

from __future__ import annotations

import inspect
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType, SimpleNamespace
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from llmcache.codec.answers import StoredAnswer, together
from llmcache.codec.values import ValueCodec
from llmcache.decorators.naming import closed_over
from llmcache.exceptions import UncacheableRequest
from llmcache.keys.forms import path_of
from llmcache.keys.request import canonical_part, digest
from llmcache.reasons import ReasonCode

STREAMS: Final = {abc.Generator, abc.Iterator}
ASYNC_STREAMS: Final = {abc.AsyncGenerator, abc.AsyncIterator}


@dataclass(frozen=True, slots=True)
class Returns:
    """How what a function returns is stored. Of a stream, the codec is that of a list of items."""

    is_stream: bool
    is_async: bool
    codec: ValueCodec
    schema: bytes
    path: str

    def encode_item(self, item: Any) -> bytes:
        # In the list that it will be read from: alone, its type may be written otherwise.
        return self.codec.encode([item]).pack()

    def encode_items(self, items: list[bytes]) -> StoredAnswer:
        """The encoded items as one answer. Raises `NotReproducible`."""
        return together([StoredAnswer.unpack(item) for item in items])


def read_returns(function: Callable[..., Any], is_coroutine: bool) -> Returns:
    """What `function` returns. Raises `UncacheableRequest` where that cannot be stored."""
    annotation = _resolved(function, include_extras=True)
    stored, is_stream, is_async = _stored_of(function, annotation, is_coroutine)
    path = path_of(_resolved(function, include_extras=False))
    try:
        codec = ValueCodec(stored)
    except Exception as error:
        raise _unfit(f"Pydantic cannot validate {path} ({type(error).__name__})") from error
    schema = digest(canonical_part("schema", codec.schema))
    return Returns(is_stream, is_async, codec, schema, path)


def _unfit(why: str) -> UncacheableRequest:
    return UncacheableRequest("return type", why, ReasonCode.RETURN_TYPE)


def _resolved(function: Callable[..., Any], *, include_extras: bool) -> Any:
    """The return annotation alone: those of arguments may name what is not there at run time."""
    annotations = getattr(function, "__annotations__", {})
    if "return" not in annotations:
        raise _unfit("there is no annotation, as in `-> Ticket`")
    innermost = inspect.unwrap(function)
    try:
        # Names in quotes may be those of the function that this one stands in.
        variables = closed_over(function)
        [annotation] = get_type_hints(
            SimpleNamespace(__annotations__={"return": annotations["return"]}),
            globalns=getattr(innermost, "__globals__", {}),
            localns=variables,
            include_extras=include_extras,
        ).values()
    except Exception as error:
        raise _unfit(
            f"the annotation {annotations['return']!r} cannot be resolved: {error}"
        ) from error
    return annotation


def _stored_of(
    function: Callable[..., Any], annotation: Any, is_coroutine: bool
) -> tuple[Any, bool, bool]:
    """The annotation of what is stored, of a stream a list; whether it is one, and is awaited."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    origin, arguments = get_origin(bare) or bare, get_args(bare)
    generates = inspect.isgeneratorfunction(inspect.unwrap(function))
    agenerates = inspect.isasyncgenfunction(inspect.unwrap(function))
    is_stream = origin in STREAMS or (generates and origin is abc.Iterable)
    is_async_stream = origin in ASYNC_STREAMS or (agenerates and origin is abc.AsyncIterable)
    if not (is_stream or is_async_stream):
        if generates or agenerates:
            raise _unfit("a generator is annotated as in `-> Iterator[Ticket]`")
        if origin in {abc.Iterable, abc.AsyncIterable}:
            raise _unfit("say whether it is a list[...] or an Iterator[...]")
        return annotation, False, is_coroutine
    if is_coroutine:
        raise _unfit("a coroutine that returns a stream is not cached")
    if any(other not in {None, NoneType} for other in arguments[1:]):
        raise _unfit("a generator that is sent values, or returns one")
    return list[arguments[0] if arguments else Any], True, is_async_stream  # type: ignore[misc]
