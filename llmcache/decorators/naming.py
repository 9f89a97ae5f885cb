"""What tells one function from another: its name, and the variables that it closes over."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Final

from pydantic import BaseModel

from llmcache.exceptions import UncacheableRequest
from llmcache.keys.forms import path_of

# The script that was started, also in the processes that multiprocessing starts from it.
SCRIPTS: Final = {"__main__", "__mp_main__"}


def name_of(function: Callable[..., Any]) -> str:
    """Module and qualified name."""
    module = "__main__" if function.__module__ in SCRIPTS else function.__module__
    return f"{module}.{function.__qualname__}"


def origin_of(function: Callable[..., Any]) -> Any:
    """What tells functions of one name apart.

    All scripts are called ``__main__``, and all lambdas of a module the same. So the file of a
    script counts, and the code of a function that was typed into a session, or has no name.
    """
    innermost: Any = inspect.unwrap(function)
    is_scripts = function.__module__ in SCRIPTS
    script = innermost.__globals__.get("__file__") if is_scripts else None
    has_name = "<lambda>" not in function.__qualname__ and (script or not is_scripts)
    return script, None if has_name else _told_of(innermost.__code__)


def _told_of(code: CodeType) -> Any:
    constants = [_told_of(each) if isinstance(each, CodeType) else each for each in code.co_consts]
    return sys.version_info[:2], code.co_code, code.co_names, constants


def closed_over(function: Callable[..., Any]) -> dict[str, Any]:
    """The variables that the function itself, below its decorators, closes over.

    Two functions that one factory made have one name, and differ in these.
    """
    innermost = inspect.unwrap(function)
    names = free_variables(function)
    cells = getattr(innermost, "__closure__", None) or ()
    closed: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            raise UncacheableRequest(name, "it has no value yet") from None
        # Not the class that a method stands in, nor the function itself, which may call itself.
        if name != "__class__" and getattr(value, "__wrapped__", None) is not function:
            closed[name] = named(value)
    return closed


def free_variables(function: Callable[..., Any]) -> tuple[str, ...]:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_freevars if code is not None else ()


def named(value: Any) -> Any:
    """A module, class or function by its name, where it has one; any other value as it is."""
    if isinstance(value, ModuleType):
        return ("module", value.__name__)
    if isinstance(value, type) and issubclass(value, BaseModel):
        return value
    if isinstance(value, type | FunctionType | BuiltinFunctionType) and _is_unique(value):
        return ("name", path_of(value) if isinstance(value, type) else name_of(value))
    return value


def _is_unique(value: Any) -> bool:
    return "<" not in value.__qualname__ and value.__module__ not in {None, *SCRIPTS}


def form_of_class(cls: type) -> tuple[Any, ...]:
    """What tells the class that a class method is called on from others."""
    if not _is_unique(cls):
        raise UncacheableRequest("cls", f"{path_of(cls)} has no name of its own")
    return path_of(cls), cls if issubclass(cls, BaseModel) else None
