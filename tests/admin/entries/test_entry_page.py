"""The page of an entry in the admin: its buttons, images and exports."""

import json
import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.utils.formats import date_format
from django.utils.html import escape

import llmcache
from llmcache.admin.entries import export
from llmcache.admin.entries.conversation import image_of
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.models import HitDay
from llmcache.store.rows import tier as durable
from llmcache.usage import hits
from tests.support.admin import DAY, PNG, asking_with, image, page_of, store, text_of
from tests.support.clients import CALL, make_client
from tests.support.ticket import Ticket


def the_row():
    return durable.entries().get()


def tags_of(entry):
    return sorted(entry.tags.values_list("tag", flat=True))


@pytest.mark.django_db
class TestSteering:
    def press(self, client, name, entry=None, **data):
        return text_of(client.post(page_of(entry or the_row(), name), data, follow=True))

    def test_pin_and_unpin(self, admin_client, admin_user, settings):
        settings.LLMCACHE = {"CACHE": None, "TTL": 2 * DAY + 60}
        store()
        text = self.press(admin_client, "pin")
        assert "Pinned: it never expires" in text
        assert "pinned: never expires" in text
        assert "Unpin" in text
        assert the_row().pinned
        text = self.press(admin_client, "unpin")
        assert "Not pinned any more" in text
        assert "expires in 2 days" in text
        assert not the_row().pinned
        lines = LogEntry.objects.filter(user=admin_user, action_flag=CHANGE)
        assert [line.object_id for line in lines] == [str(the_row().pk)] * 2

    @pytest.mark.parametrize(
        ("expires", "words"),
        [
            ("hour", "expires in 59 minutes"),
            ("year", "expires in 11 months"),
            ("never", "never expires"),
            ("now", "expired just now"),
        ],
    )
    def test_time(self, admin_client, expires, words):
        store()
        text = self.press(admin_client, "time", expires=expires)
        assert words in text
        assert LogEntry.objects.count() == 1

    @pytest.mark.parametrize("expires", ["", "tomorrow", "-1"])
    def test_a_time_that_cannot_be_meant(self, admin_client, expires):
        before = store()
        self.press(admin_client, "time", expires=expires)
        assert the_row().expires_at == before.expires_at
        assert not LogEntry.objects.exists()

    def test_a_pinned_entry_has_no_time(self, admin_client):
        store()
        self.press(admin_client, "pin")
        assert "unpin it." in self.press(admin_client, "time", expires="now")
        assert the_row().expires_at is None

    def test_what_cannot_be_read_cannot_be_timed(self, admin_client):
        store()
        durable.entries().update(payload=b"damaged")
        assert "It cannot be read: cut short." in self.press(admin_client, "pin")

    def test_tags(self, admin_client):
        entry = store(tags=frozenset({"old"}))
        text = self.press(admin_client, "tags", tags=" a, b \r\n\r\nc\na, b")
        assert "Its tags are now: a, b, c." in text
        assert tags_of(entry) == ["a, b", "c"]
        assert "Its tags are now: none." in self.press(admin_client, "tags", tags="")
        assert tags_of(entry) == []

    @pytest.mark.parametrize("tag", ["x" * 256, "a\x07b"])
    def test_a_tag_that_cannot_be_meant(self, admin_client, tag):
        entry = store(tags=frozenset({"old"}))
        assert "Tags: a tag has 1 to 255" in self.press(admin_client, "tags", tags=tag)
        assert tags_of(entry) == ["old"]

    @pytest.mark.parametrize("name", ["pin", "unpin", "time", "tags", "ask_again"])
    def test_only_by_post_and_with_a_token(self, admin_client, admin_user, client, name):
        client.handler.enforce_csrf_checks = True
        client.force_login(admin_user)
        entry = store()
        assert admin_client.get(page_of(entry, name)).status_code == 405
        assert client.post(page_of(entry, name)).status_code == 403

    def test_of_one_that_is_gone(self, admin_client):
        entry = store()
        durable.entries().delete()
        for name, data in (("pin", {}), ("time", {"expires": "now"}), ("tags", {"tags": "a"})):
            assert "not stored any more" in self.press(admin_client, name, entry, **data)


