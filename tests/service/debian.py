# SPDX-License-Identifier: Apache-2.0
"""A minimal Debian with fourwave installed as docs/install.md says, booted in a container."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITE: Final = "trixie"
PACKAGES: Final = "systemd,systemd-sysv,dbus,python3-venv,python3-bpfcc,curl"
UNIT: Final = "fourwave.service"
CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"
SYSTEM_CALLS: Final = (
    "bpf perf_event_open open_by_handle_at "
    "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
)
"""What systemd-nspawn forbids by itself, and a host does not."""
INIT: Final = "/usr/lib/systemd/systemd"
BOOT_S: Final = 60.0


class Debian:
    """A folder with a root file system, and the systemd that runs in it."""

    def __init__(self, folder: Path) -> None:
        """Use what is in the folder, or bootstrap it: 35 s and 0.7 GB."""
        self.root = folder
        self._leader = 0
        if not (folder / "etc").exists():
            run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(folder))

    def install(self, options: str) -> None:
        """Install this checkout and its unit, enabled, with these options of serve."""
        source = self.root / "src"
        run("rm", "-rf", str(source))
        run("git", "-C", str(ROOT), "checkout-index", "--all", f"--prefix={source}/")
        for name in ("etc/resolv.conf", CERTIFICATES):
            (self.root / name).write_bytes((Path("/") / name).read_bytes())
        self._chroot("python3", "-m", "venv", "/opt/fourwave")
        certificates = f"PIP_CERT=/{CERTIFICATES}"
        pip = ("env", certificates, "/opt/fourwave/bin/pip", "install", "-q", "--force-reinstall")
        self._chroot(*pip, "/src[landlock]")
        self._chroot("ln", "-sf", "/opt/fourwave/bin/fourwave", "/usr/local/bin/fourwave")
        self._chroot("cp", f"/src/packaging/{UNIT}", "/etc/systemd/system/")
        self._chroot("systemctl", "enable", "-q", UNIT)
        (self.root / "etc/default/fourwave").write_text(f"FOURWAVE_OPTIONS={options}\n")

    @contextlib.contextmanager
    def booted(self) -> Iterator[None]:
        """Let its systemd run, in the host's network and user namespaces."""
        words = ["systemd-nspawn", "-q", "-D", str(self.root), "--boot", "--console=pipe"]
        allowed = ["--capability=all", f"--system-call-filter={SYSTEM_CALLS}"]
        alone = ["--register=no", "--keep-unit", "--private-users=no"]
        with subprocess.Popen(
            [*words, *allowed, *alone], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as container:
            try:
                self._leader = leader_of(container.pid)
                yield
            finally:
                self.do("systemctl", "poweroff")
                container.wait(BOOT_S)

    def do(self, *words: str) -> str:
        """Run a command beside its systemd; return what it wrote."""
        where = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-p", "-n", "-C"]
        done = subprocess.run([*where, *words], stdout=subprocess.PIPE, text=True, check=False)
        return done.stdout.strip()

    def _chroot(self, *words: str) -> None:
        run("chroot", str(self.root), *words)


def run(*words: str) -> None:
    """Run a command. Raises CalledProcessError."""
    subprocess.run(words, check=True)


def leader_of(container: int) -> int:
    """Return the pid of the init process of a container. Raises TimeoutError."""
    deadline_s = time.monotonic() + BOOT_S
    while time.monotonic() < deadline_s:
        time.sleep(0.1)
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{container}/task/{container}/children").read_text().split()
            for pid in children:
                if Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0] == INIT:
                    return int(pid)
    raise TimeoutError("systemd did not start in the container")
