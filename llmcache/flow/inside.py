"""What is asked while an answer is made: noted, and asked anew where the answer is to be a new one.

A cached client inside of a decorated function, a function inside of another, a client inside of a
validator: the answer of the outer call is made of theirs. Threads that a function starts do not
know of it, unless they are given a copy of the context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llmcache.flow.steps import Request
from llmcache.outcomes import Inside, recorded_in
from llmcache.policy import CacheMode, renewing


@contextmanager
def making(request: Request) -> Iterator[None]:
    """Around each step of asking for the answer to `request`."""
    if request.inside is None:
        request.inside = Inside()
    with recorded_in(request.inside):
        if request.policy.mode is CacheMode.RELOAD:
            with renewing():
                yield
        else:
            yield
