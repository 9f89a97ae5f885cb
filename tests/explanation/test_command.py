"""``llmcache_explain``, and the difference of two requests."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

import llmcache
from llmcache.explanation import diff as differences
from llmcache.explanation.diff import difference
from llmcache.keys.request import PARTS
from llmcache.store.hot import tier as hot
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.support.backends import Backend
from tests.support.explanation import CALL, asking, changed_lines, make_client, transactional

NAMES = ("before", "after")


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
