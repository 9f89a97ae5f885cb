"""The system checks: each by its id, with a hint, and silent where all is well."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache as DjangosRedisCache
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings
from django_redis.cache import RedisCache as DjangoRedisCache  # type: ignore[import-untyped]

from llmcache.middleware import NamespaceMiddleware
from llmcache.serializers import BytesSerializer

OWN = "llmcache.backends.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
DJANGOS_REDIS = "django.core.cache.backends.redis.RedisCache"
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
DUMMY = "django.core.cache.backends.dummy.DummyCache"
DATABASE = "django.core.cache.backends.db.DatabaseCache"
BYTES = "llmcache.serializers.BytesSerializer"
SECRET = "c2VjcmV0IHNlY3JldCBzZWNyZXQ="
SECRET_KEY = "c2VjcmV0IHNlY3JldCBzZQ=="


class OwnSerializer(BytesSerializer):
    pass


class OwnDjangoRedisCache(DjangoRedisCache):  # type: ignore[misc]
    pass


class OwnRedisCache(DjangosRedisCache):
    pass


class OwnLocMemCache(LocMemCache):
    pass


def found(**settings: Any) -> list[CheckMessage]:
    with override_settings(**({"LLMCACHE": {"CACHE": None}} | settings)):
        return run_checks(tags=["llmcache"])


def ids(**settings: Any) -> list[str | None]:
    return [message.id for message in found(**settings)]


def redis(backend: str, option: str, serializer: Any) -> dict[str, Any]:
    names = "socket_timeout", "socket_connect_timeout"
    options = dict.fromkeys(map(str.upper, names) if option.isupper() else names, 0.2)
    options |= {} if serializer is None else {option: serializer}
    caches = {"hot": {"BACKEND": backend, "LOCATION": "redis://x", "OPTIONS": options}}
    return {"CACHES": caches, "LLMCACHE": {"CACHE": "hot"}}


def hot(backend: str) -> dict[str, Any]:
    return {"CACHES": {"hot": {"BACKEND": backend}}, "LLMCACHE": {"CACHE": "hot"}}


def test_good_settings_are_clean() -> None:
    assert ids() == []
    assert ids(LLMCACHE={"CACHE": None, "TTL": 60, "NAMESPACE": "a", "DATABASE": None}) == []


class TestSettings:
    @pytest.mark.parametrize("value", [None, [], "x", 1, True], ids=repr)
    def test_e001_it_is_no_dictionary(self, value: Any) -> None:
        [message] = found(LLMCACHE=value)
        assert message.id == "llmcache.E001"
        assert message.hint
        assert "dictionary" in message.msg

    def test_w001_an_unknown_entry(self) -> None:
        messages = found(LLMCACHE={"CACHE": None, "TTTL": 1, "ttl": 1, 1: 2})
        assert [message.id for message in messages] == ["llmcache.W001"] * 3
        assert any("LLMCACHE['TTTL']" in message.msg for message in messages)
        assert all(message.hint for message in messages)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *[("CACHE", 1), ("DATABASE", 1), ("NAMESPACE", ""), ("TTL", -1), ("TTL", True)],
            *[("HOT_TTL", 0), ("MAX_ENTRY_BYTES", -1), ("COMPRESS_ABOVE", 1.5)],
            *[("STORE_REQUESTS", []), ("STORE_REQUESTS", "no.where"), ("ENCRYPTION_KEYS", "x")],
        ],
        ids=repr,
    )
    def test_e002_an_entry_that_is_off(self, name: str, value: Any) -> None:
        [message] = found(LLMCACHE={"CACHE": None, name: value})
        assert message.id == "llmcache.E002"
        assert f"LLMCACHE[{name!r}]" in message.msg
        assert message.hint

    def test_e002_for_each_entry_that_is_off(self) -> None:
        assert ids(LLMCACHE={"CACHE": None, "TTL": "1", "HOT_TTL": 0}) == ["llmcache.E002"] * 2

    @pytest.mark.parametrize("keys", [["A" * 43 + "="], [SECRET_KEY, SECRET_KEY]])
    def test_e009_an_encryption_key_that_is_none(self, keys: list[str]) -> None:
        [message] = found(LLMCACHE={"CACHE": None, "ENCRYPTION_KEYS": keys})
        assert message.id == "llmcache.E009"
        assert message.hint
        assert SECRET_KEY not in f"{message.msg}{message.hint}"

    @pytest.mark.parametrize(("keys", "expected"), [([], ["llmcache.W006"]), ([SECRET_KEY], [])])
    def test_w006_a_deployment_without_encryption(
        self, keys: list[str], expected: list[str]
    ) -> None:
        with override_settings(LLMCACHE={"CACHE": None, "ENCRYPTION_KEYS": keys}):
            deployed = run_checks(tags=["security"], include_deployment_checks=True)
            not_deployed = run_checks(tags=["security"])
        messages = [each for each in deployed if (each.id or "").startswith("llmcache")]
        assert [each.id for each in messages] == expected
        assert all("whoever can write to Redis" in each.msg and each.hint for each in messages)
        assert not [each for each in not_deployed if (each.id or "").startswith("llmcache")]

    def test_no_encryption_key_is_shown(self) -> None:
        [message] = found(LLMCACHE={"CACHE": None, "ENCRYPTION_KEYS": [SECRET]})
        assert SECRET not in f"{message.msg}{message.hint}"


class TestHotTier:
    def test_e003_no_such_alias(self) -> None:
        [message] = found(LLMCACHE={"CACHE": "nowhere"})
        assert message.id == "llmcache.E003"
        assert "'nowhere'" in message.msg
        assert message.hint

    @pytest.mark.parametrize("backend", [LOCMEM, DUMMY, f"{__name__}.OwnLocMemCache"])
    def test_w002_a_backend_of_one_process(self, backend: str) -> None:
        [message] = found(**hot(backend))
        assert message.id == "llmcache.W002"
        assert "'hot'" in message.msg
        assert message.hint

    def test_the_default_is_such_a_backend(self) -> None:
        assert ids(LLMCACHE={}) == ["llmcache.W002"]

    @pytest.mark.parametrize("backend", [DATABASE, "no.such.Backend", "nonsense"])
    def test_other_backends_are_clean(self, backend: str) -> None:
        assert ids(**hot(backend)) == []

    @pytest.mark.parametrize(
        ("backend", "option"),
        [
            (DJANGO_REDIS, "SERIALIZER"),
            (f"{__name__}.OwnDjangoRedisCache", "SERIALIZER"),
            (DJANGOS_REDIS, "serializer"),
            (f"{__name__}.OwnRedisCache", "serializer"),
        ],
    )
    class TestOnRedis:
        @pytest.mark.parametrize(
            "serializer",
            [
                None,
                "django_redis.serializers.pickle.PickleSerializer",
                "django_redis.serializers.json.JSONSerializer",
                "no.such.Serializer",
                "nonsense",
                object,
                dict,
            ],
            ids=repr,
        )
        def test_e004_it_would_unpickle(self, backend: str, option: str, serializer: Any) -> None:
            [message] = found(**redis(backend, option, serializer))
            assert message.id == "llmcache.E004"
            assert "CACHES['hot']" in message.msg
            assert f'"{option}": "{BYTES}"' in str(message.hint)
            assert "CACHES['hot']" in str(message.hint)

        @pytest.mark.parametrize(
            "serializer",
            [BYTES, f"{__name__}.OwnSerializer", BytesSerializer, OwnSerializer, BytesSerializer()],
            ids=str,
        )
        def test_bytes_do_not_unpickle(self, backend: str, option: str, serializer: Any) -> None:
            # (django-redis takes a path only)
            is_taken = isinstance(serializer, str) or option == "serializer"
            expected = [] if is_taken else ["llmcache.E007"]
            assert ids(**redis(backend, option, serializer)) == expected

        def test_the_option_of_the_other_backend_does_not_count(
            self, backend: str, option: str
        ) -> None:
            assert ids(**redis(backend, option.swapcase(), BYTES)) == ["llmcache.E004"]

        def test_missing_options_are_no_excuse(self, backend: str, option: str) -> None:
            missing: list[dict[str, Any]] = [{}, {"OPTIONS": None}, {"OPTIONS": {}}]
            for options in missing:
                caches = {"hot": {"BACKEND": backend, **options}}
                assert ids(CACHES=caches, LLMCACHE={"CACHE": "hot"}) == ["llmcache.E004"]


def own(options: dict[str, Any] | None = None, **entries: Any) -> dict[str, Any]:
    alias = {"BACKEND": OWN, "LOCATION": "redis://x", "OPTIONS": options or {}}
    return {"CACHES": {"hot": alias}, "LLMCACHE": {"CACHE": "hot", **entries}}


class TestOwnBackend:
    def test_its_address_is_enough(self) -> None:
        alias = {"BACKEND": OWN, "LOCATION": "redis://x"}
        assert ids(CACHES={"hot": alias}, LLMCACHE={"CACHE": "hot"}) == []

    def test_it_never_unpickles(self) -> None:
        pickle = "django_redis.serializers.pickle.PickleSerializer"
        assert ids(**own({"SERIALIZER": pickle})) == []

    @pytest.mark.parametrize(
        "settings",
        [
            {"CACHES": {"hot": {"BACKEND": OWN, "LOCATION": "127.0.0.1:6379/0"}}},
            own({"CONNECTION_POOL_KWARGS": {"socket_conect_timeout": 1}}),
        ],
    )
    def test_e007_it_cannot_be_used(self, settings: dict[str, Any]) -> None:
        [message] = found(**{"LLMCACHE": {"CACHE": "hot"}, **settings})
        assert message.id == "llmcache.E007"
        assert "CACHES['hot']" in message.msg


class TestPatience:
    def test_w005_a_lease_would_end_before_it_is_renewed(self) -> None:
        slow = {"SOCKET_TIMEOUT": 1, "SOCKET_CONNECT_TIMEOUT": 1}
        assert ids(**own(slow)) == []
        assert ids(**own(slow, LEASE_SECONDS=20)) == []
        [message] = found(**own(slow, LEASE_SECONDS=8))
        assert message.id == "llmcache.W005"
        assert "CACHES['hot']" in message.msg
        assert "SOCKET_TIMEOUT" in str(message.hint)
        assert "at least 10" in str(message.hint)

    @pytest.mark.parametrize(
        ("backend", "option"), [(DJANGO_REDIS, "SERIALIZER"), (DJANGOS_REDIS, "serializer")]
    )
    @pytest.mark.parametrize("timeout", [None, 0.3, 5])
    def test_w005_another_library_waits_for_longer(
        self, backend: str, option: str, timeout: float | None
    ) -> None:
        settings = redis(backend, option, BYTES)
        options = settings["CACHES"]["hot"]["OPTIONS"]
        for name in list(options):
            if name.lower() == "socket_timeout":
                options[name] = timeout
        [message] = found(**settings)
        assert message.id == "llmcache.W005"
        assert OWN in str(message.hint)


class TestWhatCannotBeUsed:
    @pytest.mark.parametrize(
        ("backend", "option", "change"),
        [
            (DJANGO_REDIS, "SERIALIZER", {"LOCATION": "127.0.0.1:6379/0"}),
            (DJANGO_REDIS, "SERIALIZER", {"LOCATION": ""}),
            (DJANGOS_REDIS, "serializer", {"LOCATION": "127.0.0.1:6379/0"}),
        ],
    )
    def test_e007_the_location(self, backend: str, option: str, change: dict[str, Any]) -> None:
        settings = redis(backend, option, BYTES)
        settings["CACHES"]["hot"] |= change
        [message] = found(**settings)
        assert message.id == "llmcache.E007"
        assert "CACHES['hot']" in message.msg
        assert message.hint

    @pytest.mark.parametrize(
        ("backend", "option", "options"),
        [
            (DJANGO_REDIS, "SERIALIZER", {"CONNECTION_POOL_KWARGS": {"socket_conect_timeout": 1}}),
            (DJANGO_REDIS, "SERIALIZER", {"COMPRESSOR": "no.such.Compressor"}),
            (DJANGOS_REDIS, "serializer", {"socket_conect_timeout": 1}),
        ],
    )
    def test_e007_an_option(self, backend: str, option: str, options: dict[str, Any]) -> None:
        settings = redis(backend, option, BYTES)
        settings["CACHES"]["hot"]["OPTIONS"] |= options
        [message] = found(**settings)
        assert message.id == "llmcache.E007"

    def test_keys_that_are_spread_over_servers_are_clean(self) -> None:
        settings = redis(DJANGO_REDIS, "SERIALIZER", BYTES)
        settings["CACHES"]["hot"]["OPTIONS"]["CLIENT_CLASS"] = "django_redis.client.ShardClient"
        assert ids(**settings) == []


class TestDatabase:
    @pytest.fixture
    def second_database(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(django_settings.DATABASES, "llm", {})

    def test_e005_no_such_alias(self) -> None:
        [message] = found(LLMCACHE={"CACHE": None, "DATABASE": "nowhere"})
        assert message.id == "llmcache.E005"
        assert "'nowhere'" in message.msg
        assert message.hint

    def test_w003_the_routers_say_otherwise(self, second_database: None) -> None:
        entries = {"CACHE": None, "DATABASE": "llm"}
        [message] = found(LLMCACHE=entries)
        assert message.id == "llmcache.W003"
        assert "'llm'" in message.msg
        assert "'default'" in message.msg
        assert "llmcache.routers.LLMCacheRouter" in str(message.hint)

    def test_our_router_is_clean(self, second_database: None) -> None:
        routers = ["llmcache.routers.LLMCacheRouter"]
        entries = {"CACHE": None, "DATABASE": "llm"}
        assert ids(LLMCACHE=entries, DATABASE_ROUTERS=routers) == []

    def test_the_default_needs_no_router(self) -> None:
        assert ids(LLMCACHE={"CACHE": None, "DATABASE": "default"}) == []


@pytest.mark.django_db
def test_they_are_part_of_manage_py_check(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": "nowhere"}
    with pytest.raises(SystemCheckError, match=r"llmcache\.E003"):
        call_command("check")


class TestEncryption:
    def test_the_library_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llmcache.checks.find_spec", lambda name: None)
        [message] = found(LLMCACHE={"CACHE": None, "ENCRYPTION_KEYS": [SECRET_KEY]})
        assert message.id == "llmcache.E006"
        assert "encryption" in str(message.hint)

    def test_no_keys_need_no_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llmcache.checks.find_spec", lambda name: None)
        assert ids() == []

    def test_the_library_is_there(self) -> None:
        assert ids(LLMCACHE={"CACHE": None, "ENCRYPTION_KEYS": [SECRET_KEY]}) == []


class OwnMiddleware(NamespaceMiddleware):
    pass


def namespace_of(request: Any) -> str:
    return "a"


class TestMiddleware:
    TOLD = {"CACHE": None, "REQUEST_NAMESPACE": f"{__name__}.namespace_of"}
    OURS = "llmcache.middleware.NamespaceMiddleware"
    OTHER = "django.middleware.common.CommonMiddleware"

    @pytest.mark.parametrize("name", [OURS, f"{__name__}.OwnMiddleware"])
    def test_is_silent_with_both_and_with_neither(self, name: str) -> None:
        assert ids(LLMCACHE=self.TOLD, MIDDLEWARE=[self.OTHER, name]) == []
        assert ids(MIDDLEWARE=[self.OTHER]) == []
        assert ids(LLMCACHE={"CACHE": None, "NAMESPACE": None}, MIDDLEWARE=[]) == []

    def test_names_what_is_missing(self) -> None:
        [warning] = found(LLMCACHE=self.TOLD, MIDDLEWARE=[self.OTHER, "no.such.Middleware"])
        assert warning.id == "llmcache.W004"
        assert "no 'llmcache.middleware.NamespaceMiddleware' in MIDDLEWARE" in warning.msg
        [warning] = found(MIDDLEWARE=[self.OURS])
        assert warning.id == "llmcache.W004"
        assert "no LLMCACHE['REQUEST_NAMESPACE']" in warning.msg
        assert warning.hint

    def test_a_function_that_cannot_be_imported_is_an_error(self) -> None:
        wrong = {"CACHE": None, "REQUEST_NAMESPACE": "no.such.function"}
        assert ids(LLMCACHE=wrong, MIDDLEWARE=[self.OURS]) == ["llmcache.E002"]
