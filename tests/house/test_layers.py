"""The layers are watched: `make lint` shows that they hold, this that they can be broken."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def test_importing_the_app_imports_no_heavy_library() -> None:
    program = "import sys, llmcache; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert imported.isdisjoint({"django", "instructor", "openai", "celery", "redis", "pydantic"})


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The app, its tests and their rules, to be broken."""
    for package in ("llmcache", "tests"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def complaints(copy: Path, *command: str) -> str:
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=copy, capture_output=True, text=True)
    return done.stdout if done.returncode else ""


def broken_contracts(copy: Path) -> list[str]:
    return re.findall(r"^.+ BROKEN", complaints(copy, "lint-imports", "--no-cache"), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("conf", "from llmcache import models", "Imports point down"),
        ("keys", "from llmcache import codec", "siblings"),
        ("newcomer", "", "Imports point down"),
        ("flow", "import instructor.core", "Only client and adapter import instructor"),
        ("management.commands.ask", "import instructor", "Only client and adapter"),
        ("expiry", "from celery import shared_task", "Only tasks imports Celery"),
        ("adapter", "import litellm", "Only contrib imports LangChain and LiteLLM"),
        ("conf", "import project.settings", "neither the example site"),
    ],
)
def test_the_layers_are_watched(copy: Path, module: str, line: str, contract: str) -> None:
    """`make lint` shows that the contracts hold; this, that they can be broken."""
    with (copy / "llmcache" / module.replace(".", "/")).with_suffix(".py").open("a") as source:
        source.write(f"\n{line}\n")
    assert any(contract in name for name in broken_contracts(copy))


@pytest.mark.slow
def test_that_no_test_is_imported_is_watched(copy: Path) -> None:
    with (copy / "tests" / "support" / "waiting.py").open("a") as source:
        source.write("\nfrom tests.test_conf import test_the_defaults\n")
    assert any("No test is imported" in name for name in broken_contracts(copy))


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["from django.core.cache import caches", "import django.core.cache"]
)
def test_only_the_store_may_reach_the_hot_tier(copy: Path, line: str) -> None:
    for name in ["models", "leases"]:
        (copy / "llmcache" / f"{name}.py").write_text(f"{line}\n")
    found = complaints(
        copy, "ruff", "check", "--no-cache", "--select=TID", "--output-format=concise"
    )
    assert "models.py" in found
    assert "leases.py" not in found
