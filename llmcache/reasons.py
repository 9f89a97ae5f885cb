"""Why calls were no plain hits and misses: a code for each reason, its words, and a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from string import Formatter
from typing import Any, Self

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason of one call: its code, and the template of that with the values of the call.

    The text may name what the request holds; logs and rows have the code.
    """

    code: ReasonCode
    text: str

    def __str__(self) -> str:
        return self.text


class ReasonCode(StrEnum):
    """Why a call skipped the cache, or its answer was not stored, or what else was not plain.

    `template` says it, with places for the values of a call, and `remedy` what to do about it. A
    code that is called with these values gives the `Reason`.
    """

    template: str
    remedy: Promise

    def __new__(cls, code: str, template: str, remedy: Promise) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.template, member.remedy = template, remedy
        return member

    def __call__(self, **values: object) -> Reason:
        return Reason(self, self.template.format(**values))

    @property
    def words(self) -> str:
        """The template with the names of what it has places for."""
        names: dict[str, Any] = {
            name: f"‹{name}›" for _, name, _, _ in Formatter().parse(self.template) if name
        }
        return self.template.format(**names)

    # The cache is skipped

    NO_STORE = (
        "no-store",
        'cache_mode is "no-store"',
        _(
            "The call, its client or an override() asks for this. Say “default” or “reload” where "
            "an answer may be stored."
        ),
    )
    AUTODETECTED_IMAGES = (
        "autodetected-images",
        "autodetect_images reads files, whose content the key does not know",
        _("Pass instructor’s Image objects instead of autodetect_images=True."),
    )
    LOOKS_AT_THE_WORLD = (
        "looks-at-the-world",
        "{tool} looks at the world: say for how long an answer will do, by a ttl",
        _("Name a time to live: cache_ttl, ttl of the client, or an override(ttl=…)."),
    )
    CONVERSATION = (
        "conversation",
        "conversation: the provider keeps what was said before, and goes on with it",
        _("Send all messages with each call, to have the answer stored."),
    )
    BACKGROUND = (
        "background",
        "background: the provider answers later, and keeps the answer to itself until then",
        _("Wait for the answer, to have it stored."),
    )
    UNKNOWN_ADDRESS = (
        "unknown-address",
        "no dialect is known for what is posted to {path}",
        _("Only calls that ask a model are cached: see the table of dialects."),
    )
    UNREADABLE_BODY = (
        "unreadable-body",
        "the body of the request is not one JSON object",
        _("Send JSON, in one piece and with each name once, to have the answer stored."),
    )
    UNKNOWN_WISHES = (
        "unknown-wishes",
        "the headers are not of llmcache.headers() in this process",
        _("Call llmcache.headers() for each call, in the process that makes it."),
    )
    STREAMS_OF_MANY = (
        "streams-of-many",
        "streamed answers are not cached when many are asked",
        _("Ask for whole answers in create_many, or for streams one by one."),
    )
    STREAM_SHAPE = (
        "stream-shape",
        "streams of this response model are not cached",
        _(
            "Stream a Pydantic model, or for create_iterable a union of some; or ask for the whole "
            "answer."
        ),
    )
    NO_ENDPOINT = (
        "no-endpoint",
        "the endpoint is not known: {why}",
        _("Name it once, where the client is wrapped: llmcache.wrap(client, endpoint=…)."),
    )
    NO_MODEL = (
        "no-model",
        "the model is not known: {why}",
        _("Name it once, where the client is wrapped: llmcache.wrap(client, model=…)."),
    )
    NO_NAMESPACE = (
        "no-namespace",
        "there is no namespace: {why}",
        _("Name it: by the call, an override() around it, or the middleware of llmcache."),
    )
    RETURN_TYPE = (
        "return-type",
        "the return type cannot be stored: {why}",
        _("Annotate what the function returns with a type that Pydantic can validate."),
    )
    ARGUMENT_WITHOUT_FORM = (
        "argument-without-form",
        "an argument has no canonical form: {part}: {why}",
        _("Exclude the argument from the key, if it cannot change what is returned."),
    )
    NO_CANONICAL_FORM = (
        "no-canonical-form",
        "a part of the request has no canonical form: {part}: {why}",
        _(
            "Give values with a canonical form (numbers, texts, dates, models, …), or leave out "
            "what does not change the answer."
        ),
    )
    NO_KEY = (
        "no-key",
        "no key could be computed ({error})",
        _("The log of llmcache says which part of the request it was, and why."),
    )
    WRONG_SETTING = (
        "wrong-setting",
        "a setting is wrong: {why}",
        _("Correct the setting: `manage.py check` says how."),
    )

    # The answer is not stored

    NO_TTL = (
        "no-ttl",
        "cache_ttl is 0",
        _("The call asks for this. A time to live above 0 stores the answer."),
    )
    ARGUMENT_CHANGED = (
        "argument-changed",
        "an argument was changed {when}",
        _("Leave messages and arguments as they are until the answer is there, or copy them."),
    )
    HOOK_CHANGED = (
        "hook-changed",
        "a hook changed what {what}, which the key does not know",
        _("Have hooks look, and change nothing: what they change, pass to the call."),
    )
    TAGS_UNKNOWN = (
        "tags-unknown",
        "its tags could not be told ({error})",
        _("Correct the function that was given as tags: the log of llmcache has its error."),
    )
    CUT_SHORT = (
        "cut-short",
        "the answer was cut short by the limit of tokens ({word})",
        _("Raise max_tokens: the answer would be cut short the next time, too."),
    )
    FILTERED = (
        "filtered",
        "the provider filtered the answer ({word})",
        _("Look at what is asked: filtered answers are never stored."),
    )
    REFUSED = (
        "refused",
        "the model refused to answer",
        _("Look at what is asked: refusals are never stored."),
    )
    UNFINISHED = (
        "unfinished",
        "the provider did not finish the answer ({word})",
        _(
            "Ask again. Where it is a gateway’s word for an answer that is whole, name it in "
            "LLMCACHE[“FINISHED_REASONS”]."
        ),
    )
    UNSAID = (
        "unsaid",
        "the provider did not say that the answer is complete",
        _("Ask again. Where a gateway leaves the word out, have it handed on."),
    )
    PROVIDER_ERROR = (
        "provider-error",
        "the provider answered with an error",
        _("Look at the answer: it holds what the provider says of the error."),
    )
    UNSEEN = (
        "unseen",
        "the provider's response was not seen, so it may be cut short",
        _("Ask in another mode of instructor, or report the provider to llmcache."),
    )
    UNREADABLE_CHUNK = (
        "unreadable-chunk",
        "a chunk could not be read ({error})",
        _("Ask for the whole answer instead of a stream, and report the provider to llmcache."),
    )
    EMPTY_STREAM = (
        "empty-stream",
        "the stream held no item",
        _("Ask again: an empty stream is never stored."),
    )
    STATUS = (
        "status",
        "the provider answered with the status {status}",
        _("Look at the answer: with the status of an error, it is never stored."),
    )
    NOT_WHOLE = (
        "not-whole",
        "what came is no whole answer: {why}",
        _("Ask again: what is not whole is never stored. If it stays, tell the provider."),
    )
    NOT_ADMITTED = (
        "not-admitted",
        "LLMCACHE['ADMIT'] did not admit the answer",
        _("Your own rule in LLMCACHE[“ADMIT”] says so."),
    )
    TOO_LARGE = (
        "too-large",
        "the answer is larger than LLMCACHE['MAX_ENTRY_BYTES']",
        _("Raise LLMCACHE[“MAX_ENTRY_BYTES”], or ask for less."),
    )
    NOT_REPRODUCIBLE = (
        "not-reproducible",
        "the answer cannot be stored: {why}",
        _(
            "Look for a validator or a default of the response model that makes up another value "
            "each time."
        ),
    )
    NOT_ENCODABLE = (
        "not-encodable",
        "the answer could not be encoded ({error})",
        _("The log of llmcache says where that was raised: a serializer, a validator or ADMIT."),
    )
    MADE_OF_UNSTORED = (
        "made-of-unstored",
        "an answer that it was made of is not to be stored: {why}",
        _("Look at the call inside: what is made of its answer is not stored either."),
    )
    INVALIDATED = (
        "invalidated",
        "it was invalidated while the model was asked",
        _("Ask again: the question may have another answer since."),
    )
    PARTS_GONE = (
        "parts-gone",
        "what it was made of was removed or replaced meanwhile",
        _("Ask again: the answers that it was made of may be others now."),
    )
    SUPERSEDED = (
        "superseded",
        "a newer answer was stored meanwhile",
        _("Look at the newer answer, and ask again if it will not do."),
    )
    TO_BE_CONFIRMED = (
        "to-be-confirmed",
        "it waits to be confirmed",
        _("Accept or discard it, on the page of the entry."),
    )

    # Trouble

    TIER_FAILED = (
        "tier-failed",
        "the {tier} tier failed to {operation} ({error})",
        _("Look at the health of the tiers, and at the log of llmcache."),
    )
    CIRCUIT_OPEN = (
        "circuit-open",
        "the circuit of the {tier} tier is open",
        _("The tier failed several times, and is skipped until it answers again: see its health."),
    )
    BAD_ENTRY = (
        "bad-entry",
        "the {tier} tier holds a bad entry: {why}",
        _("It is a miss, and replaced. If it comes often, compare the keys and versions in use."),
    )
    NOT_VALID = (
        "not-valid",
        "the entry does not validate any more ({error})",
        _("The response model has become stricter: such entries are asked for anew, once."),
    )
    NOT_COALESCED = (
        "not-coalesced",
        "it asked without waiting for others ({error})",
        _("The log of llmcache says what was wrong with the leases."),
    )
    RAISED = (
        "raised",
        "{error} was raised",
        _("Look at the provider’s status, and at your limits there."),
    )
    STREAM_LEFT = (
        "stream-left",
        "the stream was not read to its end",
        _("Read it to its end, to have the answer stored."),
    )

    # The answer of another call is served

    PROVIDER_FAILED = (
        "provider-failed",
        "the provider failed ({error})",
        _("A stale answer was served: look at the provider’s status."),
    )
    COALESCED = (
        "coalesced",
        "another call was asking the same",
        _("Nothing: its answer was paid for once."),
    )
