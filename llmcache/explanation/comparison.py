"""What is compared, a call or a stored entry; the entry that is nearest; and what differs from it.

For the nearest, the digests on the rows are compared, of a bounded number of rows; what was asked
and answered is not loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from llmcache.codec.envelope import REQUEST, unseal
from llmcache.discretion import without_content
from llmcache.explanation.diff import difference, printable
from llmcache.keys.request import PARTS
from llmcache.store.rows import tier as durable
from llmcache.store.rows.columns import label, text

if TYPE_CHECKING:
    from llmcache.models import CacheEntry, CacheEntryQuerySet

# The parts that are in the readable request, when that is stored.
READABLE: Final = ("messages", "parameters", "context", "strict")
# The parts that are columns of a row.
COLUMNS: Final = ("namespace", "provider", "endpoint", "model", "mode")
# What the nearest entry is sought by, in so many rows of each query, the newest first.
SOUGHT_BY: Final = ("key", *COLUMNS, "response_model", "digests", "created_at")
MOST_CANDIDATES: Final = 200

READ_THE_SAME: Final = (
    "They read the same. What differs is not shown in JSON, such as the types of values, or was "
    "redacted."
)
NO_DIGESTS: Final = (
    "No digests are stored of its parts: it came through instructor's own cache interface."
)
SAME_ENTRY: Final = "It is the same entry."
SAME_PARTS: Final = "No part differs: it was stored by a version of llmcache with other keys."


@dataclass(frozen=True, slots=True)
class Subject:
    """A call, or a stored entry: what is known of its request.

    `name` is what a reader calls it; `describe` gives the readable request as JSON, None when it is
    not stored, or raises.
    """

    name: str
    key: str
    namespace: str
    provider: str
    endpoint: str
    model: str
    mode: str
    response_model: str
    digests: Mapping[str, str]
    describe: Callable[[], bytes | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Another stored entry, and what differs from it.

    `differing` names parts of the key. `differences` says for each of them how: a unified diff,
    ``-`` the other entry, ``+`` what is explained, or a sentence; None when the requests cannot be
    read, and `note` says why.
    """

    key: str
    namespace: str
    model: str
    response_model: str
    created_at: datetime
    differing: tuple[str, ...] = ()
    differences: Mapping[str, str | None] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        lines = [
            self.key,
            f"  stored      {at(self.created_at)}",
            f"  namespace   {printable(self.namespace)}",
            f"  model       {printable(self.model)}",
            f"  differs in  {printable(', '.join(self.differing)) or 'nothing'}",
        ]
        if self.note:
            lines.append(f"  {printable(self.note)}")
        shown = {part: how for part, how in self.differences.items() if how is not None}
        lines += [f"\n{printable(part)}\n{how}" for part, how in shown.items()]
        return "\n".join(lines)


def subject_of(entry: CacheEntry) -> Subject:
    """A stored entry to be explained or compared."""

    def describe() -> bytes | None:
        request = entry.request
        return None if request is None else unseal(REQUEST, entry.key, bytes(request)).body

    return Subject(
        name=str(entry),
        digests=entry.part_digests,
        describe=describe,
        **{name: getattr(entry, name) for name in ("key", *COLUMNS, "response_model")},
    )


def nearest(subject: Subject, *, any_namespace: bool = False) -> CacheEntry | None:
    """The stored entry that differs from `subject` in the fewest parts; of several, the newest.

    None when there is none to compare with. `any_namespace` looks into the other namespaces too;
    of two that differ in as many parts, an entry of the same namespace is nearer.
    """

    def distance(row: CacheEntry) -> tuple[int, bool, float]:
        differing = len(differing_parts(subject.digests, row.part_digests))
        return differing, row.namespace != subject.namespace, -row.created_at.timestamp()

    found: list[CacheEntry] = []
    for rows in _choices(subject, any_namespace) if subject.digests else ():
        newest = rows.exclude(key=subject.key).only(*SOUGHT_BY).order_by("-created_at")
        found += [row for row in newest[:MOST_CANDIDATES] if row.part_digests]
        found = sorted(found, key=distance)[:1]
        if found and distance(found[0])[0] <= 1:
            break  # nothing can be nearer
    return found[0] if found else None


