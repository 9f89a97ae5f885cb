"""The promises of the house: pins, what importing costs, and layers."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = sorted(ROOT.glob("requirements*.txt"))


def pins(path: Path) -> dict[str, Requirement]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    requirements = map(Requirement, filter(None, lines))
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.name)
class TestPins:
    def test_each_is_exact(self, path: Path) -> None:
        for requirement in pins(path).values():
            assert re.fullmatch(r"==[^*]+", str(requirement.specifier)), requirement

    def test_nothing_tells_where_they_were_made(self, path: Path) -> None:
        text = path.read_text()
        assert "://" not in text
        assert not re.search(r"^\s*-", text, re.MULTILINE), "an option of pip"
        assert not re.search(r"(^|\s)/\w", text, re.MULTILINE), "an absolute path"


def test_the_pins_are_what_the_project_asks_for() -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(line for lines in extras.values() for line in lines)]
    lines = (ROOT / "requirements-dev.in").read_text().splitlines()
    wanted += filter(None, (line.split("#")[0].strip() for line in lines))
    pinned = pins(ROOT / "requirements.txt")
    for requirement in map(Requirement, wanted):
        pin = pinned[canonicalize_name(requirement.name)]
        version = str(pin.specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{requirement}: `make requirements`"


def test_the_matrix_is_what_the_classifiers_promise() -> None:
    text = (ROOT / "requirements-matrix.txt").read_text()
    pairs = re.findall(r'^django==(\d+\.\d+)\.\S+; python_version == "(\S+)"', text, re.MULTILINE)
    frameworks = {f"Framework :: Django :: {django}" for django, _ in pairs}
    languages = {f"Programming Language :: Python :: {python}" for _, python in pairs}
    promised = {each for each in PROJECT["classifiers"] if re.search(r" \d+\.\d+$", each)}
    assert promised == frameworks | languages


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
