"""What sets a call apart from the nearest entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import instructor
import pytest
from pydantic import create_model

import llmcache
from llmcache.explanation import comparison
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.backends import statements
from tests.support.explanation import CALL, STORY, asking, changed_lines, make_client, transactional
from tests.support.ticket import Ticket

TICKET_WITH_OWNER = create_model("Ticket", __base__=Ticket, owner=(str, ""))


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
        monkeypatch.setattr(comparison, "MOST_CANDIDATES", 3)
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
