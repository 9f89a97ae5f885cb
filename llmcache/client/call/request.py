"""One call of a client, as the flow sees it: its key, what it may do, how its answer is kept."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, Final

from instructor import AsyncInstructor
from instructor.core.hooks import HookName, Hooks

from llmcache.client.call.arguments import (
    DENIED,
    parameters,
    sent,
)
from llmcache.client.call.headers import without_headers
from llmcache.client.call.names import Names
from llmcache.client.call.origin import Origin
from llmcache.client.shapes import Parsing, Shape, as_read
from llmcache.client.streams import StreamShape, Watch, watch_next_stream
from llmcache.codec.answers import StoredAnswer
from llmcache.conf import settings
from llmcache.flow import (
    BaseRequest,
    NotStorable,
    Recording,
)
from llmcache.keys.request import (
    CanonicalRequest,
    CommonParts,
    canonical_context,
    canonical_parameters,
    canonical_part,
)
from llmcache.policy import CacheMode
from llmcache.providers import pricing
from llmcache.providers.admission import why_not_admitted
from llmcache.reasons import Reason, ReasonCode
from llmcache.store.drafts import describe
from llmcache.store.records import Found

logger = logging.getLogger("llmcache")

# The parts of a call that has none of them.
NO_PARAMETERS: Final = canonical_parameters({})
NO_CONTEXT: Final = canonical_context(None)
# What `Instructor.create` gives where the caller says nothing.
STRICT: Final = canonical_part("strict", True)

CHANGED: Final = ReasonCode.ARGUMENT_CHANGED(when="between the call and its answer")


@dataclass(slots=True)
class ClientRequest(BaseRequest):
    """One call of a wrapped client.

    `arguments` are what instructor's own function is called with.
    """

    origin: Origin
    response_model: Any
    arguments: dict[str, Any]
    names: Names
    shape: Shape | StreamShape | None = None
    # What no copy was sent of, once it is sent.
    uncopied: Set[str] | None = None
    # As it was before anybody asked; and its form before the last attempt.
    context: Any = None
    seen_context: bytes | None = None
    seen_sent: list[bytes | None] | None = None
    seen_response: bytes | None = None
    completion: Any = None
    watch: Watch | None = None
    last_item: Any = None

    @property
    def name(self) -> str:
        return str(self.origin.client.provider.value)

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

    def copied(self, **changes: Any) -> ClientRequest:
        arguments, uncopied = sent(self.arguments, self.origin.not_copied - {"context"})
        twin = replace(
            self,
            arguments=arguments,
            uncopied=None,
            seen_context=None,
            completion=None,
            watch=None,
            last_item=None,
            **changes,
        )
        if uncopied or not twin.is_as_keyed():
            raise NotStorable(CHANGED)
        return twin

    def encoded_item(self, item: Any) -> bytes:
        """One item of the stream for the store; nothing while it may not be the last one."""
        shape = self.stream
        if shape is None:
            raise TypeError("the call is no stream")
        if not shape.last_only:
            return shape.encode_item(item, self._comparing)
        # Encoded when it turns out to be the last: that runs the model's validators.
        self.last_item = copy.deepcopy(item)
        return b""

    def restore(self, found: Found) -> Any:
        if self.shape is None:
            raise TypeError("the call has no key")
        return self.shape.decode(StoredAnswer.unpack(found.body), self._parsing)

    def before_asking(self) -> None:
        # A copy is sent, so whatever the caller changes from now on changes nothing. The context
        # is the caller's own: a validator may write into it.
        self.refusal = CHANGED
        if self.arguments.get("context") is not None:
            self.context = self._copied(self.arguments["context"])
        self.arguments, self.uncopied = sent(self.arguments, self.origin.not_copied)
        if self.is_as_keyed():
            self.refusal = None
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
        context, strict = arguments.get("context"), arguments.get("strict")
        has_parameters = self.names.counted or self.policy.sample
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
            return self.watch and self.watch.usage
        if self.response_model is None:
            return answer
        # (a call that skips the cache has no hook that would note it)
        return self.completion or getattr(answer, "_raw_response", None)

    @property
    def _parsing(self) -> Parsing:
        client, arguments = self.origin.client, self.arguments
        return Parsing(
            client.provider, client.mode, arguments.get("context"), arguments.get("strict")
        )

    @property
    def _comparing(self) -> Parsing:
        """`_parsing` beside the call: a validator that writes into the context has a copy."""
        client, context = self.origin.client, self.context
        if context is not None:
            context = self._copied(context)
        return Parsing(client.provider, client.mode, context, self.arguments.get("strict"))

    @staticmethod
    def _copied(context: Any) -> Any:
        return sent({"context": context}, frozenset())[0]["context"]

    def why_changed(self) -> Reason | None:
        # Of a context that is only told where nobody could tell before a validator wrote into it.
        if self.uncopied and not self.is_as_keyed():
            return CHANGED
        is_watched = self.response_model is not None and self.stream is None
        is_changed = not is_watched and self._context_now() != self._keyed_context
        return CHANGED if is_changed else None

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
        last.on("completion:response", self._record_completion)
        if self.uncopied is not None and self.arguments.get("context") is not None:
            first.on("completion:kwargs", self._record_context)
        if hooks is None:
            return first + last
        if self.uncopied is not None and _hear(hooks, HookName.COMPLETION_KWARGS):
            first.on("completion:kwargs", self._record_sent)
            last.on("completion:kwargs", self._compare_sent)
        if self.uncopied is not None and _hear(hooks, HookName.COMPLETION_RESPONSE):
            first.on("completion:response", self._record_response)
            last.on("completion:response", self._compare_response)
        return first + hooks + last

    def _record_context(self, **_: Any) -> None:
        """Before an attempt. A validator of an earlier one may have written into the context."""
        now = self._context_now()
        if self.seen_context is None and now != self._keyed_context:
            self.refusal = CHANGED
        self.seen_context = now

    def _record_sent(self, **sent: Any) -> None:
        self.seen_sent = _forms(sent)

    def _compare_sent(self, **sent: Any) -> None:
        if _forms(sent) != self.seen_sent:
            self.refusal = ReasonCode.HOOK_CHANGED(what="was sent")

    def _record_response(self, response: Any) -> None:
        self.seen_response = _form("response", response)

    def _compare_response(self, response: Any) -> None:
        if _form("response", response) != self.seen_response:
            self.refusal = ReasonCode.HOOK_CHANGED(what="came back")

    def _record_completion(self, response: Any) -> None:
        self.completion = response
        if self.seen_context is not None and self._context_now() != self.seen_context:
            self.refusal = CHANGED
        if self.stream is not None:
            self.watch = watch_next_stream()

    def encoded(self, answer: Any) -> StoredAnswer:
        completion = self._response_to(answer)
        if self.shape is None or isinstance(self.shape, StreamShape):
            raise TypeError("the answer is no stream")
        if completion is None:
            raise NotStorable(ReasonCode.UNSEEN())
        self._admit(as_read(self.shape, answer, completion, self._comparing), completion)
        return self.shape.encode(answer, completion, self._comparing)

    def recorded(self, recording: Recording) -> StoredAnswer:
        shape, watch = self.stream, self.watch
        if shape is None or watch is None:
            raise NotStorable(ReasonCode.UNSEEN())
        if refusal := watch.why_not_admitted():
            raise NotStorable(refusal)
        stored = shape.encode(self._encoded_items(recording, shape))
        if settings.admit is not None:
            self._admit(shape.decode(stored, self._comparing), None)
        return stored

    def _encoded_items(self, recording: Recording, shape: StreamShape) -> list[bytes]:
        items = recording.items()
        if not items:
            raise NotStorable(ReasonCode.EMPTY_STREAM())
        return [shape.encode_item(self.last_item, self._comparing)] if shape.last_only else items

    def _admit(self, answer: Any, completion: Any) -> None:
        if refusal := why_not_admitted(answer, completion):
            raise NotStorable(refusal)

    def describe(self) -> bytes | None:
        arguments = self.arguments
        return describe(
            {
                "messages": arguments.get("messages"),
                "parameters": self.parameters(),
                "context": arguments.get("context"),
                "strict": arguments.get("strict"),
            }
        )


def _hear(hooks: Hooks, name: HookName) -> bool:
    return bool(getattr(hooks, "_handlers", {}).get(name))


def _forms(arguments: Mapping[str, Any]) -> list[bytes | None]:
    return [_form(name, value) for name, value in sorted(arguments.items()) if name not in DENIED]


def _form(name: str, value: Any) -> bytes | None:
    try:
        return canonical_part(name, value)
    except Exception:  # noqa: BLE001 - instructor and the SDKs have objects of their own
        return None
