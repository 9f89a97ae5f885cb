"""The Django that the rows run in: every database and cache that a row may name, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dj_database_url
import django
from django.conf import settings
from django.core.management import call_command

from tests.support.servers import MariaDBServer, PostgreSQLServer, RedisServer, Server

Urls = Mapping[type[Server], str]

# The alias of each server's database, here and in the rows.
DATABASE_SERVERS: dict[str, type[Server]] = {"postgres": PostgreSQLServer, "mariadb": MariaDBServer}


# What the admin needs; everything else does without.
SITE: dict[str, Any] = {
    "INSTALLED_APPS": [
        *("django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes"),
        *("django.contrib.sessions", "django.contrib.messages", "django.contrib.staticfiles"),
        "llmcache",
    ],
    "SECRET_KEY": "only for benchmarks",
    "ROOT_URLCONF": "tests.benchmarks.urls",
    "STATIC_URL": "static/",
    "ALLOWED_HOSTS": ["testserver"],
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
}


def set_up(urls: Urls, directory: Path, *, site: bool = False) -> None:
    """Configure Django with the servers at `urls` and SQLite in `directory`; make the tables.

    `site`: with the admin.
    """
    settings.configure(
        **(SITE if site else {"INSTALLED_APPS": ["llmcache"]}),
        USE_TZ=True,
        DATABASES=databases(urls, directory),
        CACHES=caches(urls),
    )
    django.setup()
    for alias in settings.DATABASES:
        call_command("migrate", database=alias, verbosity=0)


def databases(urls: Urls, directory: Path) -> dict[str, Any]:
    sqlite = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": directory / "default.sqlite3",
        "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"},
    }
    servers = {
        alias: dj_database_url.parse(urls[server])
        for alias, server in DATABASE_SERVERS.items()
        if server in urls
    }
    return {"default": sqlite, **servers}


def caches(urls: Urls) -> dict[str, Any]:
    default = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    if RedisServer not in urls:
        return {"default": default}
    return {
        "default": default,
        "redis": {
            "BACKEND": "llmcache.backends.RedisCache",
            "LOCATION": urls[RedisServer],
        },
        "django-redis": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": urls[RedisServer],
            "OPTIONS": {"SERIALIZER": "llmcache.serializers.BytesSerializer"},
        },
    }
