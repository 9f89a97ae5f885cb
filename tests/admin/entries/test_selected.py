"""Invalidating what was selected in the list, and who may see or do what."""

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.test import Client

from llmcache.admin.entries import selected
from llmcache.outcomes import Tier
from llmcache.removal import engine
from llmcache.removal.invalidate import Invalidated
from llmcache.store.rows import tier as durable
from tests.support.admin import (
    LIST,
    agreement,
    listed,
    page_of,
    select,
    store,
    store_many,
    text_of,
)


@pytest.mark.django_db
class TestInvalidation:
    def test_of_selected_entries_after_a_confirmation(self, admin_client, admin_user):
        one, two, three = (store(name) for name in ("one", "two", "three"))
        asked = admin_client.post(LIST, select(one, two, index="0"))
        assert "2 entries" in text_of(asked)
        assert durable.entries().count() == 3

        done = admin_client.post(LIST, agreement(asked), follow=True)
        assert "2 entries were invalidated." in text_of(done)
        assert list(durable.entries()) == [three]
        lines = LogEntry.objects.filter(user=admin_user, action_flag=DELETION)
        assert {line.object_id for line in lines} == {str(one.pk), str(two.pk)}
        assert {line.object_repr for line in lines} == {f"{one} (support)", f"{two} (support)"}
        assert one.key in lines.get(object_id=one.pk).change_message

    def test_of_one_entry_from_its_page(self, admin_client):
        entry, other = store("one"), store("two")
        assert page_of(entry, "invalidate") in admin_client.get(page_of(entry)).content.decode()
        asked = admin_client.get(page_of(entry, "invalidate"))
        assert "1 entry" in text_of(asked)
        assert durable.entries().count() == 2
        done = admin_client.post(page_of(entry, "invalidate"), agreement(asked), follow=True)
        assert "1 entry was invalidated." in text_of(done)
        assert list(durable.entries()) == [other]

    def test_across_all_pages_of_a_filtered_list(self, admin_client, monkeypatch):
        monkeypatch.setattr(engine, "BATCH_ROWS", 20)
        store_many(70, namespace="acme")
        other = store("other")
        address = f"{LIST}?namespace=acme"
        first = durable.entries().in_namespace("acme").first()
        asked = admin_client.post(address, select(first, select_across="1", index="0"))
        assert "70 entries" in text_of(asked)
        assert "and 60 more" in text_of(asked)
        late_answers = store("late", namespace="acme")

        done = admin_client.post(address, agreement(asked), follow=True)
        assert "70 entries were invalidated." in text_of(done)
        assert set(durable.entries()) == {other, late_answers}

    def test_the_confirmation_costs_as_many_queries_for_many_as_for_few(
        self, admin_client, django_assert_max_num_queries
    ):
        store_many(120)
        first = durable.entries().first()
        # Django asks for the list twice, and each time for the values of the filters.
        with django_assert_max_num_queries(11):
            admin_client.post(LIST, select(first, select_across="1", index="0"))

    def test_the_log_stays_short(self, admin_client, monkeypatch):
        monkeypatch.setattr(selected, "MOST_LOG_LINES", 3)
        monkeypatch.setattr(engine, "BATCH_ROWS", 2)
        store_many(7)
        asked = admin_client.post(LIST, select(durable.entries()[0], select_across="1", index="0"))
        admin_client.post(LIST, agreement(asked))
        assert LogEntry.objects.filter(object_id__isnull=False).count() == 3
        assert LogEntry.objects.get(object_id=None).object_repr == "4 more entries"

    def test_of_what_is_gone_already(self, admin_client):
        entry = store()
        asked = admin_client.post(LIST, select(entry, index="0"))
        durable.entries().delete()
        done = admin_client.post(LIST, agreement(asked), follow=True)
        assert "0 entries were invalidated." in text_of(done)
        again = admin_client.post(LIST, select(entry, index="0"))
        assert "None of the selected entries is stored any more." in text_of(again)
        assert not LogEntry.objects.exists()

    def test_says_what_is_still_pending(self, admin_client, monkeypatch):
        entry = store()
        asked = admin_client.get(page_of(entry, "invalidate"))
        partly = Invalidated(1, (Tier.DURABLE, Tier.HOT))
        monkeypatch.setattr(selected, "invalidate_selected", lambda rows, by: partly)
        done = admin_client.post(page_of(entry, "invalidate"), agreement(asked), follow=True)
        assert "The hot tier (fast copies) could not be reached" in text_of(done)
        assert "The database has not removed all of these entries" in text_of(done)

    def test_what_the_database_refused_is_not_logged(self, admin_client, monkeypatch):
        refused = Invalidated(0, (Tier.DURABLE,))
        monkeypatch.setattr(selected, "invalidate_selected", lambda rows, by: refused)
        one, two = store("one"), store("two")
        asked = admin_client.post(LIST, select(one, two, index="0"))
        done = admin_client.post(LIST, agreement(asked), follow=True)
        assert "0 entries were invalidated." in text_of(done)
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize("agreed", ["", "x", "-1", "²", "9" * 30])
    def test_a_broken_agreement_asks_again(self, admin_client, agreed):
        entry = store()
        response = admin_client.post(LIST, select(entry, agreed_up_to=agreed))
        assert "Yes, invalidate" in response.content.decode()
        assert durable.entries().exists()

    def test_needs_a_csrf_token(self, admin_user):
        client = Client(enforce_csrf_checks=True)
        client.force_login(admin_user)
        entry = store()
        assert client.post(LIST, select(entry, agreed_up_to="9")).status_code == 403
        address = page_of(entry, "invalidate")
        assert client.post(address, {"agreed_up_to": "9"}).status_code == 403
        assert durable.entries().exists()


