"""`explain` and `aexplain`: why a call would hit or miss."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from pydantic import BaseModel, field_validator

import llmcache
from llmcache.explanation.explain import Explanation
from llmcache.keys.request import PARTS
from llmcache.store.hot import tier as hot
from llmcache.store.rows import tier as durable
from llmcache.usage import hits
from project.standin.server import StandIn
from tests.support.backends import Backend
from tests.support.entries import damaged
from tests.support.explanation import (
    CALL,
    MESSAGES,
    make_client,
    transactional,
)


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
        durable.entries().update(payload=damaged(durable.entries().get().payload))
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
