"""The switches of the stand-in: given answers, cut ones, refusals, filters."""

from collections.abc import Iterable, Iterator

import anthropic
import instructor
import openai
import pytest
from instructor.core.exceptions import IncompleteOutputException, InstructorRetryException
from pydantic import BaseModel

from project.standin import Behaviour, StandIn

MESSAGES = [{"role": "user", "content": "My name is Jane Roe, jane@roe.example"}]


class Person(BaseModel):
    name: str
    age: int = 0


class Place(BaseModel):
    city: str


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


@pytest.fixture(scope="module")
def claude(running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.root, api_key="any", max_retries=0) as client:
        yield client


MODES = ["TOOLS", "JSON", "JSON_SCHEMA", "MD_JSON", "anthropic TOOLS", "anthropic JSON"]


@pytest.fixture(params=MODES)
def client(request, sdk, claude):
    provider, _, mode = request.param.rpartition(" ")
    if provider:
        return instructor.from_anthropic(
            claude, mode=instructor.Mode[mode], model="m", max_tokens=8_000
        )
    return instructor.from_openai(sdk, mode=instructor.Mode[mode], model="m")


def ask(client, response_model, **kwargs):
    return client.create(
        response_model=response_model, messages=list(MESSAGES), max_retries=0, **kwargs
    )


def test_a_given_answer(standin, client):
    standin.behaviour.answer_with = {"name": "Ann “the \\ one”\n", "age": -7}
    assert ask(client, Person).model_dump() == standin.behaviour.answer_with


def test_a_given_answer_as_text(standin, client):
    standin.behaviour.answer_with = '{"age": 10,\n "name": "\\u00e9", "name": "last"}'
    assert ask(client, Person).model_dump() == {"name": "last", "age": 10}


def test_a_given_answer_that_is_wrong(standin, client):
    standin.behaviour.answer_with = {"age": "old"}
    with pytest.raises(InstructorRetryException, match="name"):
        ask(client, Person)


def test_given_items(standin, client):
    standin.behaviour.answer_with = [{"name": "A", "age": 1}, {"name": "B", "age": 2}]
    people = ask(client, list[Person])
    assert [person.model_dump() for person in people] == standin.behaviour.answer_with


def test_given_calls_find_their_tools(standin, sdk, claude):
    standin.behaviour.answer_with = [{"city": "Bonn"}, {"name": "A"}, {"city": "Rome"}]
    mode = instructor.Mode.PARALLEL_TOOLS
    for client in (
        instructor.from_openai(sdk, mode=mode, model="m"),
        instructor.from_anthropic(claude, mode=mode, model="m", max_tokens=99),
    ):
        answers = list(ask(client, Iterable[Person | Place]))
        assert answers == [Place(city="Bonn"), Person(name="A"), Place(city="Rome")]


def test_a_given_text(standin, sdk, claude):
    standin.behaviour.answer_with = "Just this."
    completion = sdk.chat.completions.create(model="m", messages=MESSAGES)
    assert completion.choices[0].message.content == "Just this."
    message = claude.messages.create(model="m", max_tokens=9, messages=MESSAGES)
    assert message.content[0].text == "Just this."


def test_a_truncated_answer(standin, client):
    standin.behaviour.truncate = True
    with pytest.raises((IncompleteOutputException, InstructorRetryException)):
        ask(client, Person)
    standin.behaviour.truncate = False
    assert ask(client, Person).name == "Jane Roe"


def test_truncation_in_the_words_of_the_providers(standin, sdk, claude):
    standin.behaviour.truncate = True
    choice = sdk.chat.completions.create(model="m", messages=MESSAGES).choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.content.startswith("This is a stand-in")
    assert not choice.message.content.endswith("”")
    message = claude.messages.create(model="m", max_tokens=99, messages=MESSAGES)
    assert message.stop_reason == "max_tokens"


def test_a_truncated_call_of_claude_keeps_the_fields_before_the_cut(standin, claude):
    standin.behaviour.truncate = True
    standin.behaviour.answer_with = {"name": "A, B", "city": "C" * 30}
    tool = {"name": "place", "input_schema": Place.model_json_schema()}
    message = claude.messages.create(model="m", max_tokens=99, messages=MESSAGES, tools=[tool])
    assert message.stop_reason == "max_tokens"
    assert message.content[0].input == {"name": "A, B"}


def test_the_limit_of_tokens_holds_for_calls(sdk):
    client = instructor.from_openai(sdk, model="m")
    with pytest.raises(IncompleteOutputException):
        ask(client, Person, max_tokens=2)


def test_a_refusal(standin, client):
    standin.behaviour.refuse = True
    with pytest.raises((InstructorRetryException, AssertionError)):
        ask(client, Person)


def test_a_refusal_in_the_words_of_the_providers(standin, sdk, claude):
    standin.behaviour.refuse = True
    choice = sdk.chat.completions.create(model="m", messages=MESSAGES).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.message.refusal
    assert choice.message.content is None
    message = claude.messages.create(model="m", max_tokens=99, messages=MESSAGES)
    assert message.stop_reason == "refusal"
    assert message.stop_details.type == "refusal"


def test_a_filtered_answer_can_still_be_read(standin, client):
    standin.behaviour.filter = True
    person, completion = client.create_with_completion(
        response_model=Person, messages=list(MESSAGES), max_retries=0
    )
    assert person.name == "Jane Roe"
    if hasattr(completion, "choices"):
        assert completion.choices[0].finish_reason == "content_filter"
    else:
        assert completion.stop_reason == "refusal"


def test_answers_vary_when_told(standin, client):
    assert ask(client, Person).name == ask(client, Person).name == "Jane Roe"
    standin.behaviour.vary = True
    assert [ask(client, Person).name for _ in "12"] == ["Jane Roe (1)", "Jane Roe (2)"]
    assert ask(client, list[Person])[0].name == "Jane Roe (3)"


def test_texts_vary_when_told(standin, sdk):
    standin.behaviour.vary = True
    texts = {
        sdk.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content
        for _ in "123"
    }
    assert len(texts) == 3


def test_a_given_answer_does_not_vary(standin, client):
    standin.behaviour = Behaviour(answer_with={"name": "A"}, vary=True)
    assert {ask(client, Person).name for _ in "12"} == {"A"}
