"""What programs are told of the tiers."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command


def status(*, fails: bool = False) -> dict[str, Any]:
    """What the command tells programs."""
    output = StringIO()
    if fails:
        with pytest.raises(SystemExit) as ended:
            call_command("llmcache_status", "--format", "json", stdout=output)
        assert ended.value.code == 1
    else:
        call_command("llmcache_status", "--format", "json", stdout=output)
    told: dict[str, Any] = json.loads(output.getvalue())
    return told
