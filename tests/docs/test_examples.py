"""README.md and the pages of docs/: their examples are run, and what they list is what there is."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.management import BaseCommand, call_command, get_commands, load_command_class
from django.dispatch import Signal
from django.test import SimpleTestCase

import llmcache
from llmcache import signals
from llmcache.client.call.arguments import CACHE_ARGUMENTS, DENIED
from llmcache.codec.envelope import ANSWER, REQUEST, unseal
from llmcache.conf import DEFAULTS
from llmcache.middleware import NamespaceMiddleware
from llmcache.outcomes import Call, Outcome
from llmcache.policy import CacheMode
from llmcache.store.rows import tier as durable
from llmcache.tasks import on_celery
from project.standin.server import StandIn
from tests.support import servers

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).parents[2]
# The manual, page by page.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "docs" / "index.md",
    *sorted(
        page
        for part in ("how-to", "reference", "explanation")
        for page in (ROOT / "docs" / part).glob("*.md")
    ),
]
MANUAL = "\n".join(page.read_text() for page in PAGES)

SETTINGS = "# settings.py"
FIRST_CALL = "The first call"

COMMANDS = sorted(
    path.stem for path in (ROOT / "llmcache" / "management" / "commands").glob("llmcache_*.py")
)

Namespace = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """A fenced block, the page and the heading it stands under, and its first line in the page."""

    page: Path
    heading: str
    language: str
    line: int
    code: str

    @property
    def file(self) -> str | None:
        """The file that the block is said to stand in, by a comment in its first line."""
        named = re.match(r"# (\S+\.py)\n", self.code)
        return named and named[1]


def _blocks(page: Path) -> Iterator[Block]:
    heading, start = "", 0
    language: str | None = None
    code: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if language is not None:
            if line == "```":
                yield Block(page, heading, language, start, "\n".join(code) + "\n")
                language = None
            else:
                code.append(line)
        elif line.startswith("```"):
            language, start, code = line.removeprefix("```"), number + 1, []
        elif line.startswith("#"):
            heading = line.lstrip("# ").replace("`", "")
    assert language is None, f"a block is not closed in {page}"


BLOCKS = [block for page in PAGES for block in _blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [block for block in BLOCKS if block.language == "sh"]


def prose(text: str) -> str:
    """`text` without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


PROSE = prose(MANUAL)


def section(heading: str) -> str:
    """The text between this heading and the next."""
    [text] = re.findall(rf"^#+ `?{heading}`?\n(.*?)(?=^#|\Z)", PROSE, re.MULTILINE | re.DOTALL)
    return str(text)


def table(heading: str) -> list[list[str]]:
    """The cells of the table in a section, without its head."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def first_column(heading: str) -> list[str]:
    return [row[0].strip("`") for row in table(heading)]


def commands() -> list[str]:
    """Every command line in the shell blocks, without its comment."""
    lines = (line.split("  #")[0].strip() for block in SHELL for line in block.code.splitlines())
    return [line.split(" # ")[0].strip() for line in lines if line]


# The examples


@pytest.fixture
def _provider(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user has in the environment, and that the SDK is to leave no connection open."""
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Connection: close")
    monkeypatch.setenv("LLMCACHE_ENCRYPTION_KEYS", "A" * 43 + "=")


