"""The admin: what its pages show, what they cost, and who may do what."""

import hashlib
import json
import re

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from llmcache.admin import phrases
from llmcache.admin.entries import conversation, filters, selected, texts
from llmcache.admin.entries.content import Unreadable, read_answer, read_question
from llmcache.admin.entries.conversation import read_messages
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.codec.envelope import ANSWER, seal
from llmcache.models import CacheEntry
from llmcache.outcomes import Tier
from llmcache.removal import engine
from llmcache.removal.invalidate import Invalidated
from llmcache.store.rows import tier as durable
from tests.support.admin import (
    DAY,
    LIST,
    agreement,
    draft,
    listed,
    page_of,
    select,
    store,
    store_asking,
    store_many,
    text_of,
)

SCRIPT = "<script>alert(1)</script>"

NAMES = st.sampled_from(
    [
        "role",
        "name",
        "content",
        "parts",
        "type",
        "text",
        "tool_calls",
        "function",
        "arguments",
        "image_url",
        "url",
        "source",
        "data",
        "media_type",
        "inline_data",
        "input_audio",
        "file",
        "thinking",
        "refusal",
        "input",
    ]
)

WORDS = st.sampled_from(["user", "tool", "text", "image", "file", "tool_use", "data:,", "{", ""])

LEAVES = st.none() | st.booleans() | st.floats() | WORDS | st.text(max_size=5)

MESSAGES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6)
)


