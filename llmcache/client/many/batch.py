"""Many requests as a batch: which are the same question, and what came of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from llmcache.client.call.request import ClientRequest
from llmcache.flow.drivers import Shared
from llmcache.outcomes import Call
from llmcache.policy import CacheMode
from llmcache.store.records import Found, Missing

Answer = TypeVar("Answer")

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Result(Generic[Answer]):
    """What became of one request: its `answer`, or the `error`; and how, as `capture` has it."""

    answer: Answer | None
    error: Exception | None
    call: Call

    def unwrap(self) -> Answer:
        """The answer. Raises the error where there is none."""
        if self.error is not None:
            raise self.error
        answer: Any = self.answer  # (which may be None)
        return answer  # type: ignore[no-any-return]


@dataclass(slots=True)
class Group:
    """The requests of one key, each with its place; one that is not shared stands alone."""

    requests: list[tuple[int, ClientRequest]]
    shared: Shared = field(default_factory=Shared)
    error: Exception | None = None

    @property
    def key(self) -> str:
        return self.requests[0][1].call.key

    @property
    def is_found(self) -> bool:
        return isinstance(self.shared.found, Found)

    def prepare(self, request: ClientRequest) -> None:
        """What was made for another one just now is new enough for whoever wants it new."""
        if self.shared.made and request.policy.mode is CacheMode.RELOAD:
            request.policy = replace(request.policy, mode=CacheMode.DEFAULT)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask in the block: what the model raises there, it has raised for all of the requests."""
        if self.error is not None:
            raise self.error
        # What was found may be removed while the model is asked.
        self.shared.found, self.shared.made = None, False
        try:
            yield
        except Exception as error:
            self.error = error
            raise


class Batch:
    """All requests, in groups, and what has become of them."""

    def __init__(self, requests: list[ClientRequest], progress: Progress | None) -> None:
        self.groups = _grouped(requests)
        self.progress = progress
        self.stopped = False
        self._results: dict[int, Result[Any]] = {}
        self._total = len(requests)

    @property
    def lookups(self) -> dict[str, Any]:
        """What is to be looked up, as `store.lookup_many` takes it."""
        requests = [each for group in self.groups for _, each in group.requests if _is_shared(each)]
        modes = [(each.call.key, each.policy.mode) for each in requests]
        return {
            "keys": list(dict.fromkeys(key for key, mode in modes if mode.reads)),
            "stale": {key for key, mode in modes if mode is CacheMode.FORCE_CACHE},
        }

    def share(self, found: dict[str, Found | Missing]) -> None:
        """Give each group what was found; those that have something come first."""
        for group in self.groups:
            group.shared.found = found.get(group.key)
        self.groups.sort(key=lambda group: not group.is_found)

    def finish(self, number: int, result: Result[Any]) -> None:
        self._results[number] = result
        if self.progress is not None:
            self.progress(len(self._results), self._total)

    def stop(self) -> None:
        """Ask no more, and tell nobody."""
        self.stopped, self.progress = True, None

    def in_order(self) -> list[Result[Any]]:
        return [self._results[number] for number in range(self._total)]


def _grouped(requests: list[ClientRequest]) -> list[Group]:
    groups: dict[object, Group] = {}
    for number, request in enumerate(requests):
        together = request.call.key if _is_shared(request) else number
        groups.setdefault(together, Group([])).requests.append((number, request))
    return list(groups.values())


def _is_shared(request: ClientRequest) -> bool:
    return not request.bypass and request.policy.mode is not CacheMode.NO_STORE
