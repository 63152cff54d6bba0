# SPDX-License-Identifier: Apache-2.0
"""Boot a kernel of another architecture, arm64, with that architecture's own programs.

Debian's packages are unpacked into one folder, the kernel's and Python's among them; nothing of
them runs before the guest does. The guest's root is that folder in its memory: its kernel needs
no driver for it, and what it writes is gone with it. The results come by its console.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.vm.debian import KernelMissingError, Suite
from tests.vm.guest import (
    CPUS,
    FASTER,
    LOG_FILE,
    RESULTS_FILE,
    ROOT,
    GuestError,
    prepare,
    results_in,
    watched,
)
from tests.vm.inside import PLAN_FILE
from tests.vm.userland import UserlandMissingError, install

if TYPE_CHECKING:
    from tests.vm.table import Kernel, Plan

__all__ = ("run",)

PACKAGES: Final = (
    *("linux-image-arm64", "busybox", "kmod", "dash", "coreutils", "util-linux"),
    *("python3", "python3-bpfcc", "iproute2", "tcpdump", "gcc", "libc6-dev"),
)
MODULES: Final = (*("tun", "veth", "bridge", "stp", "llc", "sch_netem", "inet_diag", "tcp_diag"),)
UNUSED: Final = ("var", "usr/share/doc", "usr/share/man", "usr/share/locale")
PLATFORMS: Final = ("manylinux2014_aarch64", "manylinux_2_28_aarch64")
# As guest_foreign.sh has them.
SOURCES, SITE, INIT = "fourwave", "opt/site", "init"
SCRIPT: Final = Path(__file__).with_name("guest_foreign.sh")
LEFT_OUT: Final = (".*", "build", "__pycache__")
BEGIN, END = "== results\n", "== end\n"
EMULATOR: Final = (
    *("qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"),
    *("-accel", "tcg,thread=multi", "-smp", CPUS, "-m", "4G"),
    *("-nographic", "-no-reboot", "-nic", "none"),
)
WORDS: Final = ("console=ttyAMA0", "rdinit=/init", "panic=-1", "quiet", *FASTER)


@dataclass(frozen=True, slots=True)
class Machine:
    """An unpacked system: its kernel, its root's folder."""

    image: Path
    root: Path


def run(row: Kernel, plan: Plan, cache: Path, folder: Path, deadline_s: float) -> dict[str, Any]:
    """Get the system, boot it, return the results. Raises KernelMissingError, GuestError."""
    suite = row.suites[0]
    machine = _machine(suite, row.architecture, cache / f"{suite}-{row.architecture}")
    prepare(folder, plan)
    memory = folder / "initrd"
    _pack(machine.root, folder / PLAN_FILE, memory)
    try:
        files = ("-kernel", str(machine.image), "-initrd", str(memory))
        words = " ".join((*WORDS, *row.append))
        watched([*EMULATOR, *files, "-append", words], folder, deadline_s)
    except OSError as error:
        raise GuestError(f"{error}: install qemu-system-arm") from error
    finally:
        memory.unlink()
    _take_results(folder)
    return {**results_in(folder), "suite": suite}


def _machine(suite: str, architecture: str, folder: Path) -> Machine:
    root, stamp = folder / "root", folder / "complete"
    if not stamp.exists() or stamp.stat().st_mtime < Path(__file__).stat().st_mtime:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        Suite(suite, folder, architecture).unpack(PACKAGES, root)
        _settle(root, folder)
        stamp.touch()
    python = (root / "usr/bin/python3").readlink().name.removeprefix("python")
    try:
        install(python, root / SITE, *PLATFORMS)
    except UserlandMissingError as error:
        raise KernelMissingError(str(error)) from error
    return Machine(folder / "vmlinuz", root)


# What the packages' own scripts would have done, as far as it matters here.
def _settle(root: Path, folder: Path) -> None:
    (image,) = (root / "boot").glob("vmlinuz-*")
    image.rename(folder / "vmlinuz")
    for name in ("bin", "sbin", "lib"):
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("boot", *UNUSED):
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "var", SOURCES):
        (root / name).mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (modules,) = (root / "usr/lib/modules").iterdir()
    wanted = [f"{name}.ko*" for name in MODULES]
    for path in modules.rglob("*.ko*"):
        if not any(fnmatch.fnmatch(path.name, pattern) for pattern in wanted):
            path.unlink()
    _done("/sbin/depmod", "-b", str(root), modules.name)


def _pack(root: Path, plan: Path, memory: Path) -> None:
    sources = root / SOURCES
    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(*LEFT_OUT))
    shutil.copy(plan, root / PLAN_FILE)
    shutil.copy(SCRIPT, root / INIT)
    with memory.open("wb") as output:
        _done("sh", "-c", "find . | busybox cpio -o -H newc", cwd=root, output=output)


def _done(*command: str, cwd: Path | None = None, output: Any = subprocess.PIPE) -> None:
    done = subprocess.run(command, cwd=cwd, stdout=output, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise GuestError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()[-300:]}")


def _take_results(folder: Path) -> None:
    said = (folder / LOG_FILE).read_text(errors="replace").replace("\r", "")
    text = said.partition(BEGIN)[2].partition(END)[0]
    (folder / RESULTS_FILE).write_text(text)
