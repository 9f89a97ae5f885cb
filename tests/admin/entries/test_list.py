"""The list of entries in the admin: its columns, filters and search."""

import hashlib
import re

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from llmcache.admin.entries import filters
from tests.support.admin import (
    DAY,
    LIST,
    SCRIPT,
    listed,
    store,
    store_many,
    text_of,
)


@pytest.mark.django_db
class TestList:
    def test_columns(self, admin_client):
        store(answer={"a": 1}, ttl=3 * DAY + 100, response_model="shop.models.Ticket")
        text = text_of(admin_client.get(LIST))
        key = hashlib.sha256(b"entry").hexdigest()
        assert f"{key[:12]} support gpt-4.1-mini Ticket" in text
        assert re.search(r"Ticket 0 unpriced \d+ bytes 1 minute in 3 days", text)

    def test_expired_and_never_expiring_entries_say_so(self, admin_client):
        store("old", age=3 * DAY, ttl=DAY)
        store("eternal", ttl=None)
        text = text_of(admin_client.get(LIST))
        assert "expired 2 days ago" in text
        assert "never" in text

    def test_newest_first(self, admin_client):
        old, new = store("old", age=100), store("new", age=1)
        assert listed(admin_client.get(LIST)) == [new.key, old.key]

    @pytest.mark.parametrize("query", ["", "?namespace=support", "?q=support", "?o=2.3"])
    def test_loads_no_payloads(self, admin_client, query):
        store(request={"messages": []})
        with CaptureQueriesContext(connections["default"]) as queries:
            assert len(listed(admin_client.get(LIST + query))) == 1
        assert not [
            query for query in queries if re.search("payload|request|digests", query["sql"])
        ]

    def test_costs_as_many_queries_for_many_rows_as_for_few(
        self, admin_client, django_assert_num_queries
    ):
        # Session, user; one for each of three filters; the count and the page; outages, evictions.
        store_many(5)
        with django_assert_num_queries(9):
            admin_client.get(LIST)
        store_many(200, namespace="other")
        with django_assert_num_queries(9):
            assert len(listed(admin_client.get(LIST))) == 50

    def test_escapes_what_it_shows(self, admin_client):
        store(namespace=SCRIPT, model=SCRIPT, response_model=f"shop.{SCRIPT}")
        content = admin_client.get(LIST).content.decode()
        assert SCRIPT not in content
        assert content.count("&lt;script&gt;alert(1)") >= 6


@pytest.mark.django_db
class TestFilters:
    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("namespace=tenant 2", {"other"}),
            ("model=claude", {"other"}),
            ("response_model=shop.Ticket", {"fresh", "expired", "eternal"}),
            ("state=fresh", {"fresh", "eternal", "other"}),
            ("state=expired", {"expired"}),
            ("state=never", {"eternal"}),
            ("age=hour", {"fresh", "eternal"}),
            ("age=week", {"fresh", "eternal", "other"}),
            ("age=older", {"expired"}),
            ("namespace=nobody", set()),
        ],
    )
    def test_narrow(self, admin_client, query, names):
        store("fresh")
        store("expired", age=40 * DAY)
        store("eternal", ttl=None)
        other = {"namespace": "tenant 2", "model": "claude", "response_model": "shop.Invoice"}
        store("other", age=2 * DAY, ttl=9 * DAY, **other)
        expected = {hashlib.sha256(name.encode()).hexdigest() for name in names}
        assert set(listed(admin_client.get(f"{LIST}?{query}"))) == expected

    def test_list_a_bounded_number_of_values(self, admin_client, monkeypatch):
        monkeypatch.setattr(filters, "MOST_VALUES", 3)
        for number in range(5):
            store(f"{number}", namespace=f"tenant {number}")
        text = text_of(admin_client.get(f"{LIST}?namespace=tenant 4"))
        shown = text.partition("By namespace")[2].partition("By model")[0]
        values = "All tenant 4 tenant 0 tenant 1 tenant 2"
        assert shown.strip() == f"{values} There are more. Search finds them."

    def test_two_classes_of_one_name_are_told_apart(self, admin_client):
        for name in ("shop.Ticket", "theatre.Ticket", "shop.Invoice"):
            store(name, response_model=name)
        shown = text_of(admin_client.get(LIST)).partition("By response model")[2]
        assert shown.split()[:4] == ["All", "Invoice", "shop.Ticket", "theatre.Ticket"]

    @pytest.mark.parametrize(
        "lookup",
        [
            "payload__startswith=LLC",
            "request__contains=secret",
            "digests__messages=1",
            "key__regex=^a",
            "namespace__contains=s",
            "namespace__isnull=1",
            "tags__tag=x",
            "endpoint=x",
            "id=1",
        ],
    )
    def test_nothing_else_can_be_asked_for(self, admin_client, lookup):
        store()
        assert admin_client.get(f"{LIST}?{lookup}").status_code == 400

    def test_a_value_that_no_database_holds(self, admin_client):
        response = admin_client.get(f"{LIST}?namespace=%00")
        assert response.headers["Location"] == f"{LIST}?e=1"


@pytest.mark.django_db
class TestSearch:
    @pytest.fixture(autouse=True)
    def entries(self):
        self.one = store("one", namespace="acme corp, Zürich")
        self.two = store("two", namespace="beef")

    def found(self, client, term):
        return set(listed(client.get(LIST, {"q": term})))

    def test_finds_a_key_by_its_beginning(self, admin_client):
        for length in (12, 63, 64):
            assert self.found(admin_client, self.one.key[:length]) == {self.one.key}
        assert self.found(admin_client, f" {self.one.key[:12].upper()}\t") == {self.one.key}

    def test_does_not_find_a_key_by_its_middle(self, admin_client):
        assert self.found(admin_client, self.one.key[1:13]) == set()

    def test_finds_a_namespace_with_blanks_in_it(self, admin_client):
        assert self.found(admin_client, "acme corp, Z") == {self.one.key}
        assert self.found(admin_client, "acme Zürich") == set()

    def test_finds_a_namespace_that_looks_like_a_key(self, admin_client):
        assert self.two.key in self.found(admin_client, "beef")

    @pytest.mark.parametrize(
        "term", ["%", "_", "g", "\0", "'", "f" * 65, pytest.param("x" * 200_000, id="long")]
    )
    def test_takes_anything(self, admin_client, term):
        response = admin_client.get(LIST, {"q": term})
        assert response.status_code == 200
