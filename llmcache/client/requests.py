"""One call of a client, as the flow sees it: its key, what it may do, how its answer is kept."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from instructor import Instructor
from instructor.core.hooks import Hooks
from instructor.v2.core.multimodal import PDF, Audio, Image

from llmcache.admission import why_not_admitted
from llmcache.client.identity import (
    Place,
    default_model_of,
    endpoint_at,
    endpoint_places,
    name_of,
)
from llmcache.client.shapes import Parsing, Shape, shape_of
from llmcache.client.streams import StreamShape, Watch, stream_shape_of
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import NotReproducible
from llmcache.conf import settings
from llmcache.exceptions import UncacheableRequest
from llmcache.flow import NotStorable, Recording
from llmcache.keys import (
    FORMS,
    CanonicalRequest,
    canonical_context,
    canonical_parameters,
    canonical_part,
)
from llmcache.outcomes import Call
from llmcache.policy import CacheMode, Policy, overridden
from llmcache.store.drafts import count_tokens, describe, make_draft
from llmcache.store.durable import Draft
from llmcache.store.entries import Found

logger = logging.getLogger("llmcache")

# What cannot change the answer, and so does not count in the key: transport, credentials, hooks.
# Everything else that a call names counts, whether or not it is known here.
DENIED: Final = frozenset(
    {
        "api_key",
        "extra_headers",
        "hooks",
        "http_client",
        "max_retries",
        "num_retries",
        "request_timeout",
        "timeout",
    }
)
# Parts of the key of their own, or not sent at all.
NOT_PARAMETERS: Final = DENIED | {"context", "messages", "model", "strict"}

# The arguments of llmcache, and the parameter of the policy that each is.
CACHE_ARGUMENTS: Final = {
    "cache_mode": "mode",
    "cache_ttl": "ttl",
    "cache_tags": "tags",
    "cache_namespace": "namespace",
}


@dataclass(frozen=True)
class Origin:
    """The client that is asked, and what was said of it when it was wrapped."""

    client: Instructor
    policy: Policy
    model: str | None = None
    endpoint: str | None = None

    @cached_property
    def default_model(self) -> str | None:
        return self.model or default_model_of(self.client.create_fn)

    @cached_property
    def endpoint_places(self) -> tuple[Place, ...]:
        return endpoint_places(self.client.client, self.client.create_fn)

    @property
    def endpoint_name(self) -> str:
        if self.endpoint is not None:
            return self.endpoint
        places = self.endpoint_places
        return endpoint_at(places) if places else name_of(self.client.create_fn)


@dataclass(slots=True)
class ClientRequest:
    """One call of a wrapped client (a `llmcache.flow.StreamRequest`).

    `arguments` are what instructor's own function is called with.
    """

    origin: Origin
    response_model: Any
    arguments: dict[str, Any]
    policy: Policy
    call: Call
    bypass: str = ""
    canonical: CanonicalRequest | None = None
    shape: Shape | StreamShape | None = None
    described: bytes | None = None
    completion: Any = None
    watch: Watch | None = None
    last_item: Any = None

    @property
    def stream(self) -> StreamShape | None:
        """The shape of the stream, where it takes part in caching."""
        shape = self.shape if isinstance(self.shape, StreamShape) else None
        return None if self.bypass or self.policy.mode is CacheMode.NO_STORE else shape

    def ask(self) -> Any:
        """Call instructor's own function, past the cache."""
        create_fn = self.origin.client.create_fn
        if self.shape is None or (isinstance(self.shape, StreamShape) and self.stream is None):
            return create_fn(response_model=self.response_model, **self.arguments)
        arguments = self.arguments | {"hooks": self._listening(self.arguments.get("hooks"))}
        return create_fn(response_model=self.shape.asked_for, **arguments)

    def ask_stream(self) -> Generator[Any, None, None]:
        """The items of `ask`. The provider's stream is closed with it."""
        try:
            yield from self.ask()
        finally:
            if self.watch is not None:
                self.watch.close(self.completion)

    async def aask_stream(self) -> AsyncGenerator[Any, None]:
        """`ask_stream` for a coroutine."""
        try:
            async for item in await self.ask():
                yield item
        finally:
            if self.watch is not None:
                await self.watch.aclose(self.completion)

    def encode_item(self, item: Any) -> bytes:
        """One item of the stream for the store; nothing while it may not be the last one."""
        shape = self.stream
        if shape is None:
            raise NotStorable("the call is no stream")
        if not shape.last_only:
            return self._encoded_item(item, shape)
        # Encoded when it turns out to be the last: that runs the model's validators.
        self.last_item = copy.deepcopy(item)
        return b""

    def restore(self, found: Found) -> Any:
        if self.shape is None:
            raise NotStorable("the call has no key")
        return self.shape.decode(StoredAnswer.unpack(found.body), self._parsing)

    def before_asking(self) -> None:
        # Before, because a hook or the SDK may change the messages in place.
        self.described = self.describe()

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        if self.policy.ttl_seconds == 0:
            raise NotStorable("cache_ttl is 0")
        if self.canonical is None or self.shape is None:
            raise NotStorable("the call has no key")
        if isinstance(answer, Recording):
            stored, completion = self._recorded(answer), self.watch and self.watch.usage
        else:
            completion = answer if self.response_model is None else self.completion
            stored = self._encoded(answer, completion)
        input_tokens, output_tokens = count_tokens(completion)
        return make_draft(
            self.call,
            self.policy,
            self.canonical,
            stored,
            self.described,
            asked=asked,
            provider=str(self.origin.client.provider.value),
            endpoint=self.origin.endpoint_name,
            mode=str(self.origin.client.mode.value),
            response_model=self.shape.path,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            latency=latency,
        )

    @property
    def _parsing(self) -> Parsing:
        client, arguments = self.origin.client, self.arguments
        return Parsing(
            client.provider, client.mode, arguments.get("context"), arguments.get("strict")
        )

    def _listening(self, hooks: Hooks | None) -> Hooks:
        """The caller's hooks, and one that notes the provider's response."""
        own = Hooks()
        own.on("completion:response", self._note_completion)
        return own if hooks is None else hooks + own

    def _note_completion(self, response: Any) -> None:
        self.completion = response
        if self.stream is not None:
            self.watch = Watch(response)

    def _encoded(self, answer: Any, completion: Any) -> StoredAnswer:
        if self.shape is None or isinstance(self.shape, StreamShape):
            raise NotStorable("the answer is no stream")
        self._admit(answer, completion)
        with _told_apart():
            return self.shape.encode(answer, completion, self._parsing)

    def _recorded(self, recording: Recording) -> StoredAnswer:
        """What has passed of a stream that has come to its end."""
        shape, watch = self.stream, self.watch
        if shape is None or watch is None:
            raise NotStorable("the provider's stream was not seen")
        if refusal := watch.why_not_admitted():
            raise NotStorable(refusal)
        stored = shape.encode(self._encoded_items(recording, shape))
        if settings.admit is not None:
            self._admit(shape.decode(stored, self._parsing), None)
        return stored

    def _encoded_items(self, recording: Recording, shape: StreamShape) -> list[bytes]:
        items = recording.items()
        if not items:
            raise NotStorable("the stream held no item")
        return [self._encoded_item(self.last_item, shape)] if shape.last_only else items

    def _encoded_item(self, item: Any, shape: StreamShape) -> bytes:
        with _told_apart():
            return shape.encode_item(item, self._parsing)

    def _admit(self, answer: Any, completion: Any) -> None:
        if refusal := why_not_admitted(answer, completion):
            raise NotStorable(refusal)

    def describe(self) -> bytes | None:
        """The request as JSON, for people to read; None when it is not to be stored."""
        arguments = self.arguments
        return describe(
            {
                "messages": arguments.get("messages"),
                "parameters": _parameters(arguments),
                "context": arguments.get("context"),
                "strict": arguments.get("strict"),
            }
        )


