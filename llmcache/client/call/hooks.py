"""What happens between a call and its answer, as hooks around the caller's own tell it.

The caller's hooks are given what is sent and what comes back, and validators the context. What they
change there, the key does not tell.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from instructor.core.hooks import HookName, Hooks

from llmcache.client.call.arguments import DENIED
from llmcache.client.streams import Watch, watch_next_stream
from llmcache.keys.request import canonical_context, canonical_part
from llmcache.reasons import Reason, ReasonCode

CHANGED: Final = ReasonCode.ARGUMENT_CHANGED(when="between the call and its answer")


class Listening:
    """Notes what comes back, and in `refusal` what was changed that is told by nothing else."""

    def __init__(self, context: Any, keyed_context: bytes | None, *, is_stream: bool) -> None:
        self.completion: Any = None
        self.watch: Watch | None = None
        self.refusal: Reason | None = None
        self._context = context
        self._keyed_context = keyed_context
        # The form of the context before the last attempt.
        self._seen_context: bytes | None = None
        self._is_stream = is_stream

    def around(self, hooks: Hooks | None, *, is_kept: bool) -> Hooks:
        """The caller's hooks between two of ours; `is_kept`: the answer is to be stored."""
        first, last = Hooks(), Hooks()
        last.on(HookName.COMPLETION_RESPONSE, self._record_completion)
        if is_kept and self._context is not None:
            first.on(HookName.COMPLETION_KWARGS, self._record_context)
        if hooks is None:
            return first + last
        heard = getattr(hooks, "_handlers", {}) if is_kept else {}
        if heard.get(HookName.COMPLETION_KWARGS):
            self._compare(HookName.COMPLETION_KWARGS, "was sent", first, last)
        if heard.get(HookName.COMPLETION_RESPONSE):
            self._compare(HookName.COMPLETION_RESPONSE, "came back", first, last)
        return first + hooks + last

    def _record_context(self, **_: Any) -> None:
        """Before an attempt. A validator of an earlier one may have written into the context."""
        now = form_of_context(self._context)
        if self._seen_context is None and now != self._keyed_context:
            self.refusal = CHANGED
        self._seen_context = now

    def _record_completion(self, response: Any) -> None:
        self.completion = response
        seen = self._seen_context
        if seen is not None and form_of_context(self._context) != seen:
            self.refusal = CHANGED
        if self._is_stream:
            self.watch = watch_next_stream()

    def _compare(self, event: HookName, what: str, first: Hooks, last: Hooks) -> None:
        before: list[bytes | None] = []

        def note(*response: Any, **sent: Any) -> None:
            before[:] = _forms(*response, **sent)

        def compare(*response: Any, **sent: Any) -> None:
            if _forms(*response, **sent) != before:
                self.refusal = ReasonCode.HOOK_CHANGED(what=what)

        first.on(event, note)
        last.on(event, compare)


def form_of_context(context: Any) -> bytes | None:
    return _form_or_none(canonical_context, context)


def _forms(*response: Any, **sent: Any) -> list[bytes | None]:
    counted = [value for name, value in sorted(sent.items()) if name not in DENIED]
    return [_form_or_none(partial(canonical_part, "hook"), each) for each in (*response, *counted)]


def _form_or_none(form: Callable[[Any], bytes], value: Any) -> bytes | None:
    """None for what has none: instructor and the SDKs have objects of their own."""
    try:
        return form(value)
    except Exception:  # noqa: BLE001 - as it says
        return None
