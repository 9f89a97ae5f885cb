"""Generated values and requests share a form only if they are the same."""

from __future__ import annotations

import os
import random
from collections.abc import Hashable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llmcache.keys.request import (
    PARTS,
    CanonicalRequest,
)
from tests.support.forms import Colour, Place, Role, Text, form

# With LLMCACHE_LONG=1: 100,000 pairs, in rounds that each end before a test counts as hanging.
ROUNDS, PAIRS = (100, 1_000) if os.environ.get("LLMCACHE_LONG") else (1, 300)

in_rounds = pytest.mark.parametrize("nth", range(ROUNDS))

pairs = hypothesis_settings(max_examples=PAIRS, deadline=None, derandomize=False)

# Few and similar values, so that pairs are often nearly or wholly the same.
LEAVES = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1, -1, 0.0, -0.0, 1.0, "", "1", "0", "N;", "i1x;", b"", b"1"]
    ),
    st.sampled_from([Colour.RED, Role.USER, "user", UUID(int=1), Decimal("1.0"), Decimal(1)]),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec=None), max_size=5),
    st.binary(max_size=5),
)

KEYS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2).map(tuple) | st.frozensets(inner, max_size=2),
    max_leaves=3,
)

VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.sets(KEYS, max_size=3),
        st.builds(Place, LEAVES, LEAVES, inner),
    ),
    max_leaves=8,
)


def identity(value: Any) -> Hashable:
    """What `value` is, said in another way than by its form."""
    if isinstance(value, dict):
        return dict, frozenset((identity(k), identity(v)) for k, v in value.items())
    if isinstance(value, set | frozenset):
        return set, frozenset(map(identity, value))
    if isinstance(value, list | tuple):
        return type(value), tuple(map(identity, value))
    if isinstance(value, Place):
        return Place, tuple(map(identity, (value.name, value.visits, value.seen)))
    return type(value), repr(value)


def variants(value: Any) -> Iterator[Any]:
    """Values that are nearly `value`."""
    yield from ([value], (value,), {"k": value}, str(value))
    if isinstance(value, list):
        yield from (tuple(value), [value, *value], value[1:], [*value, None], value[::-1])
    if isinstance(value, dict):
        yield from (list(value.items()), {str(k): v for k, v in value.items()}, list(value))
        yield {k: [v] for k, v in value.items()}
    if isinstance(value, bool | int | float):
        yield from (int(value) if abs(value) < 1e300 else 0, bool(value), -value)
    if isinstance(value, str):
        yield from (value.encode("utf-8", "surrogatepass"), value + " ", value.upper(), Text(value))


PAIR = st.tuples(VALUES, VALUES) | VALUES.flatmap(
    lambda value: st.tuples(st.just(value), st.sampled_from(list(variants(value))))
)


@in_rounds
@pairs
@given(pair=PAIR)
@example(pair=({1: "x"}, {"1": "x"}))
@example(pair=([1, [2]], [[1], 2]))
def test_two_values_share_a_form_only_if_they_are_the_same(nth: int, pair: tuple[Any, Any]) -> None:
    left, right = pair
    assert (form(left) == form(right)) == (identity(left) == identity(right))


def built_anew(value: Any, chance: random.Random) -> Any:
    """`value` once more, its mappings and sets filled in another order."""
    if isinstance(value, dict):
        items = [(built_anew(k, chance), built_anew(v, chance)) for k, v in value.items()]
        return dict(chance.sample(items, len(items)))
    if isinstance(value, set | frozenset):
        members = [built_anew(member, chance) for member in value]
        return type(value)(chance.sample(members, len(members)))
    if isinstance(value, list | tuple):
        return type(value)(built_anew(member, chance) for member in value)
    if isinstance(value, Place):
        return Place(value.name, value.visits, built_anew(value.seen, chance))
    return value


@in_rounds
@pairs
@given(value=VALUES, chance=st.randoms(use_true_random=False))
def test_a_value_built_in_another_order_has_the_same_form(
    nth: int, value: Any, chance: random.Random
) -> None:
    assert form(built_anew(value, chance)) == form(value)


@hypothesis_settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*PARTS, *PARTS]), st.binary(max_size=4)), st.data())
def test_two_requests_share_a_key_only_if_all_parts_are_the_same(
    changes: dict[str, bytes], data: st.DataObject
) -> None:
    left = dict.fromkeys(PARTS, b"") | changes
    values = data.draw(st.permutations(list(left.values())))
    right = dict(zip(PARTS, values, strict=True))
    same = CanonicalRequest.of(left).key == CanonicalRequest.of(right).key
    assert same == (left == right)
