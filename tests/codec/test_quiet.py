"""A hit asks nobody: validators that ask a model did so when the answer was live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Annotated, Any

import instructor
import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    create_model,
    field_validator,
)

import llmcache
from llmcache.codec import quiet
from project.standin.server import StandIn
from tests.support.clients import MESSAGES, make_client, make_plain_client, make_sdk

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def judge() -> Iterator[StandIn]:
    """The model that the validators ask, over HTTP; `judge.calls` is what it was asked."""
    with StandIn() as endpoint:
        endpoint.behaviour.answer_with = {"is_valid": True}
        yield endpoint


@pytest.fixture(params=[BeforeValidator, AfterValidator])
def kind(request: pytest.FixtureRequest, judge: StandIn) -> Any:
    """A text of which a model says whether it is polite."""
    polite = instructor.llm_validator("Be polite.", client=make_plain_client(judge))
    return Annotated[str, request.param(polite)]


@pytest.fixture
def note(kind: Any) -> type[BaseModel]:
    return create_model("Note", title=(kind, ...))


def asked_once(judge: StandIn, answer: Callable[[], Any]) -> None:
    """The second answer comes without a question to the judge, and equals the first."""
    with llmcache.capture() as calls:
        live = answer()
        asked = len(judge.calls)
        assert asked
        again = answer()
    assert [call.outcome for call in calls] == ["miss", "hit"], calls[0].reason
    assert again == live
    assert len(judge.calls) == asked


def test_for_a_model(model: StandIn, judge: StandIn, note: Any) -> None:
    client = make_client(model)
    asked_once(judge, lambda: client.create(response_model=note, messages=MESSAGES))


def test_for_a_model_inside_of_others(model: StandIn, judge: StandIn, note: Any) -> None:
    inside = create_model("Inside", note=(note, ...))
    outside = create_model("Outside", inside=(inside, ...), metadata=(inside | None, None))
    model.behaviour.answer_with = {"inside": {"note": {"title": "x"}}}
    client = make_client(model)
    asked_once(judge, lambda: client.create(response_model=outside, messages=MESSAGES))


def test_for_a_field_that_has_the_name_of_a_part_of_a_schema(
    model: StandIn, judge: StandIn, kind: Any
) -> None:
    named = create_model("Named", metadata=(kind, ...), default=(str, "x"), function=(str, "x"))
    client = make_client(model)
    asked_once(judge, lambda: client.create(response_model=named, messages=MESSAGES))


@pytest.mark.parametrize("of", [list, Iterable])
def test_for_a_list(model: StandIn, judge: StandIn, note: Any, of: Any) -> None:
    client = make_client(model)
    asked_once(judge, lambda: list(client.create(response_model=of[note], messages=MESSAGES)))


def test_for_a_plain_type(model: StandIn, judge: StandIn, kind: Any) -> None:
    client = make_client(model)
    asked_once(judge, lambda: client.create(response_model=kind, messages=MESSAGES))


def test_for_an_iterable(model: StandIn, judge: StandIn, note: Any) -> None:
    client = make_client(model)
    asked_once(judge, lambda: list(client.create_iterable(response_model=note, messages=MESSAGES)))


def test_for_the_last_of_a_partial_stream(model: StandIn, judge: StandIn, note: Any) -> None:
    client = make_client(model)
    asked_once(judge, lambda: [*client.create_partial(response_model=note, messages=MESSAGES)][-1:])


def test_for_a_coroutine(model: StandIn, judge: StandIn, note: Any) -> None:
    client = make_client(model, async_client=True)
    asked_once(judge, lambda: asyncio.run(client.create(response_model=note, messages=MESSAGES)))


def test_for_parallel_tools(model: StandIn, judge: StandIn, note: Any) -> None:
    client = make_client(model, mode=instructor.Mode.PARALLEL_TOOLS)
    asked_once(judge, lambda: list(client.create(response_model=Iterable[note], messages=MESSAGES)))


def test_where_the_response_is_parsed_once_more(model: StandIn, judge: StandIn, kind: Any) -> None:
    hidden = create_model("Hidden", title=(kind, Field(exclude=True)))
    client = make_client(model)
    asked_once(judge, lambda: client.create(response_model=hidden, messages=MESSAGES))


class TestDecorators:
    def test_what_a_function_returns(self, judge: StandIn, note: Any) -> None:
        def read(text: str) -> Any:
            return note(title=text)

        read.__annotations__["return"] = note
        cached = llmcache.cached()(read)
        asked_once(judge, lambda: cached("x"))

    def test_what_cannot_come_back(
        self, judge: StandIn, kind: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody is asked to find that out."""
        following = field_validator("number")(lambda number: number + 1)
        numbered: Any = create_model(
            "Numbered",
            __module__=__name__,
            __validators__={"following": following},
            title=(kind, ...),
            number=(int, ...),
        )
        monkeypatch.setitem(globals(), "Numbered", numbered)  # where other processes find it

        def read(text: str) -> Any:
            return numbered(title=text, number=1)

        read.__annotations__["return"] = numbered
        with llmcache.capture() as calls:
            llmcache.cached()(read)("x")
        assert [call.stored for call in calls] == [False]
        assert len(judge.calls) == 1

    def test_types_of_all_kinds(self, judge: StandIn, note: Any) -> None:
        def read(text: str) -> Any:
            return {"x": [note(title=text)]}, b"\xff"

        read.__annotations__["return"] = tuple[dict[str, list[note]], bytes]
        cached = llmcache.cached()(read)
        asked_once(judge, lambda: cached("x"))

    def test_generators(self, judge: StandIn, note: Any) -> None:
        def read(text: str) -> Any:
            yield note(title=text)

        read.__annotations__["return"] = Iterator[note]
        cached = llmcache.cached()(read)
        asked_once(judge, lambda: list(cached("x")))

    def test_asynchronous_generators(self, judge: StandIn, note: Any) -> None:
        async def read(text: str) -> Any:
            yield note(title=text)

        read.__annotations__["return"] = AsyncIterator[note]
        cached = llmcache.cached()(read)

        async def main() -> list[Any]:
            return [item async for item in cached("x")]

        asked_once(judge, lambda: asyncio.run(main()))


