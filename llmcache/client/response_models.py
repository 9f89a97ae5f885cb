"""What instructor makes of a response model, worked out once for each class.

For each call, instructor derives a new class from the response model, and answers with an
instance of it; so of two calls, no answer would equal the other. llmcache derives the class once
and hands that in: then live answers and hits are of one class, and a miss is half a millisecond
faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from instructor import Mode, OpenAISchema, openai_schema
from instructor.v2.dsl.iterable import IterableBase
from instructor.v2.dsl.partial import PartialBase
from instructor.v2.dsl.simple_type import AdapterBase
from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from llmcache.exceptions import UncacheableRequest
from llmcache.keys import canonical_part, digest

# Models by which instructor spells other shapes: lists, partial models, plain types.
OTHER_SHAPES: Final = (IterableBase, PartialBase, AdapterBase)

# The plan is kept on the class itself: it refers to the class, so a weak dictionary would keep
# both for ever, and so they go together.
PLAN_ATTRIBUTE: Final = "__llmcache_plan__"


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """The class that instructor answers with, and the schema's part of the key."""

    answer_class: type[BaseModel]
    schema: bytes
    path: str
    validator: Any


def is_cacheable(response_model: Any) -> TypeGuard[type[BaseModel]]:
    return (
        isinstance(response_model, type)
        and issubclass(response_model, BaseModel)
        and not issubclass(response_model, OTHER_SHAPES)
    )


def why_not_cacheable(response_model: Any, mode: Mode, arguments: dict[str, Any]) -> str:
    """Why a call with this shape of answer is not cached; empty when it is."""
    if arguments.get("stream"):
        return "streamed answers are not cached"
    if mode in Mode.parallel_modes():
        return "the answers of parallel tool calls are not cached"
    if not is_cacheable(response_model):
        name = getattr(response_model, "__name__", None) or repr(response_model)
        return f"only answers that are Pydantic models are cached; response_model is {name}"
    if arguments.get("autodetect_images"):
        return "autodetect_images reads files, whose content the key does not know"
    return ""


def plan_of(response_model: type[BaseModel]) -> ModelPlan:
    """The plan of a class, worked out when it is first asked for, or was rebuilt since."""
    plan = response_model.__dict__.get(PLAN_ATTRIBUTE)
    if plan is None or plan.validator is not response_model.__pydantic_validator__:
        plan = _plan(response_model)
        type.__setattr__(response_model, PLAN_ATTRIBUTE, plan)
    return plan


def _plan(response_model: type[BaseModel]) -> ModelPlan:
    try:
        schema = response_model.model_json_schema()
    except PydanticInvalidForJsonSchema as error:
        raise UncacheableRequest("schema", error.message) from None
    prepared = (
        response_model
        if issubclass(response_model, OpenAISchema)
        else openai_schema(response_model)
    )
    return ModelPlan(
        answer_class=prepared,
        schema=digest(canonical_part("schema", schema)),
        path=f"{response_model.__module__}.{response_model.__qualname__}",
        validator=response_model.__pydantic_validator__,
    )
