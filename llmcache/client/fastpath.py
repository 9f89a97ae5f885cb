"""instructor's search for asynchronous validators: once for each class, not at each call.

`create` looks through the attributes of the response model and of all models in it before it does
anything else, which takes longer than the rest of a hit, and leaves garbage behind. What it found
does not change while the class does not. So where a class was looked through, what `create` does
besides is done here: the arguments that the client was made with, and its hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, Final

from instructor import AsyncInstructor, Instructor

from llmcache.client.shapes import known_model_shape
from llmcache.flow import take_first_turn

# All that is known to be an argument of theirs. A later version of instructor may have more.
KNOWN: Final = {
    *("self", "messages", "response_model", "max_retries", "context", "strict", "hooks"),
    *("token_budget", "kwargs"),
}
DEFAULTS: Final = {"max_retries": 3, "context": None, "strict": True}


def checked_once(client: Instructor) -> dict[str, Callable[..., Any]]:
    """The method ``create`` of `client`, by its name, which does not look through a class again."""
    is_async = isinstance(client, AsyncInstructor)
    own: Any = AsyncInstructor.create if is_async else Instructor.create
    # What a class of a project's own does with its arguments is not known.
    if type(client).create is not own or not KNOWN.issuperset(signature(own).parameters):
        return {}
    return {"create": (_awaiting if is_async else _calling)(client, client.create)}


def _calling(client: Instructor, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def create(*args: Any, **kwargs: Any) -> Any:
        if args or not _is_known(client, kwargs):
            return method(*args, **kwargs)
        return client.create_fn(**_arguments(client, kwargs))

    return create


def _awaiting(client: Instructor, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    async def create(*args: Any, **kwargs: Any) -> Any:
        # Before anything else: of a thousand who begin at once, each would do it in this turn.
        await take_first_turn()
        if args or not _is_known(client, kwargs):
            return await method(*args, **kwargs)
        return await client.create_fn(**_arguments(client, kwargs))

    return create


def _is_known(client: Instructor, kwargs: dict[str, Any]) -> bool:
    """Whether a class without asynchronous validators is asked for, and nothing unusual."""
    shape = known_model_shape(kwargs.get("response_model"))
    return (
        shape is not None
        and shape.is_checked
        and "messages" in kwargs
        and KNOWN.isdisjoint(client.kwargs)
    )


def _arguments(client: Instructor, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What instructor's own `create` calls `create_fn` with."""
    arguments = {**DEFAULTS, **client.kwargs, **kwargs}
    hooks = arguments.get("hooks")
    arguments["hooks"] = client.hooks if hooks is None else client.hooks + hooks
    if "token_budget" in arguments and arguments["token_budget"] is None:
        del arguments["token_budget"]
    return arguments
