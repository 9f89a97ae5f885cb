"""What is done in a forked child."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any


def in_a_fork(work: Callable[[], list[Any]]) -> list[Any]:
    """What `work` returns in a forked child."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # (of the threads that pytest and the servers have)
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            os.write(writer, repr(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:  # noqa: PTH123 - a descriptor
        result = eval(file.read() or b"None")
    os.waitpid(child, 0)
    assert isinstance(result, list)
    return result
