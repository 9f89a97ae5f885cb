"""One call of a client, as the flow sees it: its key, what it may do, how its answer is kept."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Generator, Set
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from instructor import AsyncInstructor

from llmcache.client.call.arguments import OURS, parameters, refuse_mistyped, sent, taken_wishes
from llmcache.client.call.endpoints import is_litellms
from llmcache.client.call.hooks import CHANGED, Listening, form_of_context
from llmcache.client.call.origin import Names, Origin
from llmcache.client.shapes import Parsing, Shape, shape_of
from llmcache.client.streams import StreamShape, Watch, stream_shape_of
from llmcache.codec.answers import StoredAnswer
from llmcache.conf import settings
from llmcache.exceptions import InvalidArgument, UncacheableRequest
from llmcache.flow.request import BaseRequest
from llmcache.flow.steps import NotStorable
from llmcache.flow.stream_drivers import Recording
from llmcache.keys.request import (
    CanonicalRequest,
    canonical_context,
    canonical_parameters,
    canonical_part,
)
from llmcache.outcomes import Call
from llmcache.policy import UNSET, CacheMode, overridden
from llmcache.providers import pricing
from llmcache.providers.addresses import without_secrets
from llmcache.providers.headers import without_headers
from llmcache.providers.world import searches, what_looks, why_stateful
from llmcache.reasons import Reason, ReasonCode
from llmcache.store.records import Found, describe

# The parts of a call that has none of them.
NO_PARAMETERS: Final = canonical_parameters({})
NO_CONTEXT: Final = canonical_context(None)
# What `Instructor.create` gives where the caller says nothing.
STRICT: Final = canonical_part("strict", True)


@dataclass(slots=True)
class ClientRequest(BaseRequest):
    """One call of a wrapped client.

    `arguments` are what instructor's own function is called with.
    """

    origin: Origin
    response_model: Any
    arguments: dict[str, Any]
    names: Names
    #: A `Shape`, or a `StreamShape`; None where the call has no key.
    shape: Any = None
    #: What no copy was sent of, once it is sent.
    uncopied: Set[str] | None = None
    #: As it was before anybody asked.
    context: Any = None
    listening: Listening | None = None
    last_item: Any = None

    @property
    def mode(self) -> str:
        return str(self.origin.client.mode.value)

    @property
    def asks(self) -> tuple[Callable[[], Any], bool, bool]:
        is_async = isinstance(self.origin.client, AsyncInstructor)
        if self.stream is None:
            return self.ask, False, is_async
        return self.aask_stream if is_async else self.ask_stream, True, is_async

    @property
    def is_one_call(self) -> bool:
        return True

    @property
    def stream(self) -> StreamShape | None:
        """The shape of the stream, where it takes part in caching."""
        shape = self.shape if isinstance(self.shape, StreamShape) else None
        return None if self.bypass or self.policy.mode is CacheMode.NO_STORE else shape

    def ask(self) -> Any:
        """Call instructor's own function, past the cache."""
        create_fn, is_kept = self.origin.client.create_fn, self.uncopied is not None
        if not is_kept:  # (lazy texts are no texts to an SDK)
            self.arguments, _ = sent(self.arguments, self.origin.not_copied, lambda value: value)
        if self.shape is None or (isinstance(self.shape, StreamShape) and self.stream is None):
            return create_fn(response_model=self.response_model, **self.arguments)
        context = self.arguments.get("context") if is_kept else None
        self.listening = Listening(context, self._keyed_context, is_stream=self.stream is not None)
        hooks = self.listening.around(self.arguments.get("hooks"), is_kept=is_kept)
        return create_fn(response_model=self.shape.asked_for, **self.arguments | {"hooks": hooks})

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

    @property
    def completion(self) -> Any:
        """The provider's response, once it was seen."""
        return self.listening.completion if self.listening else None

    @property
    def watch(self) -> Watch | None:
        return self.listening.watch if self.listening else None

    def copied(self, **changes: Any) -> ClientRequest:
        arguments, uncopied = sent(self.arguments, self.origin.not_copied - {"context"})
        changes |= {"arguments": arguments, "uncopied": None, "listening": None, "last_item": None}
        twin = replace(self, **changes)
        if uncopied or not twin.is_as_keyed():
            raise NotStorable(CHANGED)
        return twin

    def encoded_item(self, item: Any) -> bytes:
        """One item of the stream for the store; nothing while it may not be the last one."""
        shape: StreamShape = self.shape
        if not shape.last_only:
            return shape.encode_item(item, self._comparing)
        # Encoded when it turns out to be the last: that runs the model's validators.
        self.last_item = copy.deepcopy(item)
        return b""

    def restore(self, found: Found) -> Any:
        parsing = self._parsing(self.arguments.get("context"))
        return self.shape.decode(StoredAnswer.unpack(found.body), parsing)

    def before_asking(self) -> None:
        # A copy is sent, so whatever the caller changes from now on changes nothing. The context
        # is the caller's own: a validator may write into it.
        self.refusal = CHANGED
        if (context := self.arguments.get("context")) is not None:
            self.context = _copied(context)
        self.arguments, self.uncopied = sent(self.arguments, self.origin.not_copied)
        if self.is_as_keyed():
            self.refusal = None
        self.described = self.describe()

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

    def canonical_now(self) -> CanonicalRequest:
        return self.canonical_at(self.where(), self.shape.schema)

    def canonical_at(self, where: str, schema: bytes) -> CanonicalRequest:
        """The request as its arguments are now. Raises `UncacheableRequest`."""
        arguments, call, client = self.arguments, self.call, self.origin.client
        context, strict = arguments.get("context"), arguments.get("strict")
        has_parameters = self.names.counted or self.policy.sample
        common = self.origin.common_parts(
            call.namespace, call.provider, where, call.model, client.mode._value_, schema
        )
        return common.request(
            canonical_part("messages", arguments.get("messages")),
            canonical_parameters(self.parameters()) if has_parameters else NO_PARAMETERS,
            NO_CONTEXT if context is None else canonical_context(context),
            STRICT if strict is True else canonical_part("strict", strict),
        )

    def bill(self, answer: Any, seconds: float) -> None:
        call = self.call
        self.receipt = call.spent = pricing.receipt(
            self._response_to(answer), provider=call.provider, model=call.model, seconds=seconds
        )

    def _response_to(self, answer: Any) -> Any:
        """The provider's response that `answer` was made from; of a stream, what says its usage."""
        if isinstance(answer, Recording):
            return self.watch and self.watch.said.usage
        if self.response_model is None:
            return answer
        # (a call that skips the cache has no hook that would note it)
        seen = self.listening.completion if self.listening else None
        return seen or getattr(answer, "_raw_response", None)

    def _parsing(self, context: Any) -> Parsing:
        client = self.origin.client
        return Parsing(client.provider, client.mode, context, self.arguments.get("strict"))

    @property
    def _comparing(self) -> Parsing:
        """For parsing beside the call: a validator that writes into the context has a copy."""
        return self._parsing(None if self.context is None else _copied(self.context))

    def why_changed(self) -> Reason | None:
        if self.listening and self.listening.refusal:
            return self.listening.refusal
        if self.uncopied and not self.is_as_keyed():
            return CHANGED
        # Where nobody could tell before a validator wrote into it, the context is looked at now.
        if self.response_model is not None and self.stream is None:
            return None
        now = form_of_context(self.arguments.get("context"))
        return None if now == self._keyed_context else CHANGED

    @property
    def _keyed_context(self) -> bytes | None:
        return self.canonical.own[2] if self.canonical else None

    def encoded(self, answer: Any) -> StoredAnswer:
        completion = self._response_to(answer)
        if completion is None:
            raise NotStorable(ReasonCode.UNSEEN())
        self.admit(self.shape.as_read(answer, completion, self._comparing), completion)
        stored: StoredAnswer = self.shape.encode(answer, completion, self._comparing)
        return stored

    def recorded(self, recording: Recording) -> StoredAnswer:
        shape: StreamShape = self.shape
        if self.watch is None:
            raise NotStorable(ReasonCode.UNSEEN())
        if refusal := self.watch.said.why_not_admitted():
            raise NotStorable(refusal)
        items = recording.items()
        if not items:
            raise NotStorable(ReasonCode.EMPTY_STREAM())
        if shape.last_only:
            items = [shape.encode_item(self.last_item, self._comparing)]
        stored = shape.encode(items)
        if settings.admit is not None:
            self.admit(shape.decode(stored, self._comparing), None)
        return stored

    def describe(self) -> bytes | None:
        arguments = self.arguments
        return describe(
            {
                "messages": arguments.get("messages"),
                "parameters": without_secrets(self.parameters()),
                "context": arguments.get("context"),
                "strict": arguments.get("strict"),
            }
        )