@pytest.fixture(autouse=True)
def _quick_passwords(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


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
        durable.entries().update(**{damage: bytes(getattr(entry, damage))[:-1] + b"?"})
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


class TestMessages:
    def parts(self, content):
        [message] = read_messages([{"role": "user", "content": content}])
        return [(part.label, part.text.shown) for part in message.parts]

    @pytest.mark.parametrize(
        ("role", "kind", "speaker"),
        [
            ("developer", "system", "Developer"),
            ("model", "assistant", "Assistant"),
            ("tool", "tool", "Tool"),
            ("narrator", "other", "narrator"),
        ],
    )
    def test_speakers(self, role, kind, speaker):
        [message] = read_messages([{"role": role, "content": "x"}])
        assert (message.kind, message.speaker) == (kind, speaker)

    @pytest.mark.parametrize(
        ("part", "shown"),
        [
            ("Hello.", ("", "Hello.")),
            ({"type": "text", "text": "Hello."}, ("", "Hello.")),
            ({"type": "input_text", "text": "Hello."}, ("", "Hello.")),
            ({"text": "Hello."}, ("", "Hello.")),
            ({"type": "thinking", "thinking": "Hm."}, ("Thinking", "Hm.")),
            ({"type": "refusal", "refusal": "No."}, ("Refusal", "No.")),
            (
                {"type": "image_url", "image_url": {"url": "https://a.example/cat.png"}},
                ("Image", "https://a.example/cat.png"),
            ),
            (
                {"type": "input_image", "image_url": "data:image/png;base64,QUJD"},
                ("Image", "image/png, 3\xa0bytes"),
            ),
            (
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/gif", "data": "QUI="},
                },
                ("Image", "image/gif, 2\xa0bytes"),
            ),
            (
                {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
                ("Sound", "wav, 3\xa0bytes"),
            ),
            ({"type": "file", "file": {"file_id": "file-1"}}, ("File", "file-1")),
            (
                {"source": "/tmp/cat.jpg", "media_type": "image/jpeg", "data": None},
                ("Image", "/tmp/cat.jpg"),
            ),
            (
                {"inline_data": {"mime_type": "image/webp", "data": "QUJD"}},
                ("Image", "image/webp, 3\xa0bytes"),
            ),
            (
                {"type": "tool_use", "name": "look", "input": {"a": 1}},
                ("Call of the tool look", '{\n  "a": 1\n}'),
            ),
            ({"type": "tool_result", "content": "found"}, ("Result of a tool", "found")),
            ({"type": "image"}, ("", '{\n  "type": "image"\n}')),
            ({"type": "hologram"}, ("", '{\n  "type": "hologram"\n}')),
            ({"type": ["odd"]}, ("", '{\n  "type": [\n    "odd"\n  ]\n}')),
            (7, ("", "7")),
        ],
    )
    def test_parts(self, part, shown):
        assert self.parts([part]) == [shown]

    def test_a_text_with_more_to_it_is_shown_in_full(self):
        [(_label, shown)] = self.parts([{"type": "text", "text": "x", "cache_control": {}}])
        assert "cache_control" in shown

    def test_tool_calls(self):
        call = {"id": "1", "function": {"name": "look", "arguments": '{"a":1}'}}
        [message] = read_messages([{"role": "assistant", "content": None, "tool_calls": [call]}])
        [part] = message.parts
        assert (part.label, part.text.shown) == ("Call of the tool look", '{\n  "a": 1\n}')

    @pytest.mark.parametrize("arguments", ["{broken", "[" * 100_000, "9" * 5000])
    def test_arguments_that_are_not_json(self, arguments):
        call = {"function": {"name": "look", "arguments": arguments}}
        [message] = read_messages([{"role": "assistant", "tool_calls": [call]}])
        assert message.parts[0].text.shown == arguments

    def test_what_else_was_sent_is_not_lost(self):
        [message] = read_messages([{"role": "tool", "content": "x", "tool_call_id": "call_1"}])
        assert "call_1" in message.parts[1].text.shown

    @given(MESSAGES)
    def test_any_shape_can_be_read(self, messages):
        for message in read_messages(messages):
            assert message.kind in {"system", "user", "assistant", "tool", "other"}
            assert all(isinstance(part.text.shown, str) for part in message.parts)

    def test_instructions_beside_the_messages(self):
        message = conversation.system_message([{"type": "text", "text": "Be brief."}])
        assert (message.kind, message.parts[0].text.shown) == ("system", "Be brief.")


class TestReading:
    def entry(self, **more):
        made = draft(**more)
        return CacheEntry(key=made.key, payload=made.payload, request=made.request)

    def test_instructions_are_part_of_the_conversation(self):
        request = {"messages": [], "parameters": {"system": "Be brief.", "max_tokens": 5}}
        question = read_question(self.entry(request=request))
        assert question.messages[0].parts[0].text.shown == "Be brief."
        assert "system" not in question.parameters.shown

    @pytest.mark.parametrize(
        "request_", [[], "[redacted]", 7, {"parameters": "gone"}, {"messages": "gone", "note": 1}]
    )
    def test_whatever_a_redactor_made_is_shown(self, request_):
        question = read_question(self.entry(request=request_))
        shown = repr(question)
        for word in re.findall(r"\w+", json.dumps(request_)):
            assert word in shown

    @pytest.mark.parametrize(
        "answer", ["text", {}, [], {"a": {"b": {"c": {"d": {"e": 1}}}}}, {"a": [0] * 201}]
    )
    def test_what_is_not_simple_has_no_outline(self, answer):
        assert read_answer(self.entry(answer=answer)).outline == ()

    def test_an_outline_shows_each_value(self):
        answer = {"text": "", "number": 1.5, "none": None, "list": [True, {"a": "b"}], "empty": []}
        fields = read_answer(self.entry(answer=answer)).outline
        values = {field.name: field.value and field.value.shown for field in fields}
        assert values == {"text": "", "number": "1.5", "none": "null", "list": None, "empty": "[]"}
        first, second = fields[3].fields
        assert first.value.shown == "true"
        assert second.fields[0].value.shown == "b"

    def test_an_outline_of_a_list_is_numbered(self):
        answer = read_answer(self.entry(answer=[{"a": "b"}, 7]))
        assert answer.is_list
        assert [field.name for field in answer.outline] == ["1", "2"]

    def test_half_of_a_surrogate_pair_does_not_break_the_page(self):
        answer = read_answer(self.entry(answer=StoredAnswer(b'{"a": "\\ud83d"}')))
        assert answer.json.shown.encode() == b'{\n  "a": "?"\n}'

    @pytest.mark.parametrize("payload", [b"x", seal(ANSWER, "ab" * 32, b"", created=0)])
    def test_damaged(self, payload):
        assert isinstance(read_answer(self.entry(payload=payload)), Unreadable)

    def test_an_envelope_without_an_answer(self):
        key = draft().key
        answer = read_answer(self.entry(payload=seal(ANSWER, key, b"no answer", created=0)))
        assert answer == Unreadable("not an answer")

    def test_no_more_is_shown_than_a_page_can_bear(self, monkeypatch):
        monkeypatch.setattr(texts, "LONGEST_TEXT", 10)
        text = texts.words("x" * 25)
        assert (text.shown, text.left_out) == ("x" * 10, 15)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("shop.models.Ticket", "Ticket"),
        ("shop.tests.<locals>.Ticket", "Ticket"),
        ("shop.Page[shop.Ticket]", "Page[shop.Ticket]"),
        ("Ticket", "Ticket"),
        ("", ""),
    ],
)
def test_class_name(path, name):
    assert phrases.class_name(path) == name


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
