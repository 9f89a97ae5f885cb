"""The canonical form of a request, and its key."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest

from llmcache.exceptions import UncacheableRequest
from llmcache.keys.request import (
    NUMERIC_PARAMETERS,
    PARTS,
    CanonicalRequest,
    canonical_parameters,
    canonical_part,
    digest,
)
from tests.support.forms import (
    NOON,
    ZURICH,
    Colour,
    Document,
    Loose,
    Place,
    Point,
)
from tests.support.paths import ROOT


class TestNumericParameters:
    @pytest.mark.parametrize("name", sorted(NUMERIC_PARAMETERS))
    def test_are_compared_as_numbers(self, name: str) -> None:
        assert canonical_parameters({name: 0}) == canonical_parameters({name: 0.0})
        assert canonical_parameters({name: 2}) == canonical_parameters({name: 2.0})
        assert canonical_parameters({name: 10**20}) == canonical_parameters({name: 1e20})

    @pytest.mark.parametrize(
        ("left", "right"),
        [(1, True), (0, False), (1, "1"), (0, None), (0.5, Decimal("0.5")), (0, 0.1), (1, 2)],
    )
    def test_are_not_compared_as_anything_else(self, left: Any, right: Any) -> None:
        assert canonical_parameters({"temperature": left}) != canonical_parameters(
            {"temperature": right}
        )

    @pytest.mark.parametrize("value", [float("inf"), float("-inf")])
    def test_may_be_infinite(self, value: float) -> None:
        assert canonical_parameters({"top_p": value})

    def test_nan_is_refused_with_its_name(self) -> None:
        with pytest.raises(UncacheableRequest) as caught:
            canonical_parameters({"temperature": float("nan")})
        assert caught.value.part == "parameters['temperature']"

    def test_other_parameters_keep_their_type(self) -> None:
        assert canonical_parameters({"made_up": 1}) != canonical_parameters({"made_up": 1.0})

    def test_only_known_names_at_the_top_are_numbers(self) -> None:
        nested = [canonical_parameters({"extra_body": {"temperature": t}}) for t in (0, 0.0)]
        assert nested[0] != nested[1]

    def test_an_unknown_parameter_counts(self) -> None:
        assert canonical_parameters({}) != canonical_parameters({"made_up": None})


def request(**changes: Any) -> CanonicalRequest:
    values = dict.fromkeys(PARTS, "same") | changes
    return CanonicalRequest.of(
        {part: canonical_part(part, value) for part, value in values.items()}
    )


class TestKey:
    def test_is_64_hex_digits(self) -> None:
        assert re.fullmatch("[0-9a-f]{64}", request().key)

    @pytest.mark.parametrize("part", PARTS)
    def test_depends_on_each_part(self, part: str) -> None:
        assert request(**{part: "other"}).key != request().key

    @pytest.mark.parametrize("part", PARTS)
    def test_needs_each_part(self, part: str) -> None:
        parts = {name: b"" for name in PARTS if name != part}
        with pytest.raises(KeyError, match=part):
            _ = CanonicalRequest.of(parts).key

    @pytest.mark.parametrize(("one", "other"), list(itertools.combinations(PARTS, 2)))
    def test_depends_on_which_part_holds_what(self, one: str, other: str) -> None:
        assert request(**{one: "x"}).key != request(**{other: "x"}).key

    @pytest.mark.parametrize(("one", "other"), list(itertools.pairwise(PARTS)))
    def test_content_that_moves_over_the_border_of_parts_changes_it(
        self, one: str, other: str
    ) -> None:
        blank = dict.fromkeys(PARTS, b"")
        keys = {
            CanonicalRequest.of(blank | {one: left, other: right}).key
            for left, right in [
                (b"ab", b""),
                (b"a", b"b"),
                (b"", b"ab"),
                (b"a|", b""),
                (b"a", b"|"),
            ]
        }
        assert len(keys) == 5

    def test_depends_on_the_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = request().key
        monkeypatch.setattr("llmcache.keys.request.VERSION", 0)
        assert request().key != before


class TestDigests:
    def test_there_is_one_for_each_part(self) -> None:
        digests = request().digests()
        assert tuple(digests) == PARTS
        assert digests["model"] == digest(canonical_part("model", "same")).hex()

    @pytest.mark.parametrize("part", PARTS)
    def test_only_that_of_the_changed_part_differs(self, part: str) -> None:
        one, other = request().digests(), request(**{part: "other"}).digests()
        assert [name for name in PARTS if one[name] != other[name]] == [part]


def fixed_request() -> CanonicalRequest:
    """One request with most of the forms in it."""
    context = {
        "words": {"alpha", "beta", "gamma", "delta"},
        1: {"1": frozenset({1, "1", 2.5, None})},
        "kinds": [True, 1, 1.0, -0.0, b"\x00\xff", bytearray(b"x"), ("t",), Decimal("1.10")],
        "moments": [NOON, NOON.astimezone(ZURICH), date(2024, 2, 29), time(1, 2), timedelta(1.5)],
        "things": [UUID(int=7), PurePosixPath("/a/b"), Colour.RED, Fraction(1, 3), complex(1, 2)],
        "objects": [Place("a", 2, [3]), Document(title="t"), Loose(z=1, a=2), Point(1, 2)],
    }
    parts = {
        "namespace": "default",
        "provider": "openai",
        "endpoint": "base_url=https://api.example.com/v1/",
        "model": "small",
        "mode": "tool_call",
        "schema": {"title": "Document", "type": "object", "properties": {}},
        "messages": [{"role": "user", "content": "Grüße, 世界 \U0001f44b"}],
        "context": context,
        "strict": True,
    }
    canonical = {name: canonical_part(name, value) for name, value in parts.items()}
    parameters = canonical_parameters({"temperature": 0.0, "max_tokens": 100, "stop": ["a"]})
    return CanonicalRequest.of(canonical | {"parameters": parameters})


GOLDEN = "ad12966541bde9aba65fa694b9d751fcf3ad196f902b98bfcbf81c9f7e969a79"


def test_the_key_of_a_fixed_request_never_changes() -> None:
    """When it does, every stored entry is lost: raise `VERSION`, and say so in the changelog."""
    assert fixed_request().key == GOLDEN


@pytest.mark.parametrize("seed", ["0", "4294967295"])
def test_the_key_is_the_same_in_every_process(seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from tests.keys.test_request import *; print(fixed_request().key)"],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == GOLDEN, done.stderr