def test_what_the_judge_has_mended_is_kept_as_it_is(model: StandIn, judge: StandIn) -> None:
    mending = instructor.llm_validator(
        "Be polite.", client=make_plain_client(judge), allow_override=True
    )
    mended = create_model("Mended", title=(Annotated[str, AfterValidator(mending)], ...))
    judge.behaviour.answer_with = {"is_valid": False, "fixed_value": "Please."}
    client = make_client(model)
    answer = lambda: client.create(response_model=mended, messages=MESSAGES)  # noqa: E731
    asked_once(judge, answer)
    assert answer().title == "Please."


def test_moderation_is_passed_over_as_well(model: StandIn, judge: StandIn) -> None:
    seen: list[str] = []

    class Moderations:
        class moderations:  # noqa: N801 - as in the SDK
            @staticmethod
            def create(input: str) -> Any:  # noqa: A002
                seen.append(input)
                return Response()

    class Response:
        results = [type("Result", (), {"flagged": False, "categories": Ticked()})]

    moderated = instructor.openai_moderation(Moderations)  # type: ignore[arg-type]
    kind = Annotated[str, AfterValidator(moderated)]
    client = make_client(model)
    for _ in range(3):
        client.create(response_model=create_model("M", title=(kind, ...)), messages=MESSAGES)
    assert len(seen) == 1


class Ticked(BaseModel):
    """No category."""


class TestOthersRun:
    def test_another_validator_beside_it(self, model: StandIn, judge: StandIn, kind: Any) -> None:
        seen: list[str] = []

        def look(title: str) -> str:
            seen.append(title)
            return title

        both = create_model("Both", title=(Annotated[kind, AfterValidator(look)], ...))
        client = make_client(model)
        asked_once(judge, lambda: client.create(response_model=both, messages=MESSAGES))
        live = len(seen)
        client.create(response_model=both, messages=MESSAGES)
        assert len(seen) > live

    def test_what_only_has_its_name(self, model: StandIn) -> None:
        asked: list[str] = []

        def llm_validator() -> Callable[[str], str]:
            def llm(v: str) -> str:
                asked.append(v)
                return v

            llm.__qualname__ = "llm_validator.<locals>.llm"
            llm.__module__ = quiet.MODULE
            return llm

        kind = Annotated[str, AfterValidator(llm_validator())]
        client = make_client(model)
        named = create_model("Named", title=(kind, ...))
        client.create(response_model=named, messages=MESSAGES)
        live = len(asked)
        client.create(response_model=named, messages=MESSAGES)
        assert len(asked) > live

    def test_bounds_of_the_type_hold(self, judge: StandIn, kind: Any) -> None:
        bound = create_model("Bound", title=(Annotated[kind, Field(max_length=3)], ...))
        with pytest.raises(ValueError, match="at most 3"):
            quiet.reader_of(bound)('{"title": "long"}')

    def test_a_model_without_them_is_read_by_itself(self) -> None:
        plain = create_model("Plain", title=(str, ...))
        assert quiet.quiet_validator(plain.__pydantic_core_schema__) is None
        assert quiet.quiet_of(plain) is plain


def test_the_functions_of_instructor_are_known(judge: StandIn) -> None:
    made = (
        instructor.llm_validator("x", client=make_plain_client(judge)),
        instructor.openai_moderation(make_sdk(judge)),
    )
    assert {each.__code__ for each in made} == set(quiet._askers())
