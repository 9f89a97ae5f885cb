"""`key_for`, and what counts in the key of a call of a client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import instructor
import openai
import pytest
from django.utils.safestring import mark_safe
from instructor.v2.core.multimodal import PDF, Image
from pydantic import BaseModel, Field, create_model, field_validator

import llmcache
from llmcache import signals
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.clients import (
    CALL,
    CLOSE,
    make_plain_client,
    outcomes,
)
from tests.support.ticket import Ticket

pytestmark = pytest.mark.django_db(transaction=True)

# Keys


def test_key_for_asks_nobody(model: StandIn, client: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        key = llmcache.key_for(client, **CALL)
    assert len(bytes.fromhex(key)) == 32
    assert model.calls == []
    with llmcache.capture() as calls:
        client.create(**CALL)
    assert calls[0].key == key


def test_key_for_needs_a_client_of_llmcache(model: StandIn) -> None:
    plain = make_plain_client(model)
    with pytest.raises(llmcache.InvalidArgument, match="wrap"):
        llmcache.key_for(plain, **CALL)


def test_a_schema_made_anew_is_the_same_schema(model: StandIn, client: Any) -> None:
    def made() -> type[BaseModel]:
        return create_model("Made", title=(str, ...))

    client.create(**(CALL | {"response_model": made()}))
    client.create(**(CALL | {"response_model": made()}))
    assert len(model.calls) == 1


def test_the_plan_of_a_class_goes_with_it() -> None:
    import gc
    import weakref

    from llmcache.client.shapes import shape_of

    made = create_model("Gone", title=(str, ...))
    shape_of(made, instructor.Mode.TOOLS)
    watch = weakref.ref(made)
    del made
    gc.collect()
    assert watch() is None


def test_a_subclass_has_a_plan_of_its_own(model: StandIn, client: Any) -> None:
    class Longer(Ticket):
        note: str = ""

    client.create(**CALL)
    assert isinstance(client.create(**(CALL | {"response_model": Longer})), Longer)
    assert len(model.calls) == 2


# Signals, settings


def test_each_call_is_signalled(client: Any) -> None:
    heard: list[Any] = []

    def listen(sender: object, call: Any, **kwargs: Any) -> None:
        heard.append((call.outcome, call.key))

    def fail(sender: object, **kwargs: Any) -> None:
        raise RuntimeError("a receiver of the project fails")

    signals.call_answered.connect(fail)
    signals.call_answered.connect(listen)
    try:
        client.create(**CALL)
        client.create(**CALL)
    finally:
        signals.call_answered.disconnect(listen)
        signals.call_answered.disconnect(fail)
    assert [outcome for outcome, _ in heard] == ["miss", "hit"]


@pytest.mark.parametrize(
    "entry",
    [
        {"TTL": "soon"},
        {"NAMESPACE": ""},
        {"MAX_ENTRY_BYTES": -1},
        {"STALE_WHILE_REVALIDATE": "5 minutes"},
        {"STALE_IF_ERROR": "5 minutes"},
    ],
)
def test_a_wrong_setting_never_reaches_the_caller(
    model: StandIn, create: Callable[..., Any], settings: Any, entry: dict[str, Any]
) -> None:
    settings.LLMCACHE = {"CACHE": None, **entry}
    with llmcache.capture() as calls:
        assert create(**CALL).title
    assert calls[0].reason
    assert not calls[0].stored


def test_who_cannot_be_told_how_long_to_wait_asks_at_once(
    model: StandIn, create: Callable[..., Any], settings: Any
) -> None:
    settings.LLMCACHE = {"CACHE": None, "WAIT_SECONDS": "two minutes"}
    with llmcache.capture() as calls:
        assert create(**CALL).title
        assert create(**CALL).title
    assert outcomes(calls) == [("miss", None), ("hit", "durable")]
    assert "LLMCACHE['WAIT_SECONDS'] must be" in calls[0].reason


def shout(request: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "REDACTED"}]}


@pytest.mark.parametrize(
    ("setting", "stored"),
    [
        ("full", b"printer"),
        ("redacted", b"Call [phone]"),
        ("digest", None),
        (f"{__name__}.shout", b"REDACTED"),
    ],
)
def test_store_requests(client: Any, settings: Any, setting: str, stored: bytes | None) -> None:
    from llmcache.codec.envelope import REQUEST, unseal

    settings.LLMCACHE = {"CACHE": None, "STORE_REQUESTS": setting}
    asked = "The printer is on fire. Call +49 30 1234567."
    client.create(**CALL | {"messages": [{"role": "user", "content": asked}]})
    row: Any = durable.entries().get()
    if stored is None:
        assert row.request is None
    else:
        assert stored in unseal(REQUEST, row.key, bytes(row.request)).body


def test_nothing_is_legible_at_rest_when_keys_are_configured(client: Any, settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": None, "ENCRYPTION_KEYS": ["A" * 43 + "="]}
    with llmcache.capture() as calls:
        client.create(**CALL)
        client.create(**CALL)
    assert [call.outcome for call in calls] == ["miss", "hit"]
    row: Any = durable.entries().get()
    assert b"printer" not in bytes(row.payload) + bytes(row.request)


def test_a_mark_for_not_given_is_not_sent_and_does_not_count(model: StandIn, client: Any) -> None:
    client.create(**CALL)
    client.create(**CALL, temperature=openai.NOT_GIVEN)
    assert len(model.calls) == 1


def test_an_identifier_in_context_is_part_of_the_key(client: Any) -> None:
    keys = {
        llmcache.key_for(client, **CALL, context={"id": UUID(int=number)}) for number in range(3)
    }
    assert len(keys) == 3


# Wrong answers that were once served


class ModelName(str, Enum):  # noqa: UP042 - that is what they write
    """As projects name their models."""

    DEFAULT = "gpt-4o"


class NewModelName(str, Enum):  # noqa: UP042
    DEFAULT = "gpt-5"


def test_the_value_of_an_enum_is_the_model(model: StandIn, client: Any) -> None:
    client.create(**CALL, model=ModelName.DEFAULT)
    client.create(**CALL, model="gpt-4o")
    assert len(model.calls) == 1
    client.create(**CALL, model=NewModelName.DEFAULT)
    assert len(model.calls) == 2
    assert llmcache.invalidate(model="gpt-4o").entries == 1


def test_the_order_of_fields_counts(model: StandIn, client: Any) -> None:
    """A model fills them in one by one: to reason first gives another answer."""
    first = create_model("R", reasoning=(str, ""), title=(str, "x"))
    second = create_model("R", title=(str, "x"), reasoning=(str, ""))
    assert key_of(client, response_model=first) != key_of(client, response_model=second)


def key_of(client: Any, **changes: Any) -> str:
    return llmcache.key_for(client, **(CALL | changes))


def test_the_order_inside_the_context_counts(client: Any) -> None:
    """A template may write a mapping out."""
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert key_of(client, context={"d": one}) != key_of(client, context={"d": other})
    assert key_of(client, context={"d": [one]}) != key_of(client, context={"d": [other]})
    assert key_of(client, context=one) == key_of(client, context=other)


@dataclass
class Document:
    id: int

    def __post_init__(self) -> None:
        self.body = BODIES[self.id]


BODIES = {1: "old"}


class Marked(str):
    """A text with something hung on it."""


def test_what_hangs_on_an_object_counts(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(client, context={"d": Document(1)})
    monkeypatch.setitem(BODIES, 1, "new")
    assert key_of(client, context={"d": Document(1)}) != before

    one, other = Marked("x"), Marked("x")
    vars(one)["title"], vars(other)["title"] = "A", "B"
    assert key_of(client, context={"d": one}) != key_of(client, context={"d": other})
    assert key_of(client, context={"d": mark_safe("<b>")}) != key_of(client, context={"d": "<b>"})


def test_where_media_are_from_counts_where_it_is_sent(client: Any, tmp_path: Path) -> None:
    def key(media: Any) -> str:
        return key_of(client, messages=[{"role": "user", "content": ["Look", media]}])

    for name in ("1.pdf", "2.pdf"):
        (tmp_path / name).write_bytes(b"%PDF-1.4 x")
    first, second = (PDF.from_path(str(tmp_path / name)) for name in ("1.pdf", "2.pdf"))
    assert key(first) != key(second)

    images = [Image(source=f"http://a/{n}.png", media_type="image/png", data="QUJD") for n in "12"]
    assert key(images[0]) != key(images[1])

    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n same")
    same = {key(Image.from_path(tmp_path / name)) for name in ("1.png", "2.png")}
    assert len(same) == 1


def cut_to(length: int) -> type[BaseModel]:
    class Note(BaseModel):
        title: str

        @field_validator("title")
        @classmethod
        def _cut(cls, value: str) -> str:
            return value[:length]

    return Note


def test_a_changed_validator_sees_what_it_would_have_seen(model: StandIn, client: Any) -> None:
    model.behaviour.answer_with = {"title": "a long title"}
    short = client.create(**(CALL | {"response_model": cut_to(2)}))
    longer = client.create(**(CALL | {"response_model": cut_to(6)}))
    assert (short.title, longer.title) == ("a ", "a long")
    assert len(model.calls) == 1


def test_a_default_that_a_function_made_is_kept(model: StandIn, client: Any) -> None:
    today = SimpleNamespace(value="monday")

    class Inner(BaseModel):
        seen: str = Field(default_factory=lambda: today.value)

    class Outer(BaseModel):
        title: str
        day: str = Field(default_factory=lambda: today.value)
        inner: list[Inner]

    model.behaviour.answer_with = {"title": "x", "inner": [{}, {"seen": "never"}]}
    call = CALL | {"response_model": Outer}
    live = client.create(**call)
    today.value = "tuesday"
    hit = client.create(**call)
    assert len(model.calls) == 1
    assert hit == live
    assert hit.day == hit.inner[0].seen == "monday"
    assert hit.model_fields_set == live.model_fields_set == {"title", "inner"}
    assert [i.model_fields_set for i in hit.inner] == [set(), {"seen"}]


def test_nothing_in_the_key_raises_into_the_call(model: StandIn, client: Any) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise IndexError

    class Nasty:
        @property  # type: ignore[misc]
        def __class__(self) -> type:
            raise Mute

    with llmcache.capture() as calls:
        assert client.create(**CALL, context={"x": Nasty()}).title
    assert calls[0].outcome == "bypass"


def test_no_credential_of_the_endpoint_is_kept(model: StandIn) -> None:
    url = model.url.replace("//", "//user:SECRET@")
    sdk = openai.OpenAI(
        api_key="k", base_url=url, default_headers=CLOSE, default_query={"key": "SECRET"}
    )
    llmcache.wrap(instructor.from_openai(sdk), model="m").create(**CALL)
    assert "SECRET" not in durable.entries().get().endpoint


def test_none_for_tags_and_namespace_is_not_given(client: Any) -> None:
    same_key = llmcache.key_for(client, **CALL, cache_tags=None, cache_namespace=None)
    assert same_key == llmcache.key_for(client, **CALL)
