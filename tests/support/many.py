"""Many requests at once, sync or async alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import instructor

import llmcache
from llmcache.client.many.batch import Result
from tests.support.clients import Scripted
from tests.support.ticket import Ticket

Many = Callable[..., list[Result]]


def request(number: int = 0, **arguments: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Ticket {number}"}]
    return {"response_model": Ticket, "messages": messages} | arguments


class AsyncScripted(Scripted):
    async def __call__(self, **arguments: Any) -> Any:
        text = self._begin(arguments)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.running -= 1
            raise
        return self._end(text)

    def client(self) -> Any:
        plain = instructor.patch(create=self.__call__, mode=instructor.Mode.TOOLS)
        made = instructor.AsyncInstructor(client=None, create=plain, mode=instructor.Mode.TOOLS)
        return llmcache.wrap(made, model="m", endpoint="scripted")
