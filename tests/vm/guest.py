# SPDX-License-Identifier: Apache-2.0
"""Boot one kernel with virtme-ng and run tests/vm/inside.py in it.

The processor is emulated: /dev/kvm may be there and still hang a guest, and what is tested is
the kernel's behaviour, not its speed.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.vm.inside import BEGUN, PLAN_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.vm.compiler import Compiler
    from tests.vm.debian import Boot
    from tests.vm.table import Plan

__all__ = (
    "CPUS",
    "FASTER",
    "LOG_FILE",
    "RESULTS_FILE",
    "ROOT",
    "GuestError",
    "prepare",
    "results_in",
    "run",
    "watched",
)

ROOT: Final = Path(__file__).resolve().parents[2]
CPUS: Final = "2"
MEMORY: Final = "3G"
# What protects a kernel from its users costs an emulated one half of its speed.
FASTER: Final = ("mitigations=off", "init_on_alloc=0", "tsc=reliable")
EMULATED: Final = ("FOURWAVE_EMULATED=1", "FOURWAVE_LOADER_TIMEOUT_S=300")
SHARED: Final = "/run/shared"
RESULTS: Final = "/run/results"
RESULTS_FILE: Final = "results.json"
LOG_FILE: Final = "console.log"
FIRST_LOG_FILE: Final = "console-first.log"
# From the start to the first step: 10 to 60 s. An emulator that got stuck on its way is not slow.
BOOT_S: Final = 300.0
LOOK_EVERY_S: Final = 0.5


class GuestError(Exception):
    """The guest did not come to its end; the text says how far it came."""


class NotBootedError(GuestError):
    """Not even the first step began."""


def run(
    boot: Boot,
    plan: Plan,
    folder: Path,
    deadline_s: float,
    append: Sequence[str] = (),
    compiler: Compiler | None = None,
) -> dict[str, Any]:
    """Boot with more words on the command line, run inside.py with this plan, return its results.

    `folder` takes the results and the console's log. Raises GuestError.
    """
    prepare(folder, plan)
    watched(_command(boot, folder, append, compiler), folder, deadline_s)
    return results_in(folder)


def prepare(folder: Path, plan: Plan) -> None:
    """Empty the folder but for the plan."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / PLAN_FILE).write_text(json.dumps(plan))


def watched(command: Sequence[str], folder: Path, deadline_s: float) -> None:
    """Run an emulator to its end, its console into the folder's log. Raises GuestError.

    One that does not boot is started once more, and that is told: it has judged nothing yet.
    """
    try:
        _watched(command, folder / LOG_FILE, deadline_s)
    except NotBootedError as error:
        (folder / LOG_FILE).rename(folder / FIRST_LOG_FILE)
        print(f"vm: {error}; once more", file=sys.stderr, flush=True)
        _watched(command, folder / LOG_FILE, deadline_s)


def _watched(command: Sequence[str], log: Path, deadline_s: float) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with log.open("wb") as output:
        guest = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # to end it with the emulator it starts
        )
        try:
            _await_boot(guest, log)
            guest.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise GuestError(f"not done after {deadline_s:g} s; see {log}") from None
        finally:
            _end(guest)


def _await_boot(guest: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + BOOT_S
    while True:
        ended = guest.poll() is not None
        if BEGUN in log.read_text(errors="replace"):
            return
        if ended:
            raise NotBootedError(f"it ended before it had booted; see {log}")
        if time.monotonic() > deadline:
            raise NotBootedError(f"not booted after {BOOT_S:g} s; see {log}")
        time.sleep(LOOK_EVERY_S)


def _command(
    boot: Boot, folder: Path, append: Sequence[str], compiler: Compiler | None
) -> list[str]:
    folders = [*_folders(), *([compiler.root] if compiler else [])]
    variables = compiler.variables if compiler else {}
    shared = {f"{SHARED}/{number}": path for number, path in enumerate(folders)}
    mounts = [f"{guest}={host}" for guest, host in shared.items()]
    program = [sys.executable, "-m", "tests.vm.inside", RESULTS]
    chosen = (f"{name}={value}" for name, value in variables.items())
    environment = ["env", "-C", str(ROOT), *EMULATED, *chosen]
    script = [str(ROOT / "tests/vm/guest.sh"), *mounts, "--", *environment, *program]
    return [
        "vng",
        *("--run", str(boot.image), "--verbose"),
        *("--disable-kvm", "--force-9p", "--user", "root", "--cwd", "/"),
        *("--cpus", CPUS, "--memory", MEMORY),
        *(f"--append={word}" for word in (*FASTER, *append)),
        *(f"--rodir={mount}" for mount in mounts),
        f"--rwdir={RESULTS}={folder}",
        *("--", shlex.join(script)),
    ]


# What is read again and again: the system's programs, this repository, and a Python of its own.
def _folders() -> list[Path]:
    folders = [Path("/usr"), ROOT]
    python = Path(sys.base_prefix).resolve()
    return folders if python.is_relative_to("/usr") else [*folders, python]


def _end(guest: subprocess.Popen[bytes]) -> None:
    if guest.poll() is None:
        os.killpg(guest.pid, signal.SIGKILL)
        guest.wait()


def results_in(folder: Path) -> dict[str, Any]:
    """Return what inside.py left there. Raises GuestError."""
    log = folder / LOG_FILE
    try:
        results: dict[str, Any] = json.loads((folder / RESULTS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise GuestError(f"it left no results ({error}); see {log}") from error
    if not results.get("complete"):
        raise GuestError(f"it ended before its tests did; see {log}")
    return results
