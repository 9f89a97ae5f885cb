"""What is to be done before a process ends by itself, children of `multiprocessing` included.

Those that are forked end without what `atexit` was told, and call the finalizers of
`multiprocessing.util` instead, but for those that they have from their parent. Those of Celery's
pool call neither, and a server on uvicorn ends by the signal that stopped it: see `prepare`.
"""

from __future__ import annotations

import atexit
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from llmcache.background.forks import now_and_in_children
from llmcache.background.pool import start_thread

# After what others have there, such as the ends of pools, and before children are waited for.
PRIORITY: Final = 0
# What ends by a signal was told to end: it gets no more than so long.
SIGNAL_SECONDS: Final = 1.5


def at_exit(work: Callable[[], object]) -> None:
    """Have `work` called before this process or a child of it ends; the last one comes first.

    It may be called twice. A child that calls `os._exit`, or that is killed, does without.
    """
    _works.append(work)


def prepare() -> None:
    """Have it done, too, where this process is one that ends otherwise. Costs microseconds.

    To be called again and again while the process is at work: what it is, is not known before.
    """
    _tell_uvicorn()
    celery: Any = sys.modules.get("celery.signals")
    if celery is not None:
        celery.worker_process_shutdown.connect(_finish_at_once, dispatch_uid="llmcache")


class _Signals(list[int]):
    """The signals that came, which uvicorn raises again, from the last, once it has stopped.

    They end the process then and there.
    """

    def __reversed__(self) -> Iterator[int]:
        _finish_at_once()
        return super().__reversed__()


def _tell_uvicorn() -> None:
    # (where there is none, or one that works otherwise, nothing is found)
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    captured = getattr(server, "_captured_signals", None)
    if type(captured) is list:
        server._captured_signals = signals = _Signals(captured)  # noqa: SLF001
        # (one may have come in between)
        signals.extend(captured[len(signals) :])


def _finish_at_once(**_: Any) -> None:
    thread = start_thread(_do_all, "exit")
    if thread is None:
        _do_all()
    else:
        thread.join(SIGNAL_SECONDS)


def _do_all() -> None:
    for work in reversed(_works):
        work()


def _tell_multiprocessing() -> None:
    """At the start, and in a forked child: who does not use it need not import it."""
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        # (such a child has just forgotten the finalizers of its parent then)
        util.register_after_fork(_finalize, _finalize)


def _finalize(_: object) -> None:
    from multiprocessing.util import Finalize

    Finalize(None, _do_all, exitpriority=PRIORITY)


_works: Final[list[Callable[[], object]]] = []
atexit.register(_do_all)
now_and_in_children(_tell_multiprocessing)
_process: Any = sys.modules.get("multiprocessing.process")
if _process is not None and _process.parent_process() is not None:
    _finalize(None)  # (a child that imports this while it is at work has its finalizers already)
