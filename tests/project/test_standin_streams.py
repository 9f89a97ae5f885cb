"""Answers of the stand-in that come in pieces, read by the real SDKs and by instructor."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import anthropic
import instructor
import openai
import pytest

from project.extraction.schemas import Contact
from project.standin import Behaviour, StandIn

MESSAGES = [{"role": "user", "content": "My name is Jane Roe, jane@roe.example"}]
PEOPLE = [{"role": "user", "content": "- Ann, ann@a.example\n- Bob, bob@b.example"}]
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": Contact.model_json_schema()}}
    for name in ("first", "second")
]


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


@pytest.fixture
def standin(running) -> Iterator[StandIn]:
    running.forget()
    yield running
    running.behaviour = Behaviour()
    running.chunk_delay = 0.0
    running.hang_up_after = None


@pytest.fixture(scope="module")
def sdk(running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=running.url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.root, api_key="any", max_retries=0) as client:
        yield client


MODES = ["TOOLS", "JSON", "JSON_SCHEMA", "MD_JSON", "anthropic TOOLS", "anthropic JSON"]


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def client(mode, sdk, claude):
    provider, _, name = mode.rpartition(" ")
    if provider:
        return instructor.from_anthropic(
            claude, mode=instructor.Mode[name], model="m", max_tokens=8_000
        )
    return instructor.from_openai(sdk, mode=instructor.Mode[name], model="m")


def until(true: Callable[[], bool]) -> bool:
    """Whether it comes true within five seconds."""
    end = time.monotonic() + 5
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def streamed(sdk, **kwargs):
    return sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True, **kwargs)


class TestInstructor:
    def test_partial_answers_grow(self, standin, client):
        partial = client.create_partial(response_model=Contact, messages=list(MESSAGES))
        names = [answer.name for answer in partial]
        assert len(names) > 3
        assert names[0] in (None, "", "Jan")
        assert names[-1] == "Jane Roe"

    def test_items_arrive_one_by_one(self, standin, client):
        people = client.create_iterable(response_model=Contact, messages=list(PEOPLE))
        assert [person.email for person in people] == ["ann@a.example", "bob@b.example"]

    def test_the_pieces_are_the_answer(self, standin, client):
        whole = client.create(response_model=Contact, messages=list(MESSAGES))
        *_, last = client.create_partial(response_model=Contact, messages=list(MESSAGES))
        assert last.model_dump() == whole.model_dump()

    async def test_without_blocking(self, standin, mode):
        provider, _, name = mode.rpartition(" ")
        if provider:
            sdk = anthropic.AsyncAnthropic(base_url=standin.root, api_key="any", max_retries=0)
            client = instructor.from_anthropic(
                sdk, mode=instructor.Mode[name], model="m", max_tokens=8_000
            )
        else:
            sdk = openai.AsyncOpenAI(base_url=standin.url, api_key="any", max_retries=0)
            client = instructor.from_openai(sdk, mode=instructor.Mode[name], model="m")
        async with sdk:
            partial = client.create_partial(response_model=Contact, messages=list(MESSAGES))
            assert [answer.name async for answer in partial][-1] == "Jane Roe"
            people = client.create_iterable(response_model=Contact, messages=list(PEOPLE))
            assert [person.email async for person in people] == ["ann@a.example", "bob@b.example"]


class TestOpenAI:
    def test_a_text(self, standin, sdk):
        whole = sdk.chat.completions.create(model="m", messages=MESSAGES).choices[0]
        chunks = list(streamed(sdk))
        deltas = [chunk.choices[0].delta for chunk in chunks]
        assert "".join(delta.content or "" for delta in deltas) == whole.message.content
        assert deltas[0].role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
        assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
        assert len({chunk.id for chunk in chunks}) == 1
        assert chunks[0].id not in {chunk.id for chunk in streamed(sdk)}
        assert all(chunk.usage is None for chunk in chunks)

    def test_the_usage_comes_last_when_asked_for(self, standin, sdk):
        whole = sdk.chat.completions.create(model="m", messages=MESSAGES)
        *_, finish, last = streamed(sdk, stream_options={"include_usage": True})
        assert finish.usage is None
        assert last.choices == []
        assert last.usage.completion_tokens == whole.usage.completion_tokens

    def test_parallel_calls(self, standin, sdk):
        *chunks, last = streamed(sdk, tools=TOOLS)
        parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or ()]
        assert last.choices[0].finish_reason == "tool_calls"
        for index, name in enumerate(("first", "second")):
            own = [part for part in parts if part.index == index]
            assert own[0].id
            assert own[0].function.name == name
            assert [part.id for part in own[1:]] == [None] * (len(own) - 1)
            arguments = "".join(part.function.arguments for part in own)
            assert Contact.model_validate_json(arguments).name == "Jane Roe"

    def test_the_sdk_puts_it_together_again(self, standin, sdk):
        with sdk.chat.completions.stream(model="m", messages=MESSAGES, tools=TOOLS) as stream:
            completion = stream.get_final_completion()
        assert len(completion.choices[0].message.tool_calls) == 2

    @pytest.mark.parametrize(
        ("behaviour", "finish"),
        [
            (Behaviour(truncate=True), "length"),
            (Behaviour(filter=True), "content_filter"),
            (Behaviour(refuse=True), "stop"),
        ],
        ids=["length", "filter", "refusal"],
    )
    def test_endings(self, standin, sdk, behaviour, finish):
        standin.behaviour = behaviour
        chunks = list(streamed(sdk, tools=TOOLS[:1]))
        assert chunks[-1].choices[0].finish_reason == finish
        refusal = "".join(chunk.choices[0].delta.refusal or "" for chunk in chunks)
        assert bool(refusal) is behaviour.refuse


class TestAnthropic:
    def test_the_sdk_puts_it_together_again(self, standin, claude):
        tool = {"name": "contact", "input_schema": Contact.model_json_schema()}
        ask = {"model": "m", "max_tokens": 999, "messages": MESSAGES, "tools": [tool]}
        whole = claude.messages.create(**ask)
        with claude.messages.stream(**ask) as stream:
            message = stream.get_final_message()
        assert message.content[0].input == whole.content[0].input
        assert message.stop_reason == "tool_use"
        assert message.usage.model_dump() == whole.usage.model_dump()
        assert message.id != whole.id

    def test_the_order_of_events(self, standin, claude):
        events = list(
            claude.messages.create(model="m", max_tokens=999, messages=MESSAGES, stream=True)
        )
        assert [event.type for event in events[:2]] == ["message_start", "content_block_start"]
        assert [event.type for event in events[-3:]] == [
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        deltas = [event.delta for event in events if event.type == "content_block_delta"]
        assert len(deltas) > 3
        assert {delta.type for delta in deltas} == {"text_delta"}
        assert events[0].message.stop_reason is None
        assert events[-2].delta.stop_reason == "end_turn"

    @pytest.mark.parametrize(
        ("behaviour", "reason"),
        [(Behaviour(truncate=True), "max_tokens"), (Behaviour(refuse=True), "refusal")],
        ids=["length", "refusal"],
    )
    def test_endings(self, standin, claude, behaviour, reason):
        standin.behaviour = behaviour
        tool = {"name": "contact", "input_schema": Contact.model_json_schema()}
        ask = {"model": "m", "max_tokens": 999, "messages": MESSAGES, "tools": [tool]}
        events = list(claude.messages.create(**ask, stream=True))
        assert events[-2].delta.stop_reason == reason


class TestConnections:
    def test_chunks_arrive_as_they_are_made(self, standin, sdk):
        standin.chunk_delay = 0.05
        started = time.perf_counter()
        arrivals = [time.perf_counter() - started for _ in streamed(sdk)]
        # Half the time: on a busy machine the first may have to wait to be read.
        assert arrivals[-1] - arrivals[0] >= 0.05 * (len(arrivals) - 1) / 2

    def test_a_client_that_goes_away_is_noticed(self, standin, sdk, capfd):
        standin.chunk_delay = 30
        stream = streamed(sdk)
        next(stream)
        assert standin.open_streams == 1
        stream.close()
        assert until(lambda: standin.open_streams == 0)
        assert standin.abandoned_streams == 1
        assert capfd.readouterr() == ("", "")

    async def test_a_task_that_is_cancelled_is_noticed(self, standin):
        standin.chunk_delay = 30

        async def ask(sdk):
            async for _ in await streamed(sdk):
                pass

        async with openai.AsyncOpenAI(base_url=standin.url, api_key="any") as sdk:
            task = asyncio.create_task(ask(sdk))
            assert await asyncio.to_thread(until, lambda: standin.open_streams == 1)
            task.cancel()
            await asyncio.wait([task])
            assert await asyncio.to_thread(until, lambda: standin.open_streams == 0)
        assert standin.abandoned_streams == 1

    def test_a_stream_read_to_its_end_is_not_abandoned(self, standin, sdk, claude):
        for _ in range(20):
            assert list(streamed(sdk))
            assert list(
                claude.messages.create(model="m", max_tokens=99, messages=MESSAGES, stream=True)
            )
        assert until(lambda: standin.open_streams == 0)
        assert standin.abandoned_streams == 0

    def test_the_connection_can_break_in_the_middle(self, standin, sdk):
        standin.hang_up_after = 3
        stream = streamed(sdk)
        assert [next(stream).id for _ in range(standin.hang_up_after)]
        with pytest.raises(Exception, match="incomplete chunked read"):
            next(stream)
        assert until(lambda: standin.abandoned_streams == 1)

    def test_stopping_ends_the_streams(self):
        with StandIn() as standin, openai.OpenAI(base_url=standin.url, api_key="any") as sdk:
            standin.chunk_delay = 30
            stream = streamed(sdk)
            next(stream)
            threading.Timer(0.1, standin.stop).start()
            with pytest.raises(Exception, match="incomplete chunked read"):
                list(stream)
            assert until(lambda: standin.open_streams == 0)
