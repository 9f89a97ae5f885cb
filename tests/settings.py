"""Settings of the tests: SQLite in a file, and the servers that `tests.plugin` has started.

Every database has the tables of llmcache; a test chooses where rows and hot copies are with
``LLMCACHE`` (see the fixture `backend` in conftest). A child process finds the same databases
through the environment.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import dj_database_url

SECRET_KEY = "only for tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick
USE_TZ = True
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "llmcache",
    "project",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "DIRS": [Path(__file__).parent.parent / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# In a file: threads and child processes see it too. Children inherit the directory.
DIRECTORY = Path(
    os.environ.setdefault("LLMCACHE_TEST_DIRECTORY", tempfile.mkdtemp(prefix="llmcache-tests-"))
)

# The models that tests ask speak no TLS. To read all certificates of the machine for each client
# that is made would take as long as all else in many a test.
os.environ["SSL_CERT_DIR"] = str(DIRECTORY)
os.environ.pop("SSL_CERT_FILE", None)  # (it would be preferred)


def _database(url: str) -> dict[str, Any]:
    database: dict[str, Any] = {**dj_database_url.parse(url)}
    # A child process works on the test database that its parent has made.
    if "LLMCACHE_TEST_CHILD" in os.environ:
        database["NAME"] = f"test_{database['NAME']}"
    return database


DATABASES: dict[str, Any] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DIRECTORY / "default.sqlite3",
        "TEST": {"NAME": DIRECTORY / "default.sqlite3"},
        "OPTIONS": {
            "timeout": 5,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
        },
    }
}
for _alias in ("postgres", "mariadb"):
    if _url := os.environ.get(f"LLMCACHE_TEST_{_alias.upper()}"):
        DATABASES[_alias] = _database(_url)

CACHES: dict[str, Any] = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "database": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "hot_tier",
    },
}
if _redis := os.environ.get("LLMCACHE_TEST_REDIS"):
    CACHES["redis"] = {"BACKEND": "llmcache.backends.RedisCache", "LOCATION": _redis}
    CACHES["django-redis"] = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": _redis,
        "KEY_PREFIX": "theirs",
        "OPTIONS": {"SERIALIZER": "llmcache.serializers.BytesSerializer"},
    }
    CACHES["django"] = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": _redis,
        "KEY_PREFIX": "plain",
        "OPTIONS": {"serializer": "llmcache.serializers.BytesSerializer"},
    }

# Rows on SQLite and no hot tier, until a test says otherwise.
LLMCACHE: dict[str, Any] = {"CACHE": None}