def _copied(context: Any) -> Any:
    return sent({"context": context}, frozenset())[0]["context"]


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
    call = Call(provider=origin.client.provider._value_)
    request = ClientRequest(origin, response_model, arguments, names, policy=policy, call=call)
    try:
        if arguments.get("autodetect_images"):
            request.bypass = ReasonCode.AUTODETECTED_IMAGES()
        call.namespace = policy.namespace_name
        model = arguments.get("model") or origin.default_model or ""
        call.model = model if type(model) is str else _name_of(model)
        if not request.bypass:
            _give_key(request)
    except InvalidArgument:
        raise
    except Exception as error:  # noqa: BLE001 - law A: the model is asked all the same
        request.refuse_key(error, call.provider)
    return request


def _name_of(model: Any) -> str:
    """The name that is sent. Of an enum's member that is its value, and not what `str` says."""
    name = model.value if isinstance(model, Enum) else model
    if not isinstance(name, str):
        raise UncacheableRequest("model", f"a {type(name).__name__} is no name of a model")
    return str.__str__(name)


def _give_key(request: ClientRequest) -> None:
    shape_in = stream_shape_of if request.arguments.get("stream") else shape_of
    shape: Shape | StreamShape | None = shape_in(request.response_model, request.origin.client.mode)
    if shape is None:
        request.bypass = ReasonCode.STREAM_SHAPE()
        return
    where, model = request.where(), request.call.model
    if searches(model) or request.names.are_watched:
        request.bypass = _why_not_kept(request)
        if request.bypass:
            return
    canonical = request.canonical_at(where, shape.schema)
    request.call.key, request.call.response_model = canonical.key, shape.path
    request.endpoint, request.canonical, request.shape = where, canonical, shape


def _why_not_kept(request: ClientRequest) -> Reason | None:
    """Why the answer does not follow from what is asked; None where it does."""
    if why := why_stateful(request.arguments):
        request.call.spoils = True
        return why
    looking = "the model" if searches(request.call.model) else what_looks(request.arguments)
    if not looking or request.policy.ttl is not UNSET:
        return None
    request.call.needs_ttl = True
    return ReasonCode.LOOKS_AT_THE_WORLD(tool=looking)
