"""The dashboard as a browser shows it: wide and narrow, light and dark, for everybody."""

import os

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from llmcache.usage.rollup import roll_up_usage
from tests.browser.looks import BACKGROUNDS, assert_fits, looks, widths
from tests.support.admin import DASHBOARD, fill_dashboard
from tests.support.paths import ROOT

pytestmark = pytest.mark.browser

DOCS = ROOT / "docs"
PICTURES = {("light", 1280): "dashboard.png", ("dark", 390): "dashboard-phone.png"}
# What would keep somebody from reading or using the page.
SERIOUS = {"serious", "critical"}


def assert_accessible(page):
    found = Axe().run(page).response["violations"]
    serious = [each for each in found if each["impact"] in SERIOUS]
    assert not serious, [(each["id"], each["nodes"][0]["html"]) for each in serious]


def take_picture(page, name):
    """For README, when the environment asks for it."""
    if name and os.environ.get("LLMCACHE_SCREENSHOTS"):
        page.screenshot(path=DOCS / name)


@looks
@widths
def test_it_can_be_read_by_everybody(transactional_db, visit, color_scheme, width):
    fill_dashboard(days=14)
    roll_up_usage()
    with visit(DASHBOARD, color_scheme=color_scheme, width=width) as page:
        expect(page.locator("body")).to_have_css("background-color", BACKGROUNDS[color_scheme])
        expect(page.locator(".llmcache-chart svg")).to_have_count(2)
        assert_fits(page)
        assert_accessible(page)
        take_picture(page, PICTURES.get((color_scheme, width)))
        for details in page.locator("summary").all():
            details.press("Enter")
        expect(page.locator("details table").first).to_be_visible()
        assert_fits(page)
        assert_accessible(page)


@looks
@widths
def test_with_no_data(transactional_db, visit, color_scheme, width):
    with visit(DASHBOARD, color_scheme=color_scheme, width=width) as page:
        expect(page.get_by_role("heading", name="What to do first")).to_be_visible()
        assert_fits(page)
        assert_accessible(page)


def test_it_is_used_by_keyboard(transactional_db, visit):
    fill_dashboard(days=3)
    with visit(DASHBOARD) as page:
        page.get_by_role("link", name="24 hours").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".llmcache-period [aria-current]")).to_have_text("24 hours")
        page.get_by_label("From:").fill("2026-01-02")
        page.get_by_label("To:").fill("2026-01-01")
        page.keyboard.press("Enter")
        expect(page.locator(".errorlist")).to_contain_text("The first day is not after the last")
        assert_accessible(page)
