"""The codes of reasons: their words, their remedies, and the table of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmcache.models import UsageHour
from llmcache.outcomes import Call
from llmcache.reasons import ReasonCode

REFERENCE = Path(__file__).parent.parent / "docs/reference/reasons.md"
codes = pytest.mark.parametrize("code", ReasonCode)


@codes
def test_a_code_fits_into_its_column(code: ReasonCode) -> None:
    assert re.fullmatch("[a-z]+(-[a-z]+)*", code)
    assert len(code) <= (UsageHour._meta.get_field("reason_code").max_length or 0)


def test_each_has_words_and_a_remedy_of_its_own() -> None:
    assert len({code.words for code in ReasonCode}) == len(ReasonCode)
    assert len({str(code.remedy) for code in ReasonCode}) == len(ReasonCode)


def test_the_values_of_a_call_are_in_the_text_and_not_in_the_words() -> None:
    reason = ReasonCode.CUT_SHORT(word="length")
    assert reason.code is ReasonCode.CUT_SHORT
    assert str(reason) == "the answer was cut short by the limit of tokens (length)"
    assert reason.code.words == "the answer was cut short by the limit of tokens (‹word›)"


def test_of_several_reasons_the_last_one_has_the_code() -> None:
    call = Call()
    call.also_because(ReasonCode.CIRCUIT_OPEN(tier="hot"))
    call.also_because(ReasonCode.RAISED(error="TimeoutError"))
    assert call.reason == "the circuit of the hot tier is open; TimeoutError was raised"
    assert call.reason_code == "raised"
    call.because(ReasonCode.TOO_LARGE())
    assert (call.reason, call.reason_code) == (ReasonCode.TOO_LARGE.template, "too-large")


def test_the_documentation_has_them_all() -> None:
    rows = [f"| `{code}` | {code.words} | {code.remedy} |" for code in ReasonCode]
    table = "\n".join(["| code | words | what to do |", "| --- | --- | --- |", *rows])
    assert table in REFERENCE.read_text(encoding="utf-8"), table