@contextmanager
def _told_apart() -> Iterator[None]:
    """That an answer cannot come back is no error of the encoding."""
    try:
        yield
    except NotReproducible as error:
        raise NotStorable(f"the answer cannot be stored: {error}") from None


def read_request(origin: Origin, response_model: Any, arguments: dict[str, Any]) -> ClientRequest:
    """The call with these arguments. Raises `InvalidArgument` for those of llmcache that are off.

    Whatever else goes wrong makes the call a bypass, with the reason.
    """
    wishes = {
        name: arguments.pop(argument)
        for argument, name in CACHE_ARGUMENTS.items()
        if argument in arguments
    }
    # None is no expiry for a time to live, and for the others: not given.
    wishes = {name: wish for name, wish in wishes.items() if wish is not None or name == "ttl"}
    policy = overridden(origin.policy.changed(**wishes))
    if origin.model is not None:
        arguments.setdefault("model", origin.model)
    request = ClientRequest(origin, response_model, arguments, policy, Call())
    try:
        request.bypass = _why_not_cacheable(arguments)
        request.call.namespace = policy.namespace_name
        request.call.model = _model_name(arguments.get("model") or origin.default_model or "")
        if not request.bypass:
            _give_key(request)
    except UncacheableRequest as error:
        request.bypass = request.bypass or str(error)
        _warn_once(error.part.partition("[")[0], error.why)
    except ImproperlyConfigured as error:
        request.bypass = request.bypass or str(error)
        _warn_once("settings", str(error))
    except Exception as error:  # noqa: BLE001 - law A: the model is asked all the same
        name = type(error).__name__  # (not its text, which may fail as well)
        request.bypass = request.bypass or f"no key could be computed ({name})"
        _warn_once("request", name)
    return request


