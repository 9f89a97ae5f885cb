"""Every page of the admin, wide and narrow, light and dark: accessible, and within its window.

With ``LLMCACHE_SCREENSHOTS`` in the environment, pictures of the pages are put into that folder. So
those in ``docs/`` are made.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Page

from llmcache.models import CacheEntry, Invalidation, Lease, Outage, PendingEviction
from llmcache.removal import resumable
from llmcache.removal.criteria import Criteria
from llmcache.store import proposals
from llmcache.store.rows import tier as durable
from tests.browser import shop
from tests.browser.shop import ADMIN, ENTRIES
from tests.support import servers
from tests.support.admin import draft

pytestmark = [
    pytest.mark.browser,
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True, databases=["default", "postgres"]),
]

AUDIT = f"{ADMIN}/invalidation"

LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]

# (to load style sheets once more, axe would write one into the page: the policy forbids that)
OPTIONS = {"resultTypes": ["violations"], "preload": False}

# What makes a page wider than its window.
WIDER = """
document.documentElement.scrollWidth <= window.innerWidth ? [] : [...document.querySelectorAll("*")]
    .filter(each => each.getBoundingClientRect().right > window.innerWidth)
    .map(each => each.outerHTML.slice(0, 200))
"""

LONGEST_PICTURE = 1600

SCREENSHOTS = os.environ.get("LLMCACHE_SCREENSHOTS")


@pytest.fixture
def entry(settings: Any) -> CacheEntry:
    """A shop of entries, of which this one has everything that a page can show."""
    servers.require(servers.PostgreSQLServer)
    settings.TIME_ZONE = "UTC"
    settings.LLMCACHE = {"CACHE": None, "DATABASE": "postgres"}
    settings.DATABASE_ROUTERS = ["llmcache.routers.LLMCacheRouter"]
    shop.fill()
    return shop.store(
        "a photo",
        shop.asking("What is broken here? I need it for work tomorrow.", photo=True),
        {
            "title": "Broken rear lamp",
            "urgent": True,
            "customer": {"language": "en", "order": 4711},
            "next_steps": ["send a lamp", "ask for the serial number"],
        },
        namespace="support",
        model="gpt-4.1-mini",
        response_model="shop.tickets.Ticket",
        cost=410_000,
        hits=214,
        tags=["customer:7", "hardware"],
        age=20 * shop.DAY,
    )


def of_the_list(entry: CacheEntry) -> str:
    return f"{ENTRIES}/"


def of_a_search(entry: CacheEntry) -> str:
    return f"{ENTRIES}/?q=supp&state=fresh&o=-7"


def of_an_empty_list(entry: CacheEntry) -> str:
    durable.entries().delete()
    return f"{ENTRIES}/"


def of_the_entry(entry: CacheEntry) -> str:
    return f"{ENTRIES}/{entry.pk}/change/"


def of_a_question(entry: CacheEntry) -> str:
    return f"{ENTRIES}/{entry.pk}/invalidate/"


def of_a_proposal(entry: CacheEntry) -> str:
    new = {"title": "Broken rear lamp", "urgent": False, "next_steps": ["send a lamp"]}
    proposals.keep(draft("a photo", age=0, answer=new, latency=0.91, output_tokens=33), 0, "jo")
    return f"{ENTRIES}/{entry.pk}/proposal/"


def of_the_form(entry: CacheEntry) -> str:
    return f"{AUDIT}/add/?namespace=support&model=gpt-4.1-mini"


def of_progress(entry: CacheEntry) -> str:
    pk = resumable.start(Criteria(namespace="support"), "jo")
    later = timezone.now() + timedelta(hours=1)
    Invalidation.objects.update(entries=12, total=31, carrier="a worker", carried_until=later)
    return f"{AUDIT}/{pk}/change/"


def of_a_result(entry: CacheEntry) -> str:
    pk = resumable.start(Criteria(namespace="support", tags=frozenset({"hardware"})), "jo")
    resumable.carry_on(pk)
    return f"{AUDIT}/{pk}/change/"


def of_the_audit(entry: CacheEntry) -> str:
    of_a_result(entry)
    of_progress(entry)
    return f"{AUDIT}/"


def of_outages(entry: CacheEntry) -> str:
    now = timezone.now()
    Outage.objects.create(process="web1:71", tier="hot", since=now, seen_at=now, error="Timeout")
    return f"{ADMIN}/outage/"


def of_leases(entry: CacheEntry) -> str:
    Lease.objects.create(key=entry.key, token="t", expires_at=timezone.now())
    return f"{ADMIN}/lease/"


def of_evictions(entry: CacheEntry) -> str:
    now = timezone.now()
    PendingEviction.objects.create(keys=[entry.key], created_at=now, until=now)
    return f"{ADMIN}/pendingeviction/"


PAGES = [
    of_the_list,
    of_a_search,
    of_an_empty_list,
    of_the_entry,
    of_a_question,
    of_a_proposal,
    of_the_form,
    of_progress,
    of_a_result,
    of_the_audit,
    of_outages,
    of_leases,
    of_evictions,
]


@pytest.mark.parametrize("address_of", PAGES, ids=lambda address_of: address_of.__name__)
def test_page(entry: CacheEntry, visit: Any, address_of: Any) -> None:
    with visit(address_of(entry)) as page:
        for details in page.locator(".llmcache-entry summary").all():
            details.press("Enter")
        look_at(page, address_of.__name__)


def test_the_preview(entry: CacheEntry, visit: Any) -> None:
    with visit(of_the_form(entry)) as page:
        page.get_by_role("button", name="Preview").click()
        page.get_by_role("button", name="Invalidate").wait_for()
        look_at(page, "of_the_preview")


def test_a_form_with_errors(entry: CacheEntry, visit: Any) -> None:
    with visit(f"{AUDIT}/add/?age=-1") as page:
        page.get_by_role("button", name="Preview").click()
        page.locator(".errornote").wait_for()
        look_at(page, "of_errors")


def look_at(page: Page, name: str) -> None:
    """From all sides, and with the eyes of axe-core."""
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        # The admin's colours fade.
        page.evaluate("document.getAnimations().forEach(each => each.finish())")
        if SCREENSHOTS:
            file = Path(SCREENSHOTS) / f"{name.removeprefix('of_')}-{width}-{scheme}.png"
            page.screenshot(path=file, full_page=True, clip=_top(page, width))
        assert page.evaluate(WIDER) == [], width
        found = Axe().run(page, options=OPTIONS).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert {each["id"]: each["nodes"][0]["html"] for each in serious} == {}, (width, scheme)


def _top(page: Page, width: int) -> Any:
    """The upper part of a page: a list goes on for long."""
    height = min(page.evaluate("document.documentElement.scrollHeight"), LONGEST_PICTURE)
    return {"x": 0, "y": 0, "width": width, "height": height}
