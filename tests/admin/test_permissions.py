"""Who may do what in the admin: each address and action × each role."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from llmcache.admin.entries import admin as entry_pages
from llmcache.models import Proposal
from llmcache.removal import resumable
from llmcache.removal.criteria import Criteria
from llmcache.store import proposals
from llmcache.store.rows import tier as durable
from tests.support.admin import (
    AUDIT,
    FORM,
    LIST,
    PNG,
    asking_with,
    draft,
    image,
    page_of,
    select,
    store,
)

pytestmark = pytest.mark.django_db

VIEW, CONTENT, INVALIDATE, ASK, EXPORT, AUDITOR = (
    "view_cacheentry",
    "view_content_cacheentry",
    "invalidate_cacheentry",
    "ask_again_cacheentry",
    "export_cacheentry",
    "view_invalidation",
)

# Each permission alone, each beside the one to view, what belongs together, and all but one.
EVERY = frozenset({VIEW, CONTENT, INVALIDATE, ASK, EXPORT, AUDITOR})
ROLES = {
    "nobody": frozenset(),
    "metadata": frozenset({VIEW}),
    "content alone": frozenset({CONTENT}),
    "reader": frozenset({VIEW, CONTENT}),
    "invalidate alone": frozenset({INVALIDATE}),
    "blind invalidator": frozenset({VIEW, INVALIDATE}),
    "ask alone": frozenset({ASK, CONTENT}),
    "blind asker": frozenset({VIEW, ASK}),
    "asker": frozenset({VIEW, CONTENT, ASK}),
    "export alone": frozenset({EXPORT, CONTENT}),
    "blind exporter": frozenset({VIEW, EXPORT}),
    "exporter": frozenset({VIEW, CONTENT, EXPORT}),
    "auditor": frozenset({AUDITOR}),
    "all but view": EVERY - {VIEW},
    "all but content": EVERY - {CONTENT},
    "all but invalidate": EVERY - {INVALIDATE},
    "all but ask": EVERY - {ASK},
    "all but export": EVERY - {EXPORT},
    "all": EVERY,
}


@dataclass(frozen=True)
class Action:
    """Something that can be done, and what it needs; `address` is made for an entry."""

    name: str
    needs: frozenset[str]
    method: str = "get"
    address: str = ""
    data: tuple[tuple[str, object], ...] = ()


def of_entry(name: str, needs: set[str], method: str = "post", **data: object) -> Action:
    return Action(name, frozenset({VIEW, *needs}), method, "{entry}", tuple(data.items()))


ACTIONS = [
    Action("list", frozenset({VIEW}), address=LIST),
    Action("search", frozenset({VIEW}), address=f"{LIST}?q=x&state=fresh"),
    Action("change", frozenset({VIEW}), address="{entry}"),
    of_entry("invalidate", {INVALIDATE}, "get"),
    of_entry("invalidate", {INVALIDATE}, agreed_up_to=10**9),
    of_entry("pin", {INVALIDATE}),
    of_entry("unpin", {INVALIDATE}),
    of_entry("time", {INVALIDATE}, expires="now"),
    of_entry("tags", {INVALIDATE}, tags="new"),
    of_entry("ask_again", {CONTENT, ASK}),
    of_entry("proposal", {CONTENT, ASK}, "get"),
    of_entry("proposal", {CONTENT, ASK}, replace=""),
    of_entry("export", {CONTENT, EXPORT}, "get"),
    of_entry("image/1", {CONTENT}, "get"),
    Action("form", frozenset({VIEW, INVALIDATE}), address=FORM),
    Action(
        "confirm",
        frozenset({VIEW, INVALIDATE}),
        "post",
        FORM,
        (("everything", "on"), ("confirm", ""), ("agreed", 9)),
    ),
    Action("carry on", frozenset({VIEW, INVALIDATE}), "post", "{audit}carry_on/"),
]


def client_of(django_user_model, permissions) -> Client:
    user = django_user_model.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def subject():
    """An entry of which everything can be done, and an invalidation that is not done."""
    request = asking_with(image("image/png", PNG)) | {"parameters": {}}
    entry = store("entry", request=request, answer={"secret": "x"})
    proposals.keep(draft("entry", age=-5, answer={"secret": "y"}), 0, "jo")
    return entry, resumable.start(Criteria(namespace="nobody"), "jo")


def state_of():
    """What there is to be changed."""
    rows = durable.entries().values_list("payload", "pinned", "expires_at", "tags__tag")
    return sorted(map(str, rows)), list(Proposal.objects.values_list("pk"))


def do(client, action, subject):
    entry, audit = subject
    base = page_of(entry).removesuffix("change/")
    address = action.address.format(entry=f"{base}{action.name}/", audit=f"{AUDIT}{audit}/")
    data = dict(action.data)
    if action.name == "proposal" and action.method == "post":
        data["proposal"] = Proposal.objects.get().pk
    return getattr(client, action.method)(address, data)


@pytest.mark.parametrize("role", ROLES)
def test_who_may_look_sees_and_who_may_not_does_nothing(django_user_model, subject, role):
    client = client_of(django_user_model, ROLES[role])
    before = state_of()
    for action in ACTIONS:
        may = ROLES[role] >= action.needs
        if action.method == "get" or not may:
            status = do(client, action, subject).status_code
            assert (action, status) == (action, 200 if may else 403)
    assert state_of() == before


@pytest.mark.parametrize(
    "action", [each for each in ACTIONS if each.method == "post"], ids=lambda action: action.name
)
def test_who_may_change_does(django_user_model, subject, action):
    """With exactly what it needs."""
    client = client_of(django_user_model, action.needs)
    before = state_of()
    assert do(client, action, subject).status_code == 302
    # (one that can be asked again is in the tests of that, and this one has no pin or work left)
    assert (state_of() != before) is (action.name not in {"ask_again", "unpin", "carry on"})


@pytest.mark.parametrize("role", ROLES)
def test_the_action_of_the_list(django_user_model, subject, role):
    client = client_of(django_user_model, ROLES[role])
    may = ROLES[role] >= {VIEW, INVALIDATE}
    response = client.post(LIST, select(subject[0], agreed_up_to=10**9))
    assert response.status_code == (302 if may else 403)
    assert durable.entries().exists() is not may


@pytest.mark.parametrize("role", [role for role in ROLES if VIEW in ROLES[role]])
def test_the_page_of_an_entry_offers_what_one_may_do(django_user_model, subject, role):
    client = client_of(django_user_model, ROLES[role])
    content = client.get(page_of(subject[0])).content.decode()
    base = page_of(subject[0]).removesuffix("change/")
    offered = {
        "ask_again": {CONTENT, ASK},
        "pin": {INVALIDATE},
        "time": {INVALIDATE},
        "tags": {INVALIDATE},
        "invalidate": {INVALIDATE},
        "export": {CONTENT, EXPORT},
        "image/1": {CONTENT},
    }
    shown = {name for name in offered if f'"{base}{name}/"' in content}
    assert shown == {name for name, needs in offered.items() if ROLES[role] >= needs}
    assert ("secret" in content) is (CONTENT in ROLES[role])
    assert ("from_provider" in content) is (ROLES[role] >= {CONTENT, EXPORT})


@pytest.mark.parametrize("role", ROLES)
def test_the_audit(django_user_model, subject, role):
    client = client_of(django_user_model, ROLES[role])
    may = AUDITOR in ROLES[role] or ROLES[role] >= {VIEW, INVALIDATE}
    for address in (AUDIT, f"{AUDIT}{subject[1]}/change/"):
        response = client.get(address)
        assert response.status_code == (200 if may else 403)
        if may:
            invalidates = ROLES[role] >= {VIEW, INVALIDATE}
            offer = "Carry it on" if "change" in address else "Invalidate entries"
            assert (offer in response.content.decode()) is invalidates
    assert client.post(f"{AUDIT}{subject[1]}/change/", {"by": "x"}).status_code == 403
    assert client.post(f"{AUDIT}{subject[1]}/delete/", {"post": "yes"}).status_code == 403


def test_prompts_are_not_told_by_what_differs(django_user_model):
    """What sets an entry apart from the nearest one is told by its parts, and not in words."""
    from tests.support.admin import store_asking

    store_asking("one", "The first secret.", seed=1)
    entry = store_asking("two", "The second secret.", seed=1)
    content = client_of(django_user_model, {VIEW}).get(page_of(entry)).content.decode()
    assert "secret" not in content
    assert "messages" in content


def test_every_page_of_an_entry_is_in_the_matrix():
    named = {action.name.partition("/")[0] for action in ACTIONS}
    assert {page.name for page in entry_pages.PAGES} <= named


def test_what_is_exported_is_what_one_may_read(django_user_model, subject):
    client = client_of(django_user_model, {VIEW, CONTENT, EXPORT})
    exported = json.loads(client.get(page_of(subject[0], "export")).content)
    assert exported["answer"] == {"secret": "x"}