def _model_name(model: Any) -> str:
    """The name that is sent. Of an enum's member that is its value, and not what `str` says."""
    name = model.value if isinstance(model, Enum) else model
    if not isinstance(name, str):
        raise UncacheableRequest("model", f"a {type(name).__name__} is no name of a model")
    return str.__str__(name)


def _why_not_cacheable(arguments: dict[str, Any]) -> str:
    """Why a call with these arguments is not cached; empty when it is."""
    if arguments.get("autodetect_images"):
        return "autodetect_images reads files, whose content the key does not know"
    return ""


def _give_key(request: ClientRequest) -> None:
    origin, arguments = request.origin, request.arguments
    shape = _shape_of(request)
    if shape is None:
        request.bypass = "streams of this response model are not cached"
        return
    parts = {
        "namespace": request.call.namespace,
        "provider": origin.client.provider.value,
        "endpoint": origin.endpoint_name,
        "model": request.call.model,
        "mode": origin.client.mode.value,
        "messages": arguments.get("messages"),
        "strict": arguments.get("strict"),
    }
    canonical = CanonicalRequest(
        {name: canonical_part(name, value) for name, value in parts.items()}
        | {
            "schema": shape.schema,
            "parameters": canonical_parameters(_parameters(arguments)),
            "context": canonical_context(arguments.get("context")),
        }
    )
    request.call.key = canonical.key
    request.canonical, request.shape = canonical, shape


def _shape_of(request: ClientRequest) -> Shape | StreamShape | None:
    mode = request.origin.client.mode
    if request.arguments.get("stream"):
        return stream_shape_of(request.response_model, mode)
    return shape_of(request.response_model, mode)


def _parameters(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in arguments.items()
        if name not in NOT_PARAMETERS and not _is_not_given(value)
    }


def _is_not_given(value: Any) -> bool:
    """Whether it is the SDKs' mark for an argument that is not sent."""
    return type(value).__name__ in {"NotGiven", "Omit"}


@lru_cache(maxsize=1000)
def _warn_once(part: str, why: str) -> None:
    logger.warning("llmcache: calls are not cached, %s: %s", part, why)


def _media_form(media: Any) -> bytes:
    """An image, audio or PDF of instructor: its content, and what is sent of where it is from.

    That is its address, if it has one; of a PDF the name of the file too.
    """
    source = media.source
    sent = source if isinstance(source, str) or media.data is None else None
    if isinstance(media, PDF):
        sent = str(source)
    kind = type(media).__name__
    return canonical_part("messages", [f"instructor.{kind}", media.media_type, media.data, sent])


for _media_class in (Image, Audio, PDF):
    FORMS[_media_class] = _media_form