@pytest.mark.django_db
class TestPermissions:
    def test_without_any(self, client_with):
        client, entry = client_with(), store()
        for address in (LIST, page_of(entry), page_of(entry, "invalidate")):
            assert client.get(address).status_code == 403

    def test_to_view_only(self, client_with):
        client, entry = client_with("view_cacheentry"), store()
        for address in (LIST, page_of(entry)):
            response = client.get(address)
            assert response.status_code == 200
            assert "nvalidate" not in response.content.decode()
        assert client.get(page_of(entry, "invalidate")).status_code == 403
        agreed = {"agreed_up_to": str(entry.pk)}
        assert client.post(page_of(entry, "invalidate"), agreed).status_code == 403
        for index in ({}, {"index": "0"}):
            assert client.post(LIST, select(entry, **agreed, **index)).status_code == 403
        assert durable.entries().exists()

    def test_to_invalidate_what_one_may_not_see(self, client_with):
        client, entry = client_with("invalidate_cacheentry"), store()
        assert client.get(page_of(entry, "invalidate")).status_code == 403
        assert client.post(LIST, select(entry, agreed_up_to="9")).status_code == 403
        assert durable.entries().exists()

    def test_to_view_and_invalidate(self, client_with):
        client, entry = client_with("view_cacheentry", "invalidate_cacheentry"), store()
        assert "invalidate_selected" in client.get(LIST).content.decode()
        client.post(LIST, select(entry, agreed_up_to=str(entry.pk)))
        assert not durable.entries().exists()

    def test_nobody_adds_edits_or_deletes(self, admin_client):
        entry = store()
        assert admin_client.get(f"{LIST}add/").status_code == 403
        assert admin_client.post(f"{LIST}add/").status_code == 403
        assert admin_client.post(page_of(entry), {"namespace": "x"}).status_code == 403
        assert admin_client.get(page_of(entry, "delete")).status_code == 403
        assert admin_client.post(page_of(entry, "delete"), {"post": "yes"}).status_code == 403
        assert "delete_selected" not in admin_client.get(LIST).content.decode()
        assert durable.entries().get().namespace == "support"


def test_on_every_database_without_a_router(database, admin_client, client_with):
    entry, other = store("one", request={"messages": []}, answer={"a": "b"}), store("two")
    address = f"{LIST}?namespace=support&state=fresh&q={entry.key[:20]}"
    assert listed(admin_client.get(address)) == [entry.key]
    assert "a b" in text_of(admin_client.get(page_of(entry)))
    asked = admin_client.post(address, select(entry, index="0"))
    done = admin_client.post(address, agreement(asked), follow=True)
    assert "1 entry was invalidated." in text_of(done)
    assert [row.key for row in durable.entries()] == [other.key]
    assert LogEntry.objects.get().object_id == str(entry.pk)
