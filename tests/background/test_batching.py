"""Lookups that wait for their turn are done together, and none sees what was read before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from llmcache.background.batching import Gathering


class Shelf:
    """Numbers under names; what is submitted is done when a test says so."""

    def __init__(self, most: int = 10) -> None:
        self.numbers: dict[str, int] = {}
        self.reads: list[list[str]] = []
        self.work: list[Callable[[], None]] = []
        self.gathering = Gathering(self.read, self.work.append, most)

    def read(self, names: Collection[str]) -> dict[str, int]:
        self.reads.append(sorted(names))
        return {name: self.numbers[name] for name in names if name in self.numbers}

    def do_next(self) -> None:
        self.work.pop(0)()


def test_those_who_wait_are_read_for_together() -> None:
    shelf = Shelf()
    shelf.numbers = {"a": 1, "b": 2}
    futures = [shelf.gathering.look_up(name) for name in "abcab"]
    shelf.do_next()
    assert [future.result(0) for future in futures] == [1, 2, None, 1, 2]
    assert shelf.reads == [["a", "b", "c"]]
    assert not shelf.work


def test_who_comes_while_it_is_read_is_read_for_later() -> None:
    shelf = Shelf()
    shelf.numbers["a"] = 1
    plain, late = shelf.read, list[Future[int | None]]()

    def read(names: Collection[str]) -> dict[str, int]:
        found = plain(names)
        if not late:  # it changes, and somebody asks, when it has been read
            shelf.numbers["a"] = 2
            late.append(shelf.gathering.look_up("a"))
        return found

    shelf.gathering = Gathering(read, shelf.work.append, 10)
    early = shelf.gathering.look_up("a")
    shelf.do_next()
    shelf.do_next()
    assert (early.result(0), late[0].result(0)) == (1, 2)


def test_no_read_is_for_more_than_so_many() -> None:
    shelf = Shelf(most=2)
    shelf.numbers = {name: ord(name) for name in "abcde"}
    futures = {name: shelf.gathering.look_up(name) for name in "abcde"}
    while shelf.work:
        shelf.do_next()
    assert {name: future.result(0) for name, future in futures.items()} == shelf.numbers
    assert [len(names) for names in shelf.reads] == [2, 2, 1]


def test_all_who_wait_have_the_error_raised_and_the_next_begins_anew() -> None:
    shelf = Shelf()

    def fail(_: Collection[str]) -> dict[str, int]:
        raise TypeError

    failing = Gathering(fail, shelf.work.append, 10)
    futures = [failing.look_up("a"), failing.look_up("b")]
    shelf.do_next()
    for future in futures:
        with pytest.raises(TypeError):
            future.result(0)
    failing.look_up("a")
    assert len(shelf.work) == 1


def test_who_finds_no_room_to_wait_leaves_nothing_behind() -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("too much is waiting")

    shelf = Shelf()
    gathering = Gathering(shelf.read, refuse, 10)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            gathering.look_up("a")


def test_many_threads_at_once_all_get_theirs() -> None:
    numbers = {str(number): number for number in range(50)}
    with ThreadPoolExecutor(3) as readers, ThreadPoolExecutor(30) as callers:
        gathering = Gathering(
            lambda names: {name: numbers[name] for name in names}, readers.submit, 7
        )
        start = threading.Barrier(30)

        def ask_for_all(_: int) -> list[int | None]:
            start.wait()
            return [gathering.look_up(name).result(20) for name in numbers]

        assert list(callers.map(ask_for_all, range(30))) == [list(numbers.values())] * 30
