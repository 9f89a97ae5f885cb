"""Reasons of calls, without their particulars, and what to do about them."""

from __future__ import annotations

import pytest

from llmcache.usage import reasons


@pytest.mark.parametrize(
    ("reason", "common"),
    [
        ("", ""),
        ("cache_ttl is 0", "cache_ttl is 0"),
        ("context['now']: a function has no form", "context: a function has no form"),
        ("messages[0]['a: b'][1]: NaN is no number", "messages: NaN is no number"),
        ("context['two\nlines']: a function", "context: a function"),
        ("no key could be computed: secret", "no key could be computed"),
        ("no key could be computed (TypeError)", "no key could be computed (TypeError)"),
        (
            "its tags could not be told (KeyError: 'secret')",
            "its tags could not be told (KeyError)",
        ),
    ],
)
def test_particulars_are_left_out(reason: str, common: str) -> None:
    assert reasons.in_general(reason) == common


def test_each_pattern_has_words_of_its_own() -> None:
    words = [str(words) for _, words in reasons.REMEDIES]
    assert len(set(words)) == len(words)
    assert reasons.remedy("something new") == str(reasons.NO_REMEDY)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ('cache_mode is "no-store"', "“reload”"),
        ("context: a function has no canonical form", "canonical form"),
        (
            "text: a function has no form; if it cannot change the answer, say exclude=('text',)",
            "Excl",
        ),
        ("LLMCACHE['TTL'] must be seconds", "manage.py check"),
        ("LLMCACHE['ADMIT'] did not admit the answer", "ADMIT"),
        ("the answer is larger than LLMCACHE['MAX_ENTRY_BYTES']", "MAX_ENTRY_BYTES"),
        ("the answer was cut short by the limit of tokens", "max_tokens"),
        ("the durable tier failed to write (OperationalError)", "health"),
        ("RateLimitError was raised", "limits"),
        ("web_search looks at the world: say for how long an answer will do", "cache_ttl"),
        ("conversation: the provider keeps what was said before", "all messages"),
        ("an argument was changed between the call and its answer", "copy them"),
        ("a hook changed what was sent, which the key does not know", "copy them"),
    ],
)
def test_the_remedy_fits_the_reason(reason: str, words: str) -> None:
    assert words in reasons.remedy(reason)
