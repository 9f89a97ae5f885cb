"""The rows of the conformance table: every shape of answer, in every mode of two providers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Generic, Literal, Optional, TypeVar, Union

import anthropic
import instructor
import openai
from instructor import Mode, Provider
from instructor.v2.core.registry import mode_registry
from pydantic import BaseModel, Field, RootModel
from pydantic.dataclasses import dataclass as pydantic_dataclass

import llmcache

T = TypeVar("T")


class Contact(BaseModel):
    """Somebody."""

    name: str
    age: int | None = None


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@pydantic_dataclass
class Place:
    city: str


class Nested(BaseModel):
    contact: Contact
    others: list[Contact] = Field(default_factory=list)


class Box(BaseModel, Generic[T]):
    content: T


class Tree(BaseModel):
    name: str
    children: list[Tree] = Field(default_factory=list)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Pet(BaseModel):
    animal: Annotated[Cat | Dog, Field(discriminator="kind")]


class Names(RootModel[list[str]]):
    """Some names."""


class WithPlace(BaseModel):
    place: Place


CONTACT = {"name": "Zoë", "age": 7}

# Each shape: the response model, and what the model answers (the arguments of the tool).
SHAPES: dict[str, tuple[Any, Any]] = {
    "model": (Contact, CONTACT),
    "nested": (Nested, {"contact": CONTACT, "others": [CONTACT, {"name": "Bo"}]}),
    "generic": (Box[int], {"content": 3}),
    "recursive": (Tree, {"name": "a", "children": [{"name": "b"}]}),
    "discriminated union": (Pet, {"animal": {"kind": "dog", "tricks": ["sit"]}}),
    "dataclass field": (WithPlace, {"place": {"city": "Łódź"}}),
    "Maybe": (instructor.Maybe(Contact), {"result": CONTACT, "error": False, "message": None}),
    "list[Model]": (list[Contact], {"tasks": [CONTACT, {"name": "Bo"}]}),
    "str": (str, {"content": "x"}),
    "int": (int, {"content": 3}),
    "float": (float, {"content": 0.5}),
    "bool": (bool, {"content": True}),
    "Literal": (Literal["a", "b"], {"content": "b"}),
    "Enum": (Colour, {"content": "blue"}),
    "Union of models": (Union[Cat, Dog], {"content": {"kind": "cat", "lives": 9}}),  # noqa: UP007
    "Optional": (Optional[int], {"content": None}),  # noqa: UP045
    "Annotated": (Annotated[int, Field(ge=0)], {"content": 3}),
    "list[int]": (list[int], {"content": [1, 2]}),
    "None": (None, None),
}
PARALLEL: dict[str, tuple[Any, Any]] = {
    "parallel tools": (Iterable[Cat | Dog], None),
}
# Not what `create` gives, but the method of this name; both with the model of a stream's items.
STREAMS: dict[str, tuple[Any, Any]] = {
    "create_iterable": (Contact, {"tasks": [CONTACT, {"name": "Bo"}]}),
    "create_iterable of a Union": (
        Union[Cat, Dog],  # noqa: UP007
        {"tasks": [{"kind": "cat", "lives": 9}, {"kind": "dog", "tricks": ["sit"]}]},
    ),
    "create_partial": (Nested, {"contact": CONTACT, "others": [CONTACT]}),
}

PARALLEL_MODES = Mode.parallel_modes()


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    provider: Provider
    mode: Mode
    shape: str
    is_async: bool

    def __str__(self) -> str:
        way = "async" if self.is_async else "sync"
        return f"{self.provider.value}-{self.mode.value}-{self.shape}-{way}"

    @property
    def response_model(self) -> Any:
        return self._pair[0]

    @property
    def arguments(self) -> Any:
        return self._pair[1]

    @property
    def _pair(self) -> tuple[Any, Any]:
        return (SHAPES | STREAMS | PARALLEL)[self.shape]

    @property
    def method(self) -> str:
        return self.shape.partition(" ")[0] if self.shape in STREAMS else "create"

    @property
    def is_partial(self) -> bool:
        """Whether the answer is the last item of a stream."""
        return self.method == "create_partial"


def rows() -> Iterator[Row]:
    for provider in (Provider.OPENAI, Provider.ANTHROPIC):
        for mode in sorted(mode_registry.get_modes_for_provider(provider), key=lambda m: m.value):
            for shape in PARALLEL if mode in PARALLEL_MODES else SHAPES | STREAMS:
                for is_async in (False, True):
                    yield Row(provider, mode, shape, is_async)


def make_client(row: Row, root: str) -> Any:
    """A client of llmcache on the real SDK; `root` is the address of the endpoint."""
    close = {"Connection": "close"}
    if row.provider is Provider.OPENAI:
        openai_class: Any = openai.AsyncOpenAI if row.is_async else openai.OpenAI
        sdk = openai_class(api_key="k", base_url=f"{root}/v1", default_headers=close)
        return llmcache.wrap(instructor.from_openai(sdk, mode=row.mode), model="gpt-4.1-mini")
    anthropic_class: Any = anthropic.AsyncAnthropic if row.is_async else anthropic.Anthropic
    sdk = anthropic_class(api_key="k", base_url=root, default_headers=close)
    return llmcache.wrap(instructor.from_anthropic(sdk, mode=row.mode), model="claude")


def ask(row: Row, client: Any) -> Any:
    """What the client's method gives; iterators as lists, and of partial models the last."""
    messages = [{"role": "user", "content": "A cat with 9 lives, and a dog that can sit."}]
    limits = {"max_tokens": 1000} if row.provider is Provider.ANTHROPIC else {}
    method = getattr(client, row.method)
    answer = method(response_model=row.response_model, messages=messages, **limits)
    if row.is_async:
        answer = asyncio.run(_finish(answer))
    answer = list(answer) if isinstance(answer, Iterator) else answer
    return answer[-1] if row.is_partial else answer


async def _finish(answer: Any) -> Any:
    if isinstance(answer, AsyncIterator):
        return [item async for item in answer]
    return await answer