@pytest.fixture
def _receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receivers that an example connects are gone after the test."""
    for signal in vars(signals).values():
        if isinstance(signal, Signal):
            monkeypatch.setattr(signal, "receivers", list(signal.receivers))


@pytest.fixture
def run(
    _provider: None,
    _receivers: None,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., Namespace]:
    """Run the blocks under a heading, after the first call; what they have defined."""

    def run_blocks(heading: str) -> Namespace:
        blocks = [block for block in PYTHON if block.heading == heading]
        namespace: Namespace = {"__name__": "readme"}
        project: Namespace = {
            "INSTALLED_APPS": [],
            "MIDDLEWARE": [],
            "CACHES": {"default": settings.CACHES["default"]},
            "DATABASES": dict(settings.DATABASES),
            "BASE_DIR": tmp_path,
        }
        if heading != FIRST_CALL and any(block.file is None for block in blocks):
            [first_call] = (block for block in PYTHON if block.heading == FIRST_CALL)
            execute(first_call, namespace)
        for block in blocks:
            if block.file is None:
                execute(block, namespace)
            elif block.file == "settings.py":
                execute(block, project)
                apply(project, settings, monkeypatch)
            else:
                install(block, monkeypatch)
        for case in namespace.values():
            if isinstance(case, type) and case.__module__ == namespace["__name__"]:
                run_tests(case, tmp_path, settings)
        return namespace | project

    return run_blocks


def execute(block: Block, namespace: Namespace) -> None:
    # Tracebacks show the lines of the page.
    code = "\n" * (block.line - 1) + block.code
    exec(compile(code, block.page, "exec", dont_inherit=True), namespace)


def apply(project: Namespace, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the settings of an example, and check them as `manage.py check` does."""
    for alias in project["DATABASES"].keys() - settings.DATABASES.keys():
        # Past `override_settings`, which warns: connections are open.
        monkeypatch.setitem(django_settings.DATABASES, alias, project["DATABASES"][alias])
    for name in ("LLMCACHE", "CACHES", "DATABASE_ROUTERS", "MIDDLEWARE"):
        if name in project:
            setattr(settings, name, project[name])
    assert run_checks(tags=["llmcache"]) == []


def install(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the module of an example be imported by its dotted path."""
    assert block.file is not None
    name = block.file.removesuffix(".py").replace("/", ".")
    module = ModuleType(name)
    execute(block, vars(module))
    for package in (name.rpartition(".")[0], name):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setitem(sys.modules, name, module)


def run_tests(case: type, fixtures: Path, settings: Any) -> None:
    """Run a test case as Django's runner does, with a fixture of what is stored."""
    if issubclass(case, SimpleTestCase):
        settings.FIXTURE_DIRS = [fixtures]
        [line] = (line for line in commands() if "dumpdata" in line)
        _, _, name, model, _, output = shlex.split(line)
        call_command(name, model, output=fixtures / Path(output).name, verbosity=0)
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        assert result.testsRun
        assert not [trace for _, trace in (*result.failures, *result.errors)]


HEADINGS = list(dict.fromkeys(block.heading for block in PYTHON))


@pytest.mark.parametrize("heading", HEADINGS)
def test_example(run: Callable[..., Namespace], heading: str) -> None:
    run(heading)


def test_the_model_is_asked_once_in_the_first_call(
    run: Callable[..., Namespace], model: StandIn
) -> None:
    run(FIRST_CALL)
    assert len(model.calls) == 1


def test_each_public_name_is_in_an_example() -> None:
    code = "\n".join(block.code for block in PYTHON)
    used = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "llmcache"
    }
    assert used >= set(llmcache.__all__)


def test_each_argument_of_a_call_is_in_an_example_and_has_a_heading() -> None:
    code = "\n".join(block.code for block in PYTHON)
    for argument in CACHE_ARGUMENTS:
        assert f"{argument}=" in code
        assert f"\n## `{argument}`\n" in MANUAL


@pytest.mark.parametrize("number", [0, 1], ids=["django-redis", "RedisCache"])
@pytest.mark.redis
def test_the_hot_tier_of_the_settings(
    run: Callable[..., Namespace], settings: Any, number: int
) -> None:
    servers.require(servers.RedisServer)
    blocks = [block for block in PYTHON if "CACHES" in block.code and block.file]
    project: Namespace = {"CACHES": {"default": settings.CACHES["default"]}}
    with servers.RedisServer() as redis:
        execute(blocks[number], project)
        project["CACHES"]["llmcache"]["LOCATION"] = redis.url
        settings.CACHES = project["CACHES"]
        settings.LLMCACHE = {"CACHE": "llmcache"}
        with llmcache.capture() as calls:
            run(FIRST_CALL)
        caches["llmcache"].close()
    assert [call.tier for call in calls] == [None, "hot"]


