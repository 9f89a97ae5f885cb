"""What is done at a fork, by one hook for all.

Threads stay with the parent, a lock that one of them holds would never be free in the child, and a
connection must not be in both processes. So each module that has such begins anew in a child.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

Work = Callable[[], object]

_before: Final[list[Work]] = []
_in_parent: Final[list[Work]] = []
_in_child: Final[list[Work]] = []


def now_and_in_children(begin: Work) -> None:
    """Call `begin` at once, and at the start of each child that is forked from this process."""
    _in_child.append(begin)
    begin()


def lock() -> threading.Lock:
    """A lock that is free in a forked child, whoever holds it in the parent."""
    made = threading.Lock()
    _in_child.append(made._at_fork_reinit)  # type: ignore[attr-defined]  # noqa: SLF001
    return made


def around_forks(before: Work, after: Work) -> None:
    """Call `before` in this process when it is about to fork, and `after` when it has."""
    _before.insert(0, before)  # (what was there first is of use to the others, and parts last)
    _in_parent.append(after)


def _do(works: list[Work]) -> None:
    for work in works:
        work()


os.register_at_fork(
    before=lambda: _do(_before),
    after_in_parent=lambda: _do(_in_parent),
    after_in_child=lambda: _do(_in_child),
)
