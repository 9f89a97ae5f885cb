"""`cached`, and the function that it makes of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import update_wrapper
from types import FunctionType, MethodType, ModuleType
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

from llmcache.background import database
from llmcache.decorators.naming import free_variables
from llmcache.decorators.origin import Origin, rest_name_of
from llmcache.decorators.request import FunctionRequest, read_request
from llmcache.exceptions import InvalidArgument, InvalidArgumentType, UncacheableRequest
from llmcache.explanation.explain import Explanation
from llmcache.policy import TTL, UNSET, CacheMode, Policy, Seconds, Unset, read_exclude
from llmcache.removal.invalidate import Invalidated, ainvalidate, invalidate

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")

Tags = Iterable[str] | Callable[..., Iterable[str]]

# What `inspect` and `asyncio` look at to tell a function, and a coroutine function, from others.
OF_A_FUNCTION: Final = ("__code__", "__defaults__", "__kwdefaults__")


class CachedFunction(Generic[P, R]):
    """A function that remembers what it returned. Made by `cached`.

    It is called as the function is. Of a method, ``obj.method`` is one that knows its object.
    """

    __wrapped__: Callable[P, R]

    # So that whoever asks for functions takes it for one: Pydantic in the body of a model, Celery.
    __class__ = property(lambda self: FunctionType)

    def __init__(self, origin: Origin, wrapped: Callable[P, R]) -> None:
        update_wrapper(self, origin.function)
        for name in OF_A_FUNCTION:
            if hasattr(origin.function, name):
                setattr(self, name, getattr(origin.function, name))
        self.__wrapped__ = origin.function
        self._origin = origin
        self._decorated: Any = wrapped
        self._bound: tuple[Any, ...] = ()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The stored answer, or what the function returns.

        Raises what the function raises, and `CacheMiss` when ``override(mode="only-if-cached")``
        forbids to call it.
        """
        # (not by `_request`: each hit comes by)
        bound = (*self._bound, *args) if self._bound else args
        answer: R = read_request(self._origin, self._origin.policy, bound, kwargs).answer()
        return answer

    def reload(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, and store what it returns in the place of what was stored."""
        policy = self._origin.policy.changed(mode=CacheMode.RELOAD)
        answer: R = self._request(policy, args, kwargs).answer()
        return answer

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of a call with these arguments: 64 hex digits. Nobody is asked.

        Raises `UncacheableRequest` when such a call has no key; the message says why.
        """
        request = self._fitting_request(args, kwargs)
        if request.bypass:
            raise UncacheableRequest(self._origin.name, request.bypass.text, request.bypass.code)
        return request.call.key

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """Why a call with these arguments would hit or miss, as `llmcache.explain` tells it.

        The function is not called, and no hit is counted.
        """
        return self._fitting_request(args, kwargs).explained()

    async def aexplain(self, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """`explain` for a coroutine."""
        return await database.arun_to_the_end(self._fitting_request(args, kwargs).explained)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Invalidated:
        """Remove what is stored for these arguments, as `llmcache.invalidate` does.

        Raises `UncacheableRequest` when such a call has no key.
        """
        return invalidate(keys=[self.key(*args, **kwargs)])

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> Invalidated:
        """`invalidate` for a coroutine."""
        return await ainvalidate(keys=[self.key(*args, **kwargs)])

    def _fitting_request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FunctionRequest:
        """One that is looked at without being called. Raises `TypeError` as a call would."""
        request = self._request(self._origin.policy, args, kwargs)
        if request.bypass:
            self._origin.bind((*self._bound, *args), kwargs)
        return request

    def _request(
        self, policy: Policy, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> FunctionRequest:
        return read_request(self._origin, policy, (*self._bound, *args), kwargs)

    @overload
    def __get__(self, instance: None, owner: type) -> CachedFunction[P, R]: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> CachedFunction[Q, R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if isinstance(self._decorated, staticmethod) or self._bound:
            return self
        first = owner if isinstance(self._decorated, classmethod) else instance
        if first is None:
            return self
        bound = object.__new__(type(self))
        bound.__dict__.update(
            self.__dict__, _bound=(first,), __wrapped__=MethodType(self._origin.function, first)
        )
        return bound

    def __repr__(self) -> str:
        of = f" of {self._bound[0]!r}" if self._bound else ""
        return f"<llmcache.cached {self._origin.name}{of}>"

    def __reduce__(self) -> Any:
        # As functions are: by name.
        name = self._origin.function
        return (getattr, (self._bound[0], name.__name__)) if self._bound else name.__qualname__


@overload
def cached(
    function: Callable[P, R],
    /,
    *,
    ttl: TTL | Unset = UNSET,
    tags: Tags = (),
    namespace: str | Unset = UNSET,
    exclude: Iterable[str] = (),
    version: int | str = 1,
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
) -> CachedFunction[P, R]: ...


@overload
def cached(
    function: None = None,
    /,
    *,
    ttl: TTL | Unset = UNSET,
    tags: Tags = (),
    namespace: str | Unset = UNSET,
    exclude: Iterable[str] = (),
    version: int | str = 1,
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]: ...


def cached(
    function: Callable[P, R] | None = None,
    /,
    *,
    ttl: TTL | Unset = UNSET,
    tags: Tags = (),
    namespace: str | Unset = UNSET,
    exclude: Iterable[str] = (),
    version: int | str = 1,
    stale_while_revalidate: Seconds | Unset = UNSET,
    stale_if_error: Seconds | Unset = UNSET,
) -> Any:
    """Let a function remember what it returned: ``@cached``, or ``@cached(ttl=3600)``.

    Functions, coroutine functions, generators and methods of both kinds, whose return annotation
    Pydantic can validate. In the key are the qualified name of the function, the arguments by the
    names of the parameters, the variables that the function closes over, the schema of the return
    annotation, and the namespace; the code of the function is not: see `version`.

    A call that cannot be cached calls the function, and its outcome is ``bypass`` with the reason:
    no return annotation, or an argument that has no canonical form.

    Args:
        ttl: how long answers stay fresh: seconds, a `timedelta`, or None for ever. Default:
            ``LLMCACHE["TTL"]``.
        tags: labels for `llmcache.invalidate`: a list, or a function that is given those of the
            arguments that it has parameters for, by name.
        namespace: entries are never seen from another one. Default: ``LLMCACHE["NAMESPACE"]``.
        exclude: names of arguments, and of variables closed over, that cannot change the answer.
        version: a number or a text, to be changed when the function answers differently.
        stale_while_revalidate: how long after its expiry an answer is served at once, while the
            function is called behind the caller: seconds or a `timedelta`. Default:
            ``LLMCACHE["STALE_WHILE_REVALIDATE"]``.
        stale_if_error: how long after its expiry an answer is served when the function fails since
            the provider does (429, 5xx, timeout, no connection). Default:
            ``LLMCACHE["STALE_IF_ERROR"]``.

    Returns:
        A `CachedFunction`, to be called as the function is.

    Raises:
        InvalidArgument: (a `ValueError`) when an argument cannot be meant.
    """
    policy = Policy().changed(
        ttl=ttl,
        namespace=namespace,
        tags=UNSET if callable(tags) else tags,
        stale_while_revalidate=stale_while_revalidate,
        stale_if_error=stale_if_error,
    )
    make_tags = tags if callable(tags) else None
    excluded = read_exclude(exclude)
    if isinstance(version, bool) or not isinstance(version, int | str):
        raise InvalidArgumentType(f"version is a number or a text; not {version!r}.")

    def decorate(decorated: Callable[P, R]) -> CachedFunction[P, R]:
        plain, signature = _read_function(decorated)
        _check_exclude(excluded, plain, signature)
        origin = Origin(
            function=plain,
            signature=signature,
            policy=policy,
            tags=make_tags,
            tag_arguments=_read_tag_arguments(make_tags, signature),
            exclude=excluded,
            version=version,
            class_argument=_class_argument(decorated, signature),
        )
        return CachedFunction(origin, decorated)

    return decorate if function is None else decorate(function)


def _read_function(decorated: Any) -> tuple[Callable[..., Any], inspect.Signature]:
    """The function itself, and its signature."""
    function = getattr(decorated, "__func__", decorated)  # of a static or class method
    way_out = "Put it above a def, as in @cached or @cached(ttl=3600)."
    if isinstance(function, type):
        raise InvalidArgumentType(
            f"cached decorates functions, not the class {function.__qualname__}. Put it above its "
            "methods."
        )
    if isinstance(decorated, CachedFunction):
        raise InvalidArgumentType(f"{function.__qualname__} is cached already. Use cached once.")
    if not isinstance(getattr(decorated, "__self__", None), ModuleType | None):
        raise InvalidArgumentType(
            f"cached decorates functions, not the method of an object ({function.__qualname__}). "
            "Put it above the def in the class."
        )
    if not callable(function):
        raise InvalidArgumentType(f"cached decorates functions, not {function!r}. {way_out}")
    if not all(hasattr(function, name) for name in ("__module__", "__qualname__", "__name__")):
        raise InvalidArgumentType(f"{function!r} has no name of its own. {way_out}")
    try:
        return function, inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{function!r} has no signature: {error}. {way_out}") from None


def _class_argument(decorated: Any, signature: inspect.Signature) -> str:
    first = next(iter(signature.parameters), "")
    # By its name where the class method is around the decorator, and not to be seen from here.
    return first if isinstance(decorated, classmethod) or first == "cls" else ""


def _check_exclude(
    exclude: frozenset[str], function: Callable[..., Any], signature: inspect.Signature
) -> None:
    known = [*signature.parameters, *free_variables(function)]
    unknown = exclude.difference(known)
    if unknown and not rest_name_of(signature):
        raise InvalidArgument(
            f"exclude names {', '.join(sorted(map(repr, unknown)))}; the function knows "
            f"{', '.join(map(repr, known)) or 'no arguments'}."
        )


def _read_tag_arguments(
    tags: Callable[..., Any] | None, signature: inspect.Signature
) -> frozenset[str] | None:
    """The arguments that `tags` is to be given; None: all of them."""
    if tags is None:
        return frozenset()
    parameters = inspect.signature(tags).parameters
    if rest_name_of(inspect.signature(tags)):
        return None
    unknown = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL}
        or (name not in signature.parameters and parameter.default is parameter.empty)
    ]
    if unknown:
        raise InvalidArgument(
            f"tags is given arguments by name: {', '.join(signature.parameters) or 'none'}; the "
            f"function has no {', '.join(unknown)}."
        )
    return frozenset(parameters)
