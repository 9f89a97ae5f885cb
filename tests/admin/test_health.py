"""How the tiers are, in the admin: outages and leases, and what the list of entries says."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from llmcache.admin.health import MOST_BATCHES
from llmcache.models import Lease, Outage, PendingEviction
from llmcache.resilience import outages
from tests.support.admin import LIST, store, text_of

pytestmark = pytest.mark.django_db

OUTAGES = "/admin/llmcache/outage/"
LEASES = "/admin/llmcache/lease/"
HOUR = timedelta(hours=1)
SCRIPT = "<script>alert(1)</script>"


def outage(**facts):
    now = timezone.now()
    usual = {"process": "web1:7", "tier": "hot", "since": now, "seen_at": now, "error": "OSError"}
    return Outage.objects.create(**usual | facts)


def lease(**facts):
    usual = {"key": "ab" * 32, "token": "t0ken", "expires_at": timezone.now() + HOUR}
    return Lease.objects.create(**usual | facts)


def eviction(*, copies, until=None):
    now = timezone.now()
    return PendingEviction.objects.create(
        keys=["ab" * 32] * copies, created_at=now, until=until or now
    )


# The rows


def test_outages_are_shown(admin_client):
    outage(error=SCRIPT)
    outage(process="web2:8", seen_at=timezone.now() - outages.GONE_AFTER)
    response = admin_client.get(OUTAGES)
    text = text_of(response)
    assert "web1:7 hot" in text
    assert f"out {SCRIPT}" in text
    assert "not heard of any more OSError" in text
    assert SCRIPT not in response.content.decode()


@pytest.mark.parametrize(
    ("facts", "state"),
    [({}, "held"), ({"token": ""}, "released"), ({"expires_at": timezone.now()}, "expired")],
)
def test_leases_are_shown_without_their_tokens(admin_client, facts, state):
    row = lease(**{"released": "t0ken"} | facts)
    text = text_of(admin_client.get(LEASES))
    page = admin_client.get(reverse("admin:llmcache_lease_change", args=[row.pk]))
    assert f"abababababab {state}" in text
    assert state in text_of(page)
    assert "t0ken" not in text + page.content.decode()


@pytest.mark.parametrize(
    ("address", "permission", "make"),
    [(OUTAGES, "view_outage", outage), (LEASES, "view_lease", lease)],
)
def test_they_are_read_only(client_with, address, permission, make):
    row = make()
    client = client_with(permission)
    assert client.get(address).status_code == 200
    assert client.get(f"{address}{row.pk}/change/").status_code == 200
    assert client.get(f"{address}add/").status_code == 403
    assert client.post(f"{address}{row.pk}/change/", {"token": "x"}).status_code == 403
    assert client.post(f"{address}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.get(f"{address}?token__startswith=x").status_code == 400
    assert "delete_selected" not in client.get(address).content.decode()


def test_they_need_a_permission(client_with):
    client = client_with("view_cacheentry")
    assert client.get(OUTAGES).status_code == 403
    assert client.get(LEASES).status_code == 403


# What the list of entries says


def test_when_all_is_well_nothing_is_said(admin_client):
    lease()
    outage(seen_at=timezone.now() - outages.GONE_AFTER)
    outage(tier="durable")
    assert "llmcache-health" not in admin_client.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        (
            ["a:1"],
            "1 process goes without the hot tier (fast copies), since Jan. 2, 2026, 3:04 a.m.",
        ),
        (
            ["a:1", "b:2"],
            "2 processes go without the hot tier (fast copies), the first since Jan. 2, 2026, 3:04",
        ),
    ],
)
def test_an_outage_is_said(admin_client, settings, processes, words):
    settings.TIME_ZONE, settings.LANGUAGE_CODE = "UTC", "en-us"
    first = timezone.now().replace(2026, 1, 2, 3, 4)
    for number, process in enumerate(processes):
        outage(process=process, since=first + number * HOUR)
    assert words in text_of(admin_client.get(LIST))


def test_evictions_are_said(admin_client, settings):
    settings.TIME_ZONE, settings.LANGUAGE_CODE = "UTC", "en-us"
    last = timezone.now().replace(2026, 1, 2, 3, 4)
    eviction(copies=1, until=last - HOUR)
    words = "1 hot copy of an invalidated entry is still to be removed."
    assert words in text_of(admin_client.get(LIST))
    eviction(copies=2, until=last)
    words = "3 hot copies of invalidated entries are still to be removed. All are certainly gone by"
    assert f"{words} Jan. 2, 2026, 3:04 a.m." in text_of(admin_client.get(LIST))


def test_of_many_evictions_not_all_are_loaded(admin_client, django_assert_num_queries):
    store()
    for _ in range(MOST_BATCHES + 5):
        eviction(copies=3)
        outage(process=f"web:{_}")
    with django_assert_num_queries(9):
        response = admin_client.get(LIST)
    assert f"More than {3 * MOST_BATCHES} hot copies" in text_of(response)


def test_links_are_for_those_who_may_follow_them(client_with, admin_client):
    outage()
    eviction(copies=1)
    addresses = (OUTAGES, "/admin/llmcache/pendingeviction/")
    banners = [banner(client) for client in (admin_client, client_with("view_cacheentry"))]
    assert [[address in told for address in addresses] for told in banners] == [
        [True, True],
        [False, False],
    ]


def test_whoever_may_not_see_the_list_is_told_nothing(client_with):
    outage()
    assert client_with("view_lease").get(LIST).status_code == 403


def banner(client):
    content = client.get(LIST).content.decode()
    return content.partition('class="llmcache-health"')[2].partition("</div>")[0]
