"""The page, in both views, with the stand-in behind it."""

import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest
from django.urls import reverse

import llmcache
from project.extraction import client as clients
from project.extraction.examples import examples
from project.standin import StandIn

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

VIEWS = ["extract", "extract-async"]
both_views = pytest.mark.parametrize("view", VIEWS)
TICKET = {"model": "ticket", "text": "I was charged twice for order #A-1. I want a refund!"}


@pytest.fixture(autouse=True)
def standin(monkeypatch) -> Iterator[StandIn]:
    with StandIn() as running:
        options: dict[str, Any] = {"base_url": running.url, "api_key": "any", "max_retries": 0}
        monkeypatch.setattr(clients, "client", llmcache.from_provider("openai/m", **options))
        monkeypatch.setattr(
            clients,
            "async_client",
            llmcache.from_provider(
                "openai/m", async_client=True, default_headers={"Connection": "close"}, **options
            ),
        )
        yield running


@pytest.fixture(autouse=True)
def policy(settings) -> None:
    policy = "project.middleware.ContentSecurityPolicy"
    settings.MIDDLEWARE = [policy, *(name for name in settings.MIDDLEWARE if name != policy)]


class Tags(HTMLParser):
    """The elements of a page, and the attributes that a strict policy would not run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.inline: list[str] = []

    @classmethod
    def of(cls, response):
        tags = cls()
        tags.feed(response.content.decode())
        return tags

    def handle_starttag(self, tag, attrs) -> None:
        self.names.add(tag)
        self.inline += [name for name, _ in attrs if name == "style" or name.startswith("on")]


def text_of(response) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


@both_views
class TestPage:
    def test_it_offers_models_and_examples(self, client, view):
        response = client.get(reverse(view))
        page = response.content.decode()
        assert response.status_code == 200
        assert all(f'value="{slug}"' in page for slug in examples())
        assert all(name in text_of(response) for name in ("Contact", "Invoice", "Ticket"))

    def test_it_says_that_the_model_is_a_stand_in(self, client, view):
        assert "This is a stand-in, not a language model." in text_of(client.get(reverse(view)))

    def test_the_second_answer_is_remembered(self, client, view, standin):
        first = client.post(reverse(view), TICKET)
        second = client.post(reverse(view), TICKET)
        assert "Was the model asked? Yes" in text_of(first)
        assert "Was the model asked? No" in text_of(second)
        assert "billing" in text_of(second)
        assert len(standin.calls) == 1

    def test_the_model_can_be_asked_again(self, client, view, standin):
        client.post(reverse(view), TICKET)
        again = client.post(reverse(view), TICKET | {"again": "on"})
        assert "Was the model asked? Yes" in text_of(again)
        assert len(standin.calls) == 2

    def test_an_example(self, client, view):
        response = client.post(reverse(view), {"model": "invoice", "example": "22-invoice-ar"})
        assert "4,515.00" in text_of(response)
        assert 'lang="ar"' in response.content.decode()

    def test_the_own_text_goes_before_the_example(self, client, view):
        asked = TICKET | {"example": "22-invoice-ar"}
        assert "charged twice" in text_of(client.post(reverse(view), asked))

    def test_markup_stays_text(self, client, view):
        example = {"model": "contact", "example": "13-contact-html-en"}
        for asked in (example, {"model": "ticket", "text": "<script>alert(1)</script> <b>hi</b>"}):
            tags = Tags.of(client.post(reverse(view), asked))
            assert tags.names.isdisjoint({"script", "style", "b"})
            assert not tags.inline

    def test_nothing_is_inline(self, client, view):
        for response in (client.get(reverse(view)), client.post(reverse(view), TICKET)):
            tags = Tags.of(response)
            assert tags.names.isdisjoint({"script", "style"})
            assert not tags.inline
            assert "https://" not in response.content.decode()
            assert "default-src 'self'" in response.headers["Content-Security-Policy"]

    @pytest.mark.parametrize(
        "asked",
        [
            {},
            {"model": "ticket"},
            {"model": "ticket", "text": "  "},
            {"model": "poem", "text": "x"},
            {"model": "ticket", "example": "no such"},
            {"model": "ticket", "text": "x" * 200_001},
        ],
    )
    def test_what_is_no_question_is_not_asked(self, client, view, standin, asked):
        response = client.post(reverse(view), asked)
        assert response.status_code == 422
        assert 'role="alert"' in response.content.decode()
        assert standin.calls == []

    def test_a_stopped_endpoint_is_explained(self, client, view, standin):
        client.post(reverse(view), TICKET)
        standin.stop()
        response = client.post(reverse(view), {"model": "ticket", "text": "something else"})
        assert response.status_code == 503
        assert "manage.py standin" in text_of(response)
        assert "Was the model asked? No" in text_of(client.post(reverse(view), TICKET))

    @pytest.mark.parametrize(
        ("failure", "status", "told"),
        [(401, 502, "OPENAI_API_KEY"), (429, 503, "pause"), (500, 502, "status 500")],
    )
    def test_an_endpoint_that_fails_is_explained(
        self, client, view, standin, failure, status, told
    ):
        standin.fail_with = failure
        response = client.post(reverse(view), TICKET)
        assert response.status_code == status
        assert told in text_of(response)

    def test_the_link_leads_to_the_entry(self, client, admin_client, view):
        page = client.post(reverse(view), TICKET).content.decode()
        link = unescape(re.search(r'href="([^"]*\?q=[0-9a-f]{64})"', page)[1])
        entries = admin_client.get(link)
        assert entries.status_code == 200
        assert entries.context["cl"].result_count == 1

    def test_it_takes_no_other_method(self, client, view):
        assert client.put(reverse(view)).status_code == 405


def test_both_views_share_what_they_remember(client, standin):
    client.post(reverse("extract"), TICKET)
    assert "Was the model asked? No" in text_of(client.post(reverse("extract-async"), TICKET))
    assert len(standin.calls) == 1


async def test_under_an_asynchronous_server(async_client, standin):
    first = await async_client.post(reverse("extract-async"), TICKET)
    second = await async_client.post(reverse("extract-async"), TICKET)
    assert "Was the model asked? Yes" in text_of(first)
    assert "Was the model asked? No" in text_of(second)


def test_the_admin_is_under_the_same_policy(client):
    assert "Content-Security-Policy" in client.get(reverse("admin:login")).headers
