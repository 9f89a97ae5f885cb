"""What users install: the wheel and the sdist, and a site in an environment with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import llmcache
from project.standin.server import StandIn
from tests.support.paths import ROOT

# To install what the app depends on takes half a minute on a quiet machine. (After 300 seconds,
# `faulthandler_timeout` would end the whole run.)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(290)]

NAME = f"django_llmcache-{llmcache.__version__}"
EXTRAS = {"celery", "encryption", "prices", "progress", "redis", "zstd"}


def python(
    *arguments: str | Path,
    program: str | Path = sys.executable,
    cwd: Path | None = None,
    **environment: str,
) -> None:
    """Run Python as a shell would, with nothing that this process has been told."""
    told = ("PYTHON", "DJANGO", "LLMCACHE", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    done = subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel that is made of that."""
    target = tmp_path_factory.mktemp("built")
    # The build backend is among the pins: no isolation, so nothing is fetched.
    python("-m", "build", "--no-isolation", "--outdir", target, ROOT)
    return target


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl")


def metadata(wheel: zipfile.ZipFile) -> Message:
    return BytesParser().parsebytes(wheel.read(f"{NAME}.dist-info/METADATA"))


def the_app() -> set[str]:
    paths = (ROOT / "llmcache").rglob("*")
    names = {path.relative_to(ROOT).as_posix() for path in paths if path.is_file()}
    return {name for name in names if "__pycache__" not in name}


def without_metadata(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.startswith(f"{NAME}.dist-info/")}


def test_a_wheel_holds_the_app_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    assert without_metadata(wheel.namelist()) == the_app()
    assert "llmcache/py.typed" in wheel.namelist()
    assert f"{NAME}.dist-info/licenses/LICENSE" in wheel.namelist()


def test_a_wheel_made_of_the_sdist_is_the_one_made_of_the_repository(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    python("-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT)
    direct = zipfile.ZipFile(tmp_path / f"{NAME}-py3-none-any.whl")
    assert {each.filename: each.CRC for each in direct.infolist()} == {
        each.filename: each.CRC for each in wheel.infolist()
    }


def test_an_sdist_holds_what_it_is_built_of_and_nothing_else(built: Path) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as sdist:
        names = {name.removeprefix(f"{NAME}/") for name in sdist.getnames()}
    besides = {".gitignore", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    assert names == the_app() | besides


def test_users_see_no_extras_of_developers(wheel: zipfile.ZipFile) -> None:
    told = metadata(wheel)
    assert told["Version"] == llmcache.__version__
    assert set(told.get_all("Provides-Extra", [])) == EXTRAS
    required = [Requirement(line) for line in told.get_all("Requires-Dist", [])]
    assert {each.name for each in required if each.marker is None} == {
        "django",
        "instructor",
        "pydantic",
    }


@pytest.fixture(scope="module")
def installed(
    built: Path, wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The Python of a new environment in which the wheel is, with what it requires."""
    directory = tmp_path_factory.mktemp("installed")
    python("-m", "venv", "--without-pip", directory)
    program = directory / "bin" / "python"
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "--python"]
    file = built / f"{NAME}-py3-none-any.whl"
    # (in the versions that are pinned: what the index has today is no matter of the app's)
    python(*pip, program, "install", "--no-compile", "-c", ROOT / "requirements.txt", file)
    return program


def test_a_site_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    with StandIn() as model:
        smoke = Path(__file__).with_name("smoke.py")
        environment = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "k"}
        python(smoke, program=installed, cwd=tmp_path, **environment)
        assert len(model.calls) == 1
