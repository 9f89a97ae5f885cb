"""What one call asks of the cache: mode, time to live, tags, namespace, stale answers.

Every argument that a caller can get wrong is read here, and refused before the model is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any, Final

from llmcache.conf import LONGEST_NAME, is_name, settings, to_seconds
from llmcache.exceptions import InvalidArgument, InvalidArgumentType


class CacheMode(StrEnum):
    """The cache modes of the Fetch standard (https://fetch.spec.whatwg.org/#concept-request-cache-mode)."""

    DEFAULT = "default"
    NO_STORE = "no-store"
    RELOAD = "reload"
    FORCE_CACHE = "force-cache"
    ONLY_IF_CACHED = "only-if-cached"

    @property
    def reads(self) -> bool:
        return self is not CacheMode.NO_STORE and self is not CacheMode.RELOAD


class Unset(Enum):
    """The type of `UNSET`: an argument that was not given, where None has a meaning."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET

TTL = int | float | timedelta | None
Seconds = int | float | timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """What a call asks of the cache; a field that is `UNSET` is left to the settings."""

    mode: CacheMode = CacheMode.DEFAULT
    ttl: float | Unset | None = UNSET
    tags: frozenset[str] = frozenset()
    namespace: str | Unset = UNSET
    stale_while_revalidate: float | Unset = UNSET
    stale_if_error: float | Unset = UNSET
    #: Whether a part of the time to live is left out at random (see `store.drafts.expiry`).
    is_spread: bool = True

    @property
    def ttl_seconds(self) -> float | None:
        """Seconds that the answer stays fresh; None: for ever; 0: not to be stored."""
        return settings.ttl if self.ttl is UNSET else self.ttl

    @property
    def namespace_name(self) -> str:
        return settings.namespace if self.namespace is UNSET else self.namespace

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

    def changed(
        self,
        *,
        mode: object = UNSET,
        ttl: object = UNSET,
        tags: object = UNSET,
        namespace: object = UNSET,
        stale_while_revalidate: object = UNSET,
        stale_if_error: object = UNSET,
    ) -> Policy:
        """A policy with these arguments read and put in (tags: added). Raises `InvalidArgument`."""
        changes: dict[str, Any] = {}
        if mode is not UNSET:
            changes["mode"] = read_mode(mode)
        if ttl is not UNSET:
            changes["ttl"] = read_ttl(ttl)
        if tags is not UNSET:
            changes["tags"] = self.tags | read_tags(tags)
        if namespace is not UNSET:
            changes["namespace"] = read_namespace(namespace)
        if stale_while_revalidate is not UNSET:
            changes["stale_while_revalidate"] = read_window(
                "stale_while_revalidate", stale_while_revalidate
            )
        if stale_if_error is not UNSET:
            changes["stale_if_error"] = read_window("stale_if_error", stale_if_error)
        return replace(self, **changes) if changes else self


def read_mode(value: object) -> CacheMode:
    try:
        return CacheMode(value)  # type: ignore[arg-type]
    except ValueError:
        names = ", ".join(repr(str(mode)) for mode in CacheMode)
        raise InvalidArgument(f"cache_mode is one of {names}; not {value!r}.") from None


def read_ttl(value: object) -> float | None:
    way_out = "cache_ttl takes seconds (int or float), a timedelta, or None for no expiry"
    try:
        return to_seconds(value)
    except TypeError as error:
        raise InvalidArgumentType(f"{error}: {way_out}.") from None
    except ValueError as error:
        raise InvalidArgument(f"{error}: {way_out}.") from None


def read_window(name: str, value: object) -> float:
    """Seconds for which stale answers are served; `name` is the argument's."""
    way_out = f"{name} takes seconds (int or float) or a timedelta, and 0 for no stale answers"
    try:
        seconds = to_seconds(value)
    except TypeError as error:
        raise InvalidArgumentType(f"{error}: {way_out}.") from None
    except ValueError as error:
        raise InvalidArgument(f"{error}: {way_out}.") from None
    if seconds is None:
        raise InvalidArgumentType(f"None is no length of time: {way_out}.")
    return seconds


def read_namespace(value: object) -> str:
    return _read_name("a namespace", value)


def read_tags(value: object) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidArgumentType(
            f'cache_tags takes a list of strings, as in ["doc:42"]; not {value!r}.'
        )
    return frozenset(_read_name("a tag", tag) for tag in value)


def _read_name(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidArgumentType(f"{what} is a string; not {value!r}.")
    if not is_name(value):
        raise InvalidArgument(
            f"{what} has 1 to {LONGEST_NAME} printable characters; {value[:80]!r} does not fit."
        )
    return str.__str__(value)  # (of an enum's member that is its value)


_overrides: ContextVar[dict[str, Any]] = ContextVar("llmcache_overrides")


@contextmanager
def override(
    *,
    mode: str | Unset = UNSET,
    ttl: TTL | Unset = UNSET,
    tags: Iterable[str] | Unset = UNSET,
    namespace: str | Unset = UNSET,
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
) -> Iterator[None]:
    """Change what all calls inside the block ask of the cache.

    It wins over the client's and the call's own arguments (tags are added to theirs); an inner
    block wins over an outer one. It holds for this thread, and for the asyncio tasks started
    inside.

    Args:
        mode: a cache mode of the Fetch standard, as in ``cache_mode``.
        ttl: seconds, a `timedelta`, or None for no expiry.
        tags: labels to add.
        namespace: the namespace to read and write.
        stale_while_revalidate: how long after its expiry an answer is served while a new one is
            fetched: seconds or a `timedelta`.
        stale_if_error: how long after its expiry an answer is served when the provider fails.

    Raises:
        InvalidArgument: when an argument cannot be meant.
    """
    arguments: dict[str, Any] = {
        "mode": mode,
        "ttl": ttl,
        "tags": tags,
        "namespace": namespace,
        "stale_while_revalidate": stale_while_revalidate,
        "stale_if_error": stale_if_error,
    }
    given = {name: value for name, value in arguments.items() if value is not UNSET}
    outer = _overrides.get({})
    if "tags" in given:
        given["tags"] = read_tags(given["tags"]) | outer.get("tags", frozenset())
    Policy().changed(**given)
    token = _overrides.set({**outer, **given})
    try:
        yield
    finally:
        _overrides.reset(token)


def overridden(policy: Policy) -> Policy:
    """`policy` as the blocks of `override` around the call change it."""
    overrides = _overrides.get(None)
    return policy.changed(**overrides) if overrides else policy
