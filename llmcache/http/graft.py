"""A transport put into a client: into an HTTP client, or deep inside of the client of an SDK.

SDKs keep their HTTP client in different places, in objects that know each other. What leads to one
is copied, and nothing else: the copy shares credentials, options and connections with the given
client, which stays as it is. Whichever of them is closed closes the connections, as with the copies
that SDKs make; when a copy is merely dropped, they stay open.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, update_wrapper
from types import CellType, FunctionType, MethodType
from typing import Any, Final, TypeVar

from pydantic import BaseModel

Client = TypeVar("Client")
#: Makes a transport over one.
Over = Callable[[Any], Any]

LIBRARIES: Final = ("httpx", "httpx2")
# The package of what every class comes from.
OF_ALL: Final = "builtins"
# So many classes are remembered.
MOST_CLASSES: Final = 100


def is_http_client(value: Any) -> bool:
    """Whether it is a client of httpx or httpx2."""
    libraries = [sys.modules[name] for name in LIBRARIES if name in sys.modules]
    return any(isinstance(value, (each.Client, each.AsyncClient)) for each in libraries)


def grafted(client: Client, over: Over) -> Client | None:
    """A copy of `client` in which each HTTP client asks by the transport that `over` makes of its.

    None where there is no HTTP client inside.
    """
    graft = _Graft(client, over)
    return graft.copy_of(client) if graft.leads_to_one(client) else None


def put_between(http: Any, over: Over) -> Any:
    """`http` itself, an HTTP client, which asks by the transports that `over` makes of its own."""
    own = vars(http)
    mounts = {pattern: each and over(each) for pattern, each in own["_mounts"].items()}
    own.update(_transport=over(own["_transport"]), _mounts=mounts)
    if make := getattr(http, "_inner_client_cls", None):
        # That of google-genai has a client of its own for each event loop.
        inner = lambda **options: put_between(make(**options), over)  # noqa: E731
        own.update(_inner_client_cls=inner, _loop_clients={})
    return http


class _Graft:
    def __init__(self, client: Any, over: Over) -> None:
        self._over = over
        modules = [cls.__module__ for cls in type(client).__mro__]
        self._packages = {module.partition(".")[0] for module in modules} - {OF_ALL}
        self._copies: dict[int, Any] = {}
        #: All that may lead to an HTTP client, each with what it holds.
        self._held: dict[int, tuple[Any, list[Any]]] = {}
        self._collect(client)
        self._leading = {each for each, (value, _) in self._held.items() if is_http_client(value)}
        while more := set(self._one_step_off()):
            self._leading |= more

    def leads_to_one(self, value: Any) -> bool:
        return id(value) in self._leading

    def copy_of(self, value: Any) -> Any:
        if not self.leads_to_one(value):
            return value
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, MethodType):
            return MethodType(value.__func__, self.copy_of(value.__self__))
        if isinstance(value, FunctionType):
            return self._copy_of_function(value)
        copy = self._copies[id(value)] = object.__new__(_not_closing(type(value)))
        vars(copy).update(vars(value))
        if is_http_client(value):
            put_between(copy, self._over)
        else:
            vars(copy).update({name: self.copy_of(held) for name, held in vars(value).items()})
            _prefer_httpx(copy)
        return copy

    def _copy_of_function(self, function: FunctionType) -> FunctionType:
        cells = tuple(CellType(self.copy_of(each)) for each in _closed_over(function))
        copy = FunctionType(function.__code__, function.__globals__, function.__name__, None, cells)
        copy.__defaults__, copy.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
        update_wrapper(copy, function)
        return copy

    def _collect(self, value: Any) -> None:
        if id(value) in self._held or not self._is_passable(value):
            return
        held = list(_held_by(value))
        self._held[id(value)] = value, held
        for each in held:
            self._collect(each)

    def _is_passable(self, value: Any) -> bool:
        """Whether it is an object or a function of the SDK, or an HTTP client."""
        if isinstance(value, MethodType):
            return self._is_passable(value.__self__)
        if is_http_client(value):
            return True
        module = value.__module__ if isinstance(value, FunctionType) else type(value).__module__
        of_sdk = (module or "").partition(".")[0] in self._packages
        return of_sdk and hasattr(value, "__dict__") and not isinstance(value, type | BaseModel)

    def _one_step_off(self) -> Iterator[int]:
        for each, (_, held) in self._held.items():
            if each not in self._leading and any(map(self.leads_to_one, held)):
                yield each


def _held_by(value: Any) -> Iterator[Any]:
    if isinstance(value, MethodType):
        yield value.__self__
    elif isinstance(value, FunctionType):
        yield from _closed_over(value)
    elif not is_http_client(value):
        yield from vars(value).values()


def _closed_over(function: FunctionType) -> list[Any]:
    try:
        return [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # (of a variable that has no value yet)
        return []


def _not_closing_class(cls: Any) -> Any:
    """A class like `cls`, whose objects do not close, when they are dropped, what others use."""
    if getattr(cls, "__del__", _stay_open) is _stay_open:
        return cls
    told = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(cls)(cls.__name__, (cls,), {**told, "__del__": _stay_open})


_not_closing: Final[Callable[[Any], Any]] = lru_cache(maxsize=MOST_CLASSES)(_not_closing_class)


def _stay_open(dropped: Any) -> None:
    """In the place of a `__del__`."""


def _prefer_httpx(copy: Any) -> None:
    """Have google-genai ask by its HTTP client, and not by aiohttp where that is there."""
    client = vars(copy).get("_async_httpx_client")
    options: Any = vars(copy).get("_http_options")
    if client is not None and isinstance(options, BaseModel):
        # (as where a user names one; a client of the user's own, it would not close)
        told = vars(options).get("async_client_args") or {}
        arguments = {**told, "transport": vars(client)["_transport"]}
        vars(copy)["_http_options"] = options.model_copy(update={"async_client_args": arguments})