@pytest.mark.django_db
class TestImages:
    def test_are_shown_from_an_address_of_their_own(self, admin_client):
        gif = b"GIF89a" + b"\0" * 20
        entry = store(request=asking_with(image("image/png", PNG), image("image/gif", gif)))
        content = admin_client.get(page_of(entry)).content.decode()
        addresses = re.findall(r'<img class="llmcache-image" src="([^"]+)" alt="([^"]+)"', content)
        assert [alt for _address, alt in addresses] == ["Image 1, from User", "Image 2, from User"]
        first, second = (admin_client.get(address) for address, _alt in addresses)
        assert (first.content, first.headers["Content-Type"]) == (PNG, "image/png")
        assert (second.content, second.headers["Content-Type"]) == (gif, "image/gif")
        assert first.headers["X-Content-Type-Options"] == "nosniff"
        assert first.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert "data:" not in content

    @pytest.mark.parametrize(
        "url",
        [
            "https://elsewhere.example/cat.png",
            image("image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"),
            image("image/png", b"<script>alert(1)</script>"),
            "data:image/png;base64,!",
            "data:,",
        ],
    )
    def test_what_is_not_shown_as_one(self, admin_client, url):
        entry = store(request=asking_with(url))
        content = admin_client.get(page_of(entry)).content.decode()
        assert "llmcache-image" not in content
        assert admin_client.get(f"{page_of(entry)[:-7]}image/1/").status_code == 404

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "image", "source": {"type": "base64", "data": "iVBORw0KGgo="}},
            {"inline_data": {"mime_type": "text/html", "data": "iVBORw0KGgo="}},
            {"type": "input_image", "image_url": "data:text/html;base64,iVBORw0KGgo="},
            {"media_type": "image/png", "source": "data", "data": "iVBORw0KGgo="},
        ],
    )
    def test_of_other_providers_by_their_bytes(self, part):
        assert image_of(part).media_type == "image/png"

    def test_without_a_request(self, admin_client):
        assert admin_client.get(f"{page_of(store())[:-7]}image/1/").status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("age", "hits", "words"),
    [(2 * DAY, 2150, "2,150, about 1,075.0 a day"), (60, 7, "7"), (2 * DAY, 0, "0")],
)
def test_hits_over_time(admin_client, age, hits, words):
    entry = store(age=age)
    durable.entries().update(hits=hits)
    assert f"Hits {words} Last hit" in text_of(admin_client.get(page_of(entry)))


@pytest.mark.django_db
def test_what_an_entry_was_made_of_is_linked(admin_client):
    part, entry = store("part"), store("whole")
    entry.parts.create(key=part.key)
    entry.parts.create(key="f" * 64)  # (not stored any more)
    response = admin_client.get(page_of(entry))
    assert f"Made of {part} Endpoint" in text_of(response)
    assert f'<a href="{page_of(part)}">{part}</a>' in response.content.decode()
    assert "Made of" not in text_of(admin_client.get(page_of(part)))


@pytest.mark.django_db
class TestHitsByDay:
    def serve(self, entry, *counts):
        """Today's count is the last one."""
        for ago, count in enumerate(reversed(counts)):
            day = hits.today() - timedelta(days=ago)
            HitDay.objects.create(day=day, entry=entry.pk, hits=count)
        durable.entries().filter(pk=entry.pk).update(hits=sum(counts))

    def test_are_a_chart_and_a_table(self, admin_client, django_assert_num_queries):
        entry, other = store(), store("other")
        self.serve(other, 7)
        self.serve(entry, 1200, 0, 3)
        with django_assert_num_queries(6):
            response = admin_client.get(page_of(entry))
        today = date_format(hits.today(), "j M")
        text = text_of(response).partition("Hits over time")[2].partition("Conversation")[0]
        rows = re.findall(r"(\d+ \w+) ([\d,]+)(?= |$)", text.partition("Time hits")[2])
        assert len(rows) == hits.DAYS
        assert [count for _, count in rows[-4:]] == ["0", "1,200", "0", "3"]
        assert rows[-1][0] == today
        page = response.content.decode()
        assert page.count('class="llmcache-kind-hit"') == 2
        assert f"<title>{today}: 3</title>" in page

    def test_says_that_there_were_none_of_late(self, admin_client):
        entry = store()
        durable.entries().update(hits=3)
        text = text_of(admin_client.get(page_of(entry)))
        assert "This answer was not served in the last 30 days." in text
        assert "Hits over time" not in text

    def test_says_nothing_of_what_was_never_served(self, admin_client):
        assert "in the last 30 days" not in text_of(admin_client.get(page_of(store())))


