"""The pins are what the project asks for, and the matrix what it promises."""

import re
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
