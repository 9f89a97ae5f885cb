"""One call of a client, as the flow sees it: its key, what it may do, how its answer is kept."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache, partial
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from instructor import AsyncInstructor
from instructor.core.hooks import HookName, Hooks
from instructor.v2.core.multimodal import PDF, Audio, Image

from llmcache.client.arguments import (
    DENIED,
    OURS,
    parameters,
    refuse_mistyped,
    sent,
    taken_wishes,
)
from llmcache.client.endpoints import is_litellms
from llmcache.client.headers import without_headers
from llmcache.client.names import Names
from llmcache.client.origin import Origin
from llmcache.client.shapes import Parsing, Shape, looked_at, shape_of
from llmcache.client.streams import StreamShape, Watch, stream_shape_of, watch_next_stream
from llmcache.client.world import what_looks, why_stateful
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import NotReproducible
from llmcache.conf import settings
from llmcache.discretion import without_content
from llmcache.exceptions import InvalidArgument, UncacheableRequest
from llmcache.flow import (
    NotRestorable,
    NotStorable,
    Recording,
    arefresh,
    arefresh_stream,
    refresh,
    refresh_stream,
)
from llmcache.keys.forms import FORMS
from llmcache.keys.request import (
    CanonicalRequest,
    CommonParts,
    canonical_context,
    canonical_parameters,
    canonical_part,
)
from llmcache.leases import Lease
from llmcache.outcomes import NO_RECEIPT, Call, Inside, Receipt
from llmcache.policy import UNSET, CacheMode, Policy, overridden
from llmcache.providers import pricing
from llmcache.providers.admission import why_not_admitted
from llmcache.store.drafts import describe, make_draft
from llmcache.store.records import Draft, Found

logger = logging.getLogger("llmcache")

# The parts of a call that has none of them.
NO_PARAMETERS: Final = canonical_parameters({})
NO_CONTEXT: Final = canonical_context(None)

CHANGED: Final = "an argument was changed between the call and its answer"


@dataclass(slots=True)
class ClientRequest:
    """One call of a wrapped client (a `llmcache.flow.StreamRequest`).

    `arguments` are what instructor's own function is called with.
    """

    origin: Origin
    response_model: Any
    arguments: dict[str, Any]
    names: Names
    policy: Policy
    call: Call
    bypass: str = ""
    endpoint: str = ""
    canonical: CanonicalRequest | None = None
    shape: Shape | StreamShape | None = None
    described: bytes | None = None
    # Why the answer is not one to what the key says, once that is known.
    refusal: str = ""
    uncopied: Set[str] | None = None
    seen_context: bytes | None = None
    seen_sent: list[bytes | None] | None = None
    seen_response: bytes | None = None
    completion: Any = None
    receipt: Receipt = NO_RECEIPT
    watch: Watch | None = None
    last_item: Any = None
    begun: bool = False
    inside: Inside | None = None

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
        if self.uncopied is None:  # nothing of it is stored, and lazy texts are no texts to an SDK
            self.arguments, _ = sent(self.arguments, self.origin.not_copied, lambda value: value)
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
        arguments, uncopied = sent(self.arguments, self.origin.not_copied - {"context"})
        twin = replace(
            self,
            arguments=arguments,
            policy=replace(self.policy, mode=CacheMode.RELOAD),
            call=self.call.once_more(),
            described=None,
            refusal="",
            uncopied=None,
            seen_context=None,
            completion=None,
            receipt=NO_RECEIPT,
            watch=None,
            last_item=None,
            begun=False,
            inside=None,
        )
        if uncopied or not twin.is_as_keyed():
            raise NotStorable(CHANGED)
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
        # A copy is sent, so whatever the caller changes from now on changes nothing. The context
        # is the caller's own: a validator may write into it.
        self.refusal = CHANGED
        self.arguments, self.uncopied = sent(self.arguments, self.origin.not_copied)
        if self.is_as_keyed():
            self.refusal = ""
        self.described = self.describe()

    def is_as_keyed(self) -> bool:
        """Whether the arguments have the key that they had when they were read."""
        try:
            shape: Any = self.shape
            common, _ = self.origin.common_parts(
                self.call.namespace, self.where(), self.call.model, shape.schema
            )
            return self.canonical_in(common).key == self.call.key
        except Exception:  # noqa: BLE001 - what they have become may have no key
            return False

    def where(self) -> str:
        """The endpoint, and the headers that choose the answer, as the arguments are now."""
        origin = self.origin
        if not self.names.have_headers:
            return origin.where.text()
        return origin.where.text_with(self.arguments, origin.client.kwargs, origin.exclude)

    def parameters(self) -> dict[str, Any]:
        names = self.names
        arguments = without_headers(self.arguments) if names.have_holders else self.arguments
        return parameters(arguments, names.counted, self.origin.unheard, self.policy.sample)

    def canonical_in(self, common: CommonParts) -> CanonicalRequest:
        """The request as its arguments are now. Raises `UncacheableRequest`."""
        arguments = self.arguments
        context = arguments.get("context")
        has_parameters = self.names.counted or self.policy.sample
        return common.request(
            canonical_part("messages", arguments.get("messages")),
            canonical_parameters(self.parameters()) if has_parameters else NO_PARAMETERS,
            NO_CONTEXT if context is None else canonical_context(context),
            canonical_part("strict", arguments.get("strict")),
        )

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
        if self.refusal or self._is_changed_at_the_end():
            raise NotStorable(self.refusal or CHANGED)
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
            inside=self.inside,
            endpoint=self.endpoint,
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

    def _is_changed_at_the_end(self) -> bool:
        """Whether what no copy was sent of is another one now.

        Of a context that is only so where nobody could tell it before a validator wrote into it.
        """
        if self.uncopied and not self.is_as_keyed():
            return True
        is_watched = self.response_model is not None and self.stream is None
        return not is_watched and self._context_now() != self._keyed_context

    @property
    def _keyed_context(self) -> bytes | None:
        return self.canonical.own[2] if self.canonical else None

    def _context_now(self) -> bytes | None:
        try:
            return canonical_context(self.arguments.get("context"))
        except Exception:  # noqa: BLE001 - what it has become may have no form
            return None

    def _listening(self, hooks: Hooks | None) -> Hooks:
        """The caller's hooks between two of ours, which note what is sent and what comes back."""
        first, last = Hooks(), Hooks()
        last.on("completion:response", self._note_completion)
        if self.uncopied is not None and self.arguments.get("context") is not None:
            first.on("completion:kwargs", self._note_context)
        if hooks is None:
            return first + last
        if self.uncopied is not None and _hear(hooks, HookName.COMPLETION_KWARGS):
            first.on("completion:kwargs", self._note_sent)
            last.on("completion:kwargs", self._compare_sent)
        if self.uncopied is not None and _hear(hooks, HookName.COMPLETION_RESPONSE):
            first.on("completion:response", self._note_response)
            last.on("completion:response", self._compare_response)
        return first + hooks + last

    def _note_context(self, **_: Any) -> None:
        """Before an attempt. A validator of an earlier one may have written into the context."""
        now = self._context_now()
        if self.seen_context is None and now != self._keyed_context:
            self.refusal = CHANGED
        self.seen_context = now

    def _note_sent(self, **sent: Any) -> None:
        self.seen_sent = _forms(sent)

    def _compare_sent(self, **sent: Any) -> None:
        if _forms(sent) != self.seen_sent:
            self.refusal = "a hook changed what was sent, which the key does not know"

    def _note_response(self, response: Any) -> None:
        self.seen_response = _form("response", response)

    def _compare_response(self, response: Any) -> None:
        if _form("response", response) != self.seen_response:
            self.refusal = "a hook changed what came back, which the key does not know"

    def _note_completion(self, response: Any) -> None:
        self.completion = response
        if self.seen_context is not None and self._context_now() != self.seen_context:
            self.refusal = CHANGED
        if self.stream is not None:
            self.watch = watch_next_stream()

    def _encoded(self, answer: Any, completion: Any) -> StoredAnswer:
        if self.shape is None or isinstance(self.shape, StreamShape):
            raise NotStorable("the answer is no stream")
        if completion is None:
            raise NotStorable("the provider's response was not seen, so it may be cut short")
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
                "parameters": self.parameters(),
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
        raise NotRestorable(f"the answer cannot be stored: {error}") from None


