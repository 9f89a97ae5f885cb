"""New answers that wait for somebody to say that they may take the place of an old one.

For an entry, the last one counts. It is sealed as an entry is, is never served, and is removed
after a day.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.utils import timezone

from llmcache import store
from llmcache.background import database, transactions
from llmcache.reasons import Reason, ReasonCode
from llmcache.store.records import Draft
from llmcache.store.rows import columns
from llmcache.store.rows import tier as durable

# What a row has columns of its own for.
BYTES: Final = ("payload", "request")


def keep(draft: Draft, generation: int | None, by: str) -> None:
    """Keep `draft`, in the place of others for its key. `generation`: as for `save`."""
    facts = {name: value for name, value in asdict(draft).items() if name not in BYTES}
    facts["tags"] = sorted(draft.tags)

    def work() -> None:
        with transaction.atomic(using=transactions.database_alias()):
            _proposals().filter(key=draft.key).delete()
            _proposals().create(
                key=draft.key,
                payload=draft.payload,
                request=draft.request,
                facts=json.loads(json.dumps(facts, cls=DjangoJSONEncoder)),
                generation=generation,
                by=columns.label(by),
                created_at=timezone.now(),
            )

    database.run_removal(work, patience=database.WRITE_SECONDS)


def find(key: str) -> Any:
    """The `Proposal` for the entry under `key`; None when there is none."""
    return database.run(_proposals().filter(key=key).order_by("-pk").first)


def draft_of(proposal: Any) -> Draft:
    """The entry that it would be."""
    request = None if proposal.request is None else bytes(proposal.request)
    tags = frozenset(proposal.facts["tags"])
    return Draft(
        **proposal.facts | {"payload": bytes(proposal.payload), "request": request, "tags": tags}
    )


def accept(proposal: Any) -> Reason | None:
    """Store it in the place of its entry, whose tags stay as they are; why not, where it is not.

    It is not when the entry was invalidated, or got another answer, since the question was asked.
    """
    draft = draft_of(proposal)
    entries: Any = durable.entries().filter(key=draft.key)
    found = database.run(lambda: list(entries.values_list("created_at", "tags__tag")))
    if not found:
        return ReasonCode.INVALIDATED()
    if found[0][0] > columns.moment(draft.created):
        return ReasonCode.SUPERSEDED()
    tags = frozenset(tag for _, tag in found if tag is not None)
    refusal = store.save(replace(draft, tags=tags), proposal.generation)
    discard(draft.key)
    return refusal


def discard(key: str) -> None:
    """Forget what was proposed for the entry under `key`."""
    database.run_removal(_proposals().filter(key=key).delete, patience=database.WRITE_SECONDS)


def _proposals() -> Any:
    return transactions.rows("Proposal")
