"""Vectors whose caller goes away: what was paid for is kept whole, or is asked for anew."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

import llmcache
from llmcache.background import database
from llmcache.store import saving
from llmcache.store.rows import tier as durable
from tests.support.dialects import Model
from tests.support.embedders import asked, vectors_in
from tests.support.vectors import numbers

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the SDKs, about what is theirs
]

# In three parts (see `saving.ROWS_AT_ONCE`).
TEXTS = [f"text {number}" for number in range(250)]


async def embed(client: Any, model: Model, texts: list[str] = TEXTS) -> list[Any]:
    said = {"model": "m", "input": texts}
    return vectors_in(await client.post(f"{model.root}/v1/embeddings", json=said))


@pytest.mark.parametrize("written", [0, 1, 2])
def test_who_is_cancelled_while_many_are_stored_leaves_whole_parts(
    dialects: Model, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """He goes while the part with that number is being written."""
    begun, parts, save_each = threading.Event(), list[int](), saving._save_each

    def save_slowly(drafts: Any, generation: Any) -> Any:
        parts.append(len(drafts))
        if len(parts) > written:
            begun.set()
            time.sleep(0.2)
        return save_each(drafts, generation)

    monkeypatch.setattr(saving, "_save_each", save_slowly)

    async def main() -> list[Any]:
        async with llmcache.async_http_client() as client:
            leaving = asyncio.ensure_future(embed(client, dialects))
            assert await asyncio.to_thread(begun.wait, 20)
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            await asyncio.to_thread(database.finish)
            return await embed(client, dialects)

    assert asyncio.run(main()) == list(map(numbers, TEXTS))
    first, *rest = asked(dialects)
    assert first == TEXTS
    missing = rest[0] if rest else []
    # (what was under way is written all the same)
    assert len(missing) == len(TEXTS) - sum(parts[: written + 1])
    assert durable.entries().count() == len(TEXTS)
