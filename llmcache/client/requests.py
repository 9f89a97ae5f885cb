"""One call of a client, as the flow sees it: its key, what it may do, how its answer is kept."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property, lru_cache, partial
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from instructor import AsyncInstructor, Instructor
from instructor.core.hooks import Hooks
from instructor.v2.core.multimodal import PDF, Audio, Image

from llmcache import pricing
from llmcache.admission import why_not_admitted
from llmcache.client.identity import (
    Endpoint,
    default_model_of,
    endpoint_places,
    name_of,
)
from llmcache.client.shapes import Parsing, Shape, looked_at, shape_of
from llmcache.client.streams import StreamShape, Watch, stream_shape_of
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import NotReproducible
from llmcache.conf import settings
from llmcache.exceptions import UncacheableRequest
from llmcache.flow import (
    NotStorable,
    Recording,
    arefresh,
    arefresh_stream,
    refresh,
    refresh_stream,
)
from llmcache.keys import (
    FORMS,
    CanonicalRequest,
    CommonParts,
    canonical_context,
    canonical_parameters,
    canonical_part,
)
from llmcache.leases import Lease
from llmcache.outcomes import NO_RECEIPT, Call, Receipt
from llmcache.policy import CacheMode, Policy, overridden
from llmcache.store.drafts import describe, make_draft
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

# The parts of a call that has none of them.
NO_PARAMETERS: Final = canonical_parameters({})
NO_CONTEXT: Final = canonical_context(None)

# So many namespaces, models and schemas of one client are remembered.
MOST_COMMON_PARTS: Final = 1000

# The arguments of llmcache, and the parameter of the policy that each is.
CACHE_ARGUMENTS: Final = {
    "cache_mode": "mode",
    "cache_ttl": "ttl",
    "cache_tags": "tags",
    "cache_namespace": "namespace",
    "cache_stale_while_revalidate": "stale_while_revalidate",
    "cache_stale_if_error": "stale_if_error",
}


@dataclass(frozen=True)
class Origin:
    """The client that is asked, and what was said of it when it was wrapped."""

    client: Instructor
    policy: Policy
    model: str | None = None
    endpoint: str | None = None
    _common_parts: dict[tuple[tuple[str, ...], bytes], CommonParts] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @cached_property
    def default_model(self) -> str | None:
        return self.model or default_model_of(self.client.create_fn)

    @cached_property
    def seen_endpoint(self) -> Endpoint | None:
        """What tells the endpoint by the client; None for a plain function, whose name says it."""
        places = endpoint_places(self.client.client, self.client.create_fn)
        return Endpoint(places) if places else None

    @property
    def endpoint_name(self) -> str:
        if self.endpoint is not None:
            return self.endpoint
        seen = self.seen_endpoint
        return name_of(self.client.create_fn) if seen is None else seen.text()

    def common_parts(self, namespace: str, model: str, schema: bytes) -> CommonParts:
        """What calls have in common that differ in their messages and parameters only."""
        client = self.client
        told = (
            namespace,
            client.provider._value_,
            self.endpoint_name,
            model,
            client.mode._value_,
        )
        known = self._common_parts.get((told, schema))
        if known is not None:
            return known
        if len(self._common_parts) >= MOST_COMMON_PARTS:
            self._common_parts.clear()
        names = ("namespace", "provider", "endpoint", "model", "mode")
        forms = {name: canonical_part(name, value) for name, value in zip(names, told, strict=True)}
        common = self._common_parts[told, schema] = CommonParts(forms | {"schema": schema})
        return common


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
    receipt: Receipt = NO_RECEIPT
    watch: Watch | None = None
    last_item: Any = None
    begun: bool = False

    @property
    def asks_alone(self) -> bool:
        return self.stream is not None

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

    def again(self) -> Callable[[Lease | None], Any]:
        twin = replace(
            self,
            arguments=_copied(self.arguments),
            policy=replace(self.policy, mode=CacheMode.RELOAD),
            call=self.call.once_more(),
            described=None,
            completion=None,
            receipt=NO_RECEIPT,
            watch=None,
            last_item=None,
            begun=False,
        )
        is_async = isinstance(self.origin.client, AsyncInstructor)
        if self.stream is None:
            return partial(arefresh if is_async else refresh, twin, twin.ask)
        if is_async:
            return partial(arefresh_stream, twin, twin.aask_stream)
        return partial(refresh_stream, twin, twin.ask_stream)

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

    def bill(self, answer: Any, seconds: float) -> None:
        call = self.call
        self.receipt = call.spent = pricing.receipt(
            self._response_to(answer), provider=call.provider, model=call.model, seconds=seconds
        )

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        if self.policy.ttl_seconds == 0:
            raise NotStorable("cache_ttl is 0")
        if self.canonical is None or self.shape is None:
            raise NotStorable("the call has no key")
        if isinstance(answer, Recording):
            stored = self._recorded(answer)
        else:
            stored = self._encoded(answer, self._response_to(answer))
        return make_draft(
            self.call,
            self.policy,
            self.canonical,
            stored,
            self.described,
            self.receipt,
            asked=asked,
            endpoint=self.origin.endpoint_name,
            mode=str(self.origin.client.mode.value),
        )

    def _response_to(self, answer: Any) -> Any:
        """The provider's response that `answer` was made from; of a stream, what says its usage."""
        if isinstance(answer, Recording):
            return self.watch and self.watch.usage
        if self.response_model is None:
            return answer
        # (a call that is passed by has no hook that would note it)
        return self.completion or getattr(answer, "_raw_response", None)

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
        with _told_apart():
            self._admit(looked_at(self.shape, answer, completion, self._parsing), completion)
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
    policy = origin.policy
    if not CACHE_ARGUMENTS.keys().isdisjoint(arguments):
        policy = policy.changed(**_taken_wishes(arguments))
    policy = overridden(policy)
    if origin.model is not None:
        arguments.setdefault("model", origin.model)
    request = ClientRequest(origin, response_model, arguments, policy, Call())
    try:
        if arguments.get("autodetect_images"):
            request.bypass = "autodetect_images reads files, whose content the key does not know"
        request.call.namespace = policy.namespace_name
        request.call.provider = str(origin.client.provider.value)
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


