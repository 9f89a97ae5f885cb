"""A client that is made at its first use, so that a module can be imported without credentials.

Until then it is of a class derived from instructor's, which has none of the attributes that only a
client of an SDK can fill. The first one that is asked for makes the client; from then on the object
is of instructor's own class, as if it had been made at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, cast

from instructor import AsyncInstructor, Instructor
from instructor.core.hooks import Hooks

Attributes = dict[str, Any]


class _NotMade:
    def __getattr__(self, name: str) -> Any:
        make = vars(self).get("_make")
        # (names such as `__wrapped__` are asked of anything, by whoever only looks around)
        if name.startswith("__") or make is None:
            raise AttributeError(name)
        make(self)
        return getattr(self, name)


NOT_MADE: Final[dict[type[Instructor], type]] = {
    made: type(f"_NotMade{made.__name__}", (_NotMade, made), {})
    for made in (Instructor, AsyncInstructor)
}


def made_at_first_use(
    attributes_of: Callable[[Any], Attributes], hooks: Hooks | None, *, is_async: bool
) -> Instructor:
    """A client whose other attributes `attributes_of` it tells; where it raises, the next use asks.

    Hooks are heard from the beginning.
    """
    lock, instructors = threading.RLock(), AsyncInstructor if is_async else Instructor

    def make(client: Any) -> None:
        with lock:
            if not isinstance(client, _NotMade):  # another thread was quicker
                return
            vars(client).update(attributes_of(client) | vars(client))
            object.__setattr__(client, "__class__", instructors)

    made: Any = object.__new__(NOT_MADE[instructors])
    vars(made).update(hooks=Hooks() if hooks is None else hooks.copy(), _make=make)
    return cast(Instructor, made)
