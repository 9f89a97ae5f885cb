"""The errors: a tree of one root, and messages that say the way out."""

from __future__ import annotations

import pickle

import pytest

import llmcache
from llmcache import exceptions
from llmcache.exceptions import (
    CacheMiss,
    CorruptEntry,
    InvalidArgument,
    InvalidArgumentType,
    LLMCacheError,
    UncacheableRequest,
)

ALL = [
    value
    for value in vars(exceptions).values()
    if isinstance(value, type) and value.__module__ == exceptions.__name__
]


@pytest.mark.parametrize("error", ALL)
def test_one_root_catches_all(error: type[Exception]) -> None:
    assert issubclass(error, LLMCacheError)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [(InvalidArgument, ValueError), (InvalidArgumentType, TypeError), (CacheMiss, LookupError)],
)
def test_they_are_what_python_would_raise(error: type, builtin: type) -> None:
    assert issubclass(error, builtin)


def test_a_wrong_type_is_an_invalid_argument_too() -> None:
    assert issubclass(InvalidArgumentType, InvalidArgument)


@pytest.mark.parametrize("error", [CacheMiss, InvalidArgument, LLMCacheError, UncacheableRequest])
def test_what_callers_catch_is_public(error: type) -> None:
    assert getattr(llmcache, error.__name__) is error


def test_a_damaged_entry_never_looks_like_an_argument_or_a_miss() -> None:
    assert not issubclass(CorruptEntry, ValueError | LookupError)


def test_a_miss_says_what_was_sought_and_the_way_out() -> None:
    error = CacheMiss("ab" * 32, "tenant", "nothing is stored")
    assert (error.key, error.namespace, error.reason) == ("ab" * 32, "tenant", "nothing is stored")
    for words in ("ab" * 32, "'tenant'", "nothing is stored", '"default" or "reload"'):
        assert words in str(error)


def test_an_uncacheable_request_names_the_part_and_why() -> None:
    error = UncacheableRequest("context['a']", "no form")
    assert (error.part, error.why, str(error)) == (
        "context['a']",
        "no form",
        "context['a']: no form",
    )


@pytest.mark.parametrize(
    "error", [CacheMiss("ab", "n", "r"), UncacheableRequest("p", "w")], ids=repr
)
def test_errors_cross_processes(error: Exception) -> None:
    """As Celery's results and process pools carry them."""
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))
