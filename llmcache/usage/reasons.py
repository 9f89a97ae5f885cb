"""Why calls were not plain hits and misses: what is common to many, and what to do about it."""

from __future__ import annotations

import re
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

# What differs from call to call, or may be of the request, and what stays of it.
PARTICULARS: Final = (
    # The place inside of a part, as in "context['now']: a function has no canonical form".
    (re.compile(r"^(\w[\w ]*)\[.*?\]: ", re.DOTALL), r"\1: "),
    (re.compile(r"^(no key could be computed): .*", re.DOTALL), r"\1"),
    (re.compile(r"\((\w+): .*\)", re.DOTALL), r"(\1)"),
)

# The first that is found in the reason has the words.
REMEDIES: Final[tuple[tuple[re.Pattern[str], Promise], ...]] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (
            r'cache_mode is "no-store"',
            _(
                "The call, its client or an override() asks for this. Say “default” or “reload” "
                "where an answer may be stored."
            ),
        ),
        (
            r"autodetect_images",
            _("Pass instructor’s Image objects instead of autodetect_images=True."),
        ),
        (
            r"looks at the world",
            _("Name a time to live: cache_ttl, ttl of the client, or an override(ttl=…)."),
        ),
        (
            r"^(conversation|background): ",
            _("Send all messages with each call, and wait for the answer, to have it stored."),
        ),
        (
            r"an argument was changed|a hook changed",
            _("Leave messages and arguments as they are until the answer is there, or copy them."),
        ),
        (
            r"streamed answers are not cached when many",
            _("Ask for whole answers in create_many, or for streams one by one."),
        ),
        (
            r"^streams of this response model",
            _(
                "Stream a Pydantic model, or for create_iterable a union of some; or ask for the "
                "whole answer."
            ),
        ),
        (
            r"^endpoint: |^model: ",
            _("Name it once, where the client is wrapped: llmcache.wrap(client, endpoint=…)."),
        ),
        (
            r"^namespace: ",
            _("Name it: by the call, an override() around it, or the middleware of llmcache."),
        ),
        (
            r"exclude=\(",
            _("Exclude the argument from the key, if it cannot change what is returned."),
        ),
        (
            r"^return type: ",
            _("Annotate what the function returns with a type that Pydantic can validate."),
        ),
        (
            r"LLMCACHE must be|LLMCACHE\['\w+'\] must",
            _("Correct the setting: `manage.py check` says how."),
        ),
        (
            r"^no key could be computed",
            _("The log of llmcache says which part of the request it was, and why."),
        ),
        (
            r"^(messages|parameters|context|schema|strict)\b",
            _(
                "Give values with a canonical form (numbers, texts, dates, models, …), or leave "
                "out what does not change the answer."
            ),
        ),
        (r"larger than LLMCACHE", _("Raise LLMCACHE[“MAX_ENTRY_BYTES”], or ask for less.")),
        (
            r"cut short by the limit of tokens",
            _("Raise max_tokens: the answer would be cut short the next time, too."),
        ),
        (
            r"did not finish the answer|did not say that the answer is complete",
            _(
                "Ask again. Where it is a gateway’s word for an answer that is whole, name it in "
                "LLMCACHE[“FINISHED_REASONS”]."
            ),
        ),
        (r"filtered|refused", _("Look at what is asked: such answers are never stored.")),
        (r"did not admit", _("Your own rule in LLMCACHE[“ADMIT”] says so.")),
        (r"cache_ttl is 0", _("The call asks for this. A time to live above 0 stores the answer.")),
        (
            r"come back different|JSON|parse again",
            _(
                "Look for a validator or a default of the response model that makes up another "
                "value each time."
            ),
        ),
        (
            r"does not validate any more",
            _("The response model has become stricter: such entries are asked for anew, once."),
        ),
        (r"tier", _("Look at the health of the tiers, and at the log of llmcache.")),
        (
            r"the provider failed|was raised",
            _("Look at the provider’s status, and at your limits there."),
        ),
    )
)  # fmt: skip

NO_REMEDY: Final = _(
    "docs/explanation/keys.md has all reasons: “What is passed by”, “What is returned and not "
    "stored”."
)


def in_general(reason: str) -> str:
    """`reason` without what differs from call to call, so that calls can be counted by it."""
    for pattern, common in PARTICULARS:
        reason = pattern.sub(common, reason)
    return reason


def remedy(reason: str) -> str:
    """What to do about it, in words."""
    found = (words for pattern, words in REMEDIES if pattern.search(reason))
    return str(next(found, NO_REMEDY))
