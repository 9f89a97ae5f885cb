"""Why a call of a decorated function would hit or miss."""

from __future__ import annotations

from llmcache.decorators.requests import MODE, PROVIDER, FunctionRequest
from llmcache.explanation import Explanation, Subject, explain_call


def explain_request(request: FunctionRequest) -> Explanation:
    """What would come of `request`, and why. The function is not called."""
    canonical, returns = request.canonical, request.returns
    subject = Subject(
        name="this call",
        key=request.call.key,
        namespace=request.call.namespace,
        provider=PROVIDER,
        endpoint=request.origin.endpoint_name,
        model=request.call.model,
        mode=MODE,
        response_model=returns.path if returns else "",
        digests=canonical.digests() if canonical else {},
        describe=request.describe,
    )
    return explain_call(
        subject, policy=request.policy, bypass=request.bypass, restore=request.restore
    )
