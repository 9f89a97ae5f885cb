"""What is stored under a key answers what the key says, whoever changes the arguments meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from instructor.core.hooks import Hooks
from instructor.v2.core.multimodal import Image
from pydantic import BaseModel, ValidationInfo, field_validator

import llmcache
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import Scripted, make_client
from tests.support.dialects import Model
from tests.support.sdks import City, Make, anthropic, azure_openai, bedrock, google
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)

CHANGED = "changed between the call and its answer"


def question(text: str = "Where is my parcel?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def call(**arguments: Any) -> dict[str, Any]:
    return {"response_model": Ticket, "messages": question()} | arguments


def sent(model: StandIn) -> str:
    """What the model was asked last."""
    return str(model.calls[-1].body)


def append(arguments: dict[str, Any]) -> None:
    arguments["messages"].append({"role": "user", "content": "And my refund?"})


def edit(arguments: dict[str, Any]) -> None:
    arguments["messages"][0]["content"] = "Where is my refund?"


class Uncopied(dict[str, str]):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("there is only one")


# What happens while an answer is validated, which is then refused.
pending: list[Callable[[], None]] = []


class Strict(BaseModel):
    title: str

    @field_validator("title")
    @classmethod
    def refuse_once(cls, value: str) -> str:
        if pending:
            pending.pop()()
            raise ValueError("once more, please")
        return value


class Noting(BaseModel):
    title: str

    @field_validator("title")
    @classmethod
    def note(cls, value: str, info: ValidationInfo) -> str:
        if info.context is not None:
            info.context["seen"].append(value)
        return value


class TestWhileTheTiersAreAsked:
    @pytest.mark.parametrize("turns", [1, 2, 4])
    @pytest.mark.parametrize("change", [append, edit])
    async def test_what_is_sent_then_is_returned_and_not_stored(
        self, model: StandIn, turns: int, change: Callable[..., None]
    ) -> None:
        aclient = make_client(model, async_client=True)
        arguments = call()
        with llmcache.capture() as calls:
            task = asyncio.create_task(aclient.create(**arguments))
            for _ in range(turns):
                await asyncio.sleep(0)
            change(arguments)
            await task
            await aclient.create(**call())
        assert "refund" in str(model.calls[0].body)
        assert "refund" not in sent(model)
        assert [(str(each.outcome), each.stored) for each in calls] == [
            ("miss", False),
            ("miss", True),
        ]
        assert CHANGED in calls[0].reason

    @pytest.mark.parametrize(
        ("name", "value", "change"),
        [
            ("tools", [{"type": "function", "function": {"name": "f"}}], lambda it: it.clear()),
            ("extra_body", {"seed": [1]}, lambda it: it["seed"].append(2)),
            ("metadata", {"a": "1"}, lambda it: it.update(a="2")),
            ("context", {"names": ["a"]}, lambda it: it["names"].append("b")),
        ],
    )
    async def test_so_it_is_with_every_argument_that_counts(
        self, model: StandIn, name: str, value: Any, change: Callable[..., None]
    ) -> None:
        aclient = make_client(model, async_client=True)
        with llmcache.capture() as calls:
            task = asyncio.create_task(aclient.create(**call(**{name: value})))
            await asyncio.sleep(0)
            change(value)
            await task
        assert CHANGED in calls[0].reason
        assert not await durable.entries().aexists()

    async def test_those_who_wait_for_it_are_given_no_other_answer(self, model: StandIn) -> None:
        model.latency = 0.3
        aclient = make_client(model, async_client=True)
        arguments = call()
        first = asyncio.create_task(aclient.create(**arguments))
        await asyncio.sleep(0)
        others = [asyncio.create_task(aclient.create(**call())) for _ in range(2)]
        edit(arguments)
        answers = await asyncio.gather(first, *others)
        assert answers[1] == answers[2] == await aclient.create(**call())
        assert "refund" not in answers[1].title

    async def test_instructor_reads_the_arguments_of_an_asynchronous_stream_at_its_first_item(
        self, model: StandIn
    ) -> None:
        aclient = make_client(model, async_client=True)
        arguments = call(response_model=Iterable[Ticket], stream=True)
        with llmcache.capture() as calls:
            items = await aclient.create(**arguments)
            edit(arguments)
            assert [item async for item in items]
        assert "refund" in sent(model)
        assert calls[0].key == llmcache.key_for(aclient, **arguments)

    def test_a_stream_that_is_keyed_at_the_call_and_asked_at_its_first_item(
        self, model: StandIn
    ) -> None:
        arguments = call(response_model=Iterable[Ticket], stream=True)
        with llmcache.capture() as calls:
            items = make_client(model).create(**arguments)
            edit(arguments)
            assert list(items)
        assert "refund" in sent(model)
        assert CHANGED in calls[0].reason

    @pytest.mark.parametrize("is_async", [False, True])
    def test_of_many_that_wait_for_their_turn(self, model: StandIn, is_async: bool) -> None:
        requests = [call(messages=question(f"Where is parcel {number}?")) for number in range(3)]

        def change_the_last(done: int, _: int) -> None:
            if done == 1:
                edit(requests[-1])

        options: Any = {"concurrency": 1, "progress": change_the_last}
        if is_async:
            aclient = make_client(model, async_client=True)
            results = asyncio.run(llmcache.acreate_many(aclient, requests, **options))
        else:
            results = llmcache.create_many(make_client(model), requests, **options)
        assert [result.call.stored for result in results] == [True, True, False]
        assert CHANGED in results[2].call.reason

    async def test_what_is_stale_is_not_asked_for_anew_with_other_words(
        self, model: StandIn, caplog: pytest.LogCaptureFixture
    ) -> None:
        aclient = make_client(model, async_client=True)
        stale: dict[str, Any] = {"cache_stale_while_revalidate": 60}
        await aclient.create(**call(**stale), cache_ttl=0.2)
        await asyncio.sleep(0.4)
        arguments = call(**stale)
        with llmcache.capture() as calls:
            task = asyncio.create_task(aclient.create(**arguments))
            await asyncio.sleep(0)
            edit(arguments)
            await task
            await asyncio.sleep(0.3)
        assert [str(each.outcome) for each in calls] == ["stale"]
        assert "was not refreshed" in caplog.text
        assert len(model.calls) == 1


class TestWhileTheModelIsAsked:
    def test_a_copy_is_sent_so_nothing_changes(self) -> None:
        """Of a function in the place of an SDK, which looks at its arguments when it likes."""
        metadata = {"question": "parcel"}
        seen: list[dict[str, str]] = []

        class Late(Scripted):
            def __call__(self, **arguments: Any) -> Any:
                metadata["question"] = "refund"  # by the caller, on another thread
                seen.append(arguments["metadata"])
                return super().__call__(**arguments)

        client = Late().client()
        with llmcache.capture() as calls:
            client.create(**call(metadata=metadata))
            client.create(**call(metadata={"question": "parcel"}))
        assert seen == [{"question": "parcel"}]
        assert [str(each.outcome) for each in calls] == ["miss", "hit"]

    def test_nor_does_a_reask_send_what_they_are_now(self, model: StandIn) -> None:
        arguments = call(response_model=Strict)
        pending.append(lambda: edit(arguments))
        with llmcache.capture() as calls:
            make_client(model).create(**arguments)
        assert len(model.calls) == 2
        assert "refund" not in sent(model)
        assert calls[0].stored

    def test_the_callers_messages_stay_as_they_are(self, model: StandIn) -> None:
        arguments = call(response_model=Strict)
        pending.append(lambda: None)
        make_client(model).create(**arguments)
        assert arguments["messages"] == question()

    def test_what_cannot_be_copied_is_sent_and_compared_afterwards(self, model: StandIn) -> None:
        client = make_client(model)
        for change, stored in ((lambda it: None, True), (lambda it: it.update(a="2"), False)):
            metadata = Uncopied(a="1")
            hooks = Hooks()
            hooks.on("completion:response", lambda _, it=metadata, do=change: do(it))
            with llmcache.capture() as calls:
                client.create(**call(metadata=metadata, hooks=hooks, seed=int(stored)))
            assert calls[0].stored is stored, calls[0].reason

    def test_images_are_copied_with_their_content(self, model: StandIn) -> None:
        client = make_client(model)
        content = ["Look", Image(source="https://host/a.png", media_type="image/png")]
        messages = [{"role": "user", "content": content}]
        for outcome in ("miss", "hit"):
            with llmcache.capture() as calls:
                client.create(**call(messages=messages))
            assert calls[0].outcome == outcome


class TestTheContext:
    def test_a_validator_may_write_into_it(self, model: StandIn) -> None:
        client = make_client(model)
        contexts: list[dict[str, list[str]]] = [{"seen": []}, {"seen": []}]
        with llmcache.capture() as calls:
            for context in contexts:
                client.create(**call(response_model=Noting, context=context))
        assert [str(each.outcome) for each in calls] == ["miss", "hit"]
        # Once for each call, as without a cache: what looks at the answer as well has a copy.
        contexts.append({"seen": []})
        llmcache.explain(client, **call(response_model=Noting, context=contexts[2]))
        assert [len(context["seen"]) for context in contexts] == [1, 1, 0]

    def test_a_validator_may_refuse_what_it_has_seen_there(self, model: StandIn) -> None:
        class Once(Noting):
            @field_validator("title")
            @classmethod
            def refuse_known(cls, value: str, info: ValidationInfo) -> str:
                if info.context is not None and value in info.context["known"]:
                    raise ValueError("known already")
                if info.context is not None:
                    info.context["known"].append(value)
                return value

        client = make_client(model)
        with llmcache.capture() as calls:
            for _ in range(2):
                context: dict[str, Any] = {"seen": [], "known": []}
                client.create(**call(response_model=Once, context=context))
        assert [str(each.outcome) for each in calls] == ["miss", "hit"]

    def test_also_when_the_answer_is_asked_for_again(self, model: StandIn) -> None:
        class Twice(Noting):
            @field_validator("title")
            @classmethod
            def refuse_once(cls, value: str) -> str:
                if pending:
                    pending.pop()
                    raise ValueError("once more, please")
                return value

        pending.append(lambda: None)
        with llmcache.capture() as calls:
            make_client(model).create(**call(response_model=Twice, context={"seen": []}))
        assert len(model.calls) == 2
        assert calls[0].stored, calls[0].reason

    @pytest.mark.parametrize("response_model", [Ticket, None])
    def test_others_may_not_while_the_model_is_asked(
        self, model: StandIn, response_model: Any
    ) -> None:
        model.latency = 0.3
        context = {"name": "Zoë"}
        arguments = call(response_model=response_model, context=context)
        client = make_client(model)
        with llmcache.capture() as calls:
            timer = threading.Timer(0.15, lambda: context.update(name="Zoe"))
            timer.start()
            client.create(**arguments)
        timer.join()
        assert not calls[0].stored
        assert CHANGED in calls[0].reason

    def test_nor_while_a_stream_is_read(self, model: StandIn) -> None:
        context = {"name": "Zoë"}
        client = make_client(model)
        with llmcache.capture() as calls:
            for _ in client.create_iterable(**call(context=context)):
                context["name"] = "Zoe"
        assert CHANGED in calls[0].reason
        with llmcache.capture() as calls:
            assert list(client.create_iterable(**call(context=context)))
        assert calls[0].stored


def mend_tool_call(response: Any) -> None:
    response.choices[0].message.tool_calls[0].function.arguments = json.dumps(MENDED)


def mend_tool_use(response: Any) -> None:
    response.content[0].input = MENDED


def mend_part(response: Any) -> None:
    [part] = response.candidates[0].content.parts
    part.function_call.args = MENDED


def mend_dict(response: Any) -> None:
    response["output"]["message"]["content"][0]["toolUse"]["input"] = MENDED


MENDED = {"name": "Roma", "hills": 7}
MENDING: dict[Make, Callable[[Any], None]] = {
    azure_openai: mend_tool_call,
    anthropic: mend_tool_use,
    google: mend_part,
    bedrock: mend_dict,
}


class TestHooks:
    def test_one_that_changes_what_is_sent_keeps_the_answer_from_the_store(
        self, model: StandIn
    ) -> None:
        def redact(*_: Any, **arguments: Any) -> None:
            arguments["messages"][-1]["content"] = "Where is REDACTED?"

        hooks = Hooks()
        hooks.on("completion:kwargs", redact)
        with llmcache.capture() as calls:
            make_client(model).create(**call(hooks=hooks))
        assert "REDACTED" in sent(model)
        assert "a hook changed what was sent" in calls[0].reason
        assert not durable.entries().exists()

    @pytest.mark.parametrize("make", [azure_openai, anthropic, google, bedrock])
    def test_one_that_changes_what_comes_back_does_so_too(self, make: Make) -> None:
        """Others, who have no such hook, would be given its answer."""
        hooks = Hooks()
        hooks.on("completion:response", MENDING[make])
        with Model() as model, llmcache.capture() as calls:
            client = llmcache.wrap(make(model.root, False))
            client.create(response_model=City, messages=question(), hooks=hooks)
        assert "a hook changed what came back" in calls[0].reason
        assert not durable.entries().exists()

    def test_one_that_only_looks_does_not(self, model: StandIn) -> None:
        heard: list[Any] = []
        client = make_client(model)
        client.on("completion:kwargs", lambda *_, **arguments: heard.append(arguments))
        client.on("completion:response", heard.append)
        with llmcache.capture() as calls:
            client.create(**call())
        assert heard
        assert calls[0].stored


class TestFunctions:
    async def test_an_argument_changed_while_it_runs(self) -> None:
        going_on = asyncio.Event()

        begun = asyncio.Event()

        @llmcache.cached(exclude=["begun", "going_on"])
        async def count(texts: list[str]) -> int:
            begun.set()
            await going_on.wait()
            return len(texts)

        texts = ["a"]
        with llmcache.capture() as calls:
            task = asyncio.create_task(count(texts))
            await begun.wait()
            texts.append("b")
            going_on.set()
            assert await task == 2
            assert await count(["a"]) == 1
        assert [each.stored for each in calls] == [False, True]
        assert "changed while the function ran" in calls[0].reason

    def test_one_changed_while_a_generator_is_read(self) -> None:
        @llmcache.cached
        def each(texts: list[str]) -> Iterator[str]:
            yield from texts

        texts = ["a"]
        with llmcache.capture() as calls:
            items = each(texts)
            assert next(items) == "a"
            texts.append("b")
            assert list(items) == ["b"]
        assert "changed" in calls[0].reason

    def test_what_the_function_is_given_are_the_callers_own_objects(self) -> None:
        @llmcache.cached
        def identity(text: list[str]) -> int:
            return id(text)

        texts = ["a"]
        assert identity(texts) == id(texts)
