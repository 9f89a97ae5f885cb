"""One call of a decorated function, as the flow sees it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.values import without_derived_class
from llmcache.conf import settings
from llmcache.decorators.origin import MODE, PROVIDER, Origin
from llmcache.decorators.returns import Returns
from llmcache.discretion import without_content
from llmcache.exceptions import InvalidArgument, InvalidArgumentType, UncacheableRequest
from llmcache.flow.drivers import adrive, drive
from llmcache.flow.fairness import take_turn
from llmcache.flow.request import BaseRequest
from llmcache.flow.steps import NotStorable
from llmcache.flow.stream_drivers import Recording, adrive_stream, drive_stream
from llmcache.keys.request import SAMPLE, CanonicalRequest, canonical_context, canonical_part
from llmcache.outcomes import Call
from llmcache.policy import Policy, overridden, read_tags
from llmcache.providers import pricing
from llmcache.providers.addresses import without_secrets
from llmcache.providers.admission import completions_in, why_unfinished
from llmcache.reasons import Reason, ReasonCode
from llmcache.store.records import Found, describe

logger = logging.getLogger("llmcache")

# The parts of the key that a function does not have.
NOTHING: Final = canonical_part("messages", None)
# The context of a function that closes over no variable.
NONE_CLOSED: Final = canonical_part("context", {})


@dataclass(slots=True)
class FunctionRequest(BaseRequest):
    """One call of a decorated function."""

    origin: Origin
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    returns: Returns | None = None
    own_tags: frozenset[str] = frozenset()

    @property
    def mode(self) -> str:
        return MODE

    @property
    def asks(self) -> tuple[Callable[[], Any], bool, bool]:
        if self.returns is not None and self.returns.is_stream:
            return self.ask, True, self.returns.is_async
        is_async = self.origin.is_coroutine
        return self.aask_value if is_async else self.ask_value, False, is_async

    @property
    def tags(self) -> frozenset[str]:
        return self.policy.tags | self.own_tags

    def answer(self) -> Any:
        """What the decorated function gives back to its caller."""
        ask, is_stream, is_async = self.asks
        if is_stream:
            return (adrive_stream if is_async else drive_stream)(self, ask)
        return self._awaited() if is_async else drive(self, ask)

    async def _awaited(self) -> Any:
        await take_turn()
        return await adrive(self, self.aask_value)

    def copied(self, **changes: Any) -> FunctionRequest:
        bound = self.origin.copied(self.args, self.kwargs)
        arguments = self.origin.bind(bound.args, bound.kwargs)
        return replace(self, args=bound.args, kwargs=bound.kwargs, arguments=arguments, **changes)

    def ask(self) -> Any:
        """Call the function itself."""
        return self.origin.function(*self.args, **self.kwargs)

    def ask_value(self) -> Any:
        return without_derived_class(self.ask())

    async def aask_value(self) -> Any:
        return without_derived_class(await self.ask())

    def restore(self, found: Found) -> Any:
        return self._returns.codec.decode(StoredAnswer.unpack(found.body))

    def before_asking(self) -> None:
        # Before, because the function may change its arguments.
        self.refusal = ReasonCode.ARGUMENT_CHANGED(when="so that it cannot be read again")
        self.refusal = self._why_not_to_be_kept()
        self.described = self.describe()

    def describe(self) -> bytes | None:
        context = self.origin.closed_over() or None
        told: dict[str, Any] = {
            "messages": [],
            "parameters": without_secrets(self._counted()),
            "context": without_secrets(context),
            "strict": None,
        }
        return describe(told)

    def _why_not_to_be_kept(self) -> Reason | None:
        if not self.is_as_keyed():
            return ReasonCode.ARGUMENT_CHANGED(when="between the call and its start")
        try:
            self.own_tags = self._read_tags()
        except Exception as error:  # noqa: BLE001 - law A, and law D: not stored without its tags
            logger.warning("llmcache: the tags of %s: %s", self.origin.name, without_content(error))
            return ReasonCode.TAGS_UNKNOWN(error=type(error).__name__)
        return None

    def _read_tags(self) -> frozenset[str]:
        make, wanted = self.origin.tags, self.origin.tag_arguments
        if make is None:
            return frozenset()
        names = self.arguments if wanted is None else wanted & self.arguments.keys()
        return read_tags(make(**{name: self.arguments[name] for name in names}))

    def canonical_now(self) -> CanonicalRequest:
        closed = self.origin.closed_over() if self.origin.closes_over else None
        return self.origin.common_parts(self.call.namespace).request(
            messages=NOTHING,
            parameters=_canonical("parameters", self._counted()),
            context=_canonical("context", closed) if closed else NONE_CLOSED,
            strict=NOTHING,
        )

    def _counted(self) -> dict[str, Any]:
        """The arguments that count in the key, and which of several answers to them is meant."""
        counted, sample = self.origin.counted(self.arguments), self.policy.sample
        if not sample:
            return counted
        if SAMPLE in self.origin.signature.parameters:
            raise UncacheableRequest(SAMPLE, "it is an argument of the function, too")
        return {**counted, SAMPLE: sample}

    def encoded_item(self, item: Any) -> bytes:
        _judge(item)
        return self._returns.encode_item(item)

    def bill(self, answer: Any, seconds: float) -> None:
        """What calls inside have spent, they tell themselves; and a replayed answer is free."""
        self.receipt = pricing.receipt(
            getattr(answer, "_raw_response", None), provider=PROVIDER, seconds=seconds
        )
        self.call.spent = self.receipt
        if self.inside:
            spent = [call.spent for call in self.inside if call.spent is not None]
            self.receipt = pricing.together(spent, seconds)
            self.call.spent = pricing.together([], seconds)

    def why_changed(self) -> Reason | None:
        # By the function itself: then a hit would not do it. Or by others: then it may have
        # answered for what they made of it.
        changed = ReasonCode.ARGUMENT_CHANGED(when="while the function ran")
        return None if self.is_as_keyed() else changed

    def encoded(self, answer: Any) -> StoredAnswer:
        _judge(answer)
        self.admit(answer, getattr(answer, "_raw_response", None))
        return self._returns.codec.encode(answer)

    def recorded(self, recording: Recording) -> StoredAnswer:
        stored = self._returns.encode_items(recording.items())
        if settings.admit is not None:
            self.admit(self._returns.codec.decode(stored), None)
        return stored

    @property
    def _returns(self) -> Returns:
        if self.returns is None:
            raise TypeError("the call has no key")
        return self.returns


def _judge(answer: Any) -> None:
    for completion in completions_in(answer):
        if refusal := why_unfinished(completion):
            raise NotStorable(refusal)


def read_request(
    origin: Origin, policy: Policy, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> FunctionRequest:
    """The call with these arguments. Whatever goes wrong makes it a bypass, with the reason.

    Raises `InvalidArgument` where a namespace is required and there is none.
    """
    call = Call(provider=PROVIDER, model=origin.name)
    request = FunctionRequest(origin, args, kwargs, policy=overridden(policy), call=call)
    try:
        request.endpoint = f"version={origin.version!r}"
        call.namespace = request.policy.namespace_name
        request.returns = origin.returns
        call.response_model = request.returns.path
        request.arguments = origin.bind(args, kwargs)
        request.canonical = request.canonical_now()
        call.key = request.canonical.key
    except InvalidArgument:
        raise
    except Exception as error:  # noqa: BLE001 - law A: the function is called all the same
        if isinstance(error, TypeError):
            _refuse_ours(origin, kwargs)
        request.refuse_key(error, origin.name)
    return request


def _refuse_ours(origin: Origin, kwargs: Mapping[str, Any]) -> None:
    """Raise `InvalidArgument` for what is meant for the cache, as clients take it."""
    known = origin.signature.parameters
    for name in () if origin.rest_name else kwargs:
        if name.startswith("cache") and name not in known:
            raise InvalidArgumentType(
                f"{origin.name} takes no {name}. What is asked of the cache is said where the "
                "function is decorated, or around the call: with llmcache.override(...)."
            )


def _canonical(part: str, values: Mapping[str, Any]) -> bytes:
    """The order inside of the values counts: a function may go through a mapping."""
    forms: dict[str, bytes] = {}
    for name, value in values.items():
        try:
            forms[name] = canonical_context({name: value})
        except UncacheableRequest as error:
            raise UncacheableRequest(
                name + error.part.removeprefix(f"context[{name!r}]"),
                f"{error.why}; if it cannot change the answer, say exclude=({name!r},)",
                ReasonCode.ARGUMENT_WITHOUT_FORM,
            ) from None
    return canonical_part(part, forms)
