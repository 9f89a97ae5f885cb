"""What holds for each provider of instructor, seen by asking a stand-in through its own SDK.

The table of docs/providers.md is made from what is seen here:
`python -m pytest -m slow tests/providers/test_providers.py` prints the rows that are out of date.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import instructor
import pytest
from instructor.v2.auto_client import supported_providers
from pydantic import BaseModel

import llmcache
from tests.support.dialects import INPUT, Model
from tests.support.paths import ROOT
from tests.support.sdks import City, Make, anthropic, azure_openai, bedrock, google

PAGE = ROOT / "docs" / "providers.md"

COLUMNS = ["create", "with_completion", "async", "iterable", "partial", "raw"]

COLUMNS += ["tokens", "truncation", "endpoint in key"]

#: What cannot be had without the cache either.
REFUSED = "–"


def of_openai(sdk_path: str = "/v1") -> Make:
    def make(root: str, is_async: bool) -> Any:
        import openai

        cls: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
        return instructor.from_openai(cls(api_key="k", base_url=root + sdk_path), model="m")

    return make


def by_name(name: str, **options: Any) -> Make:
    """A provider that instructor can be told the address of."""

    def make(root: str, is_async: bool) -> Any:
        given = {"api_key": "k", "base_url": root, **options}
        provider: Any = instructor.from_provider
        return provider(f"{name}/m", async_client=is_async, **given)

    return make


def perplexity(root: str, is_async: bool) -> Any:
    import openai

    cls: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
    return instructor.from_perplexity(cls(api_key="k", base_url=root), model="m")


def mistral(root: str, is_async: bool) -> Any:
    from mistralai.client import Mistral

    sdk = Mistral(api_key="k", server_url=root)
    return instructor.from_mistral(sdk, use_async=is_async, model="m")


def cohere(root: str, is_async: bool) -> Any:
    import cohere

    cls: Any = cohere.AsyncClientV2 if is_async else cohere.ClientV2
    return instructor.from_cohere(cls(api_key="k", base_url=root), model="m")


def groq(root: str, is_async: bool) -> Any:
    import groq

    cls: Any = groq.AsyncGroq if is_async else groq.Groq
    return instructor.from_groq(cls(api_key="k", base_url=root), model="m")


def writer(root: str, is_async: bool) -> Any:
    import writerai

    cls: Any = writerai.AsyncWriter if is_async else writerai.Writer
    return instructor.from_writer(cls(api_key="k", base_url=root), model="m")


def cerebras(root: str, is_async: bool) -> Any:
    from cerebras.cloud import sdk

    cls: Any = sdk.AsyncCerebras if is_async else sdk.Cerebras
    return instructor.from_cerebras(cls(api_key="k", base_url=root), model="m")


def fireworks(root: str, is_async: bool) -> Any:
    import fireworks

    cls: Any = fireworks.AsyncFireworks if is_async else fireworks.Fireworks
    return instructor.from_fireworks(cls(api_key="k", base_url=root), model="m")


def litellm(root: str, is_async: bool) -> Any:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network for its prices
    import litellm

    completion: Any = litellm.acompletion if is_async else litellm.completion
    given: Any = {"model": "openai/m", "api_base": root, "api_key": "k"}
    return instructor.from_litellm(completion, **given)


PROVIDERS: dict[str, Make] = {
    "openai": of_openai(),
    "azure_openai": azure_openai,
    "anyscale": by_name("anyscale"),
    "databricks": by_name("databricks"),
    "deepseek": by_name("deepseek"),
    "ollama": by_name("ollama"),
    "openrouter": by_name("openrouter"),
    "perplexity": perplexity,
    "together": by_name("together"),
    "anthropic": anthropic,
    "google, generative-ai": google,
    "mistral": mistral,
    "cohere": cohere,
    "bedrock": bedrock,
    "groq": groq,
    "writer": writer,
    "cerebras": cerebras,
    "fireworks": fireworks,
    "litellm": litellm,
}

# One way of asking: the client, the question, and whether the response model is City.
Way = Callable[[Any, str], Any]


def asked(question: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "max_retries": 0}


def create(client: Any, question: str) -> Any:
    return client.create(response_model=City, **asked(question))


def with_completion(client: Any, question: str) -> Any:
    answer, completion = client.create_with_completion(response_model=City, **asked(question))
    return answer, content_of(completion)


def iterable(client: Any, question: str) -> Any:
    first, *others = read(client.create_iterable, question)
    return [first, *others]


def partial(client: Any, question: str) -> Any:
    *_, last = read(client.create_partial, question)
    return last.model_dump()


def read(create: Any, question: str) -> list[Any]:
    stream = create(response_model=City, **asked(question))

    async def awaited() -> list[Any]:
        return [item async for item in stream]

    is_async = isinstance(create.__self__, instructor.AsyncInstructor)
    return asyncio.run(awaited()) if is_async else list(stream)


def raw(client: Any, question: str) -> Any:
    return content_of(client.create(response_model=None, **asked(question)))


def content_of(completion: Any) -> Any:
    """What a completion says; beside it, SDKs keep which HTTP request it came from."""
    content = completion.model_dump() if isinstance(completion, BaseModel) else completion
    return completion.__class__, type(getattr(completion, "usage", None)), content


def awaited(client: Any, question: str) -> Any:
    return asyncio.run(client.create(response_model=City, **asked(question)))


def seen(make: Make, way: Way, is_async: bool = False) -> str:
    """How a question that is asked twice in this way is answered."""
    with Model() as model:
        try:
            client, twin = (llmcache.wrap(make(model.root, is_async)) for _ in range(2))
            with llmcache.capture() as calls:
                live, hit = way(client, "Which city?"), way(twin, "Which city?")
        except Exception as error:  # noqa: BLE001 - whatever instructor or the SDK raises
            return without_cache(make, way, is_async, error)
        assert [call.outcome for call in calls] == ["miss", "hit"], calls[0].reason
        assert hit == live
        assert type(hit) is type(live)
        assert model.asked == 1
    return "hit"


def without_cache(make: Make, way: Way, is_async: bool, error: Exception) -> str:
    with Model() as model:
        try:
            way(make(model.root, is_async), "Which city?")
        except Exception:  # noqa: BLE001 - as above
            return REFUSED
    raise AssertionError("it can be had without the cache") from error


def tokens(make: Make) -> str:
    with Model() as model, llmcache.capture() as calls:
        create(llmcache.wrap(make(model.root, False)), "How many?")
    return "read" if calls[0].spent and calls[0].spent.input_tokens == INPUT else REFUSED


def truncation(make: Make, ways: Iterable[Way]) -> str:
    """What becomes of an answer that was cut short, and validates all the same."""
    with Model() as model:
        model.cut = True
        client = llmcache.wrap(make(model.root, False))
        for way in ways:
            model.asked = 0
            for _ in range(2):
                with suppress(Exception):  # (instructor raises for some words)
                    way(client, "Which city is cut?")
            if model.asked != 2:
                return f"stored by {way.__name__}"
    return "not stored"


def endpoint(make: Make) -> str:
    with Model() as one, Model() as two:
        for model in (one, two):
            create(llmcache.wrap(make(model.root, False)), "Where?")
        return "yes" if two.asked == 1 else "no"


def row(name: str, make: Make) -> str:
    ways = [create, with_completion, awaited, iterable, partial, raw]
    marks = {way: seen(make, way, is_async=way is awaited) for way in ways}
    for way in (iterable, partial):
        if (mark := seen(make, way, is_async=True)) != marks[way]:
            marks[way] += f", async {mark}"
    possible = [way for way, mark in marks.items() if mark.startswith("hit") and way is not awaited]
    found = [*marks.values(), tokens(make), truncation(make, possible), endpoint(make)]
    return f"| {name} | " + " | ".join(found) + " |"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.filterwarnings("ignore")  # of the SDKs, about what is theirs
@pytest.mark.parametrize("name", PROVIDERS)
def test_the_row_of_a_provider_is_up_to_date(name: str, caplog: pytest.LogCaptureFixture) -> None:
    line = row(name, PROVIDERS[name])
    assert not [record for record in caplog.records if record.name == "llmcache"]
    assert line in PAGE.read_text().splitlines(), f"{PAGE.name} should have:\n\n{line}"


def test_the_page_tells_of_every_provider_of_instructor() -> None:
    page = PAGE.read_text()
    assert "| provider | " + " | ".join(COLUMNS) + " |" in page.splitlines()
    not_run = set(re.findall(r"^- `([\w-]+)`", page, re.MULTILINE))
    run = {name for names in PROVIDERS for name in names.split(", ")}
    assert run | not_run == set(supported_providers)
