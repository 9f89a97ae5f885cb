"""What is made of other answers is made anew with them, and is not stored where they are not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from typing import Any

import instructor
import pytest
from django.db import transaction

import llmcache
from llmcache.models import EntryPart
from llmcache.outcomes import Call
from llmcache.policy import UNSET
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import make_sdk
from tests.support.stacked import (
    Checked,
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
from tests.support.ticket import Ticket
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SPOILT = "an answer that it was made of is not to be stored"


@llmcache.cached(exclude=["arguments"])
def inside(text: str, **arguments: Any) -> str:
    return str(clients["plain"].create(**prompt(text), **arguments).title)


@llmcache.cached
def fallback(text: str) -> str:
    try:
        return str(clients["plain"].create(**prompt(text)).title)
    except instructor.core.InstructorRetryException:
        return "nothing"


@llmcache.cached
def stubborn(text: str) -> str:
    try:
        return str(clients["plain"].create(**prompt(text)).title)
    except instructor.core.InstructorRetryException:
        clients["model"].fail_with = None
        return str(clients["plain"].create(**prompt(text)).title)


def told(work: Callable[[], Any]) -> Call:
    """How the outermost call inside of `work` was answered."""
    with llmcache.capture() as calls:
        work()
    return calls[-1]


def rows(**criteria: Any) -> int:
    return durable.entries().filter(**criteria).count()


class TestReloads:
    def test_a_reload_reaches_all_that_is_nested(self, model: StandIn) -> None:
        title(1), sentence(1), page(1)
        assert asked(model, lambda: page.reload(1)) == 2
        assert asked(model, lambda: page(1)) == 0

    def test_so_does_that_of_a_coroutine_and_of_a_generator(self, model: StandIn) -> None:
        async def twice() -> None:
            await atitle(1)
            await atitle.reload(1)

        assert asked(model, lambda: asyncio.run(twice())) == 2
        list(titles(1))
        assert asked(model, lambda: list(titles.reload(1))) == 2
        assert asked(model, lambda: list(titles(1))) == 0

    def test_so_does_that_of_many_at_once(self, model: StandIn) -> None:
        assert asked(model, lambda: several(["one", "two"])) == 2
        assert asked(model, lambda: several.reload(["one", "two"])) == 2

    def test_so_does_one_for_a_block_or_a_call(self, model: StandIn) -> None:
        question = prompt("What is it about?") | {"response_model": Checked}
        clients["plain"].create(**question)
        create = clients["plain"].create
        assert asked(model, lambda: create(**question, cache_mode="reload")) == 2

        def forced() -> None:
            with llmcache.override(mode="reload"):
                title(1)

        assert asked(model, forced, times=2) == 2

    def test_what_is_no_part_of_it_is_not_reloaded(self, model: StandIn) -> None:
        title(1)

        def both() -> None:
            title.reload(1)
            clients["plain"].create(**prompt("Where is my order?"))

        assert asked(model, both) == 1

    def test_between_two_items_of_a_generator_the_caller_asks(self, model: StandIn) -> None:
        question = prompt("Something else")
        clients["plain"].create(**question)

        def interleaved() -> None:
            for _ in titles.reload(1):
                clients["plain"].create(**question)

        assert asked(model, interleaved) == 2
        assert rows() == 5  # (the generator, title, and three questions)
        assert titles.invalidate(1).entries == 4

    def test_a_refresh_behind_the_caller_reaches_what_is_inside(self, model: StandIn) -> None:
        @llmcache.cached(ttl=0.3, stale_while_revalidate=60)
        def brief(number: int) -> str:
            return title(number)

        model.behaviour.vary = True
        old = brief(1)
        time.sleep(0.5)
        assert brief(1) == old
        wait_until(lambda: len(model.calls) == 2)
        wait_until(lambda: title(1) != old)

    @pytest.mark.parametrize("mode", ["no-store", "only-if-cached"])
    def test_what_a_call_inside_says_itself_stays(self, model: StandIn, mode: str) -> None:
        inside("kept")
        outcome = told(lambda: inside.reload("kept", cache_mode=mode))
        assert outcome.stored is (mode == "only-if-cached")
        assert len(model.calls) == (1 if mode == "only-if-cached" else 2)

    def test_instructors_own_client_with_our_cache(self, model: StandIn) -> None:
        plain = instructor.from_openai(
            make_sdk(model), cache=llmcache.DjangoCache("inside"), cache_namespace="tests"
        )

        @llmcache.cached(exclude=["plain"])
        def through(text: str) -> str:
            return str(plain.create(model="m", **prompt(text)).title)

        assert asked(model, lambda: through("one"), times=2) == 1
        assert asked(model, lambda: through.reload("one")) == 1
        assert through.invalidate("one").entries == 2
        assert asked(model, lambda: through("one")) == 1


class TestWhatIsNotStored:
    @pytest.mark.parametrize(
        ("arguments", "behaviour", "why"),
        [
            ({"cache_mode": "no-store"}, "", 'cache_mode is "no-store"'),
            ({"cache_ttl": 0}, "", "cache_ttl is 0"),
            ({}, "filter", "the provider filtered the answer (content_filter)"),
        ],
        ids=str,
    )
    def test_what_is_made_of_what_is_not_to_be_stored(
        self, model: StandIn, arguments: dict[str, Any], behaviour: str, why: str
    ) -> None:
        if behaviour:
            setattr(model.behaviour, behaviour, True)
        outcome = told(lambda: inside("one", **arguments))
        assert (outcome.stored, outcome.reason) == (False, f"{SPOILT}: {why}")
        assert rows() == 0

    @pytest.mark.parametrize(
        ("ttl", "arguments", "stored"),
        [
            (None, {"web_search_options": {}}, True),
            (UNSET, {"web_search_options": {}}, False),
            (None, {"extra_body": {"conversation": "c"}}, False),
        ],
        ids=str,
    )
    def test_what_is_made_of_what_does_not_follow_from_the_question(
        self, model: StandIn, ttl: Any, arguments: dict[str, Any], stored: bool
    ) -> None:
        ask = llmcache.cached(ttl=ttl, exclude=["arguments"])(inside.__wrapped__)
        assert told(lambda: ask("one", **arguments)).stored is stored

    def test_what_is_made_of_a_call_without_a_key(self, model: StandIn) -> None:
        assert told(lambda: inside("one", context={"now": print})).stored is True

    def test_it_spoils_all_that_is_around(self, model: StandIn) -> None:
        @llmcache.cached
        def around(text: str) -> str:
            return inside(text, cache_ttl=0)

        assert told(lambda: around("one")).reason.startswith(SPOILT)
        assert rows() == 0

    def test_what_is_made_of_what_was_not_admitted(self, model: StandIn, settings: Any) -> None:
        settings.LLMCACHE = {"ADMIT": f"{__name__}.admit"}
        assert told(lambda: inside("one")).reason.endswith("did not admit the answer")
        assert rows() == 0

    def test_what_is_made_of_a_stale_answer(self, model: StandIn) -> None:
        stale = {"cache_ttl": 0.3, "cache_stale_while_revalidate": 60}
        clients["plain"].create(**prompt("one"), **stale)
        time.sleep(0.5)
        assert told(lambda: inside("one", **stale)).reason == f"{SPOILT}: it was stale"
        wait_until(lambda: len(model.calls) == 2)
        assert rows(namespace="default") == 0

    def test_what_is_made_of_no_answer(self, model: StandIn) -> None:
        model.fail_with = 503
        outcome = told(lambda: fallback("one"))
        assert (outcome.stored, rows()) == (False, 0)
        model.fail_with = None
        assert fallback("one") != "nothing"

    def test_but_a_call_that_was_repeated_has_its_answer(self, model: StandIn) -> None:
        clients["model"], model.fail_with = model, 503
        assert told(lambda: stubborn("one")).stored is True

    def test_what_is_made_of_the_beginning_of_a_stream(self, model: StandIn) -> None:
        @llmcache.cached
        def first(text: str, *, whole: bool) -> str:
            items = clients["plain"].create_iterable(**prompt(text))
            kept.append(items)  # (so that nobody closes it)
            title = str(next(items).title)
            return title + "".join(item.title for item in items) if whole else title

        kept: list[Any] = []
        first = llmcache.cached(exclude=["kept"])(first.__wrapped__)
        assert told(lambda: first("one", whole=False)).stored is False
        assert told(lambda: first("one", whole=True)).stored is True

    def test_also_of_one_that_is_awaited(self, model: StandIn) -> None:
        @llmcache.cached
        async def first(text: str) -> str:
            async for item in clients["awaited"].create_iterable(**prompt(text)):
                return str(item.title)
            return ""

        outcome = told(lambda: asyncio.run(first("one")))
        assert outcome.stored is False

    def test_what_the_store_cannot_hold_can_be_made_into_what_it_can(
        self, model: StandIn, settings: Any
    ) -> None:
        settings.LLMCACHE = {"MAX_ENTRY_BYTES": 500}

        @llmcache.cached
        def length(text: str) -> int:
            return len(clients["plain"].create(**prompt(text * 300)).title)

        with llmcache.capture() as calls:
            length("one")
        assert [call.stored for call in calls] == [False, True]


def admit(answer: Any, completion: Any) -> bool:
    return not isinstance(answer, Ticket)


class TestExpiry:
    def test_it_is_no_fresher_than_what_it_was_made_of(self, model: StandIn) -> None:
        clients["plain"].create(**prompt("one"), cache_ttl=50)
        inside("one")
        inner, outer = durable.entries().order_by("pk").values_list("expires_at", flat=True)
        assert outer == inner

    def test_unless_somebody_says_how_long_it_stays_fresh(self, model: StandIn) -> None:
        @llmcache.cached(ttl=None)
        def always(text: str) -> str:
            return inside(text, cache_ttl=50)

        always("one")
        assert rows(expires_at=None) == 1


class TestWhereItIsAsked:
    def test_a_thread_with_a_copy_of_the_context(self, model: StandIn) -> None:
        @llmcache.cached
        def on_a_thread(text: str) -> str:
            answers: list[str] = []
            work = lambda: answers.append(inside(text))  # noqa: E731
            thread = threading.Thread(target=copy_context().run, args=(work,))
            thread.start()
            thread.join()
            return answers[0]

        on_a_thread("one")
        assert on_a_thread.invalidate("one").entries == 3

    def test_in_a_transaction(self, model: StandIn) -> None:
        with transaction.atomic():
            title(1)
        wait_until(lambda: EntryPart.objects.count() == 1)
        assert title.invalidate(1).entries == 2

    def test_an_asynchronous_generator(self, model: StandIn) -> None:
        @llmcache.cached
        async def items(text: str) -> AsyncIterator[str]:
            for number in range(2):
                yield await atitle(number, text)

        async def read() -> list[str]:
            return [item async for item in items("one")]

        assert len(asyncio.run(read())) == 2
        assert items.invalidate("one").entries == 4
