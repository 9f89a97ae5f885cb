"""The page of an entry in the admin: what was asked, and what was answered."""

import json

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.store.rows import tier as durable
from tests.support.admin import (
    LIST,
    SCRIPT,
    page_of,
    store,
    store_asking,
    text_of,
)
from tests.support.entries import damaged


@pytest.mark.django_db
class TestPage:
    def test_facts(self, admin_client):
        entry = store(
            tags=frozenset({"doc:42", SCRIPT}),
            endpoint="base_url=http://models.example/v1/",
            provider="openai",
            input_tokens=653,
            latency=1.234,
            digests={"messages": "ab" * 32},
        )
        text = text_of(admin_client.get(page_of(entry)))
        for fact in (
            f"Answer {entry} expires in 23 hours",
            "Namespace support",
            "Provider openai",
            "Tokens in 653",
            "Tokens out –",
            "Latency 1.23 s",
            f"Tags {SCRIPT} doc:42",
            "Endpoint base_url=http://models.example/v1/",
            f"Key {entry.key}",
            f"messages {'ab' * 32}",
        ):
            assert fact in text

    def test_conversation_and_answer(self, admin_client):
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is it?\nSay."},
        ]
        completion = Dumped("openai:ChatCompletion", b'{"id": "chatcmpl-1"}')
        entry = store(
            request={"messages": messages, "parameters": {"temperature": 0.5}, "context": {"a": 1}},
            answer=StoredAnswer(b'{"kind": "cat", "names": ["Mog", "Tib"]}', completion),
        )
        text = text_of(admin_client.get(page_of(entry)))
        assert "System Be brief. User What is it? Say. Answer" in text
        assert "kind cat names 1 Mog 2 Tib As JSON {" in text
        assert 'Response of the provider { "id": "chatcmpl-1" }' in text
        assert 'Parameters { "temperature": 0.5 } Context { "a": 1 }' in text

    def test_nothing_of_a_prompt_or_an_answer_is_html(self, admin_client):
        evil = f"{SCRIPT}<img src=x onerror=alert(1)>"
        entry = store(
            namespace=evil,
            model=evil,
            response_model=evil,
            provider=evil,
            endpoint=evil,
            mode=evil,
            tags=frozenset({evil}),
            digests={evil: evil},
            request={
                "messages": [{"role": evil, "name": evil, "content": evil, "x": evil}],
                "parameters": {evil: evil},
                "context": evil,
                evil: evil,
            },
            answer=StoredAnswer(
                json.dumps({evil: evil}).encode(),
                Dumped("a:b", json.dumps({evil: evil}).encode()),
                Dumped("a:b", json.dumps({evil: evil}).encode()),
            ),
        )
        for address in (page_of(entry), page_of(entry, "invalidate")):
            content = admin_client.get(address).content.decode()
            assert "<script>alert" not in content
            assert "<img src=x" not in content
            assert "&lt;script&gt;" in content

    def test_a_long_text_can_be_scrolled_to_by_keyboard(self, admin_client):
        long = "word " * 40_000
        entry = store(request={"messages": [{"role": "user", "content": long}]}, answer={"a": long})
        content = admin_client.get(page_of(entry)).content.decode()
        assert content.count("word " * 40_000) == 3
        assert content.count('tabindex="0" role="group"') == 3
        assert "200000 characters" in content

    @pytest.mark.parametrize("damage", ["payload", "request"])
    def test_says_what_cannot_be_read(self, admin_client, damage):
        entry = store(request={"messages": [{"role": "user", "content": "Hi."}]}, answer={"a": "b"})
        durable.entries().update(**{damage: damaged(getattr(entry, damage))})
        text = text_of(admin_client.get(page_of(entry)))
        assert "cannot be read: the checksum does not match." in text
        assert ("User Hi." in text) == (damage == "payload")
        assert ("a b" in text) == (damage == "request")

    @pytest.mark.parametrize("digests", [[], "x", 7, {"messages": 1}])
    def test_digests_of_any_kind(self, admin_client, digests):
        entry = store()
        durable.entries().update(digests=digests)
        assert admin_client.get(page_of(entry)).status_code == 200

    def test_says_that_no_key_is_configured(self, admin_client, settings):
        settings.LLMCACHE = {"CACHE": None, "ENCRYPTION_KEYS": ["a" * 43 + "="]}
        entry = store(request={"messages": []}, answer={"secret": 1})
        assert "secret 1" in text_of(admin_client.get(page_of(entry)))
        settings.LLMCACHE = {"CACHE": None}
        text = text_of(admin_client.get(page_of(entry)))
        assert "What was asked cannot be read: encrypted, and no key is configured." in text
        assert "This answer cannot be read: encrypted, and no key is configured." in text
        assert "secret" not in text

    def test_says_that_requests_are_not_stored(self, admin_client):
        assert 'LLMCACHE["STORE_REQUESTS"]' in text_of(admin_client.get(page_of(store())))

    def test_costs_five_queries(self, admin_client, django_assert_num_queries):
        entry = store(request={"messages": []}, tags=frozenset({"a", "b", "c"}))
        with django_assert_num_queries(5):
            admin_client.get(page_of(entry))

    def test_explains_what_differs_from_the_nearest_entry(self, admin_client):
        other = store_asking("other", "Is it\nraining?", seed=1)
        store_asking("far", "What?", seed=1, model="claude", namespace="tenant 2")
        entry = store_asking("entry", f"Is it\n{SCRIPT}?", seed=1)
        response = admin_client.get(page_of(entry))
        text = text_of(response).partition("Explain Nearest other entry ")[2]
        assert text.startswith(f"{other} Created")
        assert "Differs in messages messages --- " in text
        assert f'- raining?", + {SCRIPT}?",' in text
        assert "In another namespace" not in text
        content = response.content.decode()
        assert f'<a href="{page_of(other)}" class="llmcache-key">{other}</a>' in content
        assert "<ins>+" in content
        assert "<details>\n<summary>Explain</summary>" in content

    def test_explains_by_an_entry_of_another_namespace_if_that_is_nearest(self, admin_client):
        store_asking("other", "What?", seed=1, namespace="tenant 2")
        text = text_of(admin_client.get(page_of(store_asking("entry", "What?", seed=1))))
        assert "In another namespace tenant 2 Differs in namespace namespace ---" in text

    @pytest.mark.parametrize(
        ("request_", "why"), [(None, "is not stored"), (b"LLC?", "cannot be read: cut short.")]
    )
    def test_explains_without_requests(self, admin_client, request_, why):
        store_asking("other", "What?", seed=1)
        durable.entries().update(request=request_)
        entry = store_asking("entry", "Is it?", seed=2)
        text = text_of(admin_client.get(page_of(entry))).partition("Explain")[2]
        assert "Differs in messages, parameters The request of" in text
        assert why in text

    def test_says_that_there_is_nothing_to_compare_with(self, admin_client):
        store("without digests")
        text = text_of(admin_client.get(page_of(store_asking("entry", "What?", seed=1))))
        assert "Explain There is no other entry to compare with" in text

    def test_explaining_costs_a_bounded_number_of_queries(
        self, admin_client, django_assert_num_queries, django_assert_max_num_queries
    ):
        entry = store_asking("entry", "What?", seed=0)
        store_asking("near", "Where?", seed=0)
        # The five of the page; the newest entries of the namespace and model; one request.
        with django_assert_num_queries(7):
            admin_client.get(page_of(entry))
        durable.entries().exclude(pk=entry.pk).delete()
        for number in range(1, 250):
            store_asking(f"{number}", f"{number}?", seed=number, namespace="other")
        # Five choices of where to look, and one request.
        with django_assert_max_num_queries(11), CaptureQueriesContext(connections["default"]) as q:
            admin_client.get(page_of(entry))
        assert sum("payload" in query["sql"] for query in q) == 1

    @pytest.mark.parametrize("pk", ["0", "999", "x", "9" * 40])
    def test_an_entry_that_is_gone(self, admin_client, pk):
        response = admin_client.get(f"{LIST}{pk}/change/", follow=True)
        assert "This entry is not stored any more" in text_of(response)

    def test_the_way_back_keeps_the_filters(self, admin_client):
        address = f"{page_of(store())}?_changelist_filters=namespace%3Dsupport"
        assert f'href="{LIST}?namespace=support"' in admin_client.get(address).content.decode()
