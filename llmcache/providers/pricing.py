"""What an answer of a model took: its tokens, as the provider counts them, and what they cost.

The team's own prices (``LLMCACHE["PRICES"]``) win. Those of genai-prices, the extra "prices", are
asked otherwise; they come with the library, and nobody is asked over the network. A model that
neither knows has no price, which is not the same as a price of zero.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from llmcache.conf import settings
from llmcache.outcomes import Receipt
from llmcache.providers.admission import read
from llmcache.values import Prices

try:
    import genai_prices
except ImportError:  # the extra "prices" is not installed
    genai_prices = None  # type: ignore[assignment]

logger = logging.getLogger("llmcache")

# Money is counted in these.
PER_DOLLAR: Final = 1_000_000_000
# A dollar for a million tokens, in those for one token.
PER_TOKEN: Final = PER_DOLLAR // 1_000_000

# Names of instructor for a provider that genai-prices calls otherwise.
PROVIDERS: Final = {"genai": "google", "generative-ai": "google"}
# No answer has more tokens, and infinity is no number of them.
MOST: Final = 1 << 53
# Where the provider is not known, a model's name has to do.
UNKNOWN_PROVIDERS: Final = frozenset({"", "unknown", "python", "instructor"})


# Where a response tells the tokens (of Cohere's vectors: the last).
USAGES: Final = ("usage", "usage_metadata", "usageMetadata", "meta")
# What providers call the numbers of tokens.
INPUT: Final = (
    *("prompt_tokens", "input_tokens", "inputTokens"),
    *("prompt_token_count", "promptTokenCount"),
)
OUTPUT: Final = (
    *("completion_tokens", "output_tokens", "outputTokens"),
    *("candidates_token_count", "candidatesTokenCount"),
)
# (of Gemini, in an object of its SDK and in JSON)
CACHED: Final = ("cached_content_token_count", "cachedContentTokenCount")
THOUGHTS: Final = ("thoughts_token_count", "thoughtsTokenCount")
# Anthropic and Bedrock count what has to do with their cache apart, the others within the input.
CACHE_READ: Final = ("cache_read_input_tokens", "cacheReadInputTokens")
CACHE_WRITTEN: Final = ("cache_creation_input_tokens", "cacheWriteInputTokens")


class Usage(NamedTuple):
    """The tokens of one answer, retries included; None: it is not told.

    Of `input_tokens`, `cached_tokens` were read from the provider's own cache of prompts, and
    `written_tokens` written there.
    """

    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int
    written_tokens: int


def receipt(
    completion: Any,
    *,
    provider: str = "",
    model: str = "",
    seconds: float | None = None,
    writes: bool = True,
) -> Receipt:
    """What the answer with this response of the provider took, at today's prices.

    Args:
        completion: the provider's response, as an object of its SDK or as the JSON of one.
        provider: as instructor calls it.
        model: the name that was sent. The one that the response names is tried after it.
        seconds: how long the model took.
        writes: whether there are tokens that the model has written, as there are none of vectors.
    """
    usage = _usage(completion, writes=writes)
    took = None if seconds is None else round(seconds * 1_000_000)
    names = (name for name in (model, read(completion, "model")) if isinstance(name, str))
    models = [name for name in dict.fromkeys(names) if name]
    cost = None if None in usage else _cost(usage, provider, models)
    return Receipt(usage.input_tokens, usage.output_tokens, cost, took)


def tokens_in(completion: Any) -> int | None:
    """The tokens of the input, of a response that holds none that the model has written."""
    return _usage(completion, writes=False).input_tokens


def together(receipts: Iterable[Receipt], seconds: float) -> Receipt:
    """What several answers took that came within `seconds`. None at all cost nothing."""
    each = list(receipts)
    return Receipt(
        _sum(receipt.input_tokens for receipt in each),
        _sum(receipt.output_tokens for receipt in each),
        _sum(receipt.cost for receipt in each),
        round(seconds * 1_000_000),
    )


def dollars(cost: int) -> Decimal:
    """An amount of money, counted as in a `Receipt`, in US dollars."""
    return Decimal(cost) / PER_DOLLAR


def _sum(values: Iterable[int | None]) -> int | None:
    """None, when one of them is not known."""
    known = list(values)
    return None if None in known else sum(filter(None, known))


def _usage(completion: Any, *, writes: bool) -> Usage:
    places = (read(completion, name) for name in USAGES)
    usage = next((usage for usage in places if usage is not None), None)
    # Cohere's are one deeper.
    usage = read(usage, "billed_units") or read(usage, "tokens") or usage
    details = read(usage, "prompt_tokens_details") or read(usage, "input_tokens_details")
    within = _count(details, "cached_tokens") or _count(usage, *CACHED) or 0
    tokens_in, tokens_out = _count(usage, *INPUT), _count(usage, *OUTPUT)
    if not writes and usage is not None:
        # (all that were used are those of the input: Voyage tells no others)
        tokens_in = _count(usage, "total_tokens") if tokens_in is None else tokens_in
        tokens_out = tokens_out or 0
    cached, written = _count(usage, *CACHE_READ) or 0, _count(usage, *CACHE_WRITTEN) or 0
    thoughts = _count(usage, *THOUGHTS) or 0
    return Usage(
        None if tokens_in is None else tokens_in + cached + written,
        None if tokens_out is None else tokens_out + thoughts,
        cached or min(tokens_in or 0, within),
        written,
    )


def _count(holder: Any, *names: str) -> int | None:
    """The first of these that is a number of tokens."""
    for name in names:
        number = read(holder, name)
        if type(number) in {int, float} and 0 <= number < MOST:  # (Cohere's are floats)
            return int(number)
    return None


def _cost(usage: Any, provider: str, models: list[str]) -> int | None:
    try:
        own = settings.prices
    except ImproperlyConfigured as error:
        _warn_once(str(error))
        return None
    for model in models:
        if model in own:
            return _own_cost(usage, own[model])
    return _listed_cost(usage, provider, models)


def _own_cost(usage: Any, prices: Prices) -> int:
    cached_price = prices.input if prices.cached_input is None else prices.cached_input
    cost: Decimal = (
        (usage.input_tokens - usage.cached_tokens) * prices.input
        + usage.cached_tokens * cached_price
        + usage.output_tokens * prices.output
    )
    return round(cost * PER_TOKEN)


def _listed_cost(usage: Usage, provider: str, models: list[str]) -> int | None:
    """What genai-prices says, of the first of the names that it knows."""
    if genai_prices is None:
        return None
    provider_id = None if provider in UNKNOWN_PROVIDERS else PROVIDERS.get(provider, provider)
    used = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.written_tokens,
    )
    for model in models:
        with suppress(LookupError, ValueError):
            price = genai_prices.calc_price(used, model, provider_id=provider_id)
            return round(price.total_price * PER_DOLLAR)
    return None


@lru_cache(maxsize=100)
def _warn_once(trouble: str) -> None:
    logger.warning("llmcache: answers have no price: %s", trouble)
