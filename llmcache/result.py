"""What became of a piece of work: its value or its error, for who looks at it later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Self, TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """The `value` of some work, or the `error` that it raised."""

    value: T | None = None
    error: Exception | None = None

    @classmethod
    def of(cls, work: Callable[[], T]) -> Self:
        try:
            return cls(work())
        except Exception as error:  # noqa: BLE001 - whoever looks at it decides
            return cls(error=error)

    def unwrap(self) -> T:
        """The value. Raises the error where there is none."""
        if self.error is not None:
            raise self.error
        return cast(T, self.value)
