"""The whole way of a bad answer, clicked: found by its text, asked again, all like it removed."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

import llmcache
from llmcache.admin import invalidations
from llmcache.client import registry
from llmcache.models import Invalidation
from llmcache.store.rows import tier as durable
from project.standin.server import StandIn
from tests.benchmarks import scale
from tests.browser.shop import ENTRIES
from tests.support import servers
from tests.support.clients import make_client
from tests.support.ticket import Ticket

LIKE_IT = 4_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
]


@pytest.fixture
def client(settings: Any, model: StandIn, monkeypatch: pytest.MonkeyPatch) -> Any:
    servers.require(servers.PostgreSQLServer)
    settings.LLMCACHE = {"CACHE": None, "DATABASE": "postgres"}
    registry._clients.clear()
    # So that the page has something to carry on.
    monkeypatch.setattr(invalidations, "CONFIRMING_SECONDS", 0)
    monkeypatch.setattr(invalidations, "CARRYING_SECONDS", 0.05)
    return make_client(model, namespace="scale")


def ask(client: Any, text: str) -> Any:
    return client.create(response_model=Ticket, messages=[{"role": "user", "content": text}])


def test_the_way_of_a_bad_answer(client: Any, model: StandIn, visit: Any) -> None:
    model.behaviour.answer_with = {"title": "A lamp is on fire", "priority": 1}
    ask(client, "The printer is on fire, and the lamp is fine.")
    model.behaviour.answer_with = {"title": "Where is the invoice?", "priority": 2}
    ask(client, "Where is my invoice?")
    scale.fill("postgres", LIKE_IT, expires=-LIKE_IT)
    durable.entries().update(response_model="tests.support.ticket.Ticket")
    other = make_client(model, namespace="another tenant")
    ask(other, "The printer is on fire, and the lamp is fine.")
    model.behaviour.answer_with = {"title": "The printer is on fire", "priority": 1}

    with visit(f"{ENTRIES}/") as page:
        find_it(page)
        ask_again(page)
        invalidate_all_like_it(page)
        read_the_audit(page)

    # (other threads have removed them; nobody else's are touched)
    assert {row.namespace for row in durable.entries()} == {"another tenant"}
    row = Invalidation.objects.using("postgres").get()
    assert (row.entries, row.total, row.pending, row.by) == (LIKE_IT + 2, LIKE_IT + 2, "", "admin")
    with llmcache.capture() as calls:
        answer = ask(client, "The printer is on fire, and the lamp is fine.")
    assert (calls[0].outcome, answer.title) == ("miss", "The printer is on fire")


def find_it(page: Page) -> None:
    page.get_by_label("Search").fill("printer lamp -invoice")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="scale").first.click()
    rows = page.locator("#result_list tbody tr")
    expect(rows).to_have_count(1)
    rows.locator("th a").click()
    expect(page.locator(".llmcache-user")).to_contain_text("The printer is on fire")
    answer = page.get_by_role("region", name="Answer")
    expect(answer).to_contain_text("A lamp is on fire")


def ask_again(page: Page) -> None:
    page.get_by_role("button", name="Ask again now").click()
    difference = page.get_by_role("group", name="Old and new answer")
    expect(difference.locator("del")).to_contain_text(["A lamp is on fire"])
    expect(difference.locator("ins")).to_contain_text(["The printer is on fire"])
    expect(page.locator("#content")).to_contain_text("Nothing is replaced yet.")
    page.get_by_role("button", name="Replace the old answer").click()
    expect(page.locator(".messagelist")).to_contain_text("Replaced by a new answer")
    answer = page.get_by_role("region", name="Answer")
    expect(answer).to_contain_text("The printer is on fire")


def invalidate_all_like_it(page: Page) -> None:
    page.get_by_role("link", name="Invalidate all like it").click()
    expect(page.get_by_label("Namespace:", exact=True)).to_have_value("scale")
    page.get_by_role("button", name="Preview").click()
    preview = page.get_by_role("region", name="Preview")
    expect(preview).to_contain_text("4,002 entries")
    expect(preview).to_contain_text("The printer is on fire, and the lamp is fine.")
    page.get_by_role("button", name="Invalidate 4,002 entries").click()
    progress = page.get_by_role("progressbar")
    expect(progress).to_have_js_property("max", 4002)
    expect(page.get_by_role("status")).to_contain_text("of 4,002 entries are removed.")
    expect(progress).to_have_count(0, timeout=30_000)
    expect(page.locator(".field-entries")).to_contain_text("4002")


def read_the_audit(page: Page) -> None:
    page.get_by_role("link", name="Invalidations").first.click()
    row = page.locator("#result_list tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("admin")
    for criterion in ("namespace: scale", "model: gpt-4.1-mini", "response model: Ticket"):
        expect(row).to_contain_text(criterion)
    expect(row).to_contain_text("4002")