def _taken_wishes(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of llmcache, taken out of `arguments`."""
    wishes = {
        name: arguments.pop(argument)
        for argument, name in CACHE_ARGUMENTS.items()
        if argument in arguments
    }
    # None is no expiry for a time to live, and for the others: not given.
    return {name: wish for name, wish in wishes.items() if wish is not None or name == "ttl"}


def _model_name(model: Any) -> str:
    """The name that is sent. Of an enum's member that is its value, and not what `str` says."""
    if type(model) is str:
        return model
    name = model.value if isinstance(model, Enum) else model
    if not isinstance(name, str):
        raise UncacheableRequest("model", f"a {type(name).__name__} is no name of a model")
    return str.__str__(name)


def _give_key(request: ClientRequest) -> None:
    origin, arguments = request.origin, request.arguments
    shape = _shape_of(request)
    if shape is None:
        request.bypass = "streams of this response model are not cached"
        return
    common = origin.common_parts(request.call.namespace, request.call.model, shape.schema)
    has_parameters = not arguments.keys() <= NOT_PARAMETERS
    context = arguments.get("context")
    canonical = common.request(
        canonical_part("messages", arguments.get("messages")),
        canonical_parameters(_parameters(arguments)) if has_parameters else NO_PARAMETERS,
        NO_CONTEXT if context is None else canonical_context(context),
        canonical_part("strict", arguments.get("strict")),
    )
    request.call.key = canonical.key
    request.call.response_model = shape.path
    request.canonical, request.shape = canonical, shape


def _shape_of(request: ClientRequest) -> Shape | StreamShape | None:
    mode = request.origin.client.mode
    if request.arguments.get("stream"):
        return stream_shape_of(request.response_model, mode)
    return shape_of(request.response_model, mode)


def _copied(arguments: dict[str, Any]) -> dict[str, Any]:
    """What counts in the key as it is now; hooks and the like are what they are."""
    return {
        name: value if name in DENIED else copy.deepcopy(value) for name, value in arguments.items()
    }


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
    sent = source if media.data is None or "://" in str(source) else None
    if isinstance(media, PDF):
        sent = str(source)
    kind = type(media).__name__
    return canonical_part("messages", [f"instructor.{kind}", media.media_type, media.data, sent])


for _media_class in (Image, Audio, PDF):
    FORMS[_media_class] = _media_form