@pytest.mark.django_db
class TestExport:
    def test_is_a_file_with_all_that_is_known(self, admin_client):
        entry = store(
            request={"messages": [{"role": "user", "content": "Hi."}]},
            answer=StoredAnswer(b'{"a": 1}', Dumped("a:b", b'{"id": "1"}')),
            tags=frozenset({"b", "a"}),
        )
        response = admin_client.get(page_of(entry, "export"))
        assert response.headers["Content-Disposition"] == (
            f'attachment; filename="llmcache-{entry.key[:12]}.json"'
        )
        exported = json.loads(response.content)
        assert exported["key"] == entry.key
        assert exported["request"] == {"messages": [{"role": "user", "content": "Hi."}]}
        assert (exported["answer"], exported["completion"]) == ({"a": 1}, {"id": "1"})
        assert (exported["tags"], exported["usage"]) == (["a", "b"], None)
        assert (exported["cost"], exported["unreadable"]) == (None, {})

    def test_says_what_cannot_be_read(self, admin_client):
        entry = store(request={"messages": []})
        durable.entries().update(payload=b"x", request=b"y")
        exported = json.loads(admin_client.get(page_of(entry, "export")).content)
        assert exported["unreadable"] == {"answer": "cut short", "request": "cut short"}
        assert exported["answer"] is exported["request"] is None


@pytest.mark.django_db(transaction=True)
class TestPythonCall:
    """The code is run, and asks for the same entry."""

    @pytest.mark.parametrize(
        ("method", "call"),
        [
            ("create", {}),
            (
                "create",
                {"temperature": 0.5, "context": {"a": [1, None, "ä'\"\n"]}, "strict": False},
            ),
            ("create", {"response_model": list[Ticket]}),
            ("create", {"response_model": int}),
            ("create", {"response_model": None}),
            ("create_partial", {}),
            ("create_iterable", {}),
        ],
        ids=str,
    )
    def test_has_the_same_key(self, model, monkeypatch, method, call):
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("OPENAI_BASE_URL", model.url)
        client = make_client(model, namespace="acme")
        answer = getattr(client, method)(**CALL | call)
        list(answer) if method != "create" else answer
        python = export.python_call(the_row())
        with llmcache.capture() as calls:
            # The SDK's connections are closed with the client that the code makes.
            names = {}
            exec(python, names)
            if method == "create_iterable":
                list(names["answer"])
            names["client"].client.close()
        assert [call.outcome for call in calls] == ["hit"]
        assert len(model.calls) == 1

    def test_of_a_function(self):
        summarize("x", times=2)
        names = {}
        exec(export.python_call(the_row()), names)
        assert len(durable.entries()) == 1

    def test_is_on_the_page(self, admin_client):
        entry = store(
            request={"messages": [], "parameters": {"a'": "<b>"}}, provider="openai", mode="json"
        )
        content = admin_client.get(page_of(entry)).content.decode()
        assert "client = llmcache.from_provider(" in content
        assert escape("messages=[],") in content
        assert "<b>" not in content

    @pytest.mark.parametrize("request_", [None, [], "gone", {"messages": "gone"}])
    def test_is_left_out_where_the_request_is_not_as_it_was(self, request_):
        assert export.python_call(store(request=request_)) is None


@llmcache.cached
def summarize(text: str, times: int) -> str:
    return text * times
