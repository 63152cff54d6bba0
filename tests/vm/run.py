# SPDX-License-Identifier: Apache-2.0
"""Boot Debian's kernels and run fourwave and its kernel tests in each.

Usage: python -m tests.vm.run [--extent EXTENT] [RELEASE…], for every kernel of kernels.toml when
none is named (`ci`: the oldest and the newest). Each one's results replace the last ones in
results/, and docs/kernels.md is made anew; `ci` of no named kernel leaves both alone. A kernel that
cannot be had, does not boot or fails a test makes the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.vm import compiler, foreign, page
from tests.vm.debian import KernelMissingError, get
from tests.vm.guest import LOG_FILE, ROOT, GuestError, run
from tests.vm.table import chosen

if TYPE_CHECKING:
    from tests.vm.compiler import Compiler
    from tests.vm.table import Kernel, Plan, Userland

# What a run leaves out, by parts of the tests' names, beside what a kernel cannot run at all.
SLOW: Final = ("server", "delay", "jitter", "duplication", "timeout", "destroyed", "for_long")
SETS: Final = ("hooks", "kinds", "netem", "census", "accept", "time_wait", "full_rate")
FEW: Final = tuple(f"tests/kernel/test_{name}.py" for name in SETS)
ALL: Final = ("tests/kernel",)
# Every way to see the ACK of the FIN leave must tell these closes alike.
BY_HOOKS: Final = ("three_way", "four_way", "answer_and_close", "spoilt_path")
# What no slow processor can make otherwise than it was meant: no timer of TCP's is raced with,
# or what lost the race is made again. Every hook, a dozen kinds of close, the census.
STEADY: Final = (
    *("test_the_ack_of_the_fin", "test_all_twelve_states", "test_a_shared_socket"),
    *("four_way-client", "linger_zero-client", "unread_data-client", "disconnected-client"),
    *("data_crosses_fin-client", "listener_closed-client", "refused-client", "given_up-client"),
    *("simultaneous-client", "reset_in_fin_wait1-client", "reset_in_close_wait-client"),
    *("reset_in_last_ack-client", "reset_in_closing-client"),
)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of the tests runs: where they are, which are taken, what other modes repeat.

    `only`: parts of the names, all tests when there are none. `others`: the same for every mode
    but a kernel's first.
    """

    files: tuple[str, ...]
    only: tuple[str, ...]
    left_out: tuple[str, ...]
    others: tuple[str, ...]
    deadline_s: float


# `ci` is what every change must pass, in minutes and on the oldest and the newest kernel alone.
# 40,000 closes within a minute, which `all` leaves out, an emulated processor cannot even print.
EXTENTS: Final = {
    "ci": Extent(FEW, STEADY, (), STEADY[3:4], 1200.0),
    "kinds": Extent(FEW[:3], (), SLOW, BY_HOOKS, 2400.0),
    "few": Extent(FEW, (), ("server", "two_hundred_thousand"), BY_HOOKS, 3000.0),
    "all": Extent(ALL, (), ("under_load", "confidentiality"), (), 14400.0),
}
BUILD: Final = ROOT / "build/vm"
HOST: Final = "amd64"
LOG_CHARS: Final = 8000


def main() -> int:
    """Return 0 when every kernel was there and every step right."""
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the guest on the way
    try:
        rows = chosen(options.releases)
        if options.extent == "ci" and not options.releases:
            rows = [row for row in rows if not row.tests]
            rows = [rows[0], rows[-1]]
    except LookupError as error:
        say(str(error))
        return 2
    kept = bool(options.releases) or options.extent != "ci"
    return concluded({row.name: tested(row, options.extent, kept=kept) for row in rows}, "kernels")


def parsed() -> argparse.Namespace:
    """Return the command line's releases and how much of the tests to run."""
    parser = argparse.ArgumentParser(description="Test fourwave on Debian's kernels.")
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help="6.12, for example")
    parser.add_argument("--extent", choices=EXTENTS, default="few", help="how many of the tests")
    return parser.parse_args()


def tested(row: Kernel, extent: str, *, kept: bool) -> list[str]:
    """Test one kernel, keep its results or not; return what was wrong."""
    started = time.monotonic()
    try:
        results = results_of(row, EXTENTS[extent])
    except (KernelMissingError, GuestError) as error:
        results = {"error": str(error)}
    extent = "" if row.tests else extent
    wrong = judged(row, results, extent, time.monotonic() - started, kept=kept)
    log = BUILD / row.name / LOG_FILE
    if wrong and log.exists():
        say(f"the end of {log}:\n{log.read_text(errors='replace')[-LOG_CHARS:]}")
    return wrong


def judged(
    row: Kernel | Userland,
    results: dict[str, Any],
    extent: str,
    took_s: float,
    *,
    kept: bool = True,
) -> list[str]:
    """Keep one's results or not; return what was wrong."""
    results |= {"refused": row.refused}
    results |= {"date": time.strftime("%Y-%m-%d"), "extent": extent}
    if kept:
        page.keep(row.name, results)
        page.write()
    wrong = list(page.failures(results))
    say(f"{row.name}: {'wrong' if wrong else 'right'}, {took_s:.0f} s")
    return wrong


def concluded(wrong: dict[str, list[str]], what: str) -> int:
    """Say what was wrong with each of all that were tested; return the exit code."""
    for name, reasons in wrong.items():
        for reason in reasons:
            say(f"FAILED with {name}: {reason}")
    right = sum(not reasons for reasons in wrong.values())
    say(f"{right} of {len(wrong)} {what} right")
    return 1 if right < len(wrong) else 0


def results_of(row: Kernel, extent: Extent) -> dict[str, Any]:
    """Get the kernel, boot it, run. Raises KernelMissingError, GuestError."""
    plan = plan_for(row, extent)
    if row.architecture != HOST:
        return foreign.run(row, plan, cache(), BUILD / row.name, extent.deadline_s)
    boot = get(row, cache())
    say(f"{row.name}: Linux {boot.version} from {boot.suite}; modes {', '.join(plan)}")
    loader = compiler_of(row)
    results = run(boot, plan, BUILD / row.name, extent.deadline_s, row.append, loader)
    return {**results, "suite": boot.suite}


def compiler_of(row: Kernel) -> Compiler | None:
    """Return whose BCC loads the programs, None for this host's. Raises KernelMissingError."""
    if not row.bcc:
        return None
    folder = BUILD / f"bcc-{row.bcc}"
    folder.mkdir(parents=True, exist_ok=True)
    return compiler.get(row.bcc, cache().with_name("bcc"), folder)


def plan_for(row: Kernel, extent: Extent) -> Plan:
    """Return pytest's arguments for each mode: where to look, and what by name."""
    if row.tests:
        return {row.hooks[0]: list(row.tests)}
    without = [f"not {name}" for name in (*extent.left_out, *row.without)]
    chosen_first = dict.fromkeys(row.hooks, extent.others) | {row.hooks[0]: extent.only}
    return {mode: [*extent.files, *by_name(names, without)] for mode, names in chosen_first.items()}


def by_name(names: tuple[str, ...], without: list[str]) -> list[str]:
    """Return pytest's choice of the tests with one of these parts of a name, of all without."""
    words = " and ".join([f"({' or '.join(names)})"] * bool(names) + without)
    return ["-k", words] if words else []


def cache() -> Path:
    """Return where kernels are kept between runs: in XDG_CACHE_HOME."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "fourwave/kernels"


def say(text: str) -> None:
    """Tell the user."""
    print(f"vm: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
