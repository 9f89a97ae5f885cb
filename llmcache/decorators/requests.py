"""One call of a decorated function, as the flow sees it."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any, Final

from asgiref.sync import iscoroutinefunction

from llmcache import pricing
from llmcache.admission import why_not_admitted
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import NotReproducible
from llmcache.codec.values import without_derived_class
from llmcache.conf import settings
from llmcache.decorators.binding import Binder
from llmcache.decorators.identity import (
    closed_over,
    form_of_class,
    free_variables,
    name_of,
    origin_of,
)
from llmcache.decorators.returns import Kind, Returns, read_returns
from llmcache.exceptions import UncacheableRequest
from llmcache.flow import (
    NotStorable,
    Recording,
    adrive,
    adrive_stream,
    arefresh,
    arefresh_stream,
    drive,
    drive_stream,
    refresh,
    refresh_stream,
    take_turn,
)
from llmcache.keys import CanonicalRequest, CommonParts, canonical_context, canonical_part
from llmcache.leases import Lease
from llmcache.outcomes import NO_RECEIPT, Call, Receipt, capture
from llmcache.policy import CacheMode, Policy, overridden, read_tags
from llmcache.store.drafts import describe, make_draft
from llmcache.store.durable import Draft
from llmcache.store.entries import Found

logger = logging.getLogger("llmcache")

PROVIDER: Final = "python"
MODE: Final = "cached"
# The parts of the key that a function does not have.
NOTHING: Final = canonical_part("messages", None)
# The context of a function that closes over no variable.
NONE_CLOSED: Final = canonical_part("context", {})
# So many namespaces of one function are remembered.
MOST_NAMESPACES: Final = 1000


@dataclass(frozen=True)
class Origin:
    """A function, and what the decorator was told of it.

    `class_argument` is the name under which a class method gets its class; empty for others.
    """

    function: Callable[..., Any]
    signature: inspect.Signature
    policy: Policy
    tags: Callable[..., Iterable[str]] | None
    tag_arguments: frozenset[str] | None
    exclude: frozenset[str]
    version: int | str
    class_argument: str
    _common_parts: dict[str, CommonParts] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @cached_property
    def name(self) -> str:
        return name_of(self.function)

    @property
    def endpoint_name(self) -> str:
        return f"version={self.version!r}"

    @cached_property
    def closes_over(self) -> bool:
        return bool(free_variables(self.function))

    @cached_property
    def is_coroutine(self) -> bool:
        return iscoroutinefunction(self.function)

    @cached_property
    def returns(self) -> Returns:
        """Read when first asked for: by then, what an annotation names has been defined.

        Raises `UncacheableRequest`, and then it is read anew by the next call.
        """
        return read_returns(self.function, self.is_coroutine)

    def common_parts(self, namespace: str) -> CommonParts:
        """The parts of the key that all calls in this namespace share."""
        known = self._common_parts.get(namespace)
        if known is not None:
            return known
        if len(self._common_parts) >= MOST_NAMESPACES:
            self._common_parts.clear()
        parts = {
            "namespace": namespace,
            "provider": PROVIDER,
            "endpoint": (self.version, origin_of(self.function)),
            "model": self.name,
            "mode": MODE,
        }
        forms = {name: canonical_part(name, value) for name, value in parts.items()}
        common = CommonParts(forms | {"schema": self.returns.schema})
        self._common_parts[namespace] = common
        return common

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments by the names of the parameters, with defaults. Raises `TypeError`."""
        return self.binder.bind(args, kwargs)

    @cached_property
    def binder(self) -> Binder:
        return Binder(self.signature)

    def copied(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The arguments, those copied that count in the key. Raises where one cannot be."""
        bound = self.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name == self.rest_name:
                bound.arguments[name] = self._copied(value)
            elif name not in self.exclude:
                bound.arguments[name] = copy.deepcopy(value)
        return bound

    def _copied(self, rest: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value if name in self.exclude else copy.deepcopy(value)
            for name, value in rest.items()
        }

    @cached_property
    def counts_all(self) -> bool:
        return not (self.exclude or self.class_argument or self.rest_name)

    def counted(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Those of the bound arguments that count in the key."""
        if self.counts_all:
            return arguments
        counted = {name: value for name, value in arguments.items() if name not in self.exclude}
        if isinstance(cls := counted.get(self.class_argument), type):
            counted[self.class_argument] = form_of_class(cls)
        if (rest := self.rest_name) in counted:
            counted[rest] = {k: v for k, v in counted[rest].items() if k not in self.exclude}
        return counted

    @cached_property
    def rest_name(self) -> str:
        return rest_name_of(self.signature)


def rest_name_of(signature: inspect.Signature) -> str:
    """The name of the parameter ``**kwargs``; empty when there is none."""
    kinds = {parameter.kind: name for name, parameter in signature.parameters.items()}
    return kinds.get(inspect.Parameter.VAR_KEYWORD, "")


@dataclass(slots=True)
class FunctionRequest:
    """One call of a decorated function (a `llmcache.flow.StreamRequest`)."""

    origin: Origin
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    policy: Policy
    call: Call
    bypass: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    canonical: CanonicalRequest | None = None
    returns: Returns | None = None
    described: bytes | None = None
    tags: frozenset[str] = frozenset()
    refusal: str = ""
    inside: list[Call] = field(default_factory=list)
    receipt: Receipt = NO_RECEIPT
    begun: bool = False

    @property
    def kind(self) -> Kind:
        return self.returns.kind if self.returns else Kind.VALUE

    @property
    def asks_alone(self) -> bool:
        return self.kind is not Kind.VALUE

    def answer(self) -> Any:
        """What the decorated function gives back to its caller."""
        if self.kind is Kind.STREAM:
            return drive_stream(self, self.ask)
        if self.kind is Kind.ASYNC_STREAM:
            return adrive_stream(self, self.ask)
        if self.origin.is_coroutine:
            return self._awaited()
        return drive(self, self.ask_value)

    async def _awaited(self) -> Any:
        await take_turn()
        return await adrive(self, self.aask_value)

    def again(self) -> Callable[[Lease | None], Any]:
        bound = self.origin.copied(self.args, self.kwargs)
        twin = replace(
            self,
            args=bound.args,
            kwargs=bound.kwargs,
            policy=replace(self.policy, mode=CacheMode.RELOAD),
            call=self.call.once_more(),
            inside=[],
            receipt=NO_RECEIPT,
            begun=False,
        )
        twin.arguments = self.origin.bind(bound.args, bound.kwargs)
        if self.kind is Kind.STREAM:
            return partial(refresh_stream, twin, twin.ask)
        if self.kind is Kind.ASYNC_STREAM:
            return partial(arefresh_stream, twin, twin.ask)
        if self.origin.is_coroutine:
            return partial(arefresh, twin, twin.aask_value)
        return partial(refresh, twin, twin.ask_value)

    def ask(self) -> Any:
        """Call the function itself."""
        return self.origin.function(*self.args, **self.kwargs)

    def ask_value(self) -> Any:
        with capture() as self.inside:
            return without_derived_class(self.ask())

    async def aask_value(self) -> Any:
        with capture() as self.inside:
            return without_derived_class(await self.ask())

    def restore(self, found: Found) -> Any:
        return self._returns.codec.decode(StoredAnswer.unpack(found.body))

    def before_asking(self) -> None:
        # Before, because the function may change its arguments.
        self.refusal = "its arguments could not be read again"
        self.refusal = self._why_not_to_be_kept()
        self.described = self.describe()

    def describe(self) -> bytes | None:
        """The call as JSON, for people to read; None when it is not to be stored."""
        return describe(
            {
                "messages": [],
                "parameters": self.origin.counted(self.arguments),
                "context": _closed_over(self.origin) or None,
                "strict": None,
            }
        )

    def _why_not_to_be_kept(self) -> str:
        if canonical_of(self).key != self.call.key:
            return "an argument was changed between the call and its start"
        try:
            self.tags = self._read_tags()
        except Exception as error:  # noqa: BLE001 - law A, and law D: not stored without its tags
            logger.warning("llmcache: the tags of %s: %r", self.origin.name, error)
            return f"its tags could not be told ({type(error).__name__}: {error})"
        return ""

    def _read_tags(self) -> frozenset[str]:
        origin = self.origin
        if origin.tags is None:
            return frozenset()
        wanted = origin.tag_arguments
        arguments = {
            name: value
            for name, value in self.arguments.items()
            if wanted is None or name in wanted
        }
        return read_tags(origin.tags(**arguments))

    def encode_item(self, item: Any) -> bytes:
        try:
            return self._returns.encode_item(item)
        except NotReproducible as error:
            raise NotStorable(f"an item cannot be stored: {error}") from None

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

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        if self.policy.ttl_seconds == 0:
            raise NotStorable("cache_ttl is 0")
        if self.refusal or self.canonical is None:
            raise NotStorable(self.refusal or "the call has no key")
        return make_draft(
            self.call,
            self.policy,
            self.canonical,
            self._encoded(answer, getattr(answer, "_raw_response", None)),
            self.described,
            self.receipt,
            asked=asked,
            tags=self.policy.tags | self.tags,
            endpoint=self.origin.endpoint_name,
            mode=MODE,
        )

    def _encoded(self, answer: Any, completion: Any) -> StoredAnswer:
        if isinstance(answer, Recording):
            return self._recorded(answer)
        _admit(answer, completion)
        try:
            return self._returns.codec.encode(answer)
        except NotReproducible as error:
            raise NotStorable(f"the answer cannot be stored: {error}") from None

    def _recorded(self, recording: Recording) -> StoredAnswer:
        """What has passed of a generator that has come to its end."""
        stored = self._returns.encode_items(recording.items())
        if settings.admit is not None:
            _admit(self._returns.codec.decode(stored), None)
        return stored

    @property
    def _returns(self) -> Returns:
        if self.returns is None:
            raise NotStorable("the call has no key")
        return self.returns


def _admit(answer: Any, completion: Any) -> None:
    if refusal := why_not_admitted(answer, completion):
        raise NotStorable(refusal)


def read_request(
    origin: Origin, policy: Policy, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> FunctionRequest:
    """The call with these arguments. Whatever goes wrong makes it a bypass, with the reason."""
    call = Call(provider=PROVIDER, model=origin.name)
    request = FunctionRequest(origin, args, kwargs, overridden(policy), call)
    try:
        request.call.namespace = request.policy.namespace_name
        request.returns = origin.returns
        request.call.response_model = request.returns.path
        request.arguments = origin.bind(args, kwargs)
        request.canonical = canonical_of(request)
        request.call.key = request.canonical.key
    except UncacheableRequest as error:
        request.bypass = str(error)
        _warn_once(origin.name, request.bypass)
    except Exception as error:  # noqa: BLE001 - law A: the function is called all the same
        request.bypass = f"no key could be computed: {error}"
        _warn_once(origin.name, f"no key could be computed ({type(error).__name__})")
    return request


def canonical_of(request: FunctionRequest) -> CanonicalRequest:
    origin = request.origin
    closed = _closed_over(origin) if origin.closes_over else None
    return origin.common_parts(request.call.namespace).request(
        messages=NOTHING,
        parameters=_canonical("parameters", origin.counted(request.arguments)),
        context=_canonical("context", closed) if closed else NONE_CLOSED,
        strict=NOTHING,
    )


def _closed_over(origin: Origin) -> dict[str, Any]:
    closed = closed_over(origin.function)
    return {name: value for name, value in closed.items() if name not in origin.exclude}


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
            ) from None
    return canonical_part(part, forms)


@lru_cache(maxsize=1000)
def _warn_once(name: str, why: str) -> None:
    logger.warning("llmcache: calls of %s are not cached: %s", name, why)
