"""Reading a call: what it asks of the cache, and its key."""

from __future__ import annotations

from enum import Enum
from typing import Any

from instructor.v2.core.multimodal import PDF, Audio, Image

from llmcache.client.call.arguments import OURS, refuse_mistyped, taken_wishes
from llmcache.client.call.endpoints import is_litellms
from llmcache.client.call.origin import Origin
from llmcache.client.call.request import ClientRequest
from llmcache.client.call.world import what_looks, why_stateful
from llmcache.client.shapes import Shape, shape_of
from llmcache.client.streams import StreamShape, stream_shape_of
from llmcache.exceptions import InvalidArgument, UncacheableRequest
from llmcache.keys.forms import FORMS
from llmcache.keys.request import canonical_part
from llmcache.outcomes import Call
from llmcache.policy import UNSET, overridden
from llmcache.reasons import Reason, ReasonCode


def read_request(origin: Origin, response_model: Any, arguments: dict[str, Any]) -> ClientRequest:
    """The call with these arguments. Raises `InvalidArgument` for those of llmcache that are off.

    Whatever else goes wrong makes the call a bypass, with the reason.
    """
    policy, names_namespace = origin.policy, False
    if not OURS.isdisjoint(arguments):
        names_namespace = arguments.get("cache_namespace") is not None
        policy = policy.changed("cache_", **taken_wishes(arguments))
    policy = overridden(policy, names_namespace=names_namespace)
    if origin.model is not None:
        arguments.setdefault("model", origin.model)
    names = origin.told_by(tuple(arguments))
    if names.doubtful:
        of_litellm = is_litellms(origin.client.create_fn)
        refuse_mistyped(arguments, names.doubtful, is_litellms=of_litellm)
        names = origin.told_by(tuple(arguments))
    request = ClientRequest(origin, response_model, arguments, names, policy=policy, call=Call())
    try:
        if arguments.get("autodetect_images"):
            request.bypass = ReasonCode.AUTODETECTED_IMAGES()
        request.call.namespace = policy.namespace_name
        request.call.provider = str(origin.client.provider.value)
        model = arguments.get("model") or origin.default_model or ""
        request.call.model = model if type(model) is str else _name_of(model)
        if not request.bypass:
            _give_key(request)
    except InvalidArgument:
        raise
    except Exception as error:  # noqa: BLE001 - law A: the model is asked all the same
        request.refuse_key(error)
    return request


def _name_of(model: Any) -> str:
    """The name that is sent. Of an enum's member that is its value, and not what `str` says."""
    name = model.value if isinstance(model, Enum) else model
    if not isinstance(name, str):
        raise UncacheableRequest("model", f"a {type(name).__name__} is no name of a model")
    return str.__str__(name)


def _give_key(request: ClientRequest) -> None:
    origin, call = request.origin, request.call
    shape_in = stream_shape_of if request.arguments.get("stream") else shape_of
    shape: Shape | StreamShape | None = shape_in(request.response_model, origin.client.mode)
    if shape is None:
        request.bypass = ReasonCode.STREAM_SHAPE()
        return
    where = request.where()
    common, is_searching = origin.common_parts(call.namespace, where, call.model, shape.schema)
    if is_searching or request.names.are_watched:
        request.bypass = _why_not_kept(request, is_searching)
        if request.bypass:
            return
    canonical = request.canonical_in(common)
    call.key = canonical.key
    call.response_model = shape.path
    request.endpoint, request.canonical, request.shape = where, canonical, shape


def _why_not_kept(request: ClientRequest, is_searching: bool) -> Reason | None:
    """Why the answer does not follow from what is asked; None where it does."""
    if why := why_stateful(request.arguments):
        request.call.spoils = True
        return why
    looking = "the model" if is_searching else what_looks(request.arguments)
    if not looking or request.policy.ttl is not UNSET:
        return None
    request.call.needs_ttl = True
    return ReasonCode.LOOKS_AT_THE_WORLD(tool=looking)


def _media_form(media: Any) -> bytes:
    """An image, audio or PDF of instructor: its content, and what is sent of where it is from.

    That is its address, if it has one; of a PDF the name of the file too.
    """
    source = media.source
    sent = source if media.data is None or "://" in str(source) else None
    if isinstance(media, PDF):
        sent = str(source)
    kind = type(media).__name__
    return canonical_part("messages", [f"instructor.{kind}", media.media_type, media.data, sent])


for _media_class in (Image, Audio, PDF):
    FORMS[_media_class] = _media_form
