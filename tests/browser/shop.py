"""What a shop has asked a model, as entries: what the pages show in the tests and in README."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
import time
import zlib
from datetime import timedelta
from typing import Any

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.codec.envelope import ANSWER, REQUEST, seal
from llmcache.models import CacheEntry, HitDay
from llmcache.store import amendments
from llmcache.store.records import Draft
from llmcache.store.rows import late_answers
from llmcache.store.rows import tier as durable
from llmcache.usage.hits import DAYS, today

ADMIN = "/admin/llmcache"

ENTRIES = f"{ADMIN}/cacheentry"

HOUR, DAY = 3600, 86_400

SYSTEM = "Read what the customer writes, and fill in the ticket. Take everything from the text."

TICKETS = [
    ("The printer is on fire. Please hurry!", "Printer on fire", True, "hardware"),
    (
        "Where is my refund for order 4711? It has been three weeks.",
        "Late refund",
        False,
        "billing",
    ),
    ("Meine Rechnung stimmt nicht, bitte prüfen.", "Rechnung stimmt nicht", False, "billing"),
    ("I cannot log in since the update this morning.", "Login fails after update", True, "account"),
    ("Can I change the colour of my bicycle after ordering?", "Change of colour", False, "orders"),
    ("The front brake is broken, and I nearly fell.", "Broken front brake", True, "hardware"),
    ("注文した自転車はいつ届きますか。", "配送状況の確認", False, "orders"),
]

PLACES = [
    ("support", "gpt-4.1-mini", "shop.tickets.Ticket", 410_000),
    ("support", "claude-sonnet-4-5", "shop.tickets.Ticket", 6_100_000),
    ("invoices", "gpt-4.1", "shop.invoices.Invoice", 13_200_000),
    ("search", "our-own-llama", "shop.search.Query", None),
]


def fill(entries: int = 70) -> None:
    """So many entries, the first of which is the newest."""
    for number in range(entries):
        text, title, urgent, topic = TICKETS[number % len(TICKETS)]
        namespace, model, response_model, cost = PLACES[(number * number + number // 5) % 4]
        store(
            f"entry {number}",
            asking(text),
            {
                "title": title,
                "urgent": urgent,
                "topic": topic,
                "customer": {"language": "en", "order": 4711 + number},
                "next_steps": ["answer", "forward to the team"],
            },
            namespace=namespace,
            model=model,
            response_model=response_model,
            cost=cost,
            hits=(number * 37) % 211,
            age=60 + number * number * 400,
            tags=[f"customer:{number % 9}", topic],
        )
    third = durable.entries().order_by("pk")[2]
    amendments.set_time(third.pk, None, pinned=True)


def store(
    name: str,
    request: dict[str, Any],
    answer: Any,
    *,
    age: float = 60.0,
    cost: int | None = None,
    hits: int = 0,
    tags: list[str] | None = None,
    namespace: str,
    model: str,
    response_model: str,
) -> CacheEntry:
    key = hashlib.sha256(name.encode()).hexdigest()
    times: dict[str, Any] = {"created": time.time() - age, "expires": time.time() - age + 30 * DAY}
    completion = {
        "id": f"chatcmpl-{name}",
        "model": model,
        "object": "chat.completion",
    }
    stored = StoredAnswer(
        json.dumps(answer).encode(), Dumped("a:Completion", json.dumps(completion).encode())
    )
    parts = {"messages": request["messages"], "parameters": request["parameters"], "model": model}
    digests = {part: hashlib.sha256(repr(it).encode()).hexdigest() for part, it in parts.items()}
    draft = Draft(
        key=key,
        payload=seal(ANSWER, key, stored.pack(), **times),
        request=seal(REQUEST, key, json.dumps(request).encode(), **times),
        provider="openai",
        endpoint="base_url=https://models.shop.example/v1/",
        mode="tool_call",
        input_tokens=412,
        output_tokens=57,
        latency=1.834,
        digests=digests,
        tags=frozenset(tags or []),
        namespace=namespace,
        model=model,
        response_model=response_model,
        **times,
    )
    assert durable.write(draft, late_answers.generation()) is None
    rows = durable.entries().filter(key=key)
    rows.update(cost=cost, hits=hits)
    entry = rows.get()
    serve(entry, days=min(DAYS, 1 + int(age / DAY)))
    return entry


def serve(entry: CacheEntry, days: int) -> None:
    """Its hits, on the last so many days: some more at first, and fewer at weekends."""
    weights = [(1 + 1 / (1 + number)) * (0.3 if number % 7 > 4 else 1) for number in range(days)]
    for number, weight in enumerate(weights):
        day = today() - timedelta(days=days - 1 - number)
        served = round(entry.hits * weight / sum(weights))
        HitDay.objects.create(day=day, entry=entry.pk, hits=served)


def asking(text: str, *, photo: bool = False) -> dict[str, Any]:
    content: Any = text
    if photo:
        url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
        content = [
            {"type": "text", "text": text},
            {"type": "image_url", "image_url": {"url": url}},
        ]
    return {
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}],
        "parameters": {"temperature": 0.2, "max_tokens": 800},
        "context": None,
        "strict": True,
    }


def picture(width: int = 160, height: int = 120) -> bytes:
    """A PNG of a red lamp on grey."""
    rows = b"".join(
        b"\0" + b"".join(_pixel(x - width // 2, y - height // 2) for x in range(width))
        for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _pixel(x: int, y: int) -> bytes:
    distance = int(math.hypot(x, y))
    return bytes([205 - distance, 60, 50]) if distance < 46 else bytes([222, 226, 232])