def read_request(origin: Origin, response_model: Any, arguments: dict[str, Any]) -> ClientRequest:
    """The call with these arguments. Raises `InvalidArgument` for those of llmcache that are off.

    Whatever else goes wrong makes the call a bypass, with the reason.
    """
    policy, names_namespace = origin.policy, False
    if not OURS.isdisjoint(arguments):
        names_namespace = arguments.get("cache_namespace") is not None
        policy = policy.changed("cache_", **taken_wishes(arguments))
    policy = overridden(policy, names_namespace=names_namespace)
    if origin.model is not None:
        arguments.setdefault("model", origin.model)
    names = origin.told_by(tuple(arguments))
    if names.doubtful:
        of_litellm = is_litellms(origin.client.create_fn)
        refuse_mistyped(arguments, names.doubtful, is_litellms=of_litellm)
        names = origin.told_by(tuple(arguments))
    request = ClientRequest(origin, response_model, arguments, names, policy, Call())
    try:
        if arguments.get("autodetect_images"):
            request.bypass = "autodetect_images reads files, whose content the key does not know"
        request.call.namespace = policy.namespace_name
        request.call.provider = str(origin.client.provider.value)
        request.call.model = _model_name(arguments.get("model") or origin.default_model or "")
        if not request.bypass:
            _give_key(request)
    except InvalidArgument:
        raise
    except UncacheableRequest as error:
        request.bypass = request.bypass or str(error)
        _warn_once(error.part.partition("[")[0], error.why)
    except ImproperlyConfigured as error:
        request.bypass = request.bypass or without_content(error)
        _warn_once("settings", without_content(error))
    except Exception as error:  # noqa: BLE001 - law A: the model is asked all the same
        request.bypass = request.bypass or f"no key could be computed ({type(error).__name__})"
        _warn_once("request", without_content(error))
    return request


