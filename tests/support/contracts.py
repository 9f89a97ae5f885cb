"""What import-linter watches of the tests besides its own contracts."""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output


class NoTestIsImported(Contract):
    """What tests share is in `tests.support`, or in a conftest, and so each test can be moved."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        tests = [name for name in graph.modules if name.rpartition(".")[2].startswith("test_")]
        found = [
            f"{importer} -> {test}"
            for test in tests
            for importer in graph.find_modules_that_directly_import(test)
        ]
        return ContractCheck(kept=not found, metadata={"found": sorted(found)})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["found"]:
            output.print_error(line)
