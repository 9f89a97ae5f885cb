"""Rows of the ledger."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from llmcache.background import database as placement
from llmcache.store.rows import tier as durable
from llmcache.usage import ledger
from llmcache.usage.ledger import SUMS, Group
from tests.support.entries import draft


def group(moment: datetime, **names: str) -> Group:
    usual = {
        "namespace": "support",
        "provider": "openai",
        "model": "gpt",
        "response_model": "shop.Ticket",
        "outcome": "hit",
        "tier": "hot",
        "reason_code": "",
    }
    hour = int(moment.timestamp()) // 3600 * 3600
    return Group(hour, **{**usual, **names})


def sums(calls: int = 1, **facts: int) -> list[int]:
    return [{"calls": calls, **facts}.get(name, 0) for name in SUMS]


def write(*rows: tuple[Group, list[int]]) -> None:
    placement.run(lambda: ledger.add(dict(rows)), patience=None)


def save(number: int, **facts: Any) -> None:
    key = hashlib.sha256(str(number).encode()).hexdigest()
    cost = facts.pop("cost", None)
    placement.run(lambda: durable.write(draft(key, cost=cost, **facts), 0), writing=True)
