"""The guards that keep what was promised, and the tests that fail without them.

Each is a line or two of llmcache. To remove one is to replace `text` by `without`, in a copy of the
repository; then one of its tests has to fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TOP_LEVEL: Final = ("llmcache", "project", "templates", "tests", "manage.py", "pyproject.toml")
PATIENCE_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Guard:
    """A guard, what it protects from, where it stands, and which tests see that it is missing."""

    name: str
    protects: str
    path: str
    text: str
    without: str
    tests: tuple[str, ...]

    def fails_without(self, directory: Path) -> bool:
        """Whether its tests fail in a copy without it, which is made in `directory`."""
        for name in TOP_LEVEL:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, directory / name)
        module = directory / self.path
        module.write_text(module.read_text().replace(self.text, self.without))
        # (the servers of this run have test databases of the same names)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("LLMCACHE_")
        }
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *self.tests],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        # 1: tests were run, and some failed; all else is trouble with the run itself.
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        return done.returncode == 1


GUARDS: Final = (
    Guard(
        "the recheck on promote",
        "a lookup that has just read a row brings the copy of an invalidated entry back",
        "llmcache/store/lookups.py",
        "    promotion.promote([key for key, each in found.items() if each.fresh])\n",
        "    fresh = [key for key, each in found.items() if each.fresh]\n"
        "    copies = {key: (rows[key], None) for key in fresh}\n"
        "    promotion.promote(fresh) or hot.write_many(copies)\n",
        ("tests/promises/test_late_copies.py::test_a_promote_does_not_bring_an_entry_back",),
    ),
    Guard(
        "the check for late answers",
        "an answer whose question was asked before an invalidation is stored after it",
        "llmcache/store/rows/tier.py",
        "if late_answers.any_fits(begun, draft):",
        "if False:",
        ("tests/promises/test_late_answers.py::test_a_late_answer_is_not_stored",),
    ),
    Guard(
        "the recheck in the delete",
        "what was stored anew is removed with what it replaced",
        "llmcache/store/batches.py",
        "if seen is None or at == seen[pk]]",
        "if seen is None or pk in seen]",
        ("tests/removal/test_invalidate.py::test_an_answer_that_is_stored_anew_meanwhile_stays",),
    ),
    Guard(
        "the recheck in the expiry",
        "what was made fresh again meanwhile is removed",
        "llmcache/store/batches.py",
        "durable.numbered(durable.entries().outlived(now), ids)",
        "durable.numbered(durable.entries(), ids)",
        ("tests/removal/test_expire.py::test_the_expiry_is_checked_again_before_the_delete",),
    ),
    Guard(
        "the removal of the old copy while the row is held",
        "an answer that was replaced is still served, and no invalidation by its tags finds it",
        "llmcache/store/rows/tier.py",
        "if replaced is not None:",
        "if False:",
        (
            "tests/promises/test_late_copies.py"
            "::test_an_answer_that_is_replaced_is_not_served_once_the_new_one_is_there",
        ),
    ),
    Guard(
        "the doubt about copies that were sent",
        "a copy that a slow network brings after an invalidation is served",
        "llmcache/store/promotion.py",
        "if evictions.may_arrive(error):",
        "if False:",
        ("tests/promises/test_late_copies.py::test_a_copy_that_comes_late",),
    ),
    Guard(
        "the copies that are taken back",
        "a copy outlives its row when the connection that held the row was lost",
        "llmcache/store/promotion.py",
        "    if are_sent:\n",
        "    if False:\n",
        (
            "tests/promises/test_late_copies.py"
            "::test_a_copy_is_taken_back_when_its_row_was_not_held_to_the_end",
        ),
    ),
    Guard(
        "the note of an older copy",
        "what another process has stored is served after its invalidation, where this one had "
        "skipped the hot tier and stored in its place",
        "llmcache/store/promotion.py",
        "self.recorded = None if is_gone else evictions.record([self.key])",
        "self.recorded = None",
        (
            "tests/promises/test_late_copies.py"
            "::test_a_copy_that_others_have_made_while_the_tier_had_a_rest_here",
        ),
    ),
    Guard(
        "the copies of rows that stay",
        "the copy of an answer that was replaced just before its removal outlives the invalidation",
        "llmcache/store/batches.py",
        "keys = keys or [key for _, key, *_ in there]",
        "keys = keys or [key for pk, key, at, _ in there if not seen or at == seen[pk]]",
        (
            "tests/promises/test_late_copies.py"
            "::test_the_copy_of_what_was_replaced_goes_although_the_row_stays",
        ),
    ),
    Guard(
        "the copies that another process is removing",
        "an invalidation ends while copies of rows that were removed before it are still served",
        "llmcache/removal/engine.py",
        "if not _all_copies_are_gone():",
        "if False:",
        (
            "tests/promises/test_late_copies.py"
            "::test_an_invalidation_ends_after_the_copies_that_another_is_removing",
        ),
    ),
    Guard(
        "the note of an eviction",
        "with the hot tier down, nobody knows which copies are still to go",
        "llmcache/store/batches.py",
        "recorded = evictions.record(keys)",
        "recorded = None",
        ("tests/store/test_evictions.py::test_with_the_hot_tier_down_it_is_written_down",),
    ),
    Guard(
        "evictions before copies are trusted",
        "a hot tier that is back serves what was invalidated while it was gone",
        "llmcache/resilience/recovery.py",
        "        database.run_removal(partial(_run_hooks, side))\n",
        "",
        ("tests/resilience/test_recovery.py::test_nothing_is_trusted_before_the_hooks_are_done",),
    ),
    Guard(
        "the breaker",
        "each call waits for a tier that does not answer",
        "llmcache/breakers.py",
        "if self.in_a_row < FAILURES:",
        "if True:",
        (
            "tests/resilience/test_recovery.py::test_without_the_hot_tier_the_rows_answer_until_it_is_back",
        ),
    ),
    Guard(
        "the short timeout of the hot tier",
        "a Redis that hangs holds its callers up",
        "llmcache/backends/__init__.py",
        "SECONDS: Final = 0.1\n",
        "SECONDS: Final = 20.0\n",
        ("tests/store/hot/test_trouble.py::test_a_paused_server_keeps_nobody_waiting",),
    ),
    Guard(
        "the place where a failure stops",
        "a tier that fails fails the call",
        "llmcache/resilience/failsafe.py",
        "    _record(tier, operation, error, troubles)\n    is_its_fault",
        "    raise error\n    is_its_fault",
        ("tests/promises/test_trouble.py::test_the_hot_tier_is_down",),
    ),
    Guard(
        "connections of the cache's own",
        "a rollback of the caller takes the answer along",
        "llmcache/background/database.py",
        "    if transactions.is_worker() or transactions.is_in_memory(connection):\n"
        "        _leave_to_a_test(connection)\n        return work()\n",
        "    return work()\n",
        (
            "tests/background/test_transactions.py::test_a_rollback_of_the_caller_keeps_the_answer",
            "tests/background/test_transactions.py::test_a_view_that_fails_after_the_model_answered",
        ),
    ),
    Guard(
        "the renewal of a lease",
        "another process asks as well when a call takes longer than the lease",
        "llmcache/leases/acquisition.py",
        "    places.renew(place, flight.key, token)\n",
        "",
        ("tests/leases/test_renewal.py::test_a_lease_outlives_its_seconds_while_the_call_runs",),
    ),
    Guard(
        "the look at what is stored by now",
        "who looked just before an answer was stored asks for it again",
        "llmcache/leases/acquisition.py",
        "            if not _is_answer(found, refused):",
        "            if True:",
        ("tests/leases/test_single_flight.py::test_an_answer_that_came_after_the_lookup_is_found",),
    ),
    Guard(
        "the pause before a fork",
        "a connection, or a lock of the database's library, is in both processes",
        "llmcache/background/pool.py",
        "        around_forks(self.pause, self.resume)\n",
        "",
        ("tests/background/test_database.py::test_no_connection_crosses_a_fork",),
    ),
)
