# SPDX-License-Identifier: Apache-2.0
"""Run fourwave with each compiler and each Python of userlands.toml, on this host's kernel.

Usage: python -m tests.vm.userlands [NAME…]; root. Results go where those of the kernels go, and
docs/kernels.md is made anew. One that cannot be had or fails a test makes the exit code 1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from tests.vm.inside import PLAN_FILE
from tests.vm.run import BUILD, cache, concluded, judged, say
from tests.vm.table import userlands
from tests.vm.userland import ROOT, Environment, UserlandMissingError, with_python, with_suite

if TYPE_CHECKING:
    from pathlib import Path

    from tests.vm.table import Userland

RESULTS_FILE: Final = "results.json"
# A few closes of each sort, both ways of the census, and the lacks of a host.
KERNEL_TESTS: Final = (
    *(
        f"tests/kernel/test_kinds.py::test_on_loopback[{name}-client]"
        for name in ("three_way", "four_way", "killed_process", "killed_with_unread_data")
    ),
    "tests/kernel/test_census.py::test_all_twelve_states",
    "tests/kernel/test_census.py::test_both_ways_agree",
    "tests/kernel/test_compiled.py",
)
# Without what Prometheus's own programs are to judge, not Python.
UNIT_TESTS: Final = (
    "tests/unit",
    "--ignore=tests/unit/test_rules.py",
    "--deselect=tests/unit/test_dashboards.py::test_where_all_is_zero_no_panel_divides_by_it",
)
DEADLINE_S: Final = 2400.0


def main() -> int:
    """Return 0 when every userland was there and every step right."""
    rows = {row.name: row for row in userlands()}
    names = sys.argv[1:] or list(rows)
    if unknown := [name for name in names if name not in rows]:
        say(f"no userland {', '.join(unknown)}; there are {', '.join(rows)}")
        return 2
    return concluded({name: tested(rows[name]) for name in names}, "userlands")


def tested(row: Userland) -> list[str]:
    """Test with one userland and keep its results; return what was wrong."""
    started = time.monotonic()
    folder = BUILD / row.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        results = results_of(row, folder)
    except UserlandMissingError as error:
        results = {"error": str(error)}
    return judged(row, results, "", time.monotonic() - started)


def results_of(row: Userland, folder: Path) -> dict[str, Any]:
    """Run inside.py there. Raises UserlandMissingError."""
    kept = cache().with_name("userlands")
    there = with_suite(row, kept, folder) if row.suite else with_python(row.python, kept)
    # The suite's compiler alone is the question where its Python runs no resident.
    tests = KERNEL_TESTS if row.resident == "host" else (*UNIT_TESTS, *KERNEL_TESTS)
    tests = () if row.refused else tests
    run(there, folder, tests)
    try:
        results: dict[str, Any] = json.loads((folder / RESULTS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise UserlandMissingError(f"it left no results ({error}); see {folder}") from error
    results.pop("kernel", None)  # what this host's kernel said before is not this run's
    return results


def run(there: Environment, folder: Path, tests: tuple[str, ...]) -> None:
    """Run inside.py with the resident's Python; what it says goes to a log."""
    inside = ("-m", "tests.vm.inside", str(folder))
    (folder / PLAN_FILE).write_text(json.dumps({"fentry": tests}))
    with (folder / "log").open("wb") as log:
        subprocess.run(
            [*there.command, *inside],
            cwd=ROOT,
            env={**os.environ, **there.variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=DEADLINE_S,
            check=False,
        )


if __name__ == "__main__":
    sys.exit(main())
