"""The rows of the conformance table: every shape of answer, in every mode of two providers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Generic, Literal, Optional, TypeVar, Union

import anthropic
import instructor
import openai
from instructor import Mode, Provider
from instructor.v2.core.multimodal import PDF, Audio, Image
from instructor.v2.core.registry import mode_registry
from pydantic import BaseModel, Field, RootModel, field_validator
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
    most_lives: ClassVar = 99
    kind: Literal["cat"]
    lives: int

    @field_validator("lives")
    @classmethod
    def _not_too_many(cls, value: int) -> int:
        if value > cls.most_lives:
            raise ValueError("too many lives")
        return value


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Pet(BaseModel):
    animal: Annotated[Cat | Dog, Field(discriminator="kind")]


class Ages(RootModel[dict[str, int]]):
    """How old people are, by their names."""


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
    "RootModel": (Ages, {"Zoë": 7, "Bo": 8}),
    "Maybe": (instructor.Maybe(Contact), {"result": CONTACT, "error": False, "message": None}),
    "list[Model]": (list[Contact], {"tasks": [CONTACT, {"name": "Bo"}]}),
    "Iterable[Model]": (Iterable[Contact], {"tasks": [CONTACT, {"name": "Bo"}]}),
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

# Not an answer, but what is asked about.
PNG = b"\x89PNG\r\n\x1a\n and what is in it"

WAV = b"RIFF and what is in it"

DOCUMENT = b"%PDF-1.4 and what is in it"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


MEDIA: dict[str, Callable[[], Image | Audio | PDF]] = {
    "Image in the message": lambda: Image.from_raw_base64(encoded(PNG)),
    "Audio in the message": lambda: Audio.from_base64(f"data:audio/wav;base64,{encoded(WAV)}"),
    "PDF in the message": lambda: PDF.from_raw_base64(encoded(DOCUMENT)),
}

ASKED_ABOUT: dict[str, tuple[Any, Any]] = dict.fromkeys(MEDIA, (Contact, CONTACT))

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
        return (SHAPES | STREAMS | ASKED_ABOUT | PARALLEL)[self.shape]

    @property
    def method(self) -> str:
        return self.shape.partition(" ")[0] if self.shape in STREAMS else "create"

    @property
    def content(self) -> Any:
        """What is asked, as the content of the message."""
        text = "A cat with 9 lives, and a dog that can sit."
        return [text, MEDIA[self.shape]()] if self.shape in MEDIA else text

    @property
    def is_partial(self) -> bool:
        """Whether the answer is the last item of a stream."""
        return self.method == "create_partial"


def rows() -> Iterator[Row]:
    for provider in (Provider.OPENAI, Provider.ANTHROPIC):
        for mode in sorted(mode_registry.get_modes_for_provider(provider), key=lambda m: m.value):
            for shape in PARALLEL if mode in PARALLEL_MODES else SHAPES | STREAMS | ASKED_ABOUT:
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


def ask(row: Row, client: Any, content: Any = None) -> Any:
    """What the client's method gives; iterators as lists, and of partial models the last."""
    answer = give(row, client, content)
    answer = list(answer) if isinstance(answer, Iterator) else answer
    return answer[-1] if row.is_partial else answer


def give(row: Row, client: Any, content: Any = None) -> Any:
    """What the client's method gives; asynchronous iterators as lists."""
    messages = [{"role": "user", "content": content or row.content}]
    limits = {"max_tokens": 1000} if row.provider is Provider.ANTHROPIC else {}
    method = getattr(client, row.method)
    answer = method(response_model=row.response_model, messages=messages, **limits)
    return asyncio.run(_finish(answer)) if row.is_async else answer


async def _finish(answer: Any) -> Any:
    if isinstance(answer, Awaitable):
        answer = await answer
    if isinstance(answer, AsyncIterator):
        return [item async for item in answer]
    return answer


def _nested(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{name: _nested(item) for name, item in value.items()})
    return [_nested(item) for item in value] if isinstance(value, list) else value
