"""The stand-in at the other end of the real SDKs."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator

import anthropic
import instructor
import openai
import pytest

from project.extraction.examples import examples
from project.extraction.schemas import SCHEMAS, Contact, Ticket
from project.standin import StandIn

MESSAGES = [{"role": "user", "content": "My name is Jane Roe, jane@roe.example"}]


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def sdk(standin) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=standin.url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(standin) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=standin.root, api_key="any", max_retries=0) as client:
        yield client


MODES = ["TOOLS", "JSON", "JSON_SCHEMA", "MD_JSON", "anthropic"]


# One client for each mode: an SDK needs longer to be made than to be used.
@pytest.fixture(scope="module", params=MODES)
def client(request) -> Iterator[instructor.Instructor]:
    """A client of instructor in each of the modes."""
    with StandIn() as running:
        if request.param == "anthropic":
            with anthropic.Anthropic(base_url=running.root, api_key="any", max_retries=0) as sdk:
                yield instructor.from_anthropic(sdk, model="m", max_tokens=8_000)
        else:
            mode = instructor.Mode[request.param]
            with openai.OpenAI(base_url=running.url, api_key="any", max_retries=0) as sdk:
                yield instructor.from_openai(sdk, mode=mode, model="gpt-4.1-mini")


@pytest.mark.parametrize("example", examples().values(), ids=lambda example: example.slug)
def test_every_example_comes_through_the_sdks(client, example):
    schema = SCHEMAS[example.model]
    messages = [
        {"role": "system", "content": "Extract."},
        {"role": "user", "content": example.text},
    ]
    assert isinstance(client.create(response_model=schema, messages=messages), schema)


def test_all_modes_give_the_same_answer(client):
    answer = client.create(response_model=Contact, messages=MESSAGES)
    # Compared by their fields: instructor hangs the raw response on the answer.
    assert answer.model_dump(exclude_none=True) == {"name": "Jane Roe", "email": "jane@roe.example"}


def test_a_completion_is_complete(sdk):
    first, second = (
        sdk.chat.completions.create(model="gpt-4.1-mini", messages=MESSAGES) for _ in "12"
    )
    assert first.id.startswith("chatcmpl-")
    assert first.id != second.id
    assert first.model == "gpt-4.1-mini"
    assert first.system_fingerprint == "fp_stand_in"
    assert abs(first.created - time.time()) < 5
    assert first.choices[0].finish_reason == "stop"
    assert "stand-in" in first.choices[0].message.content
    assert first.choices[0].message.content == second.choices[0].message.content
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens > 0


def test_a_limit_of_tokens_breaks_the_answer_off(sdk):
    answer = sdk.chat.completions.create(model="m", messages=MESSAGES, max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens < 60


def test_parallel_tools(sdk):
    client = instructor.from_openai(sdk, mode=instructor.Mode.PARALLEL_TOOLS, model="m")
    answers = list(client.create(response_model=Iterable[Contact | Ticket], messages=MESSAGES))
    assert [type(answer) for answer in answers] == [Contact, Ticket]


def test_several_answers_in_a_list(sdk):
    client = instructor.from_openai(sdk, model="m")
    text = "- Ann, ann@a.example\n- Bob, bob@b.example"
    answers = client.create(
        response_model=list[Contact], messages=[{"role": "user", "content": text}]
    )
    assert [answer.email for answer in answers] == ["ann@a.example", "bob@b.example"]


def test_asking_again_with_errors_reads_the_same_text(standin, sdk):
    class Picky(Contact):
        def model_post_init(self, context: object) -> None:
            if len(standin.calls) < 2:
                raise ValueError("once more, for nobody@wrong.example")

    client = instructor.from_openai(sdk, model="m")
    answer = client.create(response_model=Picky, messages=list(MESSAGES), max_retries=2)
    assert answer.email == "jane@roe.example"
    assert len(standin.calls) == 2


def test_plain_text_of_claude(claude):
    message = claude.messages.create(model="m", max_tokens=100, messages=MESSAGES)
    assert message.stop_reason == "end_turn"
    assert "stand-in" in message.content[0].text
    assert message.usage.input_tokens > 0


def test_calls_are_kept_in_order(standin, sdk):
    for number in range(3):
        sdk.chat.completions.create(model=f"m{number}", messages=MESSAGES)
    assert [call.body["model"] for call in standin.calls] == ["m0", "m1", "m2"]
    assert standin.calls[0].path == "/v1/chat/completions"
    assert standin.calls[0].headers["authorization"] == "Bearer any"
    standin.forget()
    assert standin.calls == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_it_fails_when_told(standin, sdk, status, error):
    standin.fail_with = status
    with pytest.raises(error):
        sdk.chat.completions.create(model="m", messages=MESSAGES)
    standin.fail_with = None
    assert sdk.chat.completions.create(model="m", messages=MESSAGES)


def test_it_fails_in_the_words_of_anthropic(standin, claude):
    standin.fail_with = 529
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        claude.messages.create(model="m", max_tokens=9, messages=MESSAGES)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/embeddings", b"{}", 404),
        ("GET", "/v1/chat/completions", None, 405),
        ("POST", "/v1/chat/completions", b"not JSON", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"{}", 400),
        ("POST", "/v1/chat/completions", b'{"model": "m", "messages": []}', 400),
        ("POST", "/v1/chat/completions", b'{"model": "m", "stream": true}', 400),
        ("POST", "/v1/messages", b"{}", 400),
        ("GET", "/v1/models", None, 200),
    ],
)
def test_one_connection_survives_what_is_no_request(standin, method, path, body, status):
    connection = http.client.HTTPConnection("127.0.0.1", standin.port)
    for _ in range(2):
        connection.request(method, path, body)
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == status
        assert status == 200 or answer["error"]["message"]
    connection.close()


@pytest.mark.parametrize(
    ("path", "field", "part", "status"),
    [
        ("/v1/chat/completions", "messages", "input_audio", 200),
        ("/v1/chat/completions", "messages", "input_image", 400),
        ("/v1/responses", "input", "input_image", 200),
        ("/v1/responses", "input", "image_url", 400),
        ("/v1/messages", "messages", "document", 200),
        ("/v1/messages", "messages", "audio", 400),
    ],
)
def test_images_and_sounds_come_in_the_parts_of_the_protocol(standin, path, field, part, status):
    message = {"role": "user", "content": [{"type": part}]}
    connection = http.client.HTTPConnection("127.0.0.1", standin.port)
    connection.request("POST", path, json.dumps({"model": "m", field: [message]}))
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert response.status == status
    assert status == 200 or f"Invalid value: '{part}'" in answer["error"]["message"]


def test_latency_can_change_while_it_runs(standin, sdk):
    standin.latency = 0.3
    started = time.perf_counter()
    sdk.chat.completions.create(model="m", messages=MESSAGES)
    assert time.perf_counter() - started >= 0.3


def test_hundreds_at_once_wait_together(standin, sdk):
    standin.latency = 0.5
    ask = [
        threading.Thread(
            target=sdk.chat.completions.create, kwargs={"model": "m", "messages": MESSAGES}
        )
        for _ in range(200)
    ]
    started = time.perf_counter()
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert len(standin.calls) == 200
    assert time.perf_counter() - started < 20


def test_stopping_hangs_up():
    standin = StandIn().start()
    with socket.create_connection(("127.0.0.1", standin.port)) as idle:
        idle.settimeout(5)
        time.sleep(0.1)
        standin.stop()
        assert idle.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", standin.port))
