# SPDX-License-Identifier: Apache-2.0
"""Run packaging/fourwave.service under a real systemd: make service.

python -m tests.service.run [--folder DIR] needs root, debootstrap and systemd-nspawn, and takes
three minutes. Prints a line for each thing tried; exits with 1 when one does not hold.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.serve.served import until
from tests.service.debian import UNIT, Debian

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESS: Final = "127.0.0.1:9942"
NEEDED: Final = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container"}
SCORE_MAX: Final = 3
WATCHDOG_S: Final = 60.0
"""WatchdogSec= and RestartSec= of the unit, and a start."""


class Service:
    """The unit, as systemd tells of it."""

    def __init__(self, debian: Debian) -> None:
        self._debian = debian

    def told(self, name: str) -> str:
        """Return a property."""
        return self._debian.do("systemctl", "show", "-P", name, UNIT)

    def kill(self, name: str) -> None:
        """Send its main process a signal."""
        self._debian.do("systemctl", "kill", "--kill-whom=main", f"--signal={name}", UNIT)

    def is_ready(self) -> bool:
        """Ready for systemd, which it is only once it said so, and for who asks."""
        asked = self._debian.do("curl", "-s", f"http://{ADDRESS}/-/ready")
        return self.told("ActiveState") == "active" and asked == "OK"

    def is_reloaded(self) -> bool:
        """By SIGHUP, as systemctl reload sends it."""
        self._debian.do("systemctl", "reload", UNIT)
        about = ("journalctl", "-b", "-u", UNIT, "--no-pager")
        return bool(until(lambda: "fourwave web: reloaded" in self._debian.do(*about)))

    def comes_back(self, signal: str, within_s: float) -> bool:
        """Another main process, and ready, after the first one got this signal."""
        before = self.told("MainPID")
        self.kill(signal)
        return bool(until(lambda: self.told("MainPID") not in {before, "0"}, within_s)) and bool(
            until(self.is_ready, within_s)
        )

    def is_confined(self) -> bool:
        """The filter of system calls lets Landlock's through."""
        return "not confined" not in self._debian.do("journalctl", "-b", "-u", UNIT, "--no-pager")

    def is_hardened(self) -> bool:
        """By systemd's own measure."""
        text = self._debian.do("systemd-analyze", "security", "--no-pager", UNIT)
        score = re.search(r"exposure level for \S+: ([\d.]+)", text)
        return score is not None and float(score[1]) < SCORE_MAX

    def sees_everything(self) -> bool:
        """All detectors: the census works under all these restrictions."""
        text = self._debian.do("curl", "-s", f"http://{ADDRESS}/metrics")
        up = re.findall(r"^fourwave_detector_up\{.*\} (\S+)$", text, re.MULTILINE)
        return bool(up) and set(up) == {"1.0"}

    def ends_well(self) -> bool:
        """With 0, and its summary."""
        self._debian.do("systemctl", "stop", UNIT)
        return self.told("Result") == "success" and self.told("ActiveState") == "inactive"


def trials(service: Service) -> dict[str, Callable[[], object]]:
    """Return what is tried, in this order."""
    return {
        "it is ready when systemd is told so": lambda: until(service.is_ready, 60),
        "every detector works": lambda: until(service.sees_everything, 60),
        "the web process is confined": service.is_confined,
        "its exposure is below 3": service.is_hardened,
        "systemctl reload": service.is_reloaded,
        "it comes back after SIGKILL": lambda: service.comes_back("KILL", 30),
        "the watchdog ends one that hangs": lambda: service.comes_back("STOP", WATCHDOG_S),
        "systemctl stop": service.ends_well,
    }


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/fourwave-service"))  # noqa: S108
    parser.add_argument("--keep", action="store_true", help="use what is installed there")
    wished = parser.parse_args()
    missing = [package for tool, package in NEEDED.items() if not shutil.which(tool)]
    if missing:
        sys.stderr.write(f"this host lacks {' and '.join(missing)}: apt install them\n")
        return 3
    debian = Debian(wished.folder)
    if not wished.keep:
        debian.install(f"--listen {ADDRESS} --census 5")
    failed = 0
    with debian.booted():
        for name, holds in trials(Service(debian)).items():
            held = bool(holds())
            failed += not held
            print(f"{'ok ' if held else 'NOT'}  {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