def compared_to_nearest(subject: Subject, *, any_namespace: bool = False) -> Comparison | None:
    """What differs from the nearest entry; None when there is none."""
    row = nearest(subject, any_namespace=any_namespace)
    return None if row is None else compare(subject, row)


def _choices(subject: Subject, any_namespace: bool) -> Iterator[CacheEntryQuerySet]:
    """Where to look, the most promising first; each in the order of an index."""
    rows = durable.entries()
    own = rows.in_namespace(subject.namespace)
    model = {"model": label(subject.model)}
    response_model = {"response_model": label(subject.response_model)}
    yield own.filter(**model)
    yield own.filter(**response_model)
    yield own
    if any_namespace:
        yield rows.filter(**response_model)
        yield rows.filter(**model)


def compare(subject: Subject, entry: CacheEntry) -> Comparison:
    """What differs between `subject` and a stored entry. Never raises for what cannot be read."""
    other, note = subject_of(entry), NO_DIGESTS
    differing: tuple[str, ...] = ()
    differences: dict[str, str | None] = {}
    if subject.digests and other.digests:
        differing = differing_parts(subject.digests, other.digests)
        differences, note = _differences(subject, other, differing)
        if not differing:
            note = SAME_ENTRY if subject.key == other.key else SAME_PARTS
    names = ("key", "namespace", "model", "response_model", "created_at")
    known = {name: getattr(entry, name) for name in names}
    return Comparison(differing=differing, differences=differences, note=note, **known)


def differing_parts(digests: Mapping[str, str], others: Mapping[str, str]) -> tuple[str, ...]:
    """The parts whose digests are not the same, in the order of the key."""
    names = [*PARTS, *sorted({*digests, *others} - {*PARTS})]
    return tuple(name for name in names if digests.get(name) != others.get(name))


def at(moment: datetime) -> str:
    return moment.isoformat(" ", "seconds")


def _differences(
    subject: Subject, other: Subject, differing: tuple[str, ...]
) -> tuple[dict[str, str | None], str]:
    """How each of these parts differs, and why that cannot be said of some."""
    found: dict[str, str | None] = dict.fromkeys(differing)
    names = (other.name, subject.name)
    for part in found.keys() & COLUMNS:
        shorten = text if part == "endpoint" else label
        old, new = (shorten(getattr(each, part)) for each in (other, subject))
        found[part] = difference(old, new, names) or READ_THE_SAME
    if "schema" in found:
        found["schema"] = _schemas(subject, other)
    if not (readable := found.keys() & READABLE):
        return found, ""
    before, after = _request(other), _request(subject)
    if isinstance(before, str):
        return found, before
    if isinstance(after, str):
        return found, after
    for part in readable:
        # Inside the context the order counts: see `llmcache.keys.canonical_context`.
        shown = difference(before.get(part), after.get(part), names, keep_order=part == "context")
        found[part] = shown or READ_THE_SAME
    return found, ""


def _schemas(subject: Subject, other: Subject) -> str:
    old, new = label(other.response_model), label(subject.response_model)
    if old == new:
        return f"The JSON schema of {printable(new)} is another one. Schemas are not stored."
    shown = difference(old, new, (other.name, subject.name))
    return f"Schemas are not stored. The response models:\n{shown}"


def _request(subject: Subject) -> dict[str, Any] | str:
    """The request by its parts; or why it cannot be shown."""
    try:
        body = subject.describe()
        request = None if body is None else json.loads(body)
    except Exception as error:  # noqa: BLE001 - a redactor may raise anything
        return f"The request of {subject.name} cannot be read: {without_content(error)}."
    if body is None:
        return f"The request of {subject.name} is not stored: see LLMCACHE['STORE_REQUESTS']."
    # A redactor may have made anything of it.
    return request if isinstance(request, dict) else {"messages": request}
