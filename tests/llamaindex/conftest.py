"""What these tests need is in an environment of its own, which `make frameworks` makes."""

from __future__ import annotations

from tests.plugin import leave_out_without

collect_ignore_glob = leave_out_without("llama_index")
