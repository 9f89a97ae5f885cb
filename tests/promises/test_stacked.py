"""What is made of other answers goes with them, and they with it, on every database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command

import llmcache
from llmcache.models import EntryPart, Invalidation
from llmcache.reasons import ReasonCode
from llmcache.removal import engine, expire, resumable
from llmcache.removal.criteria import Criteria
from llmcache.removal.invalidate import invalidate_selected
from llmcache.store import batches
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.backends import ALL_DATABASES, Backend, backend_parameters
from tests.support.stacked import (
    Checked,
    ask,
    asked,
    atitle,
    clients,
    page,
    prompt,
    sentence,
    several,
    title,
    titles,
)
from tests.support.stacked import _clients as _clients

pytestmark = pytest.mark.slow

everywhere = pytest.mark.parametrize(
    "backend",
    backend_parameters(ALL_DATABASES, [None]) + backend_parameters(["default"], ["redis"]),
    indirect=True,
)

on_one = pytest.mark.parametrize("backend", backend_parameters(["default"], [None]), indirect=True)


def rows() -> int:
    return durable.entries().count()


def key_of(text: str) -> str:
    return llmcache.key_for(clients["plain"], **prompt(text))


REMOVALS: dict[str, Callable[[], Any]] = {
    "tags": lambda: llmcache.invalidate(tags=["document:1"]),
    "keys": lambda: llmcache.invalidate(keys=[title.key(1)]),
    "namespace": lambda: llmcache.invalidate(namespace="outside"),
    "model": lambda: llmcache.invalidate(model="tests.support.stacked.title"),
    "response model": lambda: llmcache.invalidate(response_model=str),
    "before": lambda: llmcache.invalidate(before=timedelta(0), namespace="outside"),
    "its own": lambda: title.invalidate(1),
    "its own, awaited": lambda: async_to_sync(title.ainvalidate)(1),
    "selected": lambda: invalidate_selected(durable.entries().filter(namespace="outside")),
    "command": lambda: call_command("llmcache_invalidate", "--tag", "document:1", "--yes"),
    "instalments": lambda: resumable.carry_to_its_end(
        resumable.start(Criteria(tags=frozenset({"document:1"})), "")
    ),
}


@on_one
@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
def test_whoever_removes_an_answer_removes_what_it_was_made_of(
    backend: Backend, model: StandIn, remove: Callable[[], Any]
) -> None:
    assert asked(model, lambda: title(1), times=2) == 1
    assert rows() == 2
    remove()
    assert rows() == EntryPart.objects.count() == 0
    assert asked(model, lambda: title(1)) == 1


@everywhere
def test_an_older_answer_without_a_tag_goes_with_what_was_made_of_it(
    backend: Backend, model: StandIn
) -> None:
    ask("Where is my order?")
    with llmcache.capture() as calls:
        assert asked(model, lambda: title(1)) == 0
    tier = "durable" if backend.cache is None else "hot"
    assert (calls[0].outcome, calls[0].tier) == ("hit", tier)
    assert llmcache.invalidate(tags=["document:1"]).entries == 2
    assert asked(model, lambda: title(1)) == 1


@everywhere
def test_it_goes_through_all_that_is_nested_also_where_the_middle_was_a_hit(
    backend: Backend, model: StandIn
) -> None:
    title(1)
    sentence(1)
    assert asked(model, lambda: page(1), times=2) == 1
    result = llmcache.invalidate(tags=["page:1"])
    assert (result.entries, rows()) == (5, 0)
    assert asked(model, lambda: page(1)) == 2


@everywhere
def test_what_was_made_of_an_answer_that_is_removed_goes_as_well(
    backend: Backend, model: StandIn
) -> None:
    page(1)
    result = llmcache.invalidate(keys=[key_of("Where is my order?")])
    # Not the price: that is no part of what was removed.
    assert (result.entries, rows()) == (4, 1)
    assert asked(model, lambda: page(1)) == 1


@everywhere
def test_what_else_was_made_of_the_same_answer_stays(backend: Backend, model: StandIn) -> None:
    title(1), title(2), sentence(2)
    assert llmcache.invalidate(tags=["document:1"]).entries == 2
    assert asked(model, lambda: (title(2), sentence(2))) == 0
    assert asked(model, lambda: title(1)) == 1


@everywhere
def test_a_generator_and_many_at_once_are_made_of_what_they_ask(
    backend: Backend, model: StandIn
) -> None:
    assert asked(model, lambda: list(titles(1)), times=2) == 2
    assert titles.invalidate(1).entries == 4
    texts = ["one", "two", "three"]
    assert asked(model, lambda: several(texts), times=2) == 3
    assert several.invalidate(texts).entries == 4


@everywhere
def test_a_coroutine_too(backend: Backend, model: StandIn) -> None:
    async def work() -> tuple[int, int]:
        await atitle(1)
        removed = await atitle.ainvalidate(1)
        before = len(model.calls)
        await atitle(1)
        return removed.entries, len(model.calls) - before

    assert asyncio.run(work()) == (2, 1)


@on_one
def test_an_asynchronous_generator_and_its_tasks(backend: Backend, model: StandIn) -> None:
    @llmcache.cached
    async def both(first: str, second: str) -> list[str]:
        client = clients["awaited"]
        answers = await asyncio.gather(*(client.create(**prompt(p)) for p in (first, second)))
        return [answer.title for answer in answers]

    assert len(asyncio.run(both("one", "two"))) == 2
    assert both.invalidate("one", "two").entries == 3


@on_one
def test_a_client_inside_of_a_validator(backend: Backend, model: StandIn) -> None:
    question = prompt("What is it about?") | {"response_model": Checked}
    assert asked(model, lambda: clients["plain"].create(**question), times=2) == 2
    [key] = EntryPart.objects.values_list("key", flat=True)
    assert key == key_of("Is this a good title?")
    removed = llmcache.invalidate(keys=[llmcache.key_for(clients["plain"], **question)])
    assert removed.entries == 2


@on_one
def test_a_new_answer_has_the_parts_of_the_new_one(backend: Backend, model: StandIn) -> None:
    @llmcache.cached(exclude=["wanted"])
    def changing(number: int, wanted: str) -> str:
        return ask(wanted).title

    changing(1, "one")
    changing.reload(1, "two")
    assert list(EntryPart.objects.values_list("key", flat=True)) == [key_of("two")]
    assert changing.invalidate(1, "").entries == 2
    assert asked(model, lambda: ask("one")) == 0


@on_one
def test_expiry_leaves_what_an_answer_was_made_of(backend: Backend, model: StandIn) -> None:
    title(1)
    durable.entries().filter(namespace="outside").update(stale_until="2020-01-01T00:00Z")
    assert expire.expire_entries() == 1
    assert (rows(), EntryPart.objects.count()) == (1, 0)


@everywhere
def test_who_is_killed_between_the_batches_leaves_what_finds_the_rest(
    backend: Backend, model: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    title(1), sentence(1), page(1)  # (each knows the next one only)
    pk = resumable.start(Criteria(tags=frozenset({"page:1"})), "")
    monkeypatch.setattr(engine, "BATCH_ROWS", 1)
    monkeypatch.setattr(batches, "FEWEST_ROWS", 1)
    monkeypatch.setattr(batches, "FIRST_ROWS", 1)
    left = rows()
    while left:
        resumable.carry_on(pk, seconds=0)
        assert rows() == left - 1
        left -= 1
    resumable.carry_on(pk)
    row = Invalidation.objects.using(durable.entries().db).get(pk=pk)
    assert (row.entries, row.finished_at is not None) == (5, True)


@everywhere
@pytest.mark.parametrize("criteria", [{"tags": ["document:1"]}, {"namespace": "outside"}], ids=str)
def test_an_invalidation_that_begins_meanwhile_takes_what_was_just_stored(
    backend: Backend, model: StandIn, criteria: dict[str, Any]
) -> None:
    went_on, may_end = threading.Event(), threading.Event()

    @llmcache.cached(
        tags=lambda number: [f"document:{number}"],
        namespace="outside",
        exclude=["went_on", "may_end"],
    )
    def slowly(number: int) -> str:
        answer = ask("Where is my order?").title
        went_on.set()
        may_end.wait(10)
        return answer

    calls: list[Any] = []

    def run() -> None:
        with llmcache.capture() as seen:
            slowly(1)
        calls.extend(seen)

    thread = threading.Thread(target=run)
    thread.start()
    assert went_on.wait(10)
    llmcache.invalidate(**criteria)
    may_end.set()
    thread.join(20)
    assert calls[-1].reason_code is ReasonCode.INVALIDATED
    assert rows() == 0
    assert asked(model, lambda: slowly(1)) == 1


@everywhere
@pytest.mark.parametrize("again", [False, True])
def test_what_was_made_of_an_answer_that_was_removed_meanwhile_is_not_stored(
    backend: Backend, model: StandIn, again: bool
) -> None:
    @llmcache.cached
    def slowly(number: int) -> str:
        answer = ask("Where is my order?").title
        llmcache.invalidate(keys=[key_of("Where is my order?")])
        if again:
            # (asked by somebody else)
            thread = threading.Thread(target=ask, args=("Where is my order?",))
            thread.start()
            thread.join()
        return answer

    with llmcache.capture() as calls:
        slowly(1)
    assert calls[-1].reason_code is ReasonCode.PARTS_GONE
    assert rows() == again


@everywhere
def test_an_answer_that_is_being_stored_is_found_by_who_removes_a_part(
    backend: Backend, model: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored after the removal has looked for what was made of the part."""
    ask("Where is my order?")
    remove, done = batches.remove, list[str]()

    def remove_late(*arguments: Any) -> Any:
        if not done:
            done.append(title(1))
        return remove(*arguments)

    monkeypatch.setattr(batches, "remove", remove_late)
    assert llmcache.invalidate(keys=[key_of("Where is my order?")]).entries == 2
    assert rows() == 0
