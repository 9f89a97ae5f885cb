"""The pages of docs/how-to/frameworks, whose examples are run where their libraries are."""

from __future__ import annotations

import pytest

from tests.support.dialects import Model
from tests.support.pages import Namespace, blocks_of, execute
from tests.support.paths import ROOT

DIRECTORY = ROOT / "docs" / "how-to" / "frameworks"


def run(page: str, model: Model, patch: pytest.MonkeyPatch) -> None:
    """Run the blocks of a page, one after the other, in the environment that a user has."""
    for name in ("OPENAI", "ANTHROPIC"):
        patch.setenv(f"{name}_API_KEY", "k")
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        patch.setenv(name, f"{model.root}/v1")
    for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL", "ANTHROPIC_API_BASE"):
        patch.setenv(name, model.root)
    namespace: Namespace = {"__name__": "page"}
    for block in blocks_of(DIRECTORY / f"{page}.md"):
        assert block.language == "python"
        execute(block, namespace)
