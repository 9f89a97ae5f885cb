"""The admin's pages as a browser shows them, under a strict Content-Security-Policy."""

import json
import time

import pytest
from playwright.sync_api import expect

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.envelope import ANSWER, REQUEST, seal
from llmcache.store.rows import late_answers
from llmcache.store.rows import tier as durable
from tests.browser.looks import BACKGROUNDS, assert_fits, looks, widths

pytestmark = pytest.mark.browser

LIST = "/admin/llmcache/cacheentry/"

ATTACK = "<script>window.ran = true; alert(1)</script><img src=x onerror='window.ran = true'>"

LONG = f"{ATTACK}\n" + "200 kB of words and " * 10_000 + "x" * 10_000


def store(key, text):
    created = time.time()
    request = {"messages": [{"role": "user", "content": text}], "context": {text[:90]: text[:90]}}
    answer = StoredAnswer(json.dumps({"title": ATTACK, "summary": text}).encode())
    durable.write(
        durable.Draft(
            key=key,
            namespace=text[:90],
            payload=seal(ANSWER, key, answer.pack(), created=created),
            request=seal(REQUEST, key, json.dumps(request).encode(), created=created),
            created=created,
            model=text[:90],
            response_model=f"shop.{text[:90]}",
            endpoint=text[:90],
            tags=frozenset({text[:90]}),
            digests={text[:90]: text[:90]},
        ),
        late_answers.generation(),
    )
    return durable.entries().get(key=key)


@pytest.fixture
def entries(transactional_db):
    return [store("a1" * 32, LONG), store("b2" * 32, "A question.")]


def assert_harmless(page):
    assert page.evaluate("window.ran") is None
    assert page.locator("#content img[src=x]").count() == 0


@looks
@widths
def test_list(entries, visit, color_scheme, width):
    with visit(LIST, color_scheme=color_scheme, width=width) as page:
        expect(page.locator("#result_list tbody tr")).to_have_count(2)
        expect(page.locator("body")).to_have_css("background-color", BACKGROUNDS[color_scheme])
        assert_harmless(page)
        assert_fits(page)


@looks
@widths
def test_entry(entries, visit, color_scheme, width):
    with visit(f"{LIST}{entries[0].pk}/change/", color_scheme=color_scheme, width=width) as page:
        question = page.locator(".llmcache-user .llmcache-text")
        assert question.text_content() == LONG
        assert question.evaluate("box => box.scrollHeight > 10 * box.clientHeight")
        expect(page.locator("body")).to_have_css("background-color", BACKGROUNDS[color_scheme])
        for details in page.locator("summary").all():
            details.press("Enter")
        expect(page.locator("details pre").first).to_be_visible()
        assert_harmless(page)
        assert_fits(page)


def test_a_long_text_is_scrolled_by_keyboard(entries, visit):
    with visit(f"{LIST}{entries[0].pk}/change/") as page:
        question = page.get_by_role("group", name="User")
        question.focus()
        page.keyboard.press("End")
        expect(question).not_to_have_js_property("scrollTop", 0)


@looks
@widths
def test_invalidate_from_the_list(entries, visit, color_scheme, width):
    with visit(LIST, color_scheme=color_scheme, width=width) as page:
        page.get_by_role("checkbox", name=str(entries[0])).check()
        page.get_by_label("Action:").select_option("invalidate_selected")
        page.get_by_role("button", name="Go").click()
        expect(page.locator("#content")).to_contain_text("1 entry")
        assert_harmless(page)
        assert_fits(page)
        page.get_by_role("button", name="Yes, invalidate").click()
        expect(page.locator(".messagelist")).to_contain_text("1 entry was invalidated.")
        expect(page.locator("#result_list tbody tr")).to_have_count(1)
    assert list(durable.entries()) == [entries[1]]


def test_invalidate_from_the_page_of_an_entry(entries, visit):
    with visit(f"{LIST}{entries[1].pk}/change/") as page:
        page.get_by_role("link", name="Invalidate", exact=True).click()
        page.get_by_role("link", name="No, take me back").click()
        page.get_by_role("link", name="Invalidate", exact=True).click()
        page.get_by_role("button", name="Yes, invalidate").click()
        expect(page.locator(".messagelist")).to_contain_text("1 entry was invalidated.")
    assert list(durable.entries()) == [entries[0]]
