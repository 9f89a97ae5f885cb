"""What README.md and the pages of docs/ list is what there is."""

from __future__ import annotations

import re
import shlex
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.core.management import BaseCommand, get_commands, load_command_class
from django.dispatch import Signal

import llmcache
from llmcache import signals
from llmcache.client.call.arguments import DENIED
from llmcache.conf import DEFAULTS
from llmcache.outcomes import Outcome
from llmcache.policy import CacheMode
from llmcache.tasks.on_celery import expire_entries
from tests.support.pages import (
    COMMANDS,
    MANUAL,
    OF_FRAMEWORKS,
    PAGES,
    PROSE,
    commands,
    first_column,
    prose,
    section,
    table,
)
from tests.support.paths import ROOT


def test_the_settings() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    headed = re.findall(r"^### `(\w+)`\n\nDefault: `(.*)`$", page, re.MULTILINE)
    documented = {name: eval(default, {"timedelta": timedelta}) for name, default in headed}
    assert documented == DEFAULTS


def test_the_checks() -> None:
    source = (ROOT / "llmcache" / "checks.py").read_text()
    ids = re.findall(r"id=\"(llmcache\.[EW]\d{3})\"", source)
    assert first_column("Checks") == sorted(set(ids))


def test_the_cache_modes() -> None:
    assert first_column("cache_mode") == [f'"{mode}"' for mode in CacheMode]


def test_the_outcomes() -> None:
    assert first_column("capture") == [str(outcome) for outcome in Outcome]


def test_the_signals() -> None:
    names = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert set(first_column("Signals")) == names
    for name, arguments, _ in table("Signals"):
        [documented] = re.findall(rf"`{name.strip('`')}\(sender, (.*)\)`", signals.__doc__ or "")
        assert re.findall(r"`(\w+)`", arguments.split(", as in")[0]) == documented.split(", ")


def test_the_errors() -> None:
    errors = [getattr(llmcache, name) for name in llmcache.__all__]
    errors = [each for each in errors if isinstance(each, type) and issubclass(each, Exception)]
    assert set(first_column("Errors")) == {error.__name__ for error in errors}
    for name, base, _ in table("Errors"):
        bases = [each.__name__ for each in getattr(llmcache, name.strip("`")).__mro__]
        assert not base or base.strip("`") in bases


def test_what_does_not_count_in_the_key() -> None:
    [listed] = re.findall(
        r"^- arguments of the call: (.*?), and the",
        section("What counts in the key"),
        re.MULTILINE | re.DOTALL,
    )
    assert set(re.findall(r"`(\w+)`", listed)) == DENIED


def test_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    assert set(first_column("1. Install the package")) <= extras
    for installed in re.findall(r'pip install "\.\[(.*)\]"', MANUAL):
        assert set(installed.split(",")) <= extras


def test_the_make_targets() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)`", PROSE))
    run = {line.split()[1] for line in commands() if line.startswith("make ")}
    assert run == {"demo", "test"}
    assert named | run <= targets


def test_the_management_commands() -> None:
    """They exist, and take the options that are given to them."""
    lines = [*commands(), *re.findall(r"`(python manage\.py [^`]*)`", PROSE)]
    seen = set()
    for line in lines:
        if line.startswith("python manage.py "):
            # (the parser knows the aliases of the tests' databases only)
            line = line.replace("--database llmcache", "--database default")
            _, program, name, *arguments = shlex.split(line)
            command = load_command_class(get_commands()[name], name)
            command.create_parser(program, name).parse_args(arguments)
            seen.add(name)
    assert seen == {"check", "dumpdata", "migrate", "standin", *COMMANDS}


def test_the_tasks() -> None:
    own = {name for name in expire_entries.app.tasks if name.startswith("llmcache.")}
    assert set(first_column("The tasks")) == own


@pytest.mark.django_db
def test_the_permissions() -> None:
    there = Permission.objects.filter(content_type__app_label="llmcache")
    codenames = there.values_list("codename", flat=True)
    assert set(first_column("Permissions")) == {f"llmcache.{name}" for name in codenames}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_a_command(name: str) -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    [described] = re.findall(rf"^## `{name}`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    first_cells = re.findall(r"^\| (`.*?`) \|", described, re.MULTILINE)
    documented = [option for cell in first_cells for option in re.findall(r"`(.*?)`", cell)]
    parser = load_command_class("llmcache", name).create_parser("manage.py", name)
    djangos = BaseCommand().create_parser("manage.py", name)
    taken = {each.dest for each in djangos._actions}
    own = [each for each in parser._actions if each.dest not in taken]
    assert documented == [(each.option_strings or [str(each.metavar)])[0] for each in own]


def test_the_environment_of_the_example_site() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "project").rglob("*.py"))
    read = re.findall(r"(?:environ\.get\(|environ\[|flag\(|listed\()\"(\w+)\"", sources)
    documented = {
        row[0].strip("`")
        for row in table("The environment of the example site")
        if row[0].isupper()
    }
    assert documented == set(read)


def test_the_reference_has_each_public_name() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    paths = re.findall(r"^::: (?!llmcache\.contrib\.)(\S+)$", page, re.MULTILINE)
    named = {path.rpartition(".")[2] for path in paths}
    assert named | set(first_column("Errors")) == set(llmcache.__all__)


def test_the_rooms_of_the_architecture() -> None:
    named = {name for row in table("Floors") for name in re.findall(r"`([^`]+)`", row[1])}
    app = ROOT / "llmcache"
    rooms = {f"{path.parent.name}/" for path in app.glob("*/__init__.py")}
    assert named >= rooms - {"migrations/"}
    assert all((app / name).exists() for name in named)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize(
    "page", [*PAGES, *OF_FRAMEWORKS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page.read_text())):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def test_the_figures() -> None:
    """They hold by the published benchmarks."""
    medians = {}
    for line in (ROOT / "docs" / "benchmarks.md").read_text().splitlines():
        if measured := re.match(r"\| (.+?) +\| +([\d.,]+) \|", line):
            medians[measured[1]] = float(measured[2].replace(",", ""))
    for ours, theirs, times in table("Figures"):
        assert medians[f"instructor: {theirs}"] >= int(times) * medians[f"llmcache: {ours}"]


def test_the_promises() -> None:
    """Their figures are those of the pages that are measured."""
    faults, providers = (
        (ROOT / "docs" / name).read_text() for name in ("faults.md", "providers.md")
    )

    def column(heading: str, index: int) -> list[int]:
        return [int(row[index].replace(",", "")) for row in table(heading, faults)]

    times = next(row[2] for row in table("Figures") if row[1].startswith("AutoCache"))
    read = len(re.findall(r"\| yes \|$", providers, re.MULTILINE))
    figures = [re.sub(r"\[(.*)\].*", r"\1", row[2]) for row in table("Promises")]
    assert figures == [
        f"{sum(column('Broken servers', 3))} errors in {sum(column('Broken servers', 2)):,} calls",
        f"hits of {read} providers",
        f"{min(column('Herds', 2))} call of the model",
        f"{sum(column('Killed workers', 3))} of {sum(column('Killed workers', 2)):,} answers lost",
        f"{sum(column('Invalidation', 5))} of {sum(column('Invalidation', 3)):,} reads too old",
        f"{times} times as fast",
        "0 canaries found",  # (which tests/test_discretion.py looks for)
    ]
