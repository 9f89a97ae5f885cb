"""The audit trail: what is written of an invalidation, and how the admin shows it."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

import llmcache
from llmcache.admin.invalidations import describe
from llmcache.models import Invalidation, PendingEviction
from llmcache.removal import criteria, engine
from llmcache.store.rows import tier as durable
from tests.support.admin import LIST, agreement, select, store, store_many, text_of

AUDIT = "/admin/llmcache/invalidation/"
EVICTIONS = "/admin/llmcache/pendingeviction/"
MOMENT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "criteria"),
    [
        ({"keys": ["b" * 64, "a" * 64]}, {"keys": ["a" * 64, "b" * 64]}),
        ({"tags": ["b", "a"], "namespace": "n"}, {"tags": ["a", "b"], "namespace": "n"}),
        (
            {"model": "gpt-x", "response_model": "shop.Ticket"},
            {"model": "gpt-x", "response_model": "shop.Ticket"},
        ),
        ({"before": MOMENT}, {"before": "2026-01-02T00:00:00+00:00"}),
        ({"everything": True}, {"everything": True}),
    ],
    ids=str,
)
def test_an_invalidation_is_written_down(arguments, criteria):
    store()
    result = llmcache.invalidate(**arguments, by="jo")
    row = Invalidation.objects.get(pk=result.id)
    assert (row.criteria, row.by, row.pending) == (criteria, "jo", "")
    assert row.entries == result.entries
    assert row.started_at <= row.finished_at <= timezone.now()


@pytest.mark.django_db
def test_many_keys_are_counted_not_named(monkeypatch):
    monkeypatch.setattr(criteria, "MOST_KEYS_NAMED", 2)
    keys = [f"{number:064x}" for number in range(3)]
    result = llmcache.invalidate(keys=keys, namespace="n")
    row = Invalidation.objects.get(pk=result.id)
    assert row.criteria == {"selected": 3, "namespace": "n"}


@pytest.mark.django_db
def test_what_cannot_be_meant_is_not_written_down():
    with pytest.raises(llmcache.InvalidArgument):
        llmcache.invalidate(keys=["typo"])
    with pytest.raises(llmcache.InvalidArgument):
        llmcache.invalidate(everything=True, by=7)
    assert llmcache.invalidate(keys=[]).id is None
    assert not Invalidation.objects.exists()


@pytest.mark.django_db
def test_a_long_name_of_any_letters():
    result = llmcache.invalidate(everything=True, by="\0jo" * 200)
    assert len(Invalidation.objects.get(pk=result.id).by) == 255


@pytest.mark.django_db
class TestSelection:
    def test_one_row_for_the_whole_selection(self, admin_client, admin_user, monkeypatch):
        monkeypatch.setattr(engine, "BATCH_ROWS", 2)
        store_many(7)
        keys = sorted(durable.entries().values_list("key", flat=True))
        asked = admin_client.post(LIST, select(durable.entries()[0], select_across="1", index="0"))
        admin_client.post(LIST, agreement(asked))
        row = Invalidation.objects.get()
        assert (row.by, row.entries) == (admin_user.get_username(), 7)
        assert row.criteria == {"keys": keys}
        assert LogEntry.objects.count() == 7

    def test_of_more_than_can_be_named(self, admin_client, monkeypatch):
        monkeypatch.setattr(criteria, "MOST_KEYS_NAMED", 3)
        store_many(7)
        other = store("other", namespace="other")
        address = f"{LIST}?namespace=support"
        first = durable.entries().in_namespace("support").first()
        asked = admin_client.post(address, select(first, select_across="1", index="0"))
        admin_client.post(address, agreement(asked))
        assert Invalidation.objects.get().criteria == {"selected": 7}
        assert list(durable.entries()) == [other]


def audited(**facts):
    begun = {"started_at": timezone.now(), "criteria": {"everything": True}}
    return Invalidation.objects.create(**begun | facts)


@pytest.mark.django_db
class TestPages:
    def test_list(self, admin_client):
        started = timezone.now()
        audited(
            started_at=started,
            finished_at=started + timedelta(seconds=2.5),
            by="jo",
            criteria={"tags": ["doc:42"], "namespace": "support"},
            entries=1234,
            pending="hot",
        )
        text = text_of(admin_client.get(AUDIT))
        assert "jo tags: doc:42, namespace: support 1234 hot 2.5 s" in text

    def test_search(self, admin_client):
        audited(by="jo")
        audited(by="max")
        response = admin_client.get(AUDIT, {"q": "jo"})
        assert [row.by for row in response.context["cl"].result_list] == ["jo"]

    def test_page(self, admin_client):
        row = audited(by="<script>alert(1)</script>")
        response = admin_client.get(reverse("admin:llmcache_invalidation_change", args=[row.pk]))
        assert "not finished" in text_of(response)
        assert "<script>alert(1)" not in response.content.decode()

    def test_pending_evictions(self, admin_client):
        now = timezone.now()
        row = PendingEviction.objects.create(keys=["ab" * 32] * 7, created_at=now, until=now)
        assert " 7 " in text_of(admin_client.get(EVICTIONS))
        page = admin_client.get(reverse("admin:llmcache_pendingeviction_change", args=[row.pk]))
        assert "abababababab and 2 more" in text_of(page)

    @pytest.mark.parametrize(
        ("address", "permission"),
        [(AUDIT, "view_invalidation"), (EVICTIONS, "view_pendingeviction")],
    )
    def test_are_read_only(self, client_with, address, permission):
        row = audited()
        now = timezone.now()
        eviction = PendingEviction.objects.create(keys=[], created_at=now, until=now)
        client = client_with(permission)
        pk = row.pk if address == AUDIT else eviction.pk
        assert client.get(address).status_code == 200
        assert client.get(f"{address}{pk}/change/").status_code == 200
        assert client.get(f"{address}add/").status_code == 403
        assert client.post(f"{address}{pk}/change/", {"by": "x"}).status_code == 403
        assert client.post(f"{address}{pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.get(f"{address}?criteria__contains=x").status_code == 400
        assert "delete_selected" not in client.get(address).content.decode()

    def test_need_a_permission(self, client_with):
        client = client_with("view_cacheentry")
        assert client.get(AUDIT).status_code == 403
        assert client.get(EVICTIONS).status_code == 403


@pytest.mark.parametrize(
    ("criteria", "words"),
    [
        ({"everything": True}, "everything"),
        ({"keys": ["ab" * 32]}, "keys: abababababab"),
        ({"keys": ["ab" * 32] * 7}, "keys: " + "abababababab " * 5 + "and 2 more"),
        ({"selected": 1}, "1 selected entry"),
        ({"selected": 2000, "namespace": "n"}, "2000 selected entries, namespace: n"),
        ({"response_model": "shop.Ticket", "model": "m"}, "response model: Ticket, model: m"),
        ({"before": "2026-01-02"}, "before: 2026-01-02"),
        ({"keys": 7, "new": [1]}, "keys: 7, new: [1]"),
        ([], "[]"),
    ],
)
def test_criteria_in_words(criteria, words):
    assert describe(criteria) == words
