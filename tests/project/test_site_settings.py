"""What the environment makes of the settings."""

import json
import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from project.environment import flag, listed, secret_key
from tests.support.paths import ROOT

READ = """
import json
from project import settings
names = ("DATABASES", "CACHES", "LLMCACHE", "CELERY_BROKER_URL", "DEBUG", "SESSION_COOKIE_SECURE")
print(json.dumps({name: getattr(settings, name) for name in names}, default=str))
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    # The developer's own variables must not decide.
    mine = ("DATABASE_URL", "REDIS_URL", "CELERY_", "OPENAI_", "DJANGO_", "LLMCACHE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    return subprocess.run(
        [sys.executable, "-c", READ],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def settings(**environment: str) -> dict[str, dict]:
    done = run(**environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict] = json.loads(done.stdout)
    return found


def test_without_any_environment():
    found = settings()
    assert found["LLMCACHE"] == {"DATABASE": "llmcache", "CACHE": None}
    names = {database["NAME"] for database in found["DATABASES"].values()}
    assert len(names) == 2
    assert all("WAL" in str(d["OPTIONS"]) for d in found["DATABASES"].values())
    assert found["CELERY_BROKER_URL"] == "filesystem://"


def test_one_database():
    found = settings(DATABASE_URL="postgres://u:p@db.example/site")
    assert list(found["DATABASES"]) == ["default"]
    assert found["DATABASES"]["default"]["HOST"] == "db.example"
    assert found["LLMCACHE"]["DATABASE"] is None


def test_one_sqlite_database():
    found = settings(DATABASE_URL="sqlite:///other.sqlite3")
    assert found["DATABASES"]["default"]["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_redis():
    found = settings(REDIS_URL="redis://redis.example/1")
    hot = found["CACHES"][str(found["LLMCACHE"]["CACHE"])]
    assert hot == {
        "BACKEND": "llmcache.backends.RedisCache",
        "LOCATION": "redis://redis.example/1",
    }
    assert found["CELERY_BROKER_URL"] == "redis://redis.example/1"


def test_a_broker_of_its_own():
    found = settings(REDIS_URL="redis://r.example", CELERY_BROKER_URL="amqp://rabbit.example")
    assert found["CELERY_BROKER_URL"] == "amqp://rabbit.example"


def test_outside_development():
    refused = run(DJANGO_DEBUG="0")
    assert refused.returncode != 0
    assert "DJANGO_SECRET_KEY must be set" in refused.stderr
    found = settings(DJANGO_DEBUG="0", DJANGO_SECRET_KEY="s" * 50)
    assert found["DEBUG"] is False
    assert found["SESSION_COOKIE_SECURE"] is True


def test_the_development_key_is_made_once(monkeypatch, tmp_path):
    monkeypatch.delenv("DJANGO_SECRET_KEY", raising=False)
    first = secret_key(debug=True, kept_in=tmp_path)
    assert len(first) >= 50
    assert secret_key(debug=True, kept_in=tmp_path) == first
    assert [file.name for file in tmp_path.iterdir()] == ["secret_key"]
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0


def test_outside_development_no_key_is_made(monkeypatch, tmp_path):
    monkeypatch.delenv("DJANGO_SECRET_KEY", raising=False)
    with pytest.raises(ImproperlyConfigured):
        secret_key(debug=False, kept_in=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "meant"), [("1", True), ("True", True), (" yes ", True), ("0", False), ("", False)]
)
def test_flags(monkeypatch, value, meant):
    monkeypatch.setenv("SOME_FLAG", value)
    assert flag("SOME_FLAG", default=not meant) is meant


def test_lists(monkeypatch):
    monkeypatch.setenv("SOME_LIST", "a, b,,")
    assert listed("SOME_LIST") == ["a", "b"]
    monkeypatch.delenv("SOME_LIST")
    assert listed("SOME_LIST") == []


def test_the_schedule_names_tasks_that_exist():
    from project.celery import app

    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert scheduled <= set(app.tasks)
