"""Each recipe, asked twice: the model is asked once, and the same comes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import llmcache
from tests.support import child, framework_pages
from tests.support.dialects import Model
from tests.support.frameworks import OF_LLAMAINDEX, RECIPES, STEPS

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the frameworks, about what is theirs
]

NAMES = list(OF_LLAMAINDEX)


@pytest.fixture
def model() -> Iterator[Model]:
    with Model() as model:
        model.steps = STEPS
        yield model


@pytest.mark.parametrize("name", NAMES)
def test_what_was_answered_is_not_asked_again(model: Model, name: str) -> None:
    recipe = RECIPES[name]
    live = recipe.ask(model.root)
    assert model.asked == recipe.calls
    with llmcache.capture() as calls:
        stored = recipe.ask(model.root)
    assert model.asked == recipe.calls, calls
    assert stored == live
    assert {call.outcome for call in calls} == {"hit"}


def test_nor_in_another_process(model: Model, settings: Any) -> None:
    live = [RECIPES[name].ask(model.root) for name in NAMES]
    asked = model.asked
    stored = child.receive(child.start_recipes(NAMES, settings.LLMCACHE, model.root))
    assert dict(zip(NAMES, stored, strict=True)) == dict(zip(NAMES, live, strict=True))
    assert model.asked == asked


@pytest.mark.parametrize("page", ["llamaindex"])
def test_the_page(model: Model, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    framework_pages.run(page, model, monkeypatch)
