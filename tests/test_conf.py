"""The settings: typed, read once for each dictionary, and refused by name when they are off."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from llmcache.conf import DEFAULTS, Settings, entry
from llmcache.conf import settings as llmcache_settings
from llmcache.policy import Policy, overridden
from llmcache.removal.criteria import read_criteria
from llmcache.values import LONGEST_NAME, LONGEST_TTL, Prices, is_name, to_seconds

PROPERTIES = [name for name, value in vars(Settings).items() if isinstance(value, entry)]
KEY = base64.b64encode(bytes(range(32))).decode()
YEAR = 365.25 * 24 * 3600


WINDOWS = ("stale_while_revalidate", "stale_if_error", "lease_seconds", "wait_seconds")


def redact(request: dict[str, Any]) -> dict[str, Any]:
    return request


class TestDefaults:
    @pytest.fixture(autouse=True)
    def _empty(self, settings: Any) -> None:
        settings.LLMCACHE = {}

    def test_every_entry_has_a_property_and_every_property_an_entry(self) -> None:
        assert {name.upper() for name in PROPERTIES} == set(DEFAULTS)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("cache", "default"),
            ("database", None),
            ("namespace", "default"),
            ("ttl", 30 * 24 * 3600.0),
            ("hot_ttl", 3600.0),
            ("stale_while_revalidate", 0.0),
            ("stale_if_error", 0.0),
            ("refresh", None),
            ("lease_seconds", 10.0),
            ("wait_seconds", 120.0),
            ("require_namespace", False),
            ("tasks", "celery"),
            ("request_namespace", None),
            ("max_entry_bytes", 1024 * 1024),
            ("store_requests", "full"),
            ("encryption_keys", ()),
            ("compress_above", 4096),
            ("prices", {}),
            ("key_headers", frozenset()),
        ],
    )
    def test_are_what_the_readme_says(self, name: str, value: Any) -> None:
        assert getattr(llmcache_settings, name) == value

    def test_hold_without_the_setting(self, settings: Any) -> None:
        del settings.LLMCACHE
        assert not hasattr(django_settings, "LLMCACHE")
        assert llmcache_settings.ttl == 30 * 24 * 3600.0


def refresh(key: str) -> bool:
    return True


GOOD: list[tuple[str, Any, Any]] = [
    *[("cache", "redis", "redis"), ("cache", None, None)],
    *[("database", "other", "other"), ("database", None, None)],
    *[("namespace", "tenant 1", "tenant 1"), ("namespace", "ü" * 255, "ü" * 255)],
    *[("namespace", None, None), ("require_namespace", True, True)],
    *[("request_namespace", f"{__name__}.refresh", refresh), ("request_namespace", None, None)],
    *[("ttl", None, None), ("ttl", 0, 0.0), ("ttl", 60, 60.0), ("ttl", 1.5, 1.5)],
    *[("ttl", timedelta(minutes=1), 60.0), ("ttl", LONGEST_TTL, LONGEST_TTL.total_seconds())],
    *[("hot_ttl", 0.5, 0.5), ("hot_ttl", timedelta(hours=2), 7200.0)],
    *[(name, 1, 1.0) for name in WINDOWS],
    *[(name, timedelta(minutes=1), 60.0) for name in WINDOWS],
    *[("stale_while_revalidate", 0, 0.0), ("stale_if_error", 0, 0.0), ("wait_seconds", 0, 0.0)],
    *[("refresh", f"{__name__}.refresh", refresh), ("refresh", None, None)],
    *[("tasks", "celery", "celery"), ("tasks", "django", "django"), ("tasks", None, None)],
    *[("max_entry_bytes", 0, 0), ("max_entry_bytes", 10**12, 10**12)],
    *[("compress_above", 0, 0), ("compress_above", 5, 5)],
    *[("store_requests", word, word) for word in ("full", "redacted", "digest")],
    ("store_requests", f"{__name__}.redact", redact),
    ("encryption_keys", [KEY], (bytes(range(32)),)),
    ("encryption_keys", (KEY.encode(),), (bytes(range(32)),)),
    *[("encryption_keys", [], ()), ("encryption_keys", (), ())],
    ("key_headers", ["X-Acme-Turn", "x-b"], frozenset({"x-acme-turn", "x-b"})),
    ("prices", {"m": {"input": 0.1, "output": "2"}}, {"m": Prices(Decimal("0.1"), Decimal(2))}),
    (
        "prices",
        {"m": {"input": 1, "output": Decimal(2), "cached_input": 0}},
        {"m": Prices(Decimal(1), Decimal(2), Decimal(0))},
    ),
]


@pytest.mark.parametrize(("name", "value", "read"), GOOD, ids=ascii)
def test_a_good_value_is_seen_at_once(name: str, value: Any, read: Any) -> None:
    with override_settings(LLMCACHE={}):
        default = getattr(llmcache_settings, name)
        with override_settings(LLMCACHE={name.upper(): value}):
            found = getattr(llmcache_settings, name)
        assert getattr(llmcache_settings, name) == default
    assert (type(found), found) == (type(read), read)


SECONDS_OFF: list[Any] = [True, False, -1, -0.1, "60", 10**400, [], object(), float("nan")]
SECONDS_OFF += [float("inf"), LONGEST_TTL + timedelta(microseconds=1), timedelta(-1), Decimal(1)]
COUNTS_OFF: list[Any] = [True, False, -1, 1.0, "1", None, [1]]
NAMES_OFF: list[Any] = ["", "x" * (LONGEST_NAME + 1), "a\0b", "a\nb", "\ud800", "\u200b"]
NAMES_OFF += [b"a", 1, []]

PRICES_OFF: list[Any] = [None, 1, [], "m", {"m": 1}, {"m": {}}, {"m": None}]
PRICES_OFF += [{"m": {"input": 1}}, {"m": {"input": 1, "output": 1, "x": 1}}]
PRICE_OFF: list[Any] = [True, None, "", "a lot", -1, "nan", float("inf"), 1e7, [1]]

BAD: list[tuple[str, Any]] = [
    *[("cache", value) for value in (1, True, ["default"], b"default")],
    *[("database", value) for value in (1, True, ["default"], b"default")],
    *[("namespace", value) for value in NAMES_OFF],
    *[("require_namespace", value) for value in (None, 0, 1, "yes")],
    *[("request_namespace", value) for value in ("", "no.such.module", True, refresh)],
    *[("ttl", value) for value in SECONDS_OFF],
    *[("hot_ttl", value) for value in [*SECONDS_OFF, 0, 0.0, timedelta(0), None]],
    *[(name, value) for name in WINDOWS for value in [*SECONDS_OFF, None]],
    *[("lease_seconds", value) for value in (0, 0.9, timedelta(0))],
    *[("refresh", value) for value in ("", "no.such.module", "llmcache.conf.LONGEST_NAME", True)],
    *[("refresh", value) for value in (1, [1], refresh)],
    *[("max_entry_bytes", value) for value in COUNTS_OFF],
    *[("compress_above", value) for value in COUNTS_OFF],
    *[
        ("store_requests", value)
        for value in ("none", "no.such.module", "json.no_such", "llmcache.conf.LONGEST_NAME")
    ],
    *[("store_requests", value) for value in ("", ".", ".a", "..a", "a..b", "a.")],
    *[("store_requests", value) for value in (None, True, 1, [1], redact)],
    *[("key_headers", value) for value in ("x-acme-turn", [""], [1], None, {"x": 1}, ["a\nb"])],
    *[("prices", value) for value in PRICES_OFF],
    *[("prices", {"m": {"input": 1, "output": value}}) for value in PRICE_OFF],
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=ascii)
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    with (
        override_settings(LLMCACHE={name.upper(): value}),
        pytest.raises(ImproperlyConfigured, match=rf"^LLMCACHE\['{name.upper()}'\] must be "),
    ):
        getattr(llmcache_settings, name)


@pytest.mark.parametrize(
    "value",
    [
        KEY,  # a string is no list of strings
        KEY.encode(),
        "",
        None,
        1,
        {KEY},  # "newest first" needs an order
        {KEY: 1},
        [None],
        [KEY, 1],
        ["not base64!"],
        [KEY + "secret"],
        ["ü"],
        [""],
        [base64.b64encode(b"k" * 31).decode()],
        [KEY, base64.b64encode(b"k" * 33).decode()],
    ],
    ids=repr,
)
def test_bad_encryption_keys_are_refused_and_never_shown(value: Any) -> None:
    with (
        override_settings(LLMCACHE={"ENCRYPTION_KEYS": value}),
        pytest.raises(ImproperlyConfigured, match=r"LLMCACHE\['ENCRYPTION_KEYS'\]") as caught,
    ):
        _ = llmcache_settings.encryption_keys
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_setting_that_is_no_dictionary_is_refused(value: Any) -> None:
    with (
        override_settings(LLMCACHE=value),
        pytest.raises(ImproperlyConfigured, match="LLMCACHE must be a dictionary"),
    ):
        _ = llmcache_settings.ttl


class TestToSeconds:
    @pytest.mark.parametrize("value", [True, False, "60", b"1", Decimal(1), [], object()], ids=repr)
    def test_refuses_other_types(self, value: Any) -> None:
        with pytest.raises(TypeError, match="is not a number of seconds"):
            to_seconds(value)

    @pytest.mark.parametrize("value", [-1, -1e-9, float("nan"), float("-inf"), 101 * YEAR])
    def test_refuses_what_is_out_of_range(self, value: Any) -> None:
        with pytest.raises(ValueError, match="is not between 0 and 36525 days"):
            to_seconds(value)

    @pytest.mark.parametrize("value", [0, 0.0, 1, 1.5, timedelta(days=1), 100 * YEAR])
    def test_gives_a_float(self, value: Any) -> None:
        assert type(to_seconds(value)) is float


NAMES = ["a", "a b", "doc:42", "ünï", "世界", "x" * LONGEST_NAME, "\U0001f600"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_is_a_name(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", NAMES_OFF, ids=ascii)
def test_is_no_name(name: Any) -> None:
    assert not is_name(name)


@pytest.mark.parametrize(
    "begin",
    [lambda: overridden(Policy()), lambda: read_criteria(everything=True)],
    ids=["a call", "an invalidation"],
)
def test_another_dictionary_is_noticed_without_a_signal(begin: Callable[[], object]) -> None:
    """As a script sets it, or a worker that has its settings from elsewhere."""
    with override_settings(LLMCACHE={"TTL": 60}):
        assert llmcache_settings.ttl == 60
        django_settings.LLMCACHE = {"TTL": 90}
        begin()
        assert llmcache_settings.ttl == 90
        del django_settings.LLMCACHE
        begin()
        assert llmcache_settings.ttl == 30 * 24 * 3600
