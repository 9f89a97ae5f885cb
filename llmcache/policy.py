"""What one call asks of the cache: mode, time to live, tags, namespace, stale answers.

Every argument that a caller can get wrong is read here, and refused before the model is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, StrEnum
from functools import partial
from typing import Any, Final, Literal, TypeVar

from django.core.exceptions import ImproperlyConfigured

from llmcache.conf import settings
from llmcache.exceptions import InvalidArgument, InvalidArgumentType, UncacheableRequest
from llmcache.reasons import ReasonCode
from llmcache.values import LONGEST_NAME, is_name, to_seconds

T = TypeVar("T")


class CacheMode(StrEnum):
    """The cache modes of the Fetch standard (https://fetch.spec.whatwg.org/#concept-request-cache-mode)."""

    DEFAULT = "default"
    NO_STORE = "no-store"
    RELOAD = "reload"
    FORCE_CACHE = "force-cache"
    ONLY_IF_CACHED = "only-if-cached"

    #: Whether what is stored is looked for.
    reads: bool


for _mode in CacheMode:
    _mode.reads = _mode not in {CacheMode.NO_STORE, CacheMode.RELOAD}

# How the modes are written in signatures, so that a type checker knows them.
ModeName = Literal["default", "no-store", "reload", "force-cache", "only-if-cached"] | CacheMode


class Unset(Enum):
    """The type of `UNSET`: an argument that was not given, where None has a meaning."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET

WAY_OUT: Final = (
    'name it with {}, or in a block of llmcache.override(namespace="..."); for requests, see '
    "llmcache.middleware"
)

TTL = int | float | timedelta | None
Seconds = int | float | timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """What a call asks of the cache; a field that is `UNSET` is left to the settings."""

    mode: CacheMode = CacheMode.DEFAULT
    ttl: float | Unset | None = UNSET
    tags: frozenset[str] = frozenset()
    namespace: str | Unset | None = UNSET
    #: Whether the namespace is the one of this call: its own, an override's or the request's
    #: (None: the request has none), and not that of the client or the function.
    is_own_namespace: bool = False
    stale_while_revalidate: float | Unset = UNSET
    stale_if_error: float | Unset = UNSET
    #: Which of several answers to one question.
    sample: int = 0
    #: Whether a part of the time to live is left out at random (see `store.records.expiry`).
    is_spread: bool = True
    #: How a call names its namespace, in words.
    naming: str = 'cache_namespace="..."'

    @property
    def ttl_seconds(self) -> float | None:
        """Seconds that the answer stays fresh; None: for ever; 0: not to be stored."""
        return settings.ttl if self.ttl is UNSET else self.ttl

    @property
    def namespace_name(self) -> str:
        """The namespace, by the settings where nobody names one.

        Raises `UncacheableRequest` when there is none, and `InvalidArgument` when there has to be.
        """
        namespace = self.namespace
        if not self.is_own_namespace:
            if settings.require_namespace:
                namespace = None
            elif namespace is UNSET:
                namespace = settings.namespace
        if namespace is None:
            why = "this request has none" if self.is_own_namespace else "the call has none"
            why = f"{why}: {WAY_OUT.format(self.naming)}"
            if settings.require_namespace and self.mode is not CacheMode.NO_STORE:
                raise InvalidArgument(f"LLMCACHE['REQUIRE_NAMESPACE'] is on, and {why}.")
            raise UncacheableRequest("namespace", why, ReasonCode.NO_NAMESPACE)
        return namespace  # type: ignore[return-value]  # (what is `UNSET` is not the call's own)

    @property
    def revalidate_seconds(self) -> float:
        """Seconds after its expiry that an answer is served while a new one is fetched."""
        window = self.stale_while_revalidate
        return settings.stale_while_revalidate if window is UNSET else window

    @property
    def if_error_seconds(self) -> float:
        """Seconds after its expiry that an answer is served when the provider fails."""
        window = self.stale_if_error
        return settings.stale_if_error if window is UNSET else window

    def changed(self, prefix: str = "", /, *, renews: object = False, **given: object) -> Policy:
        """A policy with these arguments read and put in (tags: added). Raises `InvalidArgument`.

        `prefix`: what the names begin with where they were written, for that error; `renews`:
        where it would serve what is stored, or else ask, it asks.
        """
        changes: dict[str, Any] = {
            name: READERS[name](value, f"{prefix}{name}")
            for name, value in given.items()
            if value is not UNSET
        }
        if "tags" in changes:
            changes["tags"] |= self.tags
        if renews and changes.get("mode", self.mode) in (CacheMode.DEFAULT, CacheMode.FORCE_CACHE):
            changes["mode"] = CacheMode.RELOAD
        return replace(self, **changes) if changes else self


def read_mode(value: object, name: str) -> CacheMode:
    """`name`, here and below, is what the argument is called where it was written."""
    try:
        return CacheMode(value)  # type: ignore[arg-type]
    except ValueError:
        names = ", ".join(repr(str(mode)) for mode in CacheMode)
        raise InvalidArgument(f"{name} is one of {names}; not {value!r}.") from None


def read_ttl(value: object, name: str) -> float | None:
    way_out = f"{name} takes seconds (int or float), a timedelta, or None for no expiry"
    return _read_seconds(value, way_out)


def _read_window(value: object, name: str) -> float:
    """Seconds for which stale answers are served."""
    way_out = f"{name} takes seconds (int or float) or a timedelta, and 0 for no stale answers"
    seconds = _read_seconds(value, way_out)
    if seconds is None:
        raise InvalidArgumentType(f"None is no length of time: {way_out}.")
    return seconds


def _read_seconds(value: object, way_out: str) -> float | None:
    try:
        return to_seconds(value)
    except TypeError as error:
        raise InvalidArgumentType(f"{error}: {way_out}.") from None
    except ValueError as error:
        raise InvalidArgument(f"{error}: {way_out}.") from None


def _read_sample(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgumentType(f"{name} is a whole number, as in 0, 1, 2; not {value!r}.")
    if value < 0:
        raise InvalidArgument(f"{name} is 0 or more; not {value!r}.")
    return int(value)


def read_tags(value: object, name: str = "tags") -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidArgumentType(
            f'{name} takes a list of strings, as in ["doc:42"]; not {value!r}.'
        )
    return frozenset(read_name(tag, f"{name}: a tag") for tag in value)


def read_exclude(value: object) -> frozenset[str]:
    """Names of arguments that are left out of the key."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidArgumentType(
            f'exclude takes a list of names, as in ["metadata"]; not {value!r}.'
        )
    names = frozenset(value)
    if not all(isinstance(name, str) for name in names):
        raise InvalidArgumentType(f"exclude takes names of arguments; not {value!r}.")
    return names


