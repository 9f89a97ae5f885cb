"""`explain`, `aexplain` and ``llmcache_explain``: why a call would hit or miss."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import instructor
import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, create_model, field_validator

import llmcache
from llmcache.explanation import Explanation
from llmcache.explanation import diff as differences
from llmcache.explanation import nearest_entry as neighbours
from llmcache.explanation.diff import difference
from llmcache.keys.request import PARTS
from llmcache.store.hot import tier as hot
from llmcache.store.rows import tier as durable
from llmcache.usage import hits
from project.standin.server import StandIn
from tests.support.backends import Backend, statements
from tests.support.ticket import Ticket

transactional = pytest.mark.django_db(transaction=True)

STORY = "The printer is on fire. " + "It burns since this morning, page after page. " * 3
TEXT = STORY + "Please hurry!"
MESSAGES = [
    {"role": "system", "content": "Extract the ticket."},
    {"role": "user", "content": TEXT},
]
CALL: dict[str, Any] = {"response_model": Ticket, "messages": MESSAGES, "context": {"id": 1}}
TICKET_WITH_OWNER = create_model("Ticket", __base__=Ticket, owner=(str, ""))

NAMES = ("before", "after")


def make_client(model: StandIn, name: str = "openai/gpt-4.1-mini", **kwargs: Any) -> Any:
    arguments = {"api_key": "k", "base_url": model.url, "namespace": "support"} | kwargs
    return llmcache.from_provider(name, default_headers={"Connection": "close"}, **arguments)


def asking(text: str) -> list[dict[str, str]]:
    return [MESSAGES[0], {"role": "user", "content": text}]


def changed_lines(diff: str | None) -> list[str]:
    """The lines that a diff takes out and puts in, without its head."""
    assert diff is not None
    return [line for line in diff.splitlines()[2:] if line[:1] in "+-"]


@pytest.fixture
def client(model: StandIn) -> Any:
    return make_client(model)


@transactional
class TestOutcome:
    def test_a_miss_in_an_empty_store(self, client: Any, model: StandIn) -> None:
        explanation = llmcache.explain(client, **CALL)
        assert (explanation.outcome, explanation.tier) == ("miss", None)
        assert explanation.reason == "nothing is stored under this key"
        assert explanation.key == llmcache.key_for(client, **CALL)
        assert (explanation.namespace, explanation.model) == ("support", "gpt-4.1-mini")
        assert tuple(explanation.parts) == PARTS
        assert explanation.nearest is None
        assert not model.calls

    def test_a_hit_and_where(self, model: StandIn, backend: Backend) -> None:
        client = make_client(model)
        client.create(**CALL)
        explanation = llmcache.explain(client, **CALL)
        tier = "hot" if backend.cache else "durable"
        assert (explanation.outcome, explanation.tier) == ("hit", tier)
        assert explanation.reason == f"a fresh entry is in the {tier} tier"
        assert explanation.parts == durable.entries().get().digests
        hot.delete([explanation.key])
        for _ in range(2):  # and explaining does not bring the hot copy back
            assert llmcache.explain(client, **CALL).tier == "durable"
        assert llmcache.explain(client, **CALL | {"messages": []}).nearest is not None

    def test_no_hit_is_counted_and_nobody_is_told_of_a_call(
        self, client: Any, model: StandIn
    ) -> None:
        client.create(**CALL)
        with llmcache.capture() as calls:
            llmcache.explain(client, **CALL)
        hits.flush()
        assert not calls
        assert len(model.calls) == 1
        assert durable.entries().get().hits == 0

    def test_an_entry_that_has_expired(self, client: Any) -> None:
        client.create(**CALL, cache_ttl=0.001)
        explanation = llmcache.explain(client, **CALL)
        assert (explanation.outcome, explanation.tier) == ("stale", "durable")
        assert explanation.reason.startswith("the entry in the durable tier has expired at 2")
        assert explanation.nearest is None
        explanation = llmcache.explain(client, **CALL, cache_mode="force-cache")
        assert explanation.reason.endswith('and cache_mode "force-cache" serves it')

    def test_a_row_that_was_made_to_expire(self, client: Any) -> None:
        client.create(**CALL)
        durable.entries().update(expires_at=timezone.now() - timedelta(minutes=1))
        assert llmcache.explain(client, **CALL).outcome == "stale"

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ({"cache_mode": "no-store"}, 'cache_mode is "no-store"'),
            ({"autodetect_images": True}, "autodetect_images reads files"),
            ({"context": {"now": len}}, "context['now']: "),
        ],
        ids=str,
    )
    def test_a_bypass_says_why(self, client: Any, arguments: dict[str, Any], reason: str) -> None:
        client.create(**CALL)
        explanation = llmcache.explain(client, **CALL | arguments)
        assert explanation.outcome == "bypass"
        assert reason in explanation.reason
        assert explanation.nearest is None

    def test_what_the_mode_and_the_time_to_live_change(self, client: Any) -> None:
        assert llmcache.explain(client, **CALL, cache_mode="reload").outcome == "reload"
        explanation = llmcache.explain(client, **CALL, cache_mode="only-if-cached")
        assert explanation.reason.startswith("nothing is stored under this key; CacheMiss")
        explanation = llmcache.explain(client, **CALL, cache_ttl=0)
        assert explanation.reason.endswith("nor would the answer be stored: cache_ttl is 0")

    @pytest.mark.parametrize("wrong", [{"DATABASE": "nope"}, {"DATABASE": 7}], ids=str)
    def test_a_wrong_database_in_the_settings(
        self, client: Any, model: StandIn, settings: Any, wrong: dict[str, Any]
    ) -> None:
        settings.LLMCACHE = {"CACHE": None, **wrong}
        explanation = llmcache.explain(client, **CALL)
        assert "the durable tier failed to read" in explanation.reason
        aclient = make_client(model, async_client=True)
        assert asyncio.run(llmcache.aexplain(aclient, **CALL)) == explanation

    def test_a_wrong_time_to_live_in_the_settings(self, client: Any, settings: Any) -> None:
        settings.LLMCACHE = {"CACHE": None, "TTL": "soon"}
        explanation = llmcache.explain(client, **CALL)
        assert explanation.outcome == "miss"
        assert (
            "nor would the answer be stored: a setting is wrong: LLMCACHE['TTL'] must"
            in explanation.reason
        )
        with llmcache.override(mode="no-store"):
            assert llmcache.explain(client, **CALL).outcome == "bypass"

    def test_an_entry_that_does_not_validate_any_more(self, client: Any) -> None:
        allowed = True

        class Picky(BaseModel):
            title: str

            @field_validator("title")
            @classmethod
            def check(cls, value: str) -> str:
                assert allowed
                return value

        client.create(response_model=Picky, messages=MESSAGES)
        allowed = False
        explanation = llmcache.explain(client, response_model=Picky, messages=MESSAGES)
        assert explanation.outcome == "miss"
        assert "does not validate any more (ValidationError)" in explanation.reason

    def test_a_damaged_entry(self, client: Any, caplog: pytest.LogCaptureFixture) -> None:
        client.create(**CALL)
        durable.entries().update(payload=bytes(durable.entries().get().payload)[:-1] + b"?")
        with caplog.at_level(logging.WARNING, "llmcache"):
            explanation = llmcache.explain(client, **CALL)
        assert explanation.outcome == "miss"
        assert "the durable tier holds a bad entry: the checksum" in explanation.reason
        assert not caplog.records

    def test_a_tier_that_fails(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise ConnectionError("down")

        monkeypatch.setattr(durable, "entries", fail)
        monkeypatch.setattr(durable, "read", fail)
        explanation = llmcache.explain(client, **CALL)
        assert explanation.outcome == "miss"
        assert explanation.reason == "the durable tier failed to read (ConnectionError)"

    def test_it_agrees_with_what_the_call_then_does(self, client: Any) -> None:
        for arguments in ({}, {}, {"seed": 1}, {"seed": 1}, {"stream": None}):
            explained = llmcache.explain(client, **CALL, **arguments)
            with llmcache.capture() as calls:
                client.create(**CALL, **arguments)
            assert (explained.outcome, explained.tier) == (calls[0].outcome, calls[0].tier)
            assert explained.key == calls[0].key

    def test_for_a_coroutine(self, client: Any, model: StandIn) -> None:
        client.create(**CALL)
        aclient = make_client(model, async_client=True)

        async def explain_both() -> list[Explanation]:
            with llmcache.override(namespace="other"):
                other = await llmcache.aexplain(aclient, **CALL)
            return [await llmcache.aexplain(aclient, **CALL), other]

        explained, other = asyncio.run(explain_both())
        assert (explained.outcome, explained.tier) == ("hit", "durable")
        assert (other.outcome, other.namespace) == ("miss", "other")

    def test_inside_a_transaction(self, client: Any) -> None:
        client.create(**CALL)
        with transaction.atomic():
            assert llmcache.explain(client, **CALL).outcome == "hit"
            assert llmcache.explain(client, **CALL, seed=1).nearest is not None

    def test_only_clients_of_llmcache(self) -> None:
        with pytest.raises(llmcache.InvalidArgument, match=r"^explain\(\) takes a client"):
            llmcache.explain(object(), **CALL)  # type: ignore[arg-type]
        with pytest.raises(llmcache.InvalidArgument, match=r"^aexplain\(\) takes a client"):
            asyncio.run(llmcache.aexplain(object(), **CALL))  # type: ignore[arg-type]
        with pytest.raises(llmcache.InvalidArgument, match="cache_ttl"):
            llmcache.explain(llmcache.from_provider("openai/x", api_key="k"), **CALL, cache_ttl=-1)


@transactional
class TestNearest:
    @pytest.mark.parametrize(
        ("part", "arguments", "changes"),
        [
            (
                "messages",
                {"messages": asking(STORY + "Take your time!")},
                ['+        Take your time!",', '-        Please hurry!",'],
            ),
            ("parameters", {"seed": 8}, ['+  "seed": 8', '-  "seed": 7']),
            ("context", {"context": {"id": 2}}, ['+  "id": 2', '-  "id": 1']),
            ("strict", {"strict": False}, ["+false", "-true"]),
            ("model", {"model": "gpt-5"}, ["+gpt-5", "-gpt-4.1-mini"]),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_the_part_that_differs_is_named_and_shown(
        self, client: Any, part: str, arguments: dict[str, Any], changes: list[str]
    ) -> None:
        call = CALL | {"seed": 7}
        client.create(**call)
        explanation = llmcache.explain(client, **call | arguments)
        nearest = explanation.nearest
        assert explanation.outcome == "miss"
        assert nearest is not None
        assert nearest.differing == (part,)
        assert nearest.key == llmcache.key_for(client, **call)
        assert nearest.created_at == durable.entries().get().created_at
        assert sorted(changed_lines(nearest.differences[part])) == changes
        assert not nearest.note
        assert all(change in str(explanation) for change in changes)

    def test_a_schema_differs(self, client: Any) -> None:
        client.create(**CALL)
        arguments = CALL | {"response_model": TICKET_WITH_OWNER}
        nearest = llmcache.explain(client, **arguments).nearest
        assert nearest is not None
        assert nearest.differing == ("schema",)
        shown = nearest.differences["schema"]
        assert shown is not None
        assert f"-tests.support.ticket.Ticket\n+{__name__}.Ticket" in shown
        durable.entries().update(response_model=f"{__name__}.Ticket")
        nearest = llmcache.explain(client, **arguments).nearest
        assert nearest is not None
        assert nearest.differences["schema"] == (
            f"The JSON schema of {__name__}.Ticket is another one. Schemas are not stored."
        )

    @pytest.mark.parametrize(
        ("part", "name", "kwargs"),
        [
            ("mode", "openai/gpt-4.1-mini", {"mode": "json"}),
            ("endpoint", "openai/gpt-4.1-mini", {"base_url": "http://127.0.0.1:9/v1"}),
            ("provider", "anthropic/gpt-4.1-mini", {}),
        ],
    )
    def test_the_client_differs(
        self, client: Any, model: StandIn, part: str, name: str, kwargs: dict[str, Any]
    ) -> None:
        client.create(**CALL)
        if "mode" in kwargs:
            kwargs = {"mode": instructor.Mode(kwargs["mode"] + "_mode")}
        nearest = llmcache.explain(make_client(model, name, **kwargs), **CALL).nearest
        assert nearest is not None
        assert part in nearest.differing
        old, new = sorted(changed_lines(nearest.differences[part]), reverse=True)
        assert old == f"-{getattr(durable.entries().get(), part)}"
        assert new != old

    def test_values_that_read_the_same(self, client: Any) -> None:
        client.create(**CALL | {"context": {"ids": [1]}})
        nearest = llmcache.explain(client, **CALL | {"context": {"ids": (1,)}}).nearest
        assert nearest is not None
        assert nearest.differing == ("context",)
        shown = nearest.differences["context"]
        assert shown is not None
        assert shown.startswith("They read the same.")

    def test_the_order_inside_of_the_context(self, client: Any) -> None:
        client.create(**CALL | {"context": {"a": 0, "m": {"x": 1, "y": 2}}})
        arguments = CALL | {"context": {"m": {"y": 2, "x": 1}, "a": 0}}
        nearest = llmcache.explain(client, **arguments).nearest
        assert nearest is not None
        assert changed_lines(nearest.differences["context"]) == [
            '-    "x": 1,',
            '-    "y": 2',
            '+    "y": 2,',
            '+    "x": 1',
        ]

    def test_the_fewest_parts_count_and_then_the_newest(self, client: Any) -> None:
        client.create(**CALL, seed=1, temperature=1)
        client.create(**CALL | {"strict": False}, seed=2)
        for text in ("One.", "Two."):
            client.create(**CALL | {"messages": asking(text)}, seed=3)
        newest = llmcache.key_for(client, **CALL | {"messages": asking("Two.")}, seed=3)
        explanation = llmcache.explain(client, **CALL | {"messages": asking("Three.")}, seed=3)
        assert explanation.nearest is not None
        assert explanation.nearest.key == newest

    def test_nothing_of_another_namespace_is_ever_told(self, client: Any, model: StandIn) -> None:
        secret = CALL | {"messages": asking("The secret of tenant 8.")}
        client.create(**secret, cache_namespace="tenant:8")
        for arguments in (secret, CALL):
            explanation = llmcache.explain(client, **arguments, cache_namespace="tenant:7")
            assert explanation.nearest is None
        client.create(**CALL, cache_namespace="tenant:7")
        explanation = llmcache.explain(client, **CALL | {"seed": 1}, cache_namespace="tenant:7")
        assert explanation.nearest is not None
        assert explanation.nearest.namespace == "tenant:7"
        for word in ("tenant:8", "tenant 8", durable.entries().get(namespace="tenant:8").key):
            assert word not in str(explanation) + repr(explanation)

    def test_entries_without_digests_are_passed_over(self, client: Any) -> None:
        client.create(**CALL)
        durable.entries().update(digests={})
        assert llmcache.explain(client, **CALL, seed=1).nearest is None

    def test_the_work_is_bounded(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(neighbours, "MOST_CANDIDATES", 3)
        for number in range(6):
            client.create(**CALL | {"messages": asking(f"Number {number}."), "seed": number})
        with statements() as seen:
            nearest = llmcache.explain(client, **CALL | {"messages": asking("Number 0.")}).nearest
        assert nearest is not None
        candidates = [sql for sql in seen if "LIMIT 3" in sql]
        assert len(candidates) == 3
        assert not [sql for sql in candidates if "payload" in sql or '"request"' in sql]
        reads = [sql for sql in seen if sql.startswith("SELECT")]
        assert len(reads) <= 6  # two lookups, the candidates, and one request to compare


@transactional
class TestRequestsAtRest:
    def nearest(self, client: Any, **arguments: Any) -> Any:
        return llmcache.explain(client, **CALL | arguments).nearest

    def test_encrypted(self, client: Any, settings: Any) -> None:
        settings.LLMCACHE = {"CACHE": None, "ENCRYPTION_KEYS": ["A" * 43 + "="]}
        client.create(**CALL)
        nearest = self.nearest(client, messages=asking("Water everywhere."))
        assert "Please hurry!" in nearest.differences["messages"]
        settings.LLMCACHE = {"CACHE": None}
        nearest = self.nearest(client, messages=asking("Water everywhere."))
        assert nearest.differing == ("messages",)
        assert nearest.differences == {"messages": None}
        assert "cannot be read: encrypted, and no key is configured" in nearest.note

    def test_not_stored(self, client: Any, settings: Any) -> None:
        settings.LLMCACHE = {"CACHE": None, "STORE_REQUESTS": "digest"}
        client.create(**CALL)
        nearest = self.nearest(client, messages=asking("Water."), model="gpt-5")
        assert nearest.differing == ("model", "messages")
        assert nearest.differences["messages"] is None
        assert changed_lines(nearest.differences["model"]) == ["-gpt-4.1-mini", "+gpt-5"]
        assert "is not stored: see LLMCACHE['STORE_REQUESTS']" in nearest.note
        settings.LLMCACHE = {"CACHE": None}
        assert "is not stored" in self.nearest(client, messages=asking("Water.")).note

    def test_damaged(self, client: Any) -> None:
        client.create(**CALL)
        durable.entries().update(request=b"LLC?")
        nearest = self.nearest(client, context={})
        assert nearest.differences == {"context": None}
        assert "cannot be read: cut short." in nearest.note

    def test_redacted(self, client: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        settings.LLMCACHE = {"CACHE": None, "STORE_REQUESTS": f"{__name__}.without_messages"}
        client.create(**CALL)
        nearest = self.nearest(client, messages=asking("Water."))
        assert nearest.differences["messages"].startswith("They read the same.")
        settings.LLMCACHE = {"CACHE": None, "STORE_REQUESTS": f"{__name__}.in_one_word"}
        nearest = self.nearest(client, messages=asking("Water."))
        assert changed_lines(nearest.differences["messages"]) == ["-redacted", "+gone"]
        settings.LLMCACHE = {"CACHE": None, "STORE_REQUESTS": f"{__name__}.failing"}
        nearest = self.nearest(client, messages=asking("Water."))
        why = f"RuntimeError in failing ({Path(__file__).name}:"
        assert nearest.note.startswith(f"The request of this call cannot be read: {why}")


def without_messages(request: Any) -> Any:
    return request | {"messages": "redacted"}


def in_one_word(request: Any) -> Any:
    return "gone"


def failing(request: Any) -> Any:
    raise RuntimeError("no")


@transactional
class TestCommand:
    def run(self, *arguments: str) -> str:
        written = StringIO()
        call_command("llmcache_explain", *arguments, stdout=written)
        return written.getvalue()

    @pytest.fixture
    def keys(self, client: Any) -> list[str]:
        calls = [CALL, CALL | {"seed": 1}, CALL | {"seed": 1, "messages": asking("Water.")}]
        for call in calls:
            client.create(**call)
        return [llmcache.key_for(client, **call) for call in calls]

    def test_an_entry_and_the_nearest(self, keys: list[str]) -> None:
        text = self.run(keys[0])
        assert text.startswith("hit: a fresh entry is in the durable tier\n")
        row = durable.entries().get(key=keys[0])
        for part, digest in row.digests.items():
            assert f"  {part:<11} {digest}\n" in text
        for fact in (
            "response model  tests.support.ticket.Ticket",
            "mode            tool_call",
            "hits ",
        ):
            assert fact in text
        assert f"nearest entry {keys[1]}\n" in text
        assert "differs in  parameters" in text
        assert f'--- {keys[1]:.12}\n+++ {keys[0]:.12}\n@@\n-{{\n-  "seed": 1\n-}}\n+{{}}' in text

    def test_two_entries_by_the_beginnings_of_their_keys(self, keys: list[str]) -> None:
        text = self.run(keys[0][:6], keys[2][:10].upper())
        assert f"other entry {keys[2]}\n" in text
        assert "differs in  messages, parameters" in text
        assert '-    "content": "Water."' in text
        assert "It is the same entry." in self.run(keys[0], keys[0])

    def test_where_it_would_hit(self, model: StandIn, backend: Backend) -> None:
        make_client(model).create(**CALL)
        key = durable.entries().get().key
        assert self.run(key).startswith(f"hit: a fresh entry is in the {_tier(backend)} tier")
        durable.entries().update(expires_at=timezone.now() - timedelta(minutes=1))
        hot.delete([key])
        assert self.run(key).startswith("stale: the entry in the durable tier has expired")
        durable.entries().update(payload=b"LLC?")
        assert self.run(key).startswith("miss: the durable tier holds a bad entry: cut short")

    def test_the_nearest_may_be_in_another_namespace(self, client: Any) -> None:
        for namespace, seed in (("tenant:7", 1), ("tenant:8", 1), ("tenant:8", 2)):
            client.create(**CALL, seed=seed, cache_namespace=namespace)
        key = llmcache.key_for(client, **CALL, seed=1, cache_namespace="tenant:7")
        text = self.run(key)
        assert "differs in  namespace\n" in text
        assert "-tenant:8\n+tenant:7\n" in text
        key = llmcache.key_for(client, **CALL, seed=1, cache_namespace="tenant:8")
        assert "differs in  parameters\n" in self.run(key)  # the same namespace first

    def test_json(self, keys: list[str]) -> None:
        found = json.loads(self.run(keys[0], "--format", "json"))
        assert (found["outcome"], found["tier"], found["key"]) == ("hit", "durable", keys[0])
        assert set(found["parts"]) == set(PARTS)
        assert found["response_model"] == "tests.support.ticket.Ticket"
        assert found["nearest"]["key"] == keys[1]
        assert found["nearest"]["differing"] == ["parameters"]
        assert "seed" in found["nearest"]["differences"]["parameters"]
        found = json.loads(self.run(keys[0], keys[2], "--format=json"))
        assert found["other"]["key"] == keys[2]
        assert found["nearest"] is None

    def test_a_single_entry(self, client: Any) -> None:
        client.create(**CALL)
        assert "nearest entry none" in self.run(durable.entries().get().key)
        key = durable.entries().get().key
        assert json.loads(self.run(key, "--format=json"))["nearest"] is None

    def test_an_entry_of_the_adapter(self, keys: list[str]) -> None:
        durable.entries().filter(key=keys[0]).update(digests={})
        assert "nearest entry none" in self.run(keys[0])
        assert "No digests are stored of its parts" in self.run(keys[0], keys[1])
        assert "No digests are stored of its parts" in self.run(keys[1], keys[0])

    def test_of_another_version_of_the_keys(self, keys: list[str]) -> None:
        durable.entries().update(digests=durable.entries().get(key=keys[0]).digests)
        assert "was stored by a version of llmcache with other keys" in self.run(keys[0], keys[1])

    @pytest.mark.parametrize("beginning", ["abcde", "xyzxyz", "0" * 65, "", "abc_def", "%%%%%%"])
    def test_what_is_no_key(self, beginning: str) -> None:
        with pytest.raises(CommandError, match="give 6 to 64 hex digits"):
            self.run(beginning)

    def test_an_unknown_key(self, keys: list[str]) -> None:
        with pytest.raises(CommandError, match="No entry is stored under 000000: "):
            self.run("000000")
        with pytest.raises(CommandError, match=r"llmcache\.explain\(client, \.\.\.\)"):
            self.run(keys[0], "f" * 64)

    def test_a_beginning_of_several_keys(self, keys: list[str]) -> None:
        for number, key in enumerate(keys):
            durable.entries().filter(key=key).update(key=f"abcdef{number}".ljust(64, "0"))
        with pytest.raises(CommandError, match="Several keys begin with abcdef") as error:
            self.run("abcdef")
        assert str(error.value).count("\n  abcdef") == 3
        assert self.run("abcdef1")

    def test_a_copy_that_is_left_in_the_hot_tier(self, client: Any, settings: Any) -> None:
        settings.LLMCACHE = {"CACHE": "database"}
        client.create(**CALL)
        durable.entries()._raw_delete("default")
        key = llmcache.key_for(client, **CALL)
        with pytest.raises(CommandError, match=r"The hot tier \(fast copies\) has a copy left"):
            self.run(key)
        hot.delete([key])

    def test_what_would_steer_a_terminal(self, client: Any) -> None:
        red = "\x1b[31mred\x9b\u202e"
        client.create(**CALL, model=red)
        client.create(**CALL | {"messages": asking(red)}, model=red)
        for row in durable.entries():
            assert not set(self.run(row.key)) & set("\x1b\x9b\u202e")


def _tier(backend: Backend) -> str:
    return "hot" if backend.cache else "durable"


class TestDifference:
    def test_of_values_that_are_the_same(self) -> None:
        assert difference({"a": 1, "b": [2]}, {"b": [2], "a": 1}, NAMES) == ""

    def test_one_sentence_in_a_long_text(self) -> None:
        before = {"text": " ".join(f"Sentence number {number} says it." for number in range(50))}
        after = {"text": before["text"].replace("25 says it", "25 does not say it any more")}
        assert changed_lines(difference(before, after, NAMES)) == [
            "-      Sentence number 25 says it. ",
            "+      Sentence number 25 does not say it any more. ",
        ]

    def test_lines_of_a_text(self) -> None:
        before, after = {"text": "One\nTwo\\nThree\n"}, {"text": "One\n2\\nThree\n"}
        assert difference(before, after, NAMES).splitlines() == [
            "--- before",
            "+++ after",
            "@@",
            " {",
            '   "text": "One\\n',
            '-      Two\\\\nThree\\n"',
            '+      2\\\\nThree\\n"',
            " }",
        ]

    def test_is_bounded(self) -> None:
        before, after = ([f"{side} {number}" for number in range(30_000)] for side in "ab")
        shown = difference(before, after, NAMES).splitlines()
        assert len(shown) == differences.MOST_LINES + 1
        assert shown[-1].endswith("more lines are not shown)")
        image = difference("A" * 5_000_000, "B" * 5_000_000, NAMES).splitlines()
        assert len(image) == differences.MOST_LINES + 1
        assert max(map(len, image)) < 120

    def test_what_is_the_same_is_not_searched(self) -> None:
        before = [f"line {number}" for number in range(30_000)]
        after = [*before[:15_000], "new", *before[15_000:]]
        assert changed_lines(difference(before, after, NAMES)) == ['+  "new",']
        assert "not shown" not in difference(before, after, NAMES)

    def test_deep_values(self) -> None:
        deep: Any = []
        for _ in range(500):
            deep = [deep]
        assert difference(deep, [deep], NAMES)

    @given(st.recursive(st.none() | st.text() | st.floats(), lambda inner: st.lists(inner)))
    def test_any_text_can_be_printed(self, value: Any) -> None:
        shown = difference(value, "nothing", NAMES)
        assert all(line.isprintable() for line in shown.split("\n"))
        assert all(len(line) < 1_500 for line in shown.split("\n"))
