"""What code reads of the live answer it can read of a hit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import anthropic
import instructor
import openai
import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st
from instructor import Mode
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
)

import llmcache
from llmcache.codec import completions
from llmcache.codec.completions import ATTRIBUTES, Dumped
from llmcache.codec.equality import same
from llmcache.exceptions import CorruptEntry
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import CALL, CLOSE, MESSAGES, make_client, make_sdk
from tests.support.codec import twice
from tests.support.dialects import chat
from tests.support.streams import make_asking
from tests.support.ticket import Ticket

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def make_anthropic(model: StandIn, is_async: bool) -> Any:
    cls: Any = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
    sdk = cls(api_key="k", base_url=model.root, default_headers=CLOSE)
    wrapped: Any = instructor.from_anthropic(sdk)
    return llmcache.wrap(wrapped, model="claude")


class TestRequestIds:
    """`_request_id`, which the SDKs of OpenAI and Anthropic read of the headers."""

    @pytest.mark.parametrize("is_async", [False, True])
    @pytest.mark.parametrize("provider", ["openai", "anthropic"])
    def test_with_the_completion(self, model: StandIn, provider: str, is_async: bool) -> None:
        if provider == "openai":
            client = make_client(model, async_client=is_async)
        else:
            client = make_anthropic(model, is_async)
        limits = {} if provider == "openai" else {"max_tokens": 100}

        def ask() -> Any:
            asked = client.create_with_completion(**CALL, **limits)
            return (asyncio.run(_awaited(asked)) if is_async else asked)[1]

        live, hit = twice(ask)
        assert live._request_id.startswith("req_")
        assert hit._request_id == live._request_id
        assert vars(hit) == vars(live)
        assert hit == live

    @pytest.mark.parametrize(
        "response_model",
        [None, list[Ticket], Iterable[Ticket]],
        ids=["raw", "list", "iterable"],
    )
    def test_of_other_shapes(self, model: StandIn, response_model: Any) -> None:
        client = make_client(model)
        call = CALL | {"response_model": response_model}
        live, hit = map(_completion_of, twice(lambda: client.create(**call)))
        assert hit._request_id == live._request_id

    def test_of_responses(self, model: StandIn) -> None:
        client = make_client(model, mode=Mode.RESPONSES_TOOLS)
        live, hit = twice(lambda: client.create_with_completion(**CALL)[1])
        assert isinstance(hit, Response)
        assert hit._request_id == live._request_id

    def test_of_the_answer_of_a_function(self, model: StandIn) -> None:
        client = make_client(model)

        first = client.create(**CALL)

        @llmcache.cached(exclude=["client"])
        def extract(text: str) -> Ticket:
            return client.create(**CALL)  # type: ignore[no-any-return]

        # (the live one is made of a hit)
        for answer in [_completion_of(extract("a")) for _ in range(2)]:
            assert answer._request_id == first._raw_response._request_id
        with llmcache.override(mode="only-if-cached"):
            assert _completion_of(extract("a"))._request_id == first._raw_response._request_id

    def test_of_a_response_that_a_function_returns(self, model: StandIn) -> None:
        openai_sdk = make_sdk(model)
        call: Any = {"model": "gpt-4.1-mini", "messages": MESSAGES}

        @llmcache.cached(exclude=["openai_sdk"])
        def ask(text: str) -> ChatCompletion | None:
            return openai_sdk.chat.completions.create(**call)  # type: ignore[no-any-return]

        live, hit = twice(lambda: ask("a"))
        assert same(hit, live)
        assert hit._request_id == live._request_id

    def test_of_a_message_that_a_coroutine_returns(self, model: StandIn) -> None:
        url = model.root

        @llmcache.cached
        async def ask(text: str) -> Message:
            cls: Any = anthropic.AsyncAnthropic
            async with cls(api_key="k", base_url=url, default_headers=CLOSE) as sdk:
                call: Any = {"model": "claude", "messages": MESSAGES[1:], "max_tokens": 100}
                return await sdk.messages.create(**call)  # type: ignore[no-any-return]

        live, hit = twice(lambda: asyncio.run(_awaited(ask("a"))))
        assert same(hit, live)
        assert hit._request_id == live._request_id

    def test_a_class_that_the_annotation_leaves_open_is_not_kept(self) -> None:
        """Its schema is not in the key."""

        @llmcache.cached
        def ask(text: str) -> BaseModel:
            return hang(_request_id="a")

        with llmcache.capture() as calls:
            ask("a")
        assert not calls[0].stored
        assert "come back different" in calls[0].reason

    def test_the_row_holds_it_for_people(self, model: StandIn) -> None:
        live = make_client(model).create(**CALL)
        stored = llmcache.codec.answers.StoredAnswer.unpack(_body_of_the_row())
        assert stored.completion is not None
        kept = json.loads(stored.completion.data)[ATTRIBUTES]
        assert kept == {"_request_id": live._raw_response._request_id}


async def _awaited(coroutine: Any) -> Any:
    return await coroutine


def _completion_of(answer: Any) -> Any:
    return getattr(answer, "_raw_response", answer)


def _body_of_the_row() -> bytes:
    from llmcache.codec.envelope import ANSWER, unseal

    row = durable.entries().get()
    return unseal(ANSWER, row.key, bytes(row.payload)).body


class TestStreams:
    """A stream is replayed without the response that it came in."""

    def test_a_partial_one_has_no_response(self, model: StandIn) -> None:
        asking = make_asking(model, "openai", Mode.TOOLS, is_async=False)
        call = {"response_model": Ticket, "messages": MESSAGES}
        live, hit = twice(lambda: asking.client.create_partial(**call))
        assert type(hit) is type(live)
        assert isinstance(live._raw_response, openai.Stream)
        assert hit._raw_response is None
        assert hit.get_raw_response() is None


HIDDEN = {
    "litellm_call_id": "a-1",
    "response_cost": 3.6e-05,
    "custom_llm_provider": "openai",
    "model_id": None,
    "_response_ms": 12.5,
}

SECRETS: dict[str, Any] = {
    "api_base": "https://hunter2@host",
    "api_key": "hunter2",
    "azure_ad_token": "hunter2",
    "organization": "Bearer hunter2",
    "headers": {"authorization": "hunter2"},
    "additional_headers": {"llm_provider-set-cookie": "hunter2"},
    "optional_params": {"aws_secret_access_key": "hunter2"},
}


@pytest.fixture
def _no_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM asks for them over the network when it is imported."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


def litellms_completion(**kwargs: Any) -> Any:
    """As LiteLLM answers, and hides what it knows."""
    from litellm.types.utils import ModelResponse

    response = ModelResponse(**chat(kwargs, {"title": "Fire"}, False))
    response._hidden_params = HIDDEN | SECRETS
    response._response_headers = {"set-cookie": "hunter2"}
    response._response_ms = 12.5
    return response


@pytest.mark.filterwarnings("ignore")  # (of the code of LiteLLM)
@pytest.mark.usefixtures("_no_prices")
def test_of_what_litellm_hides_no_credential_is_kept() -> None:
    wrapped: Any = instructor.from_litellm(litellms_completion)
    client: Any = llmcache.wrap(wrapped, model="m")
    live, hit = twice(lambda: client.create_with_completion(**CALL)[1])
    assert hit._hidden_params == HIDDEN
    assert hit._response_ms == 12.5
    assert hit.model_dump() == live.model_dump()
    assert b"hunter2" not in _body_of_the_row()


@pytest.mark.filterwarnings("ignore")  # (of the code of LiteLLM)
@pytest.mark.usefixtures("_no_prices")
def test_what_litellm_leaves_out_where_it_is_none_comes_back(model: StandIn) -> None:
    import litellm

    wrapped = instructor.from_litellm(litellm.completion, api_base=model.url, api_key="k")
    client: Any = llmcache.wrap(wrapped, model="openai/m")
    live, hit = twice(lambda: client.create_with_completion(**CALL)[1])
    assert isinstance(hit, type(live))
    # (the stand-in sends them, as OpenAI does)
    assert live.choices[0].logprobs is hit.choices[0].logprobs is None
    assert live.choices[0].message.refusal is hit.choices[0].message.refusal is None
    given = hit.model_dump(exclude_unset=True)
    assert given == live.model_dump(exclude_unset=True)
    assert given["choices"][0]["message"]["annotations"] == []


class Hung(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: str = "a"
    _cost: Any = PrivateAttr(None)

    def _method(self) -> str:
        return "a method"


def hang(**attributes: Any) -> Hung:
    completion = Hung()
    for name, value in attributes.items():
        object.__setattr__(completion, name, value)
    return completion


def restored(completion: Any) -> Any:
    return completions.load(completions.dump(completion))


HARMLESS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(-(2**40), 2**40)
    | st.text(max_size=20).filter(lambda text: "://" not in text and "ey" not in text)
)


class TestWhatIsHung:
    @given(HARMLESS, HARMLESS)
    def test_what_is_plain_comes_back(self, hung: Any, private: Any) -> None:
        live = hang(_id=hung, _more={"cost": hung})
        live._cost = private
        hit = restored(live)
        assert same(hit._id, hung)
        assert same(
            hit._more,
            {"cost": hung} if completions.SENSITIVE_TEXT.search(str(hung)) is None else {},
        )
        assert same(hit._cost, private)
        assert hit == live

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("_api_key", "k"),
            ("_access_token", "k"),
            ("_headers", {"a": "b"}),
            ("_client_secret", "k"),
            ("_where", "https://user:password@host"),
            ("_text", "Bearer abc"),
            ("_text", "sk-abc"),
            ("_text", "x" * 201),
            ("_object", object()),
            ("_list", [1]),
            ("_subclass", Mode.TOOLS),
            ("_number", float("nan")),
            pytest.param("_number", 10**5000, id="huge"),
            ("_hidden", {"api_key": "k", "headers": {"a": "b"}, "in": object(), 1: 2}),
            ("_method", "not in the place of a method"),
            ("__dunder", 1),
            ("plain", 1),
        ],
    )
    def test_the_rest_is_left_out(self, name: str, value: Any) -> None:
        live = hang()
        vars(live)[name] = value
        dumped = completions.dump(live)
        assert dumped is not None
        assert name == "_method" or ATTRIBUTES.encode() not in dumped.data
        hit = completions.load(dumped)
        assert name not in vars(hit)
        assert hit._method() == "a method"

    def test_of_a_dict_what_is_harmless_comes_back(self) -> None:
        live = hang(_hidden={"cost": 0.5, "api_base": "x", "options": {"api_key": "k"}, "id": None})
        assert restored(live)._hidden == {"cost": 0.5, "id": None}

    def test_a_field_of_that_name_is_no_attribute(self) -> None:
        with pytest.raises(completions.NotReproducible):
            completions.dump(Hung.model_validate({ATTRIBUTES: {"_id": 1}}))
        assert restored({ATTRIBUTES: {"_id": 1}}) == {ATTRIBUTES: {"_id": 1}}

    def test_a_class_that_is_not_known_here(self) -> None:
        dumped = completions.dump(hang(_id="a"))
        assert dumped is not None
        found = completions.load(Dumped("no.such:Class", dumped.data))
        assert found == SimpleNamespace(_id="a")

    @pytest.mark.parametrize("class_path", [f"{__name__}:Hung", "no.such:Class"])
    @pytest.mark.parametrize("damage", [[1], "a", 1, None, {"__class__": 1}, {"id": "b"}, {"": 1}])
    def test_damage_is_noticed(self, class_path: str, damage: Any) -> None:
        with pytest.raises(CorruptEntry, match="damaged"):
            vars(completions.load(Dumped(class_path, json.dumps({ATTRIBUTES: damage}).encode())))
