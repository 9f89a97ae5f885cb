"""What ``"STORE_REQUESTS": "redacted"`` masks, what it leaves, and how it takes long texts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache.codec.redaction import redacted

MASKED = {
    "Write to bob.o'neil+x@mail.example.co.uk!": "Write to [e-mail]!",
    "用户@例子.公司 asks": "[e-mail] asks",
    "Call +49 (0)30 1234-5678.": "Call [phone].",
    "030/12345678 or (555) 123-4567": "[phone] or [phone]",
    "0049 30 123456": "[phone]",
    "DE89 3704 0044 0532 0130 00 and gb82west12345698765432": "[IBAN] and [IBAN]",
    "card 4111 1111 1111 1111 or 378282246310005": "card [card] or [card]",
    "Authorization: Bearer abc.def-ghi12345==": "Authorization: Bearer [token]",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl": "[token]",
    "sk-proj-abcdefghijklmnop1234": "[token]",
    "AKIAIOSFODNN7EXAMPLE": "[token]",
}
LEFT = [
    "On 2026-11-30 at 12:30, and on 01.02.2026: order 4711, 1796073439.",
    "0.123456789, 10.0.0.1, v1.2.3, 123e4567-e89b-12d3-a456-426614174000",
    "DE89370400440532013001, GB82WEST12345698765431",  # no such IBAN
    "4111111111111112",  # no such card
    "skeleton pkgconfiguration_is_long risk-assessment-of-everything sk-learn-documentation",
    "a @ b, @property, x@y",
]
# Each of these begins like something at each of its places.
LONG = ["a", "1", "1 ", "a.", "DE12 ", "+1", "sk-", "bearer ", "@", "a@", "0 ", "eyJabcdef."]


@pytest.mark.parametrize(("text", "shown"), MASKED.items())
def test_masked(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize("text", LEFT)
def test_left_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_in_all_that_json_holds() -> None:
    told: Any = {"bob@example.com": [1, None, True, {"x": "+1 415 555 2671"}]}
    assert redacted(told) == {"[e-mail]": [1, None, True, {"x": "[phone]"}]}


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_what_is_masked_is_json_and_is_masked_for_good(told: Any) -> None:
    once = redacted(told)
    json.dumps(once)
    assert redacted(once) == once


@pytest.mark.parametrize("start", LONG)
@pytest.mark.timeout(60)  # (the square of this length would be a day)
def test_a_long_text(start: str) -> None:
    text = start * (200_000 // len(start))
    assert len(redacted(text)) <= len(text)
