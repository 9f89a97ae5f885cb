"""The invalidation page: criteria, preview, confirmation, progress, and the row of the audit."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import ADDITION, LogEntry
from django.utils import timezone

from llmcache import tasks
from llmcache.admin import invalidations
from llmcache.models import Invalidation
from llmcache.removal import engine, resumable
from llmcache.store.rows import tier as durable
from llmcache.store.rows.search import can_search
from llmcache.tasks import on_celery
from tests.support.admin import AUDIT, FORM, asking, confirm, draft, store, store_many, text_of


def preview(client, **criteria):
    return client.post(FORM, criteria)


def names(*stored):
    return {draft(name).key for name in stored}


def left():
    return set(durable.entries().values_list("key", flat=True))


CRITERIA = {
    "namespace": ({"namespace": "acme"}, {"a"}),
    "model": ({"model": "claude"}, {"b"}),
    "response model": ({"response_model": "shop.Invoice"}, {"c"}),
    "tags": ({"tags": "x\r\n y "}, {"a", "b"}),
    "age": ({"age": "2", "unit": "hours"}, {"d"}),
    "two": ({"tags": "x", "namespace": "support"}, set()),
    "everything": ({"everything": "on"}, {"a", "b", "c", "d", "e"}),
}


@pytest.fixture
def entries(transactional_db):
    store("a", namespace="acme", tags=frozenset({"x"}))
    store("b", model="claude", tags=frozenset({"y", "z"}))
    store("c", response_model="shop.Invoice")
    store("d", age=7300)
    store("e")


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria(entries, admin_client, admin_user, name):
    criteria, doomed = CRITERIA[name]
    text = text_of(preview(admin_client, **criteria))
    assert len(left()) == 5
    if not doomed:
        assert "There is no such entry." in text
        return
    count = f"{len(doomed)} {'entry' if len(doomed) == 1 else 'entries'}"
    assert f"Invalidate {count}" in text
    text = text_of(confirm(admin_client, len(doomed), **criteria))
    assert left() == names("a", "b", "c", "d", "e") - names(*doomed)
    row = Invalidation.objects.get()
    assert (row.by, row.entries, row.pending) == ("admin", len(doomed), "")
    assert row.finished_at is not None
    assert "Not done yet" not in text
    assert f"Entries: {len(doomed)}" in text
    line = LogEntry.objects.get(user=admin_user)
    assert (line.action_flag, line.object_id) == (ADDITION, str(row.pk))
    assert re.search(rf"admin [a-z ]+.* {len(doomed)} – ", text_of(admin_client.get(AUDIT)))


def test_words_of_the_prompt(database, admin_client):
    store("a", request=asking("A late refund, please."))
    store("b", request=asking("An invoice."))
    text = text_of(admin_client.get(FORM))
    if not can_search(database):
        assert "Prompts cannot be searched on this database" in text
        assert "Give at least one criterion" in text_of(preview(admin_client, text="refund"))
        return
    text = text_of(preview(admin_client, text="refund"))
    assert "A late refund, please." in text
    assert "An invoice." not in text
    confirm(admin_client, 1, text="refund")
    assert left() == names("b")
    assert Invalidation.objects.using(database).get().criteria == {"text": "refund"}


@pytest.mark.django_db
class TestForm:
    @pytest.mark.parametrize(
        "criteria",
        [
            {},
            {"unit": "days"},
            {"tags": " \n "},
            {"namespace": "a", "everything": "on"},
            {"namespace": "x" * 256},
            {"namespace": "a\x07"},
            {"tags": "x" * 256},
            {"age": "0"},
            {"age": "-1"},
            {"age": "99999999999"},
            {"age": "1", "unit": "years"},
            {"model": "a\0b"},
        ],
        ids=str,
    )
    def test_what_cannot_be_meant(self, admin_client, criteria):
        store()
        for response in (preview(admin_client, **criteria), confirm(admin_client, 9, **criteria)):
            assert "Please correct" in text_of(response)
            assert "errorlist" in response.content.decode()
        assert len(left()) == 1
        assert not Invalidation.objects.exists()

    def test_can_be_filled_in_by_a_link(self, admin_client):
        entry = store(namespace="a&b", model="m")
        page = admin_client.get(f"/admin/llmcache/cacheentry/{entry.pk}/change/").content.decode()
        [address] = re.findall(r'href="(/admin/llmcache/invalidation/add/\?[^"]*)"', page)
        content = admin_client.get(address.replace("&amp;", "&")).content.decode()
        assert re.search(r'name="namespace" value="a&amp;b"', content)
        assert re.search(r'name="response_model" value="shop.Ticket"', content)

    def test_suggests_what_there_is(self, admin_client):
        store(namespace="acme")
        assert '<option value="acme"></option>' in admin_client.get(FORM).content.decode()

    def test_without_permission_to_read_prompts(self, client_with):
        client = client_with("view_cacheentry", "invalidate_cacheentry")
        store(request=asking("A late refund, please."))
        assert "Takes the permission to read prompts" in text_of(client.get(FORM))
        assert "Give at least one" in text_of(preview(client, text="refund"))
        assert "refund" not in preview(client, namespace="support").content.decode()


@pytest.mark.django_db
class TestPreview:
    def test_says_what_they_have_saved(self, admin_client):
        for name, cost, hits, pinned in (
            ("a", 500_000_000, 3, True),
            ("b", 250_000_000, 1, False),
            ("c", None, 7, False),
            ("d", None, 0, False),
        ):
            entry = store(name)
            durable.entries().filter(pk=entry.pk).update(cost=cost, hits=hits, pinned=pinned)
        text = text_of(preview(admin_client, namespace="support"))
        assert "4 entries" in text
        assert "1 of them pinned" in text
        assert "their hits have saved $1.75 ." in text
        assert "What 1 of them have saved is not known" in text

    def test_shows_some_and_how_many_more(self, admin_client):
        store_many(12)
        response = preview(admin_client, everything="on")
        assert "The newest of them" in text_of(response)
        assert len(response.context["preview"].samples) == 10
        assert response.context["preview"].more == 2

    def test_costs_as_many_queries_for_many_as_for_few(
        self, admin_client, django_assert_num_queries
    ):
        store_many(30)
        # Session, user; the sums, the samples; the values of three columns.
        with django_assert_num_queries(7):
            preview(admin_client, namespace="support")

    def test_more_than_was_agreed_to_is_asked_again(self, admin_client):
        store_many(12)
        text = text_of(confirm(admin_client, 10, namespace="support"))
        assert "There are more than you have agreed to." in text
        assert "Invalidate 12 entries" in text
        assert len(left()) == 12
        store_many(13)
        confirm(admin_client, 12, namespace="support")
        assert left() == set()

    @pytest.mark.parametrize("agreed", ["", "x", "-1", "²", "9" * 30])
    def test_a_broken_agreement_is_asked_for_again(self, admin_client, agreed):
        store()
        assert "Invalidate 1 entry" in text_of(confirm(admin_client, agreed, namespace="support"))
        assert len(left()) == 1

    def test_nothing_of_it_is_html(self, admin_client):
        script = "<script>alert(1)</script>"
        store(namespace=script, model=script, request=asking(script))
        content = preview(admin_client, namespace=script).content.decode()
        assert "<script>alert" not in content
        assert content.count("&lt;script&gt;alert(1)") >= 4


@pytest.mark.django_db
class TestProgress:
    @pytest.fixture(autouse=True)
    def _slow(self, monkeypatch):
        monkeypatch.setattr(invalidations, "FEW", 2)
        monkeypatch.setattr(invalidations, "CONFIRMING_SECONDS", 0)
        monkeypatch.setattr(invalidations, "CARRYING_SECONDS", 0)
        monkeypatch.setattr(engine, "BATCH_ROWS", 3)
        # Whether there is a broker is the matter of the tests that say so.
        monkeypatch.setattr(tasks, "invalidate_later", lambda pk: False)
        store_many(8)

    def carry_on(self, client, **headers):
        pk = Invalidation.objects.get().pk
        return client.post(f"{AUDIT}{pk}/carry_on/", headers=headers, follow=True)

    def test_is_shown_until_it_is_done(self, admin_client):
        text = text_of(confirm(admin_client, 8, namespace="support"))
        assert "Not done yet 3 of 8 entries are removed." in text
        assert "Carry it on" in text
        assert "6 of 8 entries are removed." in text_of(self.carry_on(admin_client))
        self.carry_on(admin_client)
        text = text_of(self.carry_on(admin_client))
        assert "Not done yet" not in text
        assert "By: admin" in text
        assert left() == set()

    def test_is_told_to_a_script(self, admin_client):
        confirm(admin_client, 8, namespace="support")
        told = self.carry_on(admin_client, accept="application/json").json()
        said = "6 of 8 entries are removed."
        expected = {"done": 6, "total": 8, "finished": False, "said": said, "trouble": ""}
        assert told == expected

    def test_trouble_is_told(self, admin_client, monkeypatch):
        confirm(admin_client, 8, namespace="support")

        def fail(ids):
            raise ConnectionError

        monkeypatch.setattr(durable, "delete", fail)
        assert "ConnectionError" in text_of(self.carry_on(admin_client))
        told = self.carry_on(admin_client, accept="application/json").json()
        assert "ConnectionError" in told["trouble"]

    def test_is_left_to_a_worker_that_was_told(self, admin_client, monkeypatch):
        told = []
        monkeypatch.setattr(tasks, "invalidate_later", lambda pk: told.append(pk) or True)
        text = text_of(confirm(admin_client, 8, namespace="support"))
        assert "0 of 8 entries" in text
        assert told == [Invalidation.objects.get().pk]
        assert "0 of 8 entries" in text_of(self.carry_on(admin_client))
        on_celery.invalidate(told[0])
        assert left() == set()

    def test_is_carried_on_where_no_worker_comes(self, admin_client, monkeypatch):
        monkeypatch.setattr(resumable, "RESERVATION", timedelta())
        monkeypatch.setattr(tasks, "invalidate_later", lambda pk: True)
        confirm(admin_client, 8, namespace="support")
        assert "3 of 8 entries" in text_of(self.carry_on(admin_client))

    def test_is_carried_on_where_the_broker_is_away(self, admin_client, monkeypatch):
        def fail(pk):
            raise ConnectionError

        monkeypatch.setattr(resumable, "RESERVATION", timedelta())
        monkeypatch.setattr(tasks, "invalidate_later", fail)
        assert "3 of 8 entries" in text_of(confirm(admin_client, 8, namespace="support"))

    def test_of_one_that_is_not_there(self, admin_client):
        assert admin_client.post(f"{AUDIT}1/carry_on/").status_code == 404

    def test_one_that_another_process_does_at_one_go_has_none(self, admin_client):
        row = Invalidation.objects.create(
            started_at=timezone.now(), criteria={"everything": True}, by="jo"
        )
        text = text_of(admin_client.get(f"{AUDIT}{row.pk}/change/"))
        assert "Not done yet" not in text
        assert "not finished" in text
        assert "not finished" in text_of(self.carry_on(admin_client))


@pytest.mark.django_db
def test_only_by_post_and_with_a_token(client, admin_client, admin_user):
    store()
    client.handler.enforce_csrf_checks = True
    client.force_login(admin_user)
    for address in (FORM, f"{AUDIT}1/carry_on/"):
        assert (
            client.post(address, {"everything": "on", "confirm": "", "agreed": 9}).status_code
            == 403
        )
    query = f"{FORM}?everything=on&confirm=&agreed=9"
    assert "Preview" in text_of(admin_client.get(query))
    assert admin_client.get(f"{AUDIT}1/carry_on/").status_code == 405
    assert len(left()) == 1


def test_without_a_broker_no_worker_is_told(monkeypatch):
    monkeypatch.setattr(on_celery.current_app.conf, "broker_url", None)
    assert tasks.invalidate_later(1) is False
