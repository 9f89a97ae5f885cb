"""The pages of the admin: entries to show, and what a reader sees."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import time
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

from django.db.models import F
from django.urls import reverse

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.envelope import ANSWER, REQUEST, seal
from llmcache.reasons import ReasonCode
from llmcache.store.rows import late_answers
from llmcache.store.rows import tier as durable
from tests.support.ledger import group, sums, write

LIST = "/admin/llmcache/cacheentry/"

DAY = 86_400


def draft(name="entry", *, age=60.0, ttl=DAY, answer=None, request=None, **more):
    """An entry to store; its key is the hash of `name`."""
    key = hashlib.sha256(name.encode()).hexdigest()
    created = time.time() - age
    expires = None if ttl is None else created + ttl
    times = {"created": created, "expires": expires}
    stored = (
        answer if isinstance(answer, StoredAnswer) else StoredAnswer(json.dumps(answer).encode())
    )
    return durable.Draft(
        key=key,
        payload=more.pop("payload", None) or seal(ANSWER, key, stored.pack(), **times),
        request=None
        if request is None
        else seal(REQUEST, key, json.dumps(request).encode(), **times),
        **{"namespace": "support", "model": "gpt-4.1-mini", "response_model": "shop.Ticket"} | more,
        **times,
    )


def store(name="entry", **more):
    made = draft(name, **more)
    assert durable.write(made, late_answers.generation()) is None
    return durable.entries().get(key=made.key)


def store_asking(name, text, *, seed, **more):
    """An entry with a request, and a digest of each part of it."""
    request = {
        "messages": [{"role": "user", "content": text}],
        "parameters": {"seed": seed},
    }
    parts = request | {"namespace": "support", "model": "gpt-4.1-mini"} | more
    digests = {
        part: hashlib.sha256(repr(value).encode()).hexdigest() for part, value in parts.items()
    }
    return store(name, request=request, digests=digests, **more)


def store_many(count, **more):
    for number in range(count):
        store(f"entry {number}", **more)


def page_of(entry, name="change"):
    return reverse(f"admin:llmcache_cacheentry_{name}", args=[entry.pk])


def text_of(response):
    """What a reader sees of a page, one blank between words."""
    assert response.status_code == 200
    body = response.content.decode().partition("<main")[2].partition("</main>")[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def listed(response):
    return [entry.key for entry in response.context["cl"].result_list]


def select(*entries, **more):
    return {
        "action": "invalidate_selected",
        "_selected_action": [str(entry.pk) for entry in entries],
        "select_across": "0",
        **more,
    }


def agreement(response):
    """What the form of the confirmation page sends."""
    inputs = re.findall(
        r'<input type="hidden" name="(\w+)" value="([^"]*)"', response.content.decode()
    )
    sent = {}
    for name, value in inputs:
        sent.setdefault(name, []).append(value)
    return sent


FORM = "/admin/llmcache/invalidation/add/"

AUDIT = "/admin/llmcache/invalidation/"


def confirm(client, agreed, **criteria):
    return client.post(FORM, criteria | {"confirm": "", "agreed": agreed}, follow=True)


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def image(media_type, content):
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def asking_with(*urls):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, *parts]}]}


def asking(text):
    return {"messages": [{"role": "user", "content": text}]}


DASHBOARD = "/admin/llmcache/dashboard/"

REASONS = [ReasonCode.NO_STORE, ReasonCode.NO_CANONICAL_FORM]


def fill_dashboard(days: int) -> None:
    """Calls of the last days, more by day than by night; and some entries."""
    dice, now = random.Random(7), datetime.now(UTC)
    rows: dict[Any, list[int]] = {}
    for hours in range(24 * days):
        moment = now - timedelta(hours=hours)
        busy = dice.randrange(1, 40) * (3 if 8 <= moment.hour <= 18 else 1)
        for namespace, model, response_model in (
            ("support", "gpt-4.1-mini", "shop.tickets.Ticket"),
            ("invoices", "claude-sonnet-4-5", "shop.invoices.Invoice"),
            ("tenant:7", "llama-3-local", "shop.tickets.Ticket"),
        ):
            names = {"namespace": namespace, "model": model, "response_model": response_model}
            priced = model != "llama-3-local"
            cost = 1_900_000 if priced else 0
            rows[group(moment, **names)] = sums(
                3 * busy,
                cost_saved=3 * busy * cost,
                unpriced=0 if priced else 3 * busy,
                input_tokens_saved=3 * busy * 900,
                output_tokens_saved=3 * busy * 80,
                microseconds_saved=3 * busy * 1_300_000,
            )
            rows[group(moment, **names, tier="", outcome="miss")] = sums(
                busy,
                stored=busy,
                cost_spent=busy * cost,
                unpriced=0 if priced else busy,
                bytes_stored=busy * 1700,
            )
            rows[group(moment, **names, tier="durable", outcome="stale")] = sums(busy // 5)
            rows[group(moment, **names, tier="", outcome="reload")] = sums(busy // 8)
            rows[
                group(moment, **names, tier="", outcome="bypass", reason_code=dice.choice(REASONS))
            ] = sums(busy // 4)
    rows[group(now, tier="", outcome="miss", reason_code=ReasonCode.CUT_SHORT)] = sums(4)
    write(*rows.items())
    for number in range(12):
        store(f"entry {number}", cost=1000 * number, answer={"title": "x" * 40 * number})
    durable.entries().update(hits=F("size") % 50)


SCRIPT = "<script>alert(1)</script>"
