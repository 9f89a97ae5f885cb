"""The response model that most tests ask for."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Ticket(BaseModel):
    """A support ticket."""

    title: str = Field(description="What it is about")
    priority: int = 3