def test_nothing_is_legible_with_the_keys_of_the_example(run: Callable[..., Namespace]) -> None:
    run("Encryption")
    with llmcache.capture() as calls:
        run(FIRST_CALL)
    assert [call.outcome for call in calls] == ["miss", "hit"]
    row = durable.entries().get()
    assert b"printer" not in bytes(row.payload) + bytes(row.request or b"")


def test_the_command_that_makes_an_encryption_key(settings: Any) -> None:
    [line] = (line for line in commands() if "b64encode" in line)
    key = subprocess.run(
        [sys.executable, *shlex.split(line)[1:]], capture_output=True, text=True, check=True
    ).stdout.strip()
    settings.LLMCACHE = {"CACHE": None, "ENCRYPTION_KEYS": [key]}
    assert run_checks(tags=["llmcache"]) == []


def test_the_redactor_of_the_example(run: Callable[..., Namespace]) -> None:
    run("Prompts at rest")
    client, ticket = (run(FIRST_CALL)[name] for name in ("client", "Ticket"))
    durable.entries().delete()
    messages = [{"role": "user", "content": "Write to jo@example.org, it burns."}]
    client.create(response_model=ticket, messages=messages)
    row = durable.entries().get()
    request = unseal(REQUEST, row.key, bytes(row.request or b"")).body
    assert b"Write to [address] it burns." in request
    assert unseal(ANSWER, row.key, bytes(row.payload)).body
    assert messages[0]["content"] == "Write to jo@example.org, it burns."


def test_the_tenants_of_the_example(run: Callable[..., Namespace]) -> None:
    namespace = run("Tenants")
    arguments = {"response_model": namespace["Ticket"], "messages": namespace["messages"]}

    def call_of(user: Any) -> Call:
        middleware: Any = NamespaceMiddleware(lambda _: namespace["client"].create(**arguments))
        with llmcache.capture() as calls:
            middleware(SimpleNamespace(user=user))
        return calls[0]

    users = [SimpleNamespace(pk=pk, is_authenticated=True) for pk in (7, 8)]
    assert [call_of(user).namespace for user in users] == ["tenant:7", "tenant:8"]
    assert call_of(SimpleNamespace(pk=None, is_authenticated=False)).outcome == "bypass"


@pytest.mark.slow
def test_the_five_steps_in_a_new_project(model: StandIn, tmp_path: Path) -> None:
    environment = {
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": "k",
        "PYTHONPATH": str(ROOT),
        "PATH": "",
    }

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    python("-m", "django", "startproject", "site1", ".")
    rows_only, _, _, own_database = (b for b in PYTHON if b.heading == "2. Add it to the settings")
    with (tmp_path / "site1" / "settings.py").open("a") as file:
        file.write(rows_only.code + own_database.code)
    for block in SHELL:
        if block.heading in {"3. Make the tables, and check", "5. Schedule the expiry"}:
            lines = block.code.splitlines()
            printed = [python(*shlex.split(line, comments=True)[1:]) for line in lines]
    assert printed == ["0 expired entries removed.\n", "0 rows of hours became part of a day.\n"]
    [first_call] = (block for block in PYTHON if block.heading == FIRST_CALL)
    for _ in range(2):
        python("manage.py", "shell", "--command", first_call.code)
    assert len(model.calls) == 1
    assert python("manage.py", "check") == "System check identified no issues (0 silenced).\n"


# What it lists


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
    own = {name for name in on_celery.current_app.tasks if name.startswith("llmcache.")}
    assert set(first_column("The tasks")) == own


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
    assert documented == [(each.option_strings or [each.metavar])[0] for each in own]


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
    named = {path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
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
