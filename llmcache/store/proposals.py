"""New answers that wait for somebody to say that they may take the place of an old one.

For an entry, the last one counts. It is sealed as an entry is, is never served, and is removed
after a day.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any, Final

from django.apps import apps
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

    def work() -> None:
        with transaction.atomic(using=transactions.database_alias()):
            _proposals().filter(key=draft.key).delete()
            _proposals().create(
                key=draft.key,
                payload=draft.payload,
                request=draft.request,
                facts=_facts(draft),
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
    found = database.run(lambda: _current(draft.key))
    if found is None:
        return ReasonCode.INVALIDATED()
    created, tags = found
    if created > columns.moment(draft.created):
        return ReasonCode.SUPERSEDED()
    refusal = store.save(replace(draft, tags=tags), proposal.generation)
    discard(draft.key)
    return refusal


def discard(key: str) -> None:
    """Forget what was proposed for the entry under `key`."""
    database.run_removal(_proposals().filter(key=key).delete, patience=database.WRITE_SECONDS)


def _current(key: str) -> tuple[Any, frozenset[str]] | None:
    row = durable.entries().filter(key=key).only("created_at").first()
    return None if row is None else (row.created_at, frozenset(_tags(row)))


def _tags(row: Any) -> Any:
    return row.tags.values_list("tag", flat=True)


def _facts(draft: Draft) -> Any:
    facts = {name: value for name, value in asdict(draft).items() if name not in BYTES}
    facts["tags"] = sorted(draft.tags)
    return json.loads(json.dumps(facts, cls=DjangoJSONEncoder))


def _proposals() -> Any:
    alias = transactions.database_alias()
    return apps.get_model("llmcache", "Proposal").objects.using(alias)
