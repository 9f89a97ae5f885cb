"""What answers took: tokens by the words of each provider, and money at whose prices."""

from __future__ import annotations

import logging
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import anthropic.types
import genai_prices
import openai.types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache.outcomes import Receipt
from llmcache.providers import pricing
from llmcache.providers.pricing import receipt

OPENAI = openai.types.CompletionUsage.model_validate(
    {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 600},
    }
)
RESPONSES = {
    "input_tokens": 1000,
    "output_tokens": 100,
    "input_tokens_details": {"cached_tokens": 600},
}
ANTHROPIC = anthropic.types.Usage(
    input_tokens=400,
    output_tokens=100,
    cache_read_input_tokens=500,
    cache_creation_input_tokens=100,
)
GOOGLE = {
    "prompt_token_count": 1000,
    "candidates_token_count": 60,
    "thoughts_token_count": 40,
    "cached_content_token_count": 600,
}

count = st.none() | st.integers(0, 2**31 - 1)
amount = st.none() | st.integers(0, 2**63 - 1)


def response(usage: Any, model: str = "gpt-4.1-mini") -> Any:
    return SimpleNamespace(model=model, usage=usage)


@given(st.builds(Receipt, count, count, amount, amount))
def test_a_receipt_comes_back_from_its_bytes(made: Receipt) -> None:
    assert Receipt.unpack(made.pack()) == made


def test_what_is_no_receipt_is_none() -> None:
    assert Receipt.unpack(b"") is None
    assert Receipt.unpack(b"x" * 23) is None
    assert Receipt.unpack(Receipt(2**40).pack()) == Receipt(2**31 - 1)


@pytest.mark.parametrize(
    ("completion", "provider", "dollars"),
    [
        # Input, cached input and output; with Anthropic, also what is written to its cache.
        (response(OPENAI), "openai", "400 * 0.4 + 600 * 0.1 + 100 * 1.6"),
        (response(RESPONSES), "openai", "400 * 0.4 + 600 * 0.1 + 100 * 1.6"),
        (
            response(ANTHROPIC, "claude-sonnet-4-5"),
            "anthropic",
            "400 * 3 + 500 * 0.3 + 100 * 3.75 + 100 * 15",
        ),
        (
            {"model": "gemini-2.5-flash", "usage_metadata": GOOGLE},
            "genai",
            "400 * 0.3 + 600 * 0.03 + 100 * 2.5",
        ),
    ],
    ids=["chat", "responses", "anthropic", "google"],
)
def test_listed_prices(completion: Any, provider: str, dollars: str) -> None:
    expected = round(eval(dollars) * 1000)
    assert receipt(completion, provider=provider) == Receipt(1000, 100, expected)


def test_the_list_is_the_one_of_genai_prices() -> None:
    used = genai_prices.Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=600)
    listed = genai_prices.calc_price(used, "gpt-4.1-mini", provider_id="openai").total_price
    cost = receipt(response(OPENAI), provider="openai").cost
    assert cost is not None
    assert pricing.dollars(cost) == listed


@pytest.mark.parametrize(
    ("provider", "sent", "responded"),
    [
        ("openai", "gpt-4.1-mini", None),
        ("openai", "my-deployment", "gpt-4.1-mini-2025-04-14"),
        ("azure_openai", "my-deployment", "gpt-4.1-mini"),
        ("litellm", "openai/gpt-4.1-mini", None),
        ("python", "support.asking.extract", "gpt-4.1-mini"),
        ("unknown", "gpt-4.1-mini", None),
    ],
)
def test_the_model_is_the_one_that_was_sent_or_that_responded(
    provider: str, sent: str, responded: str | None
) -> None:
    completion = SimpleNamespace(model=responded, usage=OPENAI)
    assert receipt(completion, provider=provider, model=sent).cost == 380_000


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "no-such-model"), ("ollama", "llama3.3"), ("python", "a.b.c"), ("openai", "")],
)
def test_an_unknown_model_has_no_price_which_is_not_zero(provider: str, model: str) -> None:
    completion = SimpleNamespace(usage=OPENAI)
    assert receipt(completion, provider=provider, model=model) == Receipt(1000, 100, None)


@pytest.mark.parametrize(
    "completion",
    [
        None,
        "text",
        response(None),
        response({"prompt_tokens": "7", "completion_tokens": True}),
        response({"input_tokens": -1}),
    ],
)
def test_unknown_tokens_have_no_price(completion: Any) -> None:
    assert receipt(completion, provider="openai", seconds=1.5) == Receipt(microseconds=1_500_000)


def test_what_is_known_in_part_is_kept() -> None:
    assert receipt(response({"output_tokens": 7}), provider="openai") == Receipt(None, 7)


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({"input": 1, "output": "2"}, 1000 * 1000 + 100 * 2000),
        ({"input": 0.1, "output": Decimal(2), "cached_input": 0}, 400 * 100 + 100 * 2000),
        ({"input": 0, "output": 0}, 0),
    ],
)
def test_prices_of_ones_own_win(settings: Any, prices: Any, cost: int) -> None:
    settings.LLMCACHE = {"PRICES": {"gpt-4.1-mini": prices, "mine": {"input": 9, "output": 9}}}
    assert receipt(response(OPENAI), provider="openai").cost == cost
    assert receipt(response(OPENAI), provider="openai", model="alias").cost == cost
    assert receipt(response(OPENAI, "mine"), model="gpt-4.1-mini").cost == cost


def test_a_setting_that_is_off_leaves_answers_without_a_price(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.LLMCACHE = {"PRICES": {"gpt-4.1-mini": {"input": "a lot", "output": 1}}}
    pricing._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert receipt(response(OPENAI), provider="openai") == Receipt(1000, 100, None)
    [record] = caplog.records
    assert "LLMCACHE['PRICES'] must be" in record.getMessage()


def test_without_the_library_only_ones_own_prices_are_known(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pricing, "genai_prices", None)
    assert receipt(response(OPENAI), provider="openai").cost is None
    settings.LLMCACHE = {"PRICES": {"gpt-4.1-mini": {"input": 1, "output": 1}}}
    assert receipt(response(OPENAI), provider="openai").cost == 1_100_000


def test_several_answers_together() -> None:
    some = [Receipt(1, 2, 3, 9), Receipt(10, 20, 30, 9)]
    assert pricing.together(some, 1) == Receipt(11, 22, 33, 1_000_000)
    assert pricing.together([*some, Receipt(1, 1, None)], 1) == Receipt(12, 23, None, 1_000_000)
    assert pricing.together([], 0) == Receipt(0, 0, 0, 0)