def _model_name(model: Any) -> str:
    """The name that is sent. Of an enum's member that is its value, and not what `str` says."""
    if type(model) is str:
        return model
    name = model.value if isinstance(model, Enum) else model
    if not isinstance(name, str):
        raise UncacheableRequest("model", f"a {type(name).__name__} is no name of a model")
    return str.__str__(name)


def _give_key(request: ClientRequest) -> None:
    origin, call = request.origin, request.call
    shape = _shape_of(request)
    if shape is None:
        request.bypass = "streams of this response model are not cached"
        return
    where = request.where()
    common, is_searching = origin.common_parts(call.namespace, where, call.model, shape.schema)
    if is_searching or request.names.are_watched:
        request.bypass = _why_not_kept(request, is_searching)
        if request.bypass:
            return
    canonical = request.canonical_in(common)
    call.key = canonical.key
    call.response_model = shape.path
    request.endpoint, request.canonical, request.shape = where, canonical, shape


def _why_not_kept(request: ClientRequest, is_searching: bool) -> str:
    """Why the answer does not follow from what is asked; empty where it does."""
    if why := why_stateful(request.arguments):
        request.call.spoils = True
        return why
    looking = "the model" if is_searching else what_looks(request.arguments)
    if not looking or request.policy.ttl is not UNSET:
        return ""
    request.call.needs_ttl = True
    return f"{looking} looks at the world: say for how long an answer will do, by a ttl"


def _shape_of(request: ClientRequest) -> Shape | StreamShape | None:
    mode = request.origin.client.mode
    if request.arguments.get("stream"):
        return stream_shape_of(request.response_model, mode)
    return shape_of(request.response_model, mode)


def _hear(hooks: Hooks, name: HookName) -> bool:
    return bool(getattr(hooks, "_handlers", {}).get(name))


def _forms(arguments: Mapping[str, Any]) -> list[bytes | None]:
    return [_form(name, value) for name, value in sorted(arguments.items()) if name not in DENIED]


def _form(name: str, value: Any) -> bytes | None:
    try:
        return canonical_part(name, value)
    except Exception:  # noqa: BLE001 - instructor and the SDKs have objects of their own
        return None


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
