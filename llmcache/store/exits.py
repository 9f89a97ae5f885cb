"""What is to be done before a process ends by itself, children of `multiprocessing` included.

Those that are forked end without what `atexit` was told, and call the finalizers of
`multiprocessing.util` instead, but for those that they have from their parent.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, Final

# After what others have there, such as the ends of pools, and before children are waited for.
PRIORITY: Final = 0


def at_exit(work: Callable[[], object]) -> None:
    """Have `work` called before this process or a child of it ends; the last one comes first.

    It may be called twice. A child that calls `os._exit`, or that is killed, does without.
    """
    atexit.register(work)
    _works.append(work)
    # (a child that imports this while it is at work has its finalizers already)
    if _is_a_child():
        _finalize(work)


def _is_a_child() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _tell_multiprocessing() -> None:
    """At the start, and in a forked child: who does not use it need not import it."""
    global _is_told
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None and not _is_told:
        _is_told = True
        util.register_after_fork(_finalize_all, _finalize_all)


def _finalize_all(_: object) -> None:
    """In a child of `multiprocessing`, which has just forgotten the finalizers of its parent."""
    for work in _works:
        _finalize(work)


def _finalize(work: Callable[[], object]) -> None:
    from multiprocessing.util import Finalize

    Finalize(None, work, exitpriority=PRIORITY)


_works: Final[list[Callable[[], object]]] = []
_is_told = False
_tell_multiprocessing()
os.register_at_fork(after_in_child=_tell_multiprocessing)
