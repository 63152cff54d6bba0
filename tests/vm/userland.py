# SPDX-License-Identifier: Apache-2.0
"""A Debian suite's programs in a folder, by debootstrap, and commands run among them.

The kernel stays this host's; /proc, /sys and /dev are its own, the repository is where it is on
the host. All mounts are made in a mount namespace of the command's own.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.vm.debian import KEYRING, mirror

if TYPE_CHECKING:
    from tests.vm.table import Userland

__all__ = (
    "Environment",
    "UserlandMissingError",
    "install",
    "script_for",
    "with_python",
    "with_suite",
)

ROOT: Final = Path(__file__).resolve().parents[2]
# BCC for the loader; the rest is what the tests run.
PACKAGES: Final = (
    *("python3", "python3-bpfcc", "iproute2", "tcpdump"),
    *("gcc", "libc6-dev", "openssl", "curl", "systemd", "ca-certificates"),
)
SITE: Final = "/opt/fourwave"
# They look at the source, whichever Python runs it.
NOT_NEEDED: Final = ("clang-format", "mypy", "ruff", "types-")
INSTALL_S: Final = 1800.0
MOUNTS: Final = """\
set -eu
mount --bind {root} {root} # ip-netns wants a mount for its root
mount --rbind /proc {root}/proc
mount --rbind /sys {root}/sys
mount --rbind /dev {root}/dev
mount -t tmpfs tmp {root}/tmp
mount -t tmpfs run {root}/run
for path in {paths}; do
	mkdir -p {root}"$path"
	mount --bind "$path" {root}"$path"
done
exec chroot {root} "$@"
"""


class UserlandMissingError(Exception):
    """This userland cannot be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Environment:
    """How a resident is started there: words before its Python's arguments, and variables."""

    command: tuple[str, ...]
    variables: dict[str, str]


def with_suite(row: Userland, cache: Path, folder: Path) -> Environment:
    """Return this suite, made when it is not there. `folder` is shared with what runs inside.

    Raises UserlandMissingError.
    """
    assert row.suite is not None
    root = cache / row.suite
    if not (root / "complete").exists():
        _debootstrap(row.suite, root)
    script = script_for(root, [ROOT, folder], folder)
    if row.resident == "host":
        return Environment((sys.executable,), {"FOURWAVE_BCC_PYTHON": str(script)})
    install(row.python, root / SITE.lstrip("/"))
    variables = {"PYTHONPATH": f"{ROOT}:{SITE}", "PYTHONDONTWRITEBYTECODE": "1"}
    return Environment((str(script),), variables)


def with_python(version: str, cache: Path) -> Environment:
    """Return this host with another Python for the resident. Raises UserlandMissingError."""
    python, site = _find_python(version), cache / f"python-{version}"
    install(version, site)
    variables = {"PYTHONPATH": f"{ROOT}:{site}", "PYTHONDONTWRITEBYTECODE": "1"}
    return Environment((str(python),), variables)


def script_for(root: Path, paths: list[Path], folder: Path) -> Path:
    """Write a program into `folder` to be called as this root's Python, with these paths in it.

    It must not depend on anything the caller set up.
    """
    mounts = MOUNTS.format(
        root=shlex.quote(str(root)), paths=" ".join(shlex.quote(str(path)) for path in paths)
    )
    inner = shlex.join(["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts])
    script = folder / "python3"
    script.write_text(f'#!/bin/sh\nexec {inner} sh /usr/bin/python3 "$@"\n')
    script.chmod(0o755)
    return script


def _debootstrap(suite: str, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    include = ",".join(PACKAGES)
    keyring = f"--keyring={KEYRING}"
    words = ("debootstrap", "--variant=minbase", keyring, f"--include={include}", suite)
    _run(*words, str(root), mirror("debian"))
    (root / "complete").touch()


def _find_python(version: str) -> Path:
    found = shutil.which(f"python{version}")
    pyenv = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python{version}"))
    for candidate in (*pyenv, *([Path(found)] if found else [])):
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    raise UserlandMissingError(f"no python{version} in PATH or ~/.pyenv/versions")


def install(version: str, site: Path, *platforms: str) -> None:
    """Put what the tests import there, for another Python or machine.

    Raises UserlandMissingError.
    """
    project = ROOT / "pyproject.toml"
    stamp = site / "complete"
    if stamp.exists() and stamp.stat().st_mtime > project.stat().st_mtime:
        return
    shutil.rmtree(site, ignore_errors=True)
    wanted = tomllib.loads(project.read_text())
    names = [*wanted["project"]["dependencies"], *wanted["dependency-groups"]["test"]]
    names = [name for name in names if not name.startswith(NOT_NEEDED)]
    where = ("--target", str(site), "--python-version", version, "--only-binary=:all:")
    machine = [f"--platform={name}" for name in platforms]
    _run(sys.executable, "-m", "pip", "install", "-qq", *where, *machine, *names)
    stamp.touch()


def _run(*command: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserlandMissingError(str(error)) from error
    if done.returncode:
        last = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise UserlandMissingError(f"{Path(command[0]).name}: {last}")
