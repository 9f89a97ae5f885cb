"""What the chunks of a stream say of the answer as a whole: its end, and the tokens used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from llmcache.providers.admission import ends_in, read, why_chunk_not_admitted
from llmcache.reasons import Reason, ReasonCode

# Where a chunk has its tokens, besides in itself: Anthropic's first one in a message, OpenAI's last
# one of Responses in a response, Cohere's last one in a delta, each of Mistral's in its data.
HOLDERS: Final = ("message", "response", "delta", "data")
USAGES: Final = ("usage", "usage_metadata", "usageMetadata")


class ReadChunks:
    """What the chunks have said by now, as objects of an SDK or as the JSON of them."""

    def __init__(self) -> None:
        #: The tokens, as a response that is no stream would tell them.
        self.usage: dict[str, Any] = {"usage": {}}
        self._refusal: Reason | None = None
        self._ends: dict[int, bool] = {}

    def read(self, chunk: Any) -> None:
        """Look at the next chunk. Raises nothing."""
        try:
            self._refusal = self._refusal or why_chunk_not_admitted(chunk)
            for number, is_end in ends_in(chunk).items():
                self._ends[number] = is_end or self._ends.get(number, False)
            for holder in (chunk, *(read(chunk, name) for name in HOLDERS)):
                self._read_usage(holder)
        except Exception as error:  # noqa: BLE001 - law A
            self._refusal = ReasonCode.UNREADABLE_CHUNK(error=type(error).__name__)

    def why_not_admitted(self) -> Reason | None:
        """Why what was streamed is not to be kept; None when it is. Asked at its end."""
        has_ended = self._ends and all(self._ends.values())
        return self._refusal or (None if has_ended else ReasonCode.UNSAID())

    def _read_usage(self, holder: Any) -> None:
        for name in USAGES:
            usage = read(holder, name)
            if isinstance(usage, BaseModel):
                usage = usage.model_dump(exclude_none=True)
            if isinstance(usage, Mapping):
                # (the counts of a later chunk are of all so far)
                self.usage["usage"] |= {at: n for at, n in usage.items() if n is not None}
        if model := read(holder, "model"):
            self.usage["model"] = model
