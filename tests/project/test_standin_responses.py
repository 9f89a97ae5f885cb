"""The protocol of OpenAI's responses, through the real SDK and instructor's RESPONSES_TOOLS."""

from collections.abc import Iterator

import instructor
import openai
import pytest
from pydantic import BaseModel

from project.extraction.schemas import Contact
from project.standin import Behaviour, StandIn

MESSAGES = [{"role": "user", "content": "My name is Jane Roe, jane@roe.example"}]
PEOPLE = [{"role": "user", "content": "- Ann, ann@a.example\n- Bob, bob@b.example"}]
TOOLS = [
    {"type": "function", "name": name, "parameters": Contact.model_json_schema(), "strict": False}
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


@pytest.fixture(scope="module")
def sdk(running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=running.url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def client(standin, sdk):
    return instructor.from_openai(sdk, mode=instructor.Mode.RESPONSES_TOOLS, model="m")


class TestInstructor:
    def test_an_answer(self, standin, client):
        contact = client.create(response_model=Contact, messages=list(MESSAGES))
        assert contact.name == "Jane Roe"
        assert [call.path for call in standin.calls] == ["/v1/responses"]

    def test_by_the_name_of_responses(self, client):
        contact = client.responses.create(input=MESSAGES[0]["content"], response_model=Contact)
        assert contact.email == "jane@roe.example"

    def test_with_the_response(self, client):
        contact, response = client.create_with_completion(
            response_model=Contact, messages=list(MESSAGES)
        )
        assert contact.name == "Jane Roe"
        assert response.status == "completed"
        assert response.usage.total_tokens > response.usage.output_tokens > 0

    def test_lists(self, client):
        people = client.create(response_model=list[Contact], messages=list(PEOPLE))
        assert [person.email for person in people] == ["ann@a.example", "bob@b.example"]

    def test_items_arrive_one_by_one(self, client):
        people = client.create_iterable(response_model=Contact, messages=list(PEOPLE))
        assert [person.email for person in people] == ["ann@a.example", "bob@b.example"]

    def test_partial_answers_grow(self, client):
        partial = client.create_partial(response_model=Contact, messages=list(MESSAGES))
        names = [answer.name for answer in partial]
        assert (names[0], names[-1]) == ("Jane R", "Jane Roe")

    async def test_without_blocking(self, standin):
        sdk = openai.AsyncOpenAI(base_url=standin.url, api_key="any", max_retries=0)
        client = instructor.from_openai(sdk, mode=instructor.Mode.RESPONSES_TOOLS, model="m")
        async with sdk:
            contact = await client.responses.create(messages=MESSAGES, response_model=Contact)
            assert contact.name == "Jane Roe"
            people = client.create_iterable(response_model=Contact, messages=list(PEOPLE))
            assert len([person async for person in people]) == 2
            partial = client.create_partial(response_model=Contact, messages=list(MESSAGES))
            assert [answer.name async for answer in partial][-1] == "Jane Roe"

    def test_asking_again_with_errors_reads_the_same_text(self, standin, client):
        class Picky(Contact):
            def model_post_init(self, context: object) -> None:
                if len(standin.calls) < 2:
                    raise ValueError("once more, for nobody@wrong.example")

        answer = client.create(response_model=Picky, messages=list(MESSAGES), max_retries=2)
        assert answer.email == "jane@roe.example"
        assert len(standin.calls) == 2

    def test_a_given_answer(self, standin, client):
        standin.behaviour.answer_with = {"name": "Ann"}
        assert client.create(response_model=Contact, messages=list(MESSAGES)).name == "Ann"


class TestSDK:
    @pytest.mark.parametrize("asked", [MESSAGES, MESSAGES[0]["content"]], ids=["list", "text"])
    def test_a_text(self, sdk, asked):
        first, second = (sdk.responses.create(model="m", input=asked) for _ in "12")
        assert "Jane Roe" in first.output_text
        assert first.output_text == second.output_text
        assert first.id != second.id

    def test_parallel_calls(self, sdk):
        response = sdk.responses.create(model="m", input=MESSAGES, tools=TOOLS)
        assert [item.name for item in response.output] == ["first", "second"]
        assert len({item.call_id for item in response.output}) == 2

    @pytest.mark.parametrize("tools", [[], TOOLS], ids=["text", "calls"])
    def test_the_sdk_puts_a_stream_together_again(self, sdk, tools):
        whole = sdk.responses.create(model="m", input=MESSAGES, tools=tools)
        with sdk.responses.stream(model="m", input=MESSAGES, tools=tools) as stream:
            events = list(stream)
            response = stream.get_final_response()
        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert response.output_text == whole.output_text
        assert len(response.output) == len(whole.output)
        assert response.usage == whole.usage

    def test_deltas_come_in_several_pieces(self, sdk):
        events = list(sdk.responses.create(model="m", input=MESSAGES, stream=True))
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        [done] = [event.text for event in events if event.type == "response.output_text.done"]
        assert len(deltas) > 3
        assert "".join(deltas) == done

    def test_structured_output(self, sdk):
        class Person(BaseModel):
            name: str

        response = sdk.responses.parse(model="m", input=MESSAGES, text_format=Person)
        assert response.output_parsed == Person(name="Jane Roe")

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        ("behaviour", "status", "reason"),
        [
            (Behaviour(truncate=True), "incomplete", "max_output_tokens"),
            (Behaviour(filter=True), "incomplete", "content_filter"),
            (Behaviour(refuse=True), "completed", None),
        ],
        ids=["length", "filter", "refusal"],
    )
    def test_endings(self, standin, sdk, behaviour, status, reason, stream):
        standin.behaviour = behaviour
        response = sdk.responses.create(model="m", input=MESSAGES, stream=stream)
        if stream:
            *_, last = response
            assert last.type == f"response.{status}"
            response = last.response
        assert response.status == status
        assert (response.incomplete_details and response.incomplete_details.reason) == reason
        assert (response.output[0].content[0].type == "refusal") is behaviour.refuse

    def test_the_limit_of_tokens(self, sdk):
        response = sdk.responses.create(model="m", input=MESSAGES, max_output_tokens=5)
        assert len(response.output_text) == 20

    def test_an_empty_request_is_rejected(self, sdk):
        with pytest.raises(openai.BadRequestError, match="input"):
            sdk.responses.create(model="m", input="")
