"""One call of a decorated function, as the flow sees it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Final

from asgiref.sync import iscoroutinefunction

from llmcache.admission import why_not_admitted
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import NotReproducible
from llmcache.codec.values import without_derived_class
from llmcache.decorators.identity import closed_over, form_of_class, name_of, origin_of
from llmcache.decorators.returns import Kind, Returns, read_returns
from llmcache.exceptions import UncacheableRequest
from llmcache.flow import (
    NotStorable,
    Recording,
    adrive,
    adrive_stream,
    drive,
    drive_stream,
)
from llmcache.keys import CanonicalRequest, canonical_context, canonical_part
from llmcache.outcomes import Call
from llmcache.policy import Policy, overridden, read_tags
from llmcache.store.drafts import count_tokens, describe, make_draft
from llmcache.store.durable import Draft
from llmcache.store.entries import Found

logger = logging.getLogger("llmcache")

PROVIDER: Final = "python"
MODE: Final = "cached"


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

    @cached_property
    def name(self) -> str:
        return name_of(self.function)

    @cached_property
    def is_coroutine(self) -> bool:
        return iscoroutinefunction(self.function)

    @cached_property
    def returns(self) -> Returns:
        """Read when first asked for: by then, what an annotation names has been defined.

        Raises `UncacheableRequest`, and then it is read anew by the next call.
        """
        return read_returns(self.function, self.is_coroutine)

    @cached_property
    def constant_parts(self) -> dict[str, bytes]:
        """The parts of the key that all calls share."""
        parts = {
            "provider": PROVIDER,
            "endpoint": (self.version, origin_of(self.function)),
            "model": self.name,
            "mode": MODE,
            "messages": None,
            "strict": None,
        }
        canonical = {name: canonical_part(name, value) for name, value in parts.items()}
        return canonical | {"schema": self.returns.schema}

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments by the names of the parameters, with defaults. Raises `TypeError`."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def counted(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the bound arguments that count in the key."""
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

    def answer(self) -> Any:
        """What the decorated function gives back to its caller."""
        kind = self.returns.kind if self.returns else Kind.VALUE
        if kind is Kind.STREAM:
            return drive_stream(self, self.ask)
        if kind is Kind.ASYNC_STREAM:
            return adrive_stream(self, self.ask)
        if self.origin.is_coroutine:
            return adrive(self, self._aask_value)
        return drive(self, self._ask_value)

    def ask(self) -> Any:
        """Call the function itself."""
        return self.origin.function(*self.args, **self.kwargs)

    def _ask_value(self) -> Any:
        return without_derived_class(self.ask())

    async def _aask_value(self) -> Any:
        return without_derived_class(await self.ask())

    def restore(self, found: Found) -> Any:
        return self._returns.codec.decode(StoredAnswer.unpack(found.body))

    def before_asking(self) -> None:
        # Before, because the function may change its arguments.
        self.refusal = "its arguments could not be read again"
        self.refusal = self._why_not_to_be_kept()
        counted = self.origin.counted(self.arguments)
        self.described = describe(
            {
                "messages": [],
                "parameters": counted,
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

    def draft(self, answer: Any, asked: float, latency: float) -> Draft:
        if self.policy.ttl_seconds == 0:
            raise NotStorable("cache_ttl is 0")
        if self.refusal or self.canonical is None:
            raise NotStorable(self.refusal or "the call has no key")
        completion = getattr(answer, "_raw_response", None)
        input_tokens, output_tokens = count_tokens(completion)
        return make_draft(
            self.call,
            self.policy,
            self.canonical,
            self._encoded(answer, completion),
            self.described,
            asked=asked,
            tags=self.policy.tags | self.tags,
            provider=PROVIDER,
            endpoint=f"version={self.origin.version!r}",
            mode=MODE,
            response_model=self._returns.path,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            latency=latency,
        )

    def _encoded(self, answer: Any, completion: Any) -> StoredAnswer:
        if isinstance(answer, Recording):
            return self._returns.encode_items(answer.items())
        if refusal := why_not_admitted(answer, completion):
            raise NotStorable(refusal)
        try:
            return self._returns.codec.encode(answer)
        except NotReproducible as error:
            raise NotStorable(f"the answer cannot be stored: {error}") from None

    @property
    def _returns(self) -> Returns:
        if self.returns is None:
            raise NotStorable("the call has no key")
        return self.returns


def read_request(
    origin: Origin, policy: Policy, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> FunctionRequest:
    """The call with these arguments. Whatever goes wrong makes it a bypass, with the reason."""
    request = FunctionRequest(origin, args, kwargs, overridden(policy), Call(model=origin.name))
    try:
        request.call.namespace = request.policy.namespace_name
        request.returns = origin.returns
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
    return CanonicalRequest(
        {
            "namespace": canonical_part("namespace", request.call.namespace),
            "parameters": _canonical("parameters", origin.counted(request.arguments)),
            "context": _canonical("context", _closed_over(origin)),
            **origin.constant_parts,
        }
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
