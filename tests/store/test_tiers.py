"""The store, on every combination of database and hot tier."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmcache import store
from llmcache.background import transactions
from llmcache.outcomes import Tier
from llmcache.reasons import ReasonCode
from llmcache.store.hot import tier as hot
from llmcache.store.records import Found, Missing
from llmcache.store.rows import columns
from llmcache.store.rows import tier as durable
from llmcache.usage import hits
from tests.support.backends import ALL_DATABASES, ALL_HOT_TIERS, Backend, backend_parameters
from tests.support.copies import write_copy
from tests.support.entries import KEY, OTHER_KEY, body_of, draft, in_deadlocks, tier_of
from tests.support.waiting import wait_until


def test_nothing_is_found_where_nothing_is_stored(backend: Backend) -> None:
    assert store.lookup(KEY) == Missing()


def test_what_is_saved_is_found(backend: Backend) -> None:
    assert store.save(draft()) is None
    assert body_of(store.lookup(KEY)) == b"answer"
    assert store.lookup(OTHER_KEY) == Missing()


def test_the_hot_tier_answers_first_and_the_rows_fill_it_again(backend: Backend) -> None:
    store.save(draft())
    first_tier = Tier.HOT if backend.cache else Tier.DURABLE
    assert tier_of(store.lookup(KEY)) == first_tier

    hot.delete([KEY])
    assert tier_of(store.lookup(KEY)) == Tier.DURABLE
    assert tier_of(store.lookup(KEY)) == first_tier


def test_saving_again_replaces_the_entry_and_its_tags(backend: Backend) -> None:
    store.save(draft(body=b"old", tags=frozenset({"a", "b"})))
    store.save(draft(body=b"new", tags=frozenset({"b", "c"})))
    hot.delete([KEY])

    assert body_of(store.lookup(KEY)) == b"new"
    row = durable.entries().get()
    assert sorted(row.tags.values_list("tag", flat=True)) == ["b", "c"]
    assert row.hits == 0


def test_what_met_a_deadlock_is_written_again(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was paid for, and others wait for it."""
    monkeypatch.setattr(durable, "write", in_deadlocks(2, durable.write))
    assert store.save(draft()) is None
    assert body_of(store.lookup(KEY)) == b"answer"


def test_an_expired_entry_is_not_served_although_it_is_still_there(backend: Backend) -> None:
    store.save(draft(ttl=2))
    assert body_of(store.lookup(KEY)) == b"answer"
    wait_until(lambda: store.lookup(KEY) == Missing())
    assert durable.entries().filter(key=KEY).exists()


def test_a_stale_entry_is_served_to_those_who_ask_for_it(backend: Backend) -> None:
    store.save(draft(ttl=-1))
    found = store.lookup(KEY, stale=True)
    assert isinstance(found, Found)
    assert (found.body, found.fresh) == (b"answer", False)
    # It did not come back into the hot tier.
    assert store.lookup(KEY) == Missing()


def test_no_expiry_means_for_ever(backend: Backend) -> None:
    store.save(draft(ttl=None))
    assert durable.entries().get().expires_at is None
    hot.delete([KEY])
    assert body_of(store.lookup(KEY)) == b"answer"


@pytest.mark.parametrize(
    "backend", backend_parameters(ALL_DATABASES, ALL_HOT_TIERS[1:]), indirect=True
)
def test_a_damaged_hot_copy_falls_back_to_the_row(backend: Backend) -> None:
    store.save(draft())
    payload = bytearray(draft().payload)
    payload[-1] ^= 1
    write_copy(KEY, bytes(payload), 60)
    assert tier_of(store.lookup(KEY)) == Tier.DURABLE


def test_a_damaged_row_is_a_miss(backend: Backend) -> None:
    store.save(draft())
    hot.delete([KEY])
    durable.entries().update(payload=b"LLC\x01 nonsense")
    assert store.lookup(KEY) == Missing()


def test_an_entry_under_the_key_of_another_is_a_miss(backend: Backend) -> None:
    store.save(draft())
    hot.delete([KEY])
    durable.entries().update(key=OTHER_KEY)
    assert store.lookup(OTHER_KEY) == Missing()


def test_larger_than_allowed_is_not_stored(backend: Backend, settings) -> None:
    settings.LLMCACHE = {**settings.LLMCACHE, "MAX_ENTRY_BYTES": 300}
    assert store.save(draft(body=b"x" * 100)) is None
    assert store.save(draft(OTHER_KEY, body=b"x" * 301)) == ReasonCode.TOO_LARGE()
    assert store.lookup(OTHER_KEY) == Missing()


@pytest.mark.parametrize(
    "text", ["a\0b", "\ud800", "x" * 1000, "Zoë\N{GRINNING FACE}", "", " trailing ", "'\"\\%"]
)
def test_any_text_fits_the_columns(backend: Backend, text: str) -> None:
    texts: dict[str, Any] = {
        "provider": text,
        "model": text,
        "mode": text,
        "response_model": text,
    }
    assert store.save(draft(endpoint=text, **texts)) is None
    assert durable.entries().get().model == columns.label(text)


def test_names_are_compared_to_the_letter(backend: Backend) -> None:
    store.save(draft(KEY, namespace="Acme", tags=frozenset({"Doc"})))
    store.save(draft(OTHER_KEY, namespace="acme", tags=frozenset({"doc"})))
    rows = durable.entries()
    assert rows.in_namespace("acme").get().key == OTHER_KEY
    assert rows.in_namespace("acme ").count() == 0
    assert rows.in_namespace("ácme").count() == 0
    assert rows.tagged(["Doc"]).get().key == KEY


def test_hits_are_counted_in_batches(backend: Backend) -> None:
    hits.flush()
    store.save(draft())
    for _ in range(3):
        hits.count(KEY)
    assert durable.entries().get().hits == 0
    hits.flush()
    row = durable.entries().get()
    assert row.hits == 3
    assert row.last_hit_at is not None


def test_what_a_test_database_served_is_not_counted_in_the_real_one(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(draft())
    hits.count(KEY)
    monkeypatch.setattr(transactions, "database_name", lambda: "the real database")
    hits.flush()
    assert durable.entries().get().hits == 0


operations = st.lists(
    st.tuples(
        st.sampled_from(["save", "lookup", "drop hot copy", "expire"]),
        st.sampled_from([KEY, OTHER_KEY]),
        st.binary(max_size=20),
    ),
    max_size=12,
)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(operations)
def test_the_store_is_a_dictionary(backend: Backend, operations) -> None:
    for key in (KEY, OTHER_KEY):
        hot.delete([key])
    durable.entries().all().delete()
    expected: dict[str, bytes] = {}
    for operation, key, body in operations:
        if operation == "save":
            store.save(draft(key, body))
            expected[key] = body
        elif operation == "expire":
            store.save(draft(key, body, ttl=-1))
            expected.pop(key, None)
        elif operation == "drop hot copy":
            hot.delete([key])
        assert body_of(store.lookup(key)) == expected.get(key)
