"""Completions: to bytes and back, when somebody looks."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from openai.types.chat import ChatCompletion
from pydantic import (
    BaseModel,
    RootModel,
    TypeAdapter,
)

from llmcache.codec import completions
from llmcache.codec.completions import Dumped, NotReproducible
from llmcache.codec.equality import same
from tests.support.codec import LIVE, NAN, NOON, Own


@pytest.fixture(params=list(LIVE.values()), ids=list(LIVE))
def live(request: pytest.FixtureRequest) -> BaseModel:
    completion: BaseModel = request.param()
    return completion


@pytest.fixture
def pending(live: BaseModel) -> Any:
    return completions.load(completions.dump(live))


LOOKS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda it, protocol=protocol: pickle.loads(  # type: ignore[misc]
            pickle.dumps(it, protocol)
        )
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "model_copy": lambda it: it.model_copy(),
    "repr": repr,
    "str": str,
    "dict": dict,
    "vars": vars,
    "dir": dir,
    "class": lambda it: it.__class__,
    "fields set": lambda it: it.model_fields_set,
    "extras": lambda it: it.model_extra,
    "model_dump": lambda it: it.model_dump(),
    "model_dump_json": lambda it: it.model_dump_json(),
    "exclude unset": lambda it: it.model_dump(exclude_unset=True),
    "in another model": lambda it: RootModel[Any](it).model_dump_json(),
}


class TestPendingCompletion:
    def test_is_an_instance_of_the_sdks_class(self, live: BaseModel, pending: Any) -> None:
        assert isinstance(pending, type(live))
        assert type(pending) is not type(live)  # it is pending still: `isinstance` built nothing

    def test_turns_into_exactly_that_class_when_looked_at(
        self, live: BaseModel, pending: Any
    ) -> None:
        _ = pending.model_fields_set
        assert type(pending) is type(live)

    def test_equals_the_live_one_from_both_sides(self, live: BaseModel) -> None:
        dumped = completions.dump(live)
        assert completions.load(dumped) == live
        assert live == completions.load(dumped)
        assert completions.load(dumped) == completions.load(dumped)

    @pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
    def test_looks_like_the_live_one(
        self, live: BaseModel, pending: Any, look: Callable[[Any], Any]
    ) -> None:
        assert look(pending) == look(live)

    @pytest.mark.parametrize("name", ["copy", "deepcopy", "pickle 2", "pickle 5", "model_copy"])
    def test_a_copy_is_of_the_sdks_class(self, live: BaseModel, pending: Any, name: str) -> None:
        twin = LOOKS[name](pending)
        assert twin.model_dump() == live.model_dump()
        assert type(twin) is type(live)
        assert same(twin, live)

    def test_serializes_by_its_type(self, live: BaseModel) -> None:
        adapter: TypeAdapter[Any] = TypeAdapter(type(live))
        loaded = completions.load(completions.dump(live))
        assert (
            adapter.dump_json(loaded, warnings=False)
            == live.model_dump_json(warnings=False).encode()
        )

    def test_may_be_changed(self, pending: Any) -> None:
        twin = copy.deepcopy(pending)
        name = next(iter(type(pending).model_fields))
        setattr(pending, name, "changed")
        assert getattr(pending, name) == "changed"
        assert pending != twin

    def test_has_no_attributes_of_its_own(self, pending: Any) -> None:
        with pytest.raises(AttributeError):
            _ = pending.no_such_attribute

    def test_matches_a_class_pattern(self) -> None:
        match completions.load(completions.dump(LIVE["openai"]())):
            case ChatCompletion(id=found):
                assert found == "chatcmpl-1"
            case _:
                pytest.fail("no match")

    def test_keeps_what_the_sdk_does_not_know(self) -> None:
        chat = completions.load(completions.dump(LIVE["openai"]()))
        assert chat.choices[0].message.reasoning == {"made": ["up"]}
        assert chat.usage.cost == 0.1
        assert chat.x_groq == {"id": "req"}
        message = completions.load(completions.dump(LIVE["anthropic"]()))
        assert message.content[0].input == {"a": [1, {"b": None}]}
        assert message.content[1].of_the_future == [1]
        assert message.usage.brand_new == 3

    @pytest.mark.parametrize("name", ["openai", "anthropic", "other"])
    def test_many_threads_may_look_first(self, name: str) -> None:
        live, interval = LIVE[name](), sys.getswitchinterval()
        dumped, wanted = completions.dump(live), live.model_dump()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(30):
                shared, start = completions.load(dumped), threading.Barrier(8)
                seen: list[Any] = []

                def look(shared: Any = shared, start: Any = start, seen: Any = seen) -> None:
                    start.wait()
                    try:
                        seen.append((shared.model_dump(), type(shared)))
                    except Exception as error:  # noqa: BLE001 - shown by the assertion
                        seen.append(error)

                threads = [threading.Thread(target=look) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert seen == [(wanted, type(live))] * 8
        finally:
            sys.setswitchinterval(interval)

    def test_survives_a_class_that_has_changed_since(self) -> None:
        """As after an upgrade of the SDK: what is there is shown, and nothing is raised."""
        dumped = Dumped(f"{__name__}:Own", b'{"text": ["was", "text"], "id": 1}')
        loaded = completions.load(dumped)
        assert loaded.text == ["was", "text"]
        assert type(loaded) is Own


class TestUnknownClass:
    @pytest.mark.parametrize(
        "path",
        ["no.such.module:Thing", "json:JSONDecoder", "json:nothing", f"{__name__}:ROOT", ":", "x"],
    )
    def test_comes_back_as_a_namespace(self, path: str) -> None:
        loaded = completions.load(Dumped(path, b'{"id": "a", "usage": {"tokens": [{"n": 1}]}}'))
        assert type(loaded) is SimpleNamespace
        assert loaded.id == "a"
        assert loaded.usage.tokens[0].n == 1

    @pytest.mark.parametrize(
        "path", ["wave:Thing", "llmcache.admin:Thing", "tests.lazy:Thing", "tests.lazy:Thing.More"]
    )
    def test_no_module_named_in_the_store_is_imported(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def imports(name: str) -> Any:
            raise AssertionError("a lazy module would import here")

        lazy: Any = type(sys)("tests.lazy")
        lazy.__getattr__ = imports  # PEP 562
        monkeypatch.setitem(sys.modules, "tests.lazy", lazy)
        monkeypatch.delitem(sys.modules, "wave", raising=False)
        before = set(sys.modules)
        assert type(completions.load(Dumped(path, b"{}"))) is SimpleNamespace
        assert set(sys.modules) == before

    def test_none_stays_none(self) -> None:
        assert completions.dump(None) is None
        assert completions.load(None) is None


class Odd(BaseModel):
    shown: str = ""
    nan: float = 0.0
    anything: Any = None


def local_completion() -> BaseModel:
    class Local(BaseModel):
        text: str = "a"

    return Local()


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        ({"id": {1, 2}}, "a dict does not come back"),
        ({1: "a"}, "a dict does not come back"),
        (SimpleNamespace(id="a"), "the completion is a SimpleNamespace"),
        (Odd(nan=NAN), "does not come back"),
        (Odd(anything={1, 2}), "does not come back"),
        (Odd(anything=NOON), "does not come back"),
        (Odd(anything=object()), "does not come back"),
        (Odd(anything="\ud800"), "does not come back"),
        (Odd.model_construct(shown=cast(Any, 3)), "does not come back"),
        (local_completion(), "Local"),
    ],
    ids=repr,
)
def test_a_completion_that_would_come_back_different_is_refused(completion: Any, why: str) -> None:
    with pytest.raises(NotReproducible, match=why):
        completions.dump(completion)
