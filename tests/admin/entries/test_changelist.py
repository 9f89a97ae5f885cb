"""The list of entries in the admin: what it counts, sorts by and finds."""

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from llmcache.admin import phrases
from llmcache.admin.entries import changelist
from llmcache.admin.entries.filters import distinct_values
from llmcache.store.rows import tier as durable
from llmcache.store.rows.search import can_search
from tests.support.admin import LIST, asking, listed, store, store_many, text_of

COLUMNS = ["key", "namespace", "model", "response_model", "hits", "saved", "size", "age", "expiry"]


@pytest.mark.django_db
class TestCount:
    @pytest.fixture(autouse=True)
    def _few(self, monkeypatch):
        monkeypatch.setattr(changelist, "MOST_COUNTED", 100)

    def test_up_to_the_bound_it_is_exact(self, admin_client):
        store_many(100)
        text = text_of(admin_client.get(LIST))
        assert "100 cache entries" in text
        assert "more than" not in text

    def test_beyond_it_says_that_there_are_more(self, admin_client):
        store_many(101)
        response = admin_client.get(LIST)
        assert "more than 100 cache entries" in text_of(response)
        assert "Select all more than 100 cache entries" in text_of(response)
        assert response.context["cl"].paginator.num_pages == 2
        assert admin_client.get(f"{LIST}?p=3").headers["Location"] == f"{LIST}?e=1"

    def test_all_that_match_are_invalidated_all_the_same(self, admin_client):
        store_many(101)
        selection = {
            "action": "invalidate_selected",
            "_selected_action": [durable.entries()[0].pk],
            "select_across": "1",
        }
        assert "101 entries" in text_of(admin_client.post(LIST, selection))

    def test_of_a_search(self, admin_client):
        store_many(2)
        assert "2 cache entries ( Show all )" in text_of(admin_client.get(f"{LIST}?q=support"))


@pytest.mark.django_db
class TestOrder:
    @pytest.fixture(autouse=True)
    def entries(self):
        store("b", namespace="x", model="3", response_model="a.C", age=20, ttl=9, answer="a")
        store("a", namespace="z", model="1", response_model="a.B", age=30, ttl=None, answer="aa")
        store("c", namespace="y", model="2", response_model="a.A", age=10, ttl=99, answer="aaa")

    @pytest.mark.parametrize(
        ("column", "attribute"),
        [
            ("key", "key"),
            ("namespace", "namespace"),
            ("model", "model"),
            ("response_model", "response_model"),
            ("saved", "saved"),
            ("size", "size"),
            ("age", "created_at"),
            ("expiry", "expires_at"),
        ],
    )
    def test_by_what_an_index_has(self, admin_client, column, attribute):
        number = COLUMNS.index(column) + 1
        expected = list(durable.entries().order_by(attribute).values_list("key", flat=True))
        assert listed(admin_client.get(f"{LIST}?o={number}")) == expected
        backwards = listed(admin_client.get(f"{LIST}?o=-{number}"))
        assert backwards == list(
            durable.entries().order_by(f"-{attribute}").values_list("key", flat=True)
        )

    @pytest.mark.parametrize("wanted", ["5", "-5", "0", "99", "x", "-", "²", "9" * 99, "1 2"])
    def test_by_nothing_else(self, admin_client, wanted):
        response = admin_client.get(LIST, {"o": wanted})
        assert listed(response) == listed(admin_client.get(LIST))

    @pytest.mark.parametrize("query", ["", "&o=8", "&o=-8", "&model=1"])
    def test_by_age_within_a_namespace(self, admin_client, query):
        for number in range(3):
            store(f"{number}", namespace="y", model="1", age=number * 10)
        rows = durable.entries().filter(namespace="y")
        if "model" in query:
            rows = rows.filter(model="1")
        sign = "" if query.endswith("=8") else "-"
        expected = list(rows.order_by(f"{sign}created_at").values_list("key", flat=True))
        assert listed(admin_client.get(f"{LIST}?namespace=y{query}")) == expected

    @pytest.mark.parametrize("sign", ["", "-"])
    def test_of_many_that_a_search_has_found(self, admin_client, monkeypatch, sign):
        store_many(60, namespace="x")
        durable.entries().filter(key__lt="8").update(expires_at=None)
        for is_counted in (True, False):
            monkeypatch.setattr(changelist, "MOST_COUNTED", 100 if is_counted else 55)
            with CaptureQueriesContext(connections["default"]) as queries:
                pages = [
                    listed(admin_client.get(f"{LIST}?q=x&o={sign}9&p={page}")) for page in (1, 2)
                ]
            assert any("ORDER BY COALESCE" in each["sql"] for each in queries) is is_counted
            assert len(pages[0]) == 50
            found = [key for page in pages for key in page]
            rows = durable.entries().in_namespace("x").order_by(f"{sign}expires_at", f"{sign}pk")
            assert found == list(rows.values_list("key", flat=True))[: len(found)]

    def test_by_one_column_only(self, admin_client):
        with CaptureQueriesContext(connections["default"]) as queries:
            admin_client.get(f"{LIST}?o=2.-7")
        [page] = [each["sql"] for each in queries if '"hits"' in each["sql"]]
        assert page.count(" ASC") == 3
        assert '"namespace" ASC' in page


