"""Asking again from the page of an entry: nothing is replaced before that is said."""

import json
import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.utils import timezone

import llmcache
from llmcache import signals
from llmcache.client import registry
from llmcache.codec.answers import StoredAnswer
from llmcache.codec.envelope import ANSWER, unseal
from llmcache.models import Proposal
from llmcache.removal.expire import expire_entries
from llmcache.store import amendments
from llmcache.store.rows import tier as durable
from tests.support.admin import page_of, store, text_of
from tests.support.clients import CALL, make_client

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _varying(model):
    registry._clients.clear()
    registry._made_of_the_environment.cache_clear()
    model.behaviour.vary = True


@pytest.fixture
def client(model):
    return make_client(model)


def the_row():
    return durable.entries().get()


def answer_of(row):
    return json.loads(StoredAnswer.unpack(unseal(ANSWER, row.key, bytes(row.payload)).body).answer)


def ask(admin_client, entry=None):
    return admin_client.post(page_of(entry or the_row(), "ask_again"), follow=True)


def decide(admin_client, what, proposal=None):
    data = {"proposal": proposal or Proposal.objects.get().pk, what: ""}
    return text_of(admin_client.post(page_of(the_row(), "proposal"), data, follow=True))


def test_the_new_answer_is_shown_and_not_stored(model, client, admin_client, admin_user):
    client.create(**CALL, cache_tags=["a"])
    before = the_row()
    response = ask(admin_client)
    text = text_of(response)
    assert "asked again by admin" in text
    old, new = answer_of(before)["title"], f"{answer_of(before)['title'][:-3]}(2)"
    assert f'<del>-  "title": &quot;{old}' in response.content.decode().replace(
        "&quot;title&quot;", '"title"'
    )
    assert f"{new}" in text
    assert re.search(r"Tokens in \d+ \d+", text)
    assert len(model.calls) == 2
    assert model.calls[0].body == model.calls[1].body
    row = the_row()
    assert (row.created_at, bytes(row.payload)) == (before.created_at, bytes(before.payload))
    with llmcache.capture() as calls:
        client.create(**CALL)
    assert calls[0].outcome == "hit"
    assert [line.change_message for line in LogEntry.objects.all()] == [
        "Asked the model again; nothing is replaced yet."
    ]


def test_it_replaces_the_old_one_when_that_is_said(client, admin_client):
    client.create(**CALL, cache_tags=["old"], cache_ttl=3600)
    before = the_row()
    ask(admin_client)
    amendments.set_tags(before.pk, ["new"])
    assert "Replaced by a new answer" in decide(admin_client, "replace")
    after = the_row()
    assert answer_of(after)["title"] != answer_of(before)["title"]
    assert after.created_at > before.created_at
    assert [tag.tag for tag in after.tags.all()] == ["new"]
    assert abs(after.expires_at - after.created_at - timedelta(hours=1)) < timedelta(minutes=4)
    assert not Proposal.objects.exists()
    with llmcache.capture() as calls:
        answer = client.create(**CALL)
    assert (calls[0].outcome, answer.title) == ("hit", answer_of(after)["title"])


def test_the_old_one_stays_when_that_is_said(client, admin_client):
    client.create(**CALL)
    before = the_row()
    ask(admin_client)
    assert "The old answer stays." in decide(admin_client, "keep")
    assert bytes(the_row().payload) == bytes(before.payload)
    assert not Proposal.objects.exists()
    text = text_of(admin_client.get(page_of(before, "proposal"), follow=True))
    assert "There is no new answer" in text


def test_a_pin_stays(client, admin_client):
    client.create(**CALL, cache_ttl=60)
    amendments.set_time(the_row().pk, None, pinned=True)
    ask(admin_client)
    decide(admin_client, "replace")
    assert (the_row().pinned, the_row().expires_at) == (True, None)


@pytest.mark.parametrize("method", ["create_iterable", "create_partial"])
def test_streams(client, admin_client, method):
    list(getattr(client, method)(**CALL))
    before = answer_of(the_row())
    ask(admin_client)
    assert answer_of(the_row()) == before
    assert "Replaced by a new answer" in decide(admin_client, "replace")
    assert answer_of(the_row()) != before
    with llmcache.capture() as calls:
        list(getattr(client, method)(**CALL))
    assert calls[0].outcome == "hit"


def test_the_same_answer_is_said_to_be_the_same(model, client, admin_client):
    model.behaviour.vary = False
    client.create(**CALL)
    assert "Nothing: it is the same answer." in text_of(ask(admin_client))


def test_it_is_not_stored_after_an_invalidation(client, admin_client):
    client.create(**CALL)
    ask(admin_client)
    proposal = Proposal.objects.get()
    llmcache.invalidate(everything=True)
    client.create(**CALL)  # so that there is a page
    text = decide(admin_client, "replace")
    assert "Nothing was replaced: a newer answer was stored meanwhile." in text
    durable.entries().update(created_at=timezone.now() - timedelta(days=1))
    assert proposal.generation == 0
    text = decide(admin_client, "replace")
    assert "Nothing was replaced: it was invalidated while the model was asked." in text


def test_two_who_ask_do_not_confirm_each_others_answer(client, admin_client):
    client.create(**CALL)
    ask(admin_client)
    first = Proposal.objects.get().pk
    ask(admin_client)
    before = the_row().created_at
    assert "Nothing is replaced yet." in decide(admin_client, "replace", first)
    assert the_row().created_at == before


def test_each_question_is_counted_and_signalled(client, admin_client):
    client.create(**CALL)
    heard = []

    def hear(sender, call, **kwargs):
        heard.append((call.outcome, call.stored, call.reason))

    signals.call_answered.connect(hear)
    try:
        ask(admin_client)
    finally:
        signals.call_answered.disconnect(hear)
    assert heard == [("reload", False, "it waits to be confirmed")]


def test_what_cannot_be_asked_again(admin_client):
    store()
    assert "It cannot be asked again: its request is not stored" in text_of(ask(admin_client))


def test_a_provider_that_fails(model, client, admin_client):
    make_client(model, max_retries=0).create(**CALL)
    model.fail_with = 400
    assert "The model gave no answer: " in text_of(ask(admin_client))
    assert not Proposal.objects.exists()


def test_what_is_not_to_be_stored(model, client, admin_client, settings):
    client.create(**CALL)
    settings.LLMCACHE = {"CACHE": None, "ADMIT": f"{__name__}.admit_nothing"}
    assert "the answer cannot be stored: " in text_of(ask(admin_client))
    assert not Proposal.objects.exists()


def test_nothing_of_it_is_legible_where_answers_are_encrypted(client, admin_client, settings):
    settings.LLMCACHE = {"CACHE": None, "ENCRYPTION_KEYS": ["a" * 43 + "="]}
    client.create(**CALL)
    title = answer_of(the_row())["title"]
    ask(admin_client)
    proposal = Proposal.objects.get()
    at_rest = bytes(proposal.payload) + bytes(proposal.request) + repr(proposal.facts).encode()
    assert title[:-3].encode() not in at_rest
    assert b"printer" not in at_rest
    assert "Replaced by a new answer" in decide(admin_client, "replace")


def test_it_is_forgotten_after_a_day(client, admin_client):
    client.create(**CALL)
    ask(admin_client)
    expire_entries()
    assert Proposal.objects.exists()
    Proposal.objects.update(created_at=timezone.now() - timedelta(days=1, minutes=1))
    expire_entries()
    assert not Proposal.objects.exists()


def admit_nothing(answer, completion):
    return False
