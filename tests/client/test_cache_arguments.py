"""The arguments of the cache: what can be meant, what cannot, and who is told so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, assert_type

import instructor
import pytest
from asgiref.sync import async_to_sync
from instructor.cache import AutoCache

import llmcache
from llmcache.admin.entries.export import python_call
from llmcache.client.many.batch import Result
from llmcache.doors import replay
from llmcache.policy import CacheMode
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, MESSAGES, Scripted, make_client
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)


def outcomes(calls: list[Any]) -> list[str]:
    return [str(call.outcome) for call in calls]


def ways_in(model: StandIn) -> dict[str, Callable[..., Any]]:
    """All that takes the arguments of a call."""
    client, aclient = make_client(model), make_client(model, async_client=True)
    return {
        "create": client.create,
        "create_with_completion": client.create_with_completion,
        "create_iterable": lambda **call: list(client.create_iterable(**call)),
        "create_partial": lambda **call: list(client.create_partial(**call)),
        "async": async_to_sync(aclient.create),
        "create_many": lambda **call: llmcache.create_many(client, [CALL, call]),
        "acreate_many": lambda **call: asyncio.run(llmcache.acreate_many(aclient, [call])),
        "key_for": lambda **call: llmcache.key_for(client, **call),
        "explain": lambda **call: llmcache.explain(client, **call),
    }


WAYS_IN = [
    *("create", "create_with_completion", "create_iterable", "create_partial", "async"),
    *("create_many", "acreate_many", "key_for", "explain"),
]


class TestMistyped:
    @pytest.mark.parametrize("way_in", WAYS_IN)
    def test_a_name_nearly_like_ours_is_told_before_anybody_is_asked(
        self, model: StandIn, way_in: str
    ) -> None:
        with pytest.raises(llmcache.InvalidArgument, match=r"no argument cache_tag. Did you mean"):
            ways_in(model)[way_in](**CALL, cache_tag=["a"])
        assert not model.calls

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("cache_tag", "cache_tags"),
            ("CACHE_TTL", "cache_ttl"),
            ("cache_mod", "cache_mode"),
            ("cachemode", "cache_mode"),
            ("cache_tll", "cache_ttl"),
            ("cach_ttl", "cache_ttl"),
            ("cache_time", "cache_mode"),
            ("cache_name_space", "cache_namespace"),
            ("cache_samples", "cache_sample"),
            ("cache_stale_on_error", "cache_stale_if_error"),
        ],
    )
    def test_what_was_meant(self, model: StandIn, name: str, meant: str) -> None:
        with pytest.raises(llmcache.InvalidArgument, match=f"{name}. Did you mean {meant}"):
            make_client(model).create(**CALL, **{name: 1})

    @pytest.mark.parametrize("name", ["cache_control", "cached_content", "cache_salt", "cache_v2"])
    def test_what_is_the_providers_reaches_it_and_counts(self, name: str) -> None:
        scripted = Scripted()
        client = scripted.client()
        client.create(**CALL, **{name: "a"})
        assert llmcache.key_for(client, **CALL, **{name: "a"}) != llmcache.key_for(client, **CALL)
        assert len(scripted.asked) == 1

    @pytest.mark.parametrize("cache", [False, True, {}, AutoCache()])
    def test_instructors_own_cache_is_refused_at_a_call(self, model: StandIn, cache: Any) -> None:
        with pytest.raises(llmcache.InvalidArgument, match=r"^cache is an argument of instructor"):
            make_client(model).create(**CALL, cache=cache)
        assert not model.calls

    def test_but_not_when_it_is_none(self, model: StandIn) -> None:
        with llmcache.capture() as calls:
            make_client(model).create(**CALL)
            make_client(model).create(**CALL, cache=None)
        assert outcomes(calls) == ["miss", "hit"]

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")  # (of the code of LiteLLM)
    @pytest.mark.parametrize("of", ["completion", "acompletion", "Router"])
    def test_litellms_argument_of_that_name_is_litellms(self, of: str) -> None:
        import litellm

        library: Any = litellm
        function = library.Router().completion if of == "Router" else getattr(library, of)
        client: Any = llmcache.wrap(instructor.from_litellm(function), model="m", endpoint="e")
        assert llmcache.key_for(client, **CALL, cache={"no-cache": True})
        with pytest.raises(llmcache.InvalidArgument, match="cache is an argument of instructor"):
            llmcache.key_for(client, **CALL, cache=AutoCache())

    def test_a_client_is_told_when_it_is_made(self, model: StandIn) -> None:
        with pytest.raises(llmcache.InvalidArgument, match=r"cache_tag. Did you mean cache_tags"):
            make_client(model, cache_tag=["a"])
        plain = instructor.from_provider("openai/gpt-4.1-mini", api_key="k", cache_mod="reload")
        with pytest.raises(llmcache.InvalidArgument, match=r"cache_mod. Did you mean cache_mode"):
            llmcache.wrap(plain)

    def test_a_decorated_function_says_where_it_is_said(self) -> None:
        asked: list[str] = []

        @llmcache.cached(exclude=["asked"])
        def answer(text: str) -> str:
            asked.append(text)
            return text

        @llmcache.cached
        def of_its_own(text: str, cache_mode: str = "") -> str:
            return text + cache_mode

        @llmcache.cached
        def with_others(text: str, **others: str) -> str:
            return text + str(others)

        wrong: Any = answer
        with pytest.raises(llmcache.InvalidArgument, match=r"takes no cache_mode\. .*override"):
            wrong("a", cache_mode="reload")
        with pytest.raises(TypeError, match="takes no cache_ttl"):
            wrong.key("a", cache_ttl=3)
        with pytest.raises(TypeError, match="unexpected keyword argument 'txt'"):
            wrong(txt="a")
        assert not asked
        assert of_its_own("a", cache_mode="b") == "ab"
        assert with_others("a", cache_mode="b") == "a{'cache_mode': 'b'}"


class TestMessages:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("mode", "never"),
            ("ttl", "7d"),
            ("ttl", -1),
            ("tags", "a"),
            ("tags", [1]),
            ("namespace", ""),
            ("stale_while_revalidate", None),
            ("stale_if_error", "1h"),
            ("sample", -1),
            ("sample", 1.5),
            ("sample", True),
        ],
    )
    def test_they_name_the_argument_that_was_written(
        self, model: StandIn, name: str, value: Any
    ) -> None:
        with pytest.raises(llmcache.InvalidArgument, match=rf"\b{name}\b") as told:
            llmcache.override(**{name: value}).__enter__()
        assert f"cache_{name}" not in str(told.value)
        if value is not None:  # (at a call that is: not given)
            with pytest.raises(llmcache.InvalidArgument, match=f"cache_{name}"):
                make_client(model).create(**CALL, **{f"cache_{name}": value})
        if name in {"mode", "sample"}:
            return
        for made in (make_client, lambda _, **it: llmcache.cached(**it)):
            with pytest.raises(llmcache.InvalidArgument, match=rf"\b{name}\b") as told:
                made(model, **{name: value})
            assert f"cache_{name}" not in str(told.value)

    def test_of_invalidate_too(self) -> None:
        with pytest.raises(llmcache.InvalidArgument, match=r"^tags takes a list"):
            llmcache.invalidate(tags="a")
        with pytest.raises(llmcache.InvalidArgument, match=r"^namespace has 1 to"):
            llmcache.invalidate(namespace="")

    @pytest.mark.parametrize("mode", ["reload", CacheMode.RELOAD])
    def test_modes_are_names_or_members(self, model: StandIn, mode: Any) -> None:
        with llmcache.capture() as calls, llmcache.override(mode=mode):
            make_client(model).create(**CALL)
        assert outcomes(calls) == ["reload"]
        make_client(model).create(**CALL, cache_mode=mode)

    def test_a_type_checker_knows_them(self) -> None:
        with llmcache.override(mode="no-store"), llmcache.override(mode=CacheMode.DEFAULT):
            pass
        with pytest.raises(llmcache.InvalidArgument):
            llmcache.override(mode="bogus").__enter__()  # type: ignore[arg-type]


class TestExclude:
    def test_what_is_excluded_is_sent_and_does_not_count(self, model: StandIn) -> None:
        client = make_client(model, exclude=["metadata", "trace"])
        with llmcache.capture() as calls:
            client.create(**CALL, metadata={"id": "1"})
            client.create(**CALL, metadata={"id": "2"}, extra_body={"trace": "3"})
            client.create(**CALL)
            client.create(**CALL, extra_body={"trace": "3", "seed": 1})
        assert outcomes(calls) == ["miss", "hit", "hit", "miss"]
        assert model.calls[0].body["metadata"] == {"id": "1"}
        assert model.calls[1].body["trace"] == "3"

    def test_it_may_be_of_any_kind_and_is_not_copied(self) -> None:
        seen: list[Any] = []

        class Noting(Scripted):
            def __call__(self, **arguments: Any) -> Any:
                seen.append(arguments.pop("tracer"))
                return super().__call__(**arguments)

        tracer = object()
        client = llmcache.wrap(Noting().client(), model="m", endpoint="e", exclude=("tracer",))
        with llmcache.capture() as calls:
            client.create(**CALL, tracer=tracer)
            client.create(**CALL, tracer=object())
        assert outcomes(calls) == ["miss", "hit"]
        assert seen == [tracer]

    def test_nor_is_it_kept_for_people_to_read(self, model: StandIn) -> None:
        client = make_client(model, exclude=["metadata"])
        client.create(**CALL, metadata={"customer": "Zoë"}, user="Zoë")
        call = python_call(durable.entries().get())
        assert call is not None
        assert "Zoë" not in call

    @pytest.mark.parametrize(
        "exclude",
        [
            *("metadata", [1], None, 7),
            *(["messages"], ["model"], ["response_model"], ["context"], ["strict"], ["stream"]),
            *(["cache_ttl"], ["metadata", "messages"]),
        ],
        ids=repr,
    )
    def test_what_cannot_be_meant(self, model: StandIn, exclude: Any) -> None:
        with pytest.raises(llmcache.InvalidArgument, match="exclude"):
            make_client(model, exclude=exclude)
        plain = instructor.from_provider("openai/gpt-4.1-mini", api_key="k")
        with pytest.raises(llmcache.InvalidArgument, match="exclude"):
            llmcache.wrap(plain, exclude=exclude)


class TestSample:
    def test_several_answers_to_one_question(self, model: StandIn) -> None:
        client = make_client(model)
        with llmcache.capture() as calls:
            for sample in (0, 1, 2, 1, None):
                client.create(**CALL, cache_sample=sample)
            client.create(**CALL)
        assert outcomes(calls) == ["miss", "miss", "miss", "hit", "hit", "hit"]
        assert len({call.key for call in calls}) == 3
        assert all("sample" not in str(call.body) for call in model.calls)

    def test_with_other_parameters_too(self, model: StandIn) -> None:
        def key(**arguments: Any) -> str:
            return llmcache.key_for(make_client(model), **CALL, **arguments)

        assert key(seed=1, cache_sample=0) == key(seed=1)
        assert len({key(seed=1), key(seed=1, cache_sample=1), key(cache_sample=1), key()}) == 4

    def test_of_many(self, model: StandIn) -> None:
        requests = [CALL | {"cache_sample": number % 2} for number in range(4)]
        results = llmcache.create_many(make_client(model), requests)
        assert outcomes([result.call for result in results]) == ["miss", "miss", "hit", "hit"]

    def test_of_a_decorated_function_by_an_override(self) -> None:
        asked: list[int] = []

        @llmcache.cached(exclude=["asked"])
        def count(start: int) -> int:
            asked.append(start)
            return start + len(asked)

        for _ in range(2):
            for sample in (0, 1):
                with llmcache.override(sample=sample):
                    assert count(10) == 11 + sample
        assert count(10) == 11
        with llmcache.override(sample=1):
            assert count.invalidate(10).entries == 1
        entry = durable.entries().get()
        assert "llmcache.override" not in str(python_call(entry))

    def test_the_call_that_is_exported_asks_for_it(self, model: StandIn) -> None:
        make_client(model).create(**CALL, cache_sample=3)
        assert "cache_sample=3," in str(python_call(durable.entries().get()))
        durable.entries().delete()

        with llmcache.override(sample=2):
            double(4)
        exported = str(python_call(durable.entries().get()))
        assert f"with llmcache.override(sample=2):\n    {__name__}.double(" in exported
        exec(exported)
        assert durable.entries().count() == 1

    def test_an_entry_is_asked_for_again_as_the_sample_that_it_is(self, model: StandIn) -> None:
        client = make_client(model)
        client.create(**CALL, cache_sample=3)
        key = llmcache.key_for(client, **CALL, cache_sample=3)
        call = replay.ask_again(durable.entries().get(key=key))
        assert call.key == key
        assert call.stored
        assert len(model.calls) == 2

    def test_a_function_with_such_an_argument_is_not_mistaken(self) -> None:
        @llmcache.cached
        def own(cache_sample: int) -> int:
            return cache_sample

        with llmcache.capture() as calls:
            own(1)
            with llmcache.override(sample=1):
                own(0)
        assert outcomes(calls) == ["miss", "bypass"]


@llmcache.cached
def double(number: int) -> int:
    return 2 * number


class TestUnwrap:
    def test_it_is_of_the_response_model(self, model: StandIn) -> None:
        client = make_client(model)
        typed: instructor.Instructor = client
        requests = [{"messages": MESSAGES}]
        results = llmcache.create_many(typed, requests, response_model=Ticket)
        assert_type(results, list[Result[Ticket]])
        ticket = assert_type(results[0].unwrap(), Ticket)
        assert isinstance(ticket, Ticket)
        several = llmcache.create_many(typed, requests, response_model=list[Ticket])
        assert_type(several[0].unwrap(), list[Ticket])
        own = llmcache.create_many(typed, [CALL])
        assert_type(own[0].unwrap(), Any)

    def test_of_an_asynchronous_client_as_well(self, model: StandIn) -> None:
        aclient: instructor.AsyncInstructor = make_client(model, async_client=True)

        async def ask() -> None:
            requests = [{"messages": MESSAGES}]
            results = await llmcache.acreate_many(aclient, requests, response_model=Ticket)
            assert_type(results[0].unwrap(), Ticket)

        asyncio.run(ask())
        assert len(model.calls) == 1

    def test_one_of_the_two_names_it(self, model: StandIn) -> None:
        with pytest.raises(
            llmcache.InvalidArgument, match=r"requests\[1\]: It names a response_model"
        ):
            llmcache.create_many(
                make_client(model), [{"messages": MESSAGES}, CALL], response_model=Ticket
            )
        off: list[Any] = [7, "text", [7]]
        for requests in off:
            with pytest.raises(llmcache.InvalidArgument, match="dict"):
                llmcache.create_many(make_client(model), requests, response_model=Ticket)
        assert not model.calls

    def test_none_of_them_is_the_completion(self, model: StandIn) -> None:
        [result] = llmcache.create_many(
            make_client(model), [{"messages": MESSAGES}], response_model=None
        )
        assert result.unwrap().choices