def read_name(value: object, what: str) -> str:
    """What a namespace, or a tag, is called."""
    if not isinstance(value, str):
        raise InvalidArgumentType(f"{what} is a string; not {value!r}.")
    if not is_name(value):
        raise InvalidArgument(
            f"{what} has 1 to {LONGEST_NAME} printable characters; {value[:80]!r} does not fit."
        )
    # (of an enum's member that is its value, of a lazy object what it stands for)
    return str.__str__(value) if issubclass(type(value), str) else str(value)


#: What reads each argument, given its value and the name that it has where it was written.
READERS: Final[Mapping[str, Callable[[object, str], object]]] = {
    "mode": read_mode,
    "ttl": read_ttl,
    "tags": read_tags,
    "namespace": read_name,
    "stale_while_revalidate": _read_window,
    "stale_if_error": _read_window,
    "sample": _read_sample,
}

NOTHING: Final[Mapping[str, Any]] = {}

_overrides: ContextVar[Mapping[str, Any]] = ContextVar("llmcache_overrides", default=NOTHING)
# The namespace of the request that is being answered; None: it has none.
_of_request: ContextVar[str | Unset | None] = ContextVar("llmcache_of_request", default=UNSET)


@contextmanager
def override(
    *,
    mode: ModeName | Unset = UNSET,
    ttl: TTL | Unset = UNSET,
    tags: Iterable[str] | Unset = UNSET,
    namespace: str | Unset = UNSET,
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
    sample: int | Unset = UNSET,
) -> Iterator[None]:
    """Change what all calls inside the block ask of the cache.

    It wins over the client's and the call's own arguments (tags are added to theirs); but a
    namespace that the call itself names stays. An inner block wins over an outer one. It holds for
    this thread, and for the asyncio tasks started inside.

    Args:
        mode: a cache mode of the Fetch standard, as in ``cache_mode``.
        ttl: seconds, a `timedelta`, or None for no expiry.
        tags: labels to add.
        namespace: the namespace to read and write.
        stale_while_revalidate: how long after its expiry an answer is served while a new one is
            fetched: seconds or a `timedelta`.
        stale_if_error: how long after its expiry an answer is served when the provider fails.
        sample: which of several answers to one question: 0 (the one that calls have which name
            none), 1, 2, ...

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """
    given: dict[str, Any] = {name: to for name, to in locals().items() if to is not UNSET}
    outer = _overrides.get()
    if "tags" in given:
        given["tags"] = read_tags(given["tags"]) | outer.get("tags", frozenset())
    Policy().changed(**given)
    with _within(_overrides, {**outer, **given}):
        yield


@contextmanager
def renewing() -> Iterator[None]:
    """Calls inside ask anew, as what they are a part of does; their own ``no-store`` stays."""
    with _within(_overrides, {**_overrides.get(), "renews": True}):
        yield


@contextmanager
def in_request(namespace: str | Unset | None) -> Iterator[None]:
    """Calls inside are of a request with this namespace; None: they have none, whatever is set."""
    with _within(_of_request, namespace):
        yield


@contextmanager
def _within(variable: ContextVar[T], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def taken_along(function: Callable[..., None]) -> Callable[..., None]:
    """`function` for a new thread, as if it were called inside of the blocks that are around here.

    Those of `override` and `in_request` alone: what is captured here is none of its business.
    """
    context = Context()
    context.run(_overrides.set, _overrides.get())
    context.run(_of_request.set, _of_request.get())
    return partial(context.run, function)


def overridden(policy: Policy, *, names_namespace: bool = False) -> Policy:
    """`policy` as the blocks of `override` and the request around the call change it.

    `names_namespace`: its namespace is one that the call itself has named, which stays.
    """
    try:  # noqa: SIM105 - each hit comes by
        settings.compare()
    except ImproperlyConfigured:  # (who reads an entry of them is told)
        pass
    overrides, namespace = _overrides.get(), _of_request.get()
    if names_namespace:
        namespace = policy.namespace
    if overrides:
        policy = policy.changed(**overrides)
        namespace = namespace if names_namespace else overrides.get("namespace", namespace)
    if namespace is UNSET:
        return policy
    return replace(policy, namespace=namespace, is_own_namespace=True)