@pytest.mark.django_db
class TestSavedMoney:
    @pytest.mark.parametrize(
        ("cost", "hits", "words"),
        [
            (None, 7, "7 unpriced"),
            (1_500_000, 8, "8 $0.012"),
            (500_000_000, 9, "9 $4.50"),
            (0, 9, "9 $0.00"),
        ],
    )
    def test_is_a_column(self, admin_client, cost, hits, words):
        store()
        durable.entries().update(cost=cost, hits=hits)
        assert f" {words} " in text_of(admin_client.get(LIST))

    @pytest.mark.parametrize(
        ("amount", "words"),
        [
            (None, "unpriced"),
            (0, "$0.00"),
            (1, "$0.000000001"),
            (12_345, "$0.000012"),
            (250_000_000, "$0.25"),
            (500_000_000, "$0.50"),
            (1_006_000_000, "$1.01"),
            (1_234_567_891_000_000, "$1,234,567.89"),
        ],
    )
    def test_in_words(self, amount, words):
        assert phrases.money(amount) == words


def test_values_of_a_filter(database):
    store("first")
    for number in range(30):
        store(f"{number}", namespace=f"tenant {number % 7}", model="ä" if number % 2 else "Z")
    tenants = [f"tenant {number}" for number in range(7)]
    assert distinct_values("namespace", 51) == ["support", *tenants]
    assert distinct_values("namespace", 3) == ["support", *tenants[:2]]
    assert distinct_values("model", 51) == ["Z", "gpt-4.1-mini", "ä"]
    durable.entries().delete()
    assert distinct_values("namespace", 51) == []


class TestSearch:
    @pytest.fixture(autouse=True)
    def entries(self, database, admin_client):
        self.can_search = can_search(database)
        self.client = admin_client
        self.one = store("one", namespace="acme", model="claude", tags=frozenset({"doc:1", "a b"}))
        self.two = store("two", namespace="beef", request=asking("A late refund, please."))

    def found(self, term, client=None):
        return set(listed((client or self.client).get(LIST, {"q": term})))

    def test_by_name_key_and_tag(self):
        assert self.found(self.one.key[:9]) == {self.one.key}
        assert self.found("acm") == self.found("clau") == {self.one.key}
        assert self.found("tag:doc:1") == self.found("tag: a b ") == {self.one.key}
        assert self.found("tag:doc") == self.found("cme") == self.found("Acme") == set()

    def test_by_the_words_of_a_prompt(self):
        expected = {self.two.key} if self.can_search else set()
        assert self.found("refund late") == self.found('"late refund"') == expected
        assert self.found("'invoice") == set()

    @pytest.mark.parametrize(
        ("most", "term", "sorts"),
        [
            (10_000_000, "support", True),
            (0, "support", False),  # too many for that, as PostgreSQL estimates
            (10_000_000, "tag:some", False),
            (10_000_000, "a", False),
        ],
    )
    def test_of_more_than_are_counted(self, monkeypatch, database, most, term, sorts):
        monkeypatch.setattr(changelist, "MOST_COUNTED", 55)
        monkeypatch.setattr(changelist, "MOST_SORTED", most)
        store_many(60, namespace=term, tags=frozenset({"some"}))
        with CaptureQueriesContext(connections[database]) as queries:
            response = self.client.get(LIST, {"q": term})
        assert "more than 55 cache entries" in text_of(response)
        newest = durable.entries().in_namespace(term).order_by("-created_at", "-pk")[:50]
        assert listed(response) == [entry.key for entry in newest]
        was_sorted = any("ORDER BY COALESCE" in each["sql"] for each in queries)
        assert was_sorted is (sorts and self.can_search)

    def test_prompts_are_not_guessed_by_those_who_may_not_read_them(self, client_with):
        client = client_with("view_cacheentry")
        assert self.found("refund", client) == set()
        assert self.found("beef", client) == {self.two.key}
        text = text_of(client.get(LIST))
        assert "Prompts" not in text

    def test_says_what_it_finds(self, settings):
        words = "Prompts are found" if self.can_search else "Prompts cannot be searched on this"
        assert words in text_of(self.client.get(LIST))
        settings.LLMCACHE = settings.LLMCACHE | {"STORE_REQUESTS": "digest"}
        words = "their text is not kept" if self.can_search else "Prompts cannot be searched on"
        assert words in text_of(self.client.get(LIST))


@pytest.mark.django_db
def test_a_list_with_nothing_in_it(admin_client):
    response = admin_client.get(LIST)
    assert "0 cache entries" in text_of(response)
    assert listed(response) == []
