"""What is about to be removed: how much, what it has saved, and a few of the entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from django.db.models import Count, Max, Q, Sum
from django.utils.translation import ngettext

from llmcache.admin import phrases
from llmcache.admin.entries.content import Question, read_question
from llmcache.models import CacheEntry, CacheEntryQuerySet
from llmcache.reports import formatting

SAMPLE_ROWS: Final = 10
SNIPPET: Final = 120


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the entries to go; `asks` are the first words of its last message."""

    entry: CacheEntry
    response_class: str
    asks: str


@dataclass(frozen=True, slots=True)
class Preview:
    """`newest` is the highest primary key among the entries: what is stored later has a higher."""

    entries: int
    newest: int
    pinned: int
    unpriced: int
    size: int
    saved: str
    samples: list[Sample]

    @classmethod
    def of(cls, rows: CacheEntryQuerySet, *, may_read: bool = False) -> Self:
        """`may_read`: tell also what is asked."""
        sums = rows.aggregate(
            entries=Count("pk"),
            newest=Max("pk"),
            pinned=Count("pk", filter=Q(pinned=True)),
            unpriced=Count("pk", filter=Q(cost=None, hits__gt=0)),
            size=Sum("size"),
            saved=Sum("saved"),
        )
        return cls(
            entries=sums["entries"],
            newest=sums["newest"] or 0,
            pinned=sums["pinned"],
            unpriced=sums["unpriced"],
            size=sums["size"] or 0,
            saved=formatting.money(int(sums["saved"] or 0)),
            samples=_samples(rows, may_read),
        )

    @property
    def more(self) -> int:
        return max(0, self.entries - len(self.samples))

    @property
    def count_in_words(self) -> str:
        said = ngettext("%(count)s entry", "%(count)s entries", self.entries)
        return said % {"count": formatting.count(self.entries)}


def _samples(rows: CacheEntryQuerySet, may_read: bool) -> list[Sample]:
    newest = rows.order_by("-created_at")
    newest = newest.defer("payload", "digests", "words") if may_read else newest.light()
    return [
        Sample(entry, phrases.class_name(entry.response_model), _asks(entry) if may_read else "")
        for entry in newest[:SAMPLE_ROWS]
    ]


def _asks(entry: CacheEntry) -> str:
    question = read_question(entry)
    if not isinstance(question, Question) or not question.messages:
        return ""
    said = " ".join(part.text.shown for part in question.messages[-1].parts if not part.label)
    said = " ".join(said.split())
    return said if len(said) <= SNIPPET else f"{said[:SNIPPET]}…"
