# SPDX-License-Identifier: Apache-2.0
"""Get kernels and programs from Debian's archive, leaving the host's own apt alone.

Each suite has a package database of its own in the cache: apt reads and writes nothing else.
The packages are unpacked, never installed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.vm.table import Kernel

__all__ = ("Boot", "KernelMissingError", "Suite", "get", "mirror")

MIRROR: Final = "http://deb.debian.org"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The empty package that depends on the newest kernel. Not the cloud flavour: it lacks the file
# system the guest shares with its host.
META: Final = "linux-image-amd64"
PART: Final = re.compile(r"linux-(?:image|binary|modules)-(\d+\.\d+)\.\S+-amd64")
APT_S: Final = 300
# Between tries to reach an archive: a network that fails for a moment is no kernel missing.
PAUSES_S: Final = (5.0, 30.0)


class KernelMissingError(Exception):
    """This kernel cannot be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Boot:
    """An unpacked kernel: its image, with lib/modules beside it, and where it came from."""

    image: Path
    version: str
    suite: str


def get(kernel: Kernel, cache: Path) -> Boot:
    """Return this kernel from the first suite that has it, else one that was here before.

    An archive that is out of reach, or went on to a newer release, makes no kernel go. Raises
    KernelMissingError.
    """
    reasons = []
    suites = [Suite(name, cache / name) for name in kernel.suites]
    for suite in suites:
        try:
            return suite.boot(kernel.release)
        except KernelMissingError as missing:
            reasons.append(f"{suite.name}: {missing}")
    for suite in suites:
        if kept := suite.kept(kernel.release):
            return kept
    raise KernelMissingError("; ".join(reasons))


def mirror(archive: str) -> str:
    """Return where the host's own apt gets this archive, `debian` or `debian-security`.

    Debian's own mirror for a host that is no Debian, or names its mirror otherwise.
    """
    words = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    with contextlib.suppress(OSError):
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        for uri in said.split():
            if uri.endswith(f"/{archive}/"):
                return uri.removesuffix("/")
    return f"{MIRROR}/{archive}"


class Suite:
    """One suite of one architecture, with its own lists in a folder."""

    def __init__(self, name: str, folder: Path, architecture: str = "amd64") -> None:
        """Nothing is fetched yet."""
        self.name, self._architecture = name, architecture
        self._folder = folder
        self._environment = {
            **os.environ,
            "APT_CONFIG": str(self._folder / "apt.conf"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",  # depmod
        }

    def boot(self, release: str) -> Boot:
        """Return the suite's kernel. Raises KernelMissingError when it is another release."""
        self._update()
        packages = self._packages()
        newest = PART.fullmatch(packages[0]) if packages else None
        if newest is None or newest[1] != release:
            raise KernelMissingError(f"its kernel is {', '.join(packages) or 'not found'}")
        return self._unpacked(packages)

    def kept(self, release: str) -> Boot | None:
        """Return the newest kernel of this release that was unpacked before, if there is one."""
        stamps = self._folder.glob("linux-*/complete")
        for stamp in sorted(stamps, key=lambda path: path.stat().st_mtime, reverse=True):
            if (match := PART.fullmatch(stamp.parent.name)) and match[1] == release:
                return replace(self._boot(stamp.parent), suite=f"{self.name}, kept")
        return None

    def unpack(self, names: Sequence[str], root: Path) -> None:
        """Unpack these packages and all that they depend on. Raises KernelMissingError."""
        self._update()
        words = ("install", "--download-only", "--no-install-recommends")
        self._reach("apt-get", "-qq", "-y", *words, *names)
        for package in (self._folder / "archives").glob("*.deb"):
            self._run("dpkg-deb", "--extract", str(package), str(root))
        self._run("apt-get", "clean")

    def _update(self) -> None:
        self._configure()
        self._reach("apt-get", "-qq", "update")

    def _configure(self) -> None:
        archive = "debian-security" if self.name.endswith("-security") else "debian"
        for folder in ("lists/partial", "archives/partial"):
            (self._folder / folder).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()
        source = f"deb [signed-by={KEYRING}] {mirror(archive)} {self.name} main\n"
        (self._folder / "sources.list").write_text(source)
        settings = {
            "Dir::Etc::SourceList": self._folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": self._folder / "lists",
            "Dir::State::Status": self._folder / "status",
            "Dir::Cache": self._folder,
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Sandbox::User": "",  # the cache is the user's own
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        lines = [f'{key} "{value}";\n' for key, value in settings.items()]
        (self._folder / "apt.conf").write_text("".join(lines))

    # Some kernels are one package, some an empty one that depends on two with the files.
    def _packages(self) -> list[str]:
        found = [META]
        for name in found:
            text = self._run("apt-cache", "depends", "--important", name)
            depends = (line.split()[-1] for line in text.splitlines() if "Depends:" in line)
            found += [one for one in depends if PART.fullmatch(one) and one not in found]
        return found[1:]

    def _unpacked(self, packages: list[str]) -> Boot:
        root = self._folder / packages[0]
        if not (root / "complete").exists():
            shutil.rmtree(root, ignore_errors=True)
            (root / "debs").mkdir(parents=True)
            self._reach("apt-get", "-qq", "download", *packages, cwd=root / "debs")
            for package in (root / "debs").iterdir():
                self._run("dpkg-deb", "--extract", str(package), str(root))
            shutil.rmtree(root / "debs")
            _settle(root)
            (root / "complete").touch()
        self._run("depmod", "-b", str(root), _modules(root).name)
        return self._boot(root)

    def _boot(self, root: Path) -> Boot:
        modules = _modules(root)
        return Boot(modules / "vmlinuz", modules.name, self.name)

    def _reach(self, *command: str, cwd: Path | None = None) -> None:
        for pause_s in PAUSES_S:
            with contextlib.suppress(KernelMissingError):
                self._run(*command, cwd=cwd)
                return
            time.sleep(pause_s)
        self._run(*command, cwd=cwd)

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        try:
            done = subprocess.run(
                command,
                env=self._environment,
                cwd=cwd,
                capture_output=True,
                text=True,
                timeout=APT_S,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            last = " / ".join(error.stderr.strip().splitlines()[-3:])
            raise KernelMissingError(f"{command[0]}: {last}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KernelMissingError(str(error)) from error
        return done.stdout


def _modules(root: Path) -> Path:
    (folder,) = (root / "lib/modules").iterdir()
    return folder


# lib/modules/VERSION/vmlinuz, whichever way the packages lay it out: there virtme-ng finds both.
def _settle(root: Path) -> None:
    if (root / "usr/lib/modules").is_dir() and not (root / "lib").exists():
        (root / "usr/lib").rename(root / "lib")
    modules = _modules(root)
    image = root / "boot" / f"vmlinuz-{modules.name}"
    if image.exists():
        image.rename(modules / "vmlinuz")
