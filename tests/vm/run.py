# SPDX-License-Identifier: Apache-2.0
"""Boot Debian's kernels and run fourwave and its kernel tests in each.

Usage: python -m tests.vm.run [--all] [RELEASE…], for every kernel of kernels.toml when none is
named. Each one's results replace the last ones in results/, and docs/kernels.md is made anew.
A kernel that cannot be had, does not boot or fails a test makes the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.vm import page
from tests.vm.debian import KernelMissingError, get
from tests.vm.guest import ROOT, GuestError, run
from tests.vm.table import chosen

if TYPE_CHECKING:
    from tests.vm.table import Kernel

# What is worth the time whenever something changed: every kind of close, one way round, and
# the worst of the spoilt paths. With --all the whole of tests/kernel, and every mode of
# kernels.toml instead of the first; but not 40,000 closes within a minute, which an emulated
# processor cannot even print.
FEW: Final = tuple(f"tests/kernel/test_{name}.py" for name in ("hooks", "kinds", "netem"))
NOT_FEW: Final = ("server", "delay", "jitter", "duplication")
ALL: Final = ("tests/kernel",)
NOT_ALL: Final = ("under_load",)
DEADLINE_S: Final = {False: 1500.0, True: 7200.0}
BUILD: Final = ROOT / "build/vm"


def main() -> int:
    """Return 0 when every kernel was there and every step right."""
    options = parsed()
    try:
        rows = chosen(options.releases)
    except LookupError as error:
        say(str(error))
        return 2
    failures = {row.release: reasons for row in rows if (reasons := tested(row, options.all))}
    for release, reasons in failures.items():
        for reason in reasons:
            say(f"FAILED on {release}: {reason}")
    say(f"{len(rows) - len(failures)} of {len(rows)} kernels right")
    return 1 if failures else 0


def parsed() -> argparse.Namespace:
    """Return the command line's releases and whether to run everything."""
    parser = argparse.ArgumentParser(description="Test fourwave on Debian's kernels.")
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help="6.12, for example")
    parser.add_argument("--all", action="store_true", help="every test in every mode")
    return parser.parse_args()


def tested(row: Kernel, everything: bool) -> list[str]:
    """Test one kernel and keep its results; return what was wrong."""
    started = time.monotonic()
    try:
        results = results_of(row, everything)
    except (KernelMissingError, GuestError) as error:
        results = {"error": str(error)}
    results |= {"date": time.strftime("%Y-%m-%d"), "everything": everything}
    page.keep(row.release, results)
    page.write()
    wrong = list(page.failures(results))
    say(f"{row.release}: {'wrong' if wrong else 'right'}, {time.monotonic() - started:.0f} s")
    return wrong


def results_of(row: Kernel, everything: bool) -> dict[str, Any]:
    """Get the kernel, boot it, run. Raises KernelMissingError, GuestError."""
    boot = get(row, cache())
    modes = row.hooks if everything else row.hooks[:1]
    say(f"{row.release}: Linux {boot.version} from {boot.suite}; modes {', '.join(modes)}")
    inside = [",".join(modes), *selection(row, everything)]
    results = run(boot, inside, BUILD / row.release, DEADLINE_S[everything])
    return {**results, "suite": boot.suite}


def selection(row: Kernel, everything: bool) -> list[str]:
    """Return pytest's arguments: where to look, and what to leave out by name."""
    left_out = [*(NOT_ALL if everything else NOT_FEW), *row.without]
    words = " and ".join(f"not {name}" for name in left_out)
    return [*(ALL if everything else FEW), "-k", words]


def cache() -> Path:
    """Return where kernels are kept between runs: in XDG_CACHE_HOME."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "fourwave/kernels"


def say(text: str) -> None:
    """Tell the user."""
    print(f"vm: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
