# SPDX-License-Identifier: Apache-2.0
"""Start the loader child, wait for its hand-over, and say in words what went wrong.

Written so that a failure of any kind ends within the deadline: the child holds the only
other end of the channel, so its death is the end of the stream.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tracer.errors import MORE_FILES, HostError, UsageError
from tracer.kernel import handoff, hooks, lockdown

__all__ = ("Loader", "bpf_dir", "check_mounted", "not_mounted", "python_candidates")

DEADLINE_S = 60.0  # an emulated guest takes 10 s; a healthy host 0.4 s
_EXIT_S = 5.0  # from the end of its channel to the end of the child: some milliseconds
_LOADER = Path(__file__).with_name("load.py")
_INSTALL_BCC = (
    "install the distribution's package: apt install python3-bpfcc (Debian, Ubuntu), "
    "dnf install python3-bcc (Fedora, RHEL), pacman -S python-bcc (Arch)"
)
_REMEDIES = {
    "privilege": "run it as root (sudo fourwave …), or with CAP_BPF and CAP_PERFMON",
    "bcc_missing": _INSTALL_BCC,
    "bcc_wrong": "that is the unrelated package named bcc on PyPI: pip uninstall bcc, then "
    + _INSTALL_BCC,
    "btf": "this needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (every current distribution's "
    "kernel is) and /sys mounted",
    "btf_too_new": "the distribution's BCC is older than this kernel: install a newer one "
    "(python3-bpfcc 0.24 and later know the types of current kernels)",
    "compile": "please report it with the lines above, the kernel's release and BCC's version",
    "load": "please report it with the lines above, the kernel's release and BCC's version",
}
_EPERM = (
    "the kernel refuses BPF tracing here: check that the process is root in the host's own user "
    "namespace (containers need CAP_BPF and CAP_PERFMON), and kernel lockdown: "
    "cat /sys/kernel/security/lockdown must not say [confidentiality]"
)
_BY_ERRNO = {
    errno.EPERM: _EPERM,
    errno.EACCES: _EPERM,
    errno.EMFILE: MORE_FILES,
    errno.ENFILE: MORE_FILES,
}
_SLOW = "on a slow host give it more seconds: FOURWAVE_LOADER_TIMEOUT_S=300"
_FOREIGN = (
    "check FOURWAVE_BCC_PYTHON: it must name the distribution's own python3; unset, it is looked "
    "for; please report what remains, with the lines above"
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the loader handed over; the receiver owns the descriptors."""

    manifest: dict[str, Any]
    fds: dict[str, int]


class Loader:
    """One loader child under way. Start it early: it works while the caller imports."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Raises HostError when no child can be started, UsageError for senseless settings."""
        check_mounted()
        hooks.highest_allowed()
        self._options = {**options, "bpf_dir": str(bpf_dir())}
        self._deadline_s = _deadline_s()
        self._candidates = python_candidates()
        self._stack = ExitStack()
        if not self._candidates:
            raise HostError(f"no python3 was found that could have BCC; {_INSTALL_BCC}")
        self._spawn(self._candidates.pop(0))

    def wait(self) -> Loaded:
        """Return what was handed over. Raises HostError with the cause and the remedy."""
        refusals: list[str] = []
        with self._stack:
            while True:
                manifest, fds = self._result()
                error = manifest.get("error")
                if error is None:
                    return Loaded({**manifest, "python_path": self._python}, fds)
                retry = error["stage"] in ("bcc_missing", "bcc_wrong") and self._candidates
                if not retry:
                    raise HostError(self._explain(error, refusals))
                refusals.append(f"{self._python}: {error['message']}")
                self._stack.close()
                self._spawn(self._candidates.pop(0))

    def _spawn(self, python: str) -> None:
        self._python = python
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = self._stack.enter_context(ours)
        self._channel.settimeout(self._deadline_s)
        output = os.fdopen(os.memfd_create("loader-output"), "w+b")
        self._output: IO[bytes] = self._stack.enter_context(output)
        with theirs:
            self._child = self._start(theirs.fileno())
        self._stack.callback(self._reap)

    def _start(self, channel_fd: int) -> subprocess.Popen[bytes]:
        arguments = [str(channel_fd), json.dumps(self._options)]
        try:
            return subprocess.Popen(
                [self._python, "-I", str(_LOADER), *arguments],
                pass_fds=[channel_fd],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                process_group=0,  # to end it with whatever a wrapper script has started
            )
        except OSError as error:
            self._stack.close()
            text = f"cannot run {self._python}: {error.strerror} (errno {error.errno})"
            raise HostError(f"{text}\n  what to do: {_FOREIGN}") from error

    # Until the leader is waited for, the number of its group is nobody else's.
    def _reap(self) -> None:
        if self._child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def _result(self) -> tuple[dict[str, Any], dict[str, int]]:
        try:
            result = handoff.receive(self._channel)
        except TimeoutError:
            how = f"did not finish within {self._deadline_s:g} s; it was stopped"
            raise HostError(self._explain_end(how, _SLOW)) from None
        except OSError as error:
            raise HostError(f"hand-over failed: {error.strerror} (errno {error.errno})") from error
        except ValueError as error:
            raise HostError(self._explain_end(f"sent {error}", _FOREIGN)) from error
        if result is None:
            raise HostError(self._explain_death())
        return result

    # The channel ends when the child closes it, which need not be its death.
    def _explain_death(self) -> str:
        try:
            code = self._child.wait(timeout=min(_EXIT_S, self._deadline_s))
        except subprocess.TimeoutExpired:
            return self._explain_end("fell silent and was stopped", _FOREIGN)
        if code >= 0:
            return self._explain_end(f"exited with {code}", _FOREIGN)
        name = next((one.name for one in signal.Signals if one == -code), f"signal {-code}")
        remedy = "free memory, and see dmesg" if code == -signal.SIGKILL else _FOREIGN
        return self._explain_end(f"was killed by {name}", remedy)

    def _explain_end(self, how: str, remedy: str) -> str:
        text = f"the loader ({self._python}) {how}; nothing stays attached{self._tail()}"
        return f"{text}\n  what to do: {remedy}"

    def _explain(self, error: dict[str, Any], refusals: list[str]) -> str:
        stage, code = error["stage"], error["errno"]
        number = f" (errno {code})" if code else ""
        locked = stage == "load" and lockdown.mode() == lockdown.CONFIDENTIALITY
        cause = _LOCKED if locked else _STAGES[stage]
        what = f"{cause}: {error['message']}{number} [{self._python}]"
        if locked:  # the verifier says EINVAL of the helper that is taken away: its log is no help
            return f"{what}\n  what to do: {lockdown.REMEDY}"
        tried = f"\n  also tried {'; '.join(refusals)}" if refusals else ""
        detail = f"\n{error['detail']}" if error["detail"] else ""
        remedy = _refused(code) if stage == "load" else _REMEDIES[stage]
        output = self._tail() if stage in ("compile", "load") else ""
        return f"{what}{tried}{detail}{output}\n  what to do: {remedy}"

    # The last lines the child wrote: clang's errors, BCC's complaints, a traceback.
    def _tail(self) -> str:
        self._output.seek(0)
        lines = self._output.read(64 * 1024).decode(errors="backslashreplace").strip().splitlines()
        first_error = next((i for i, line in enumerate(lines) if " error:" in line), len(lines) - 8)
        shown = lines[max(first_error, 0) :][:8]
        return "".join(f"\n  | {line[:200]}" for line in shown)


_STAGES = {
    "privilege": "cannot attach",
    "bcc_missing": "BCC's Python module was not found",
    "bcc_wrong": "the module named bcc is the wrong one",
    "btf": "the kernel's type information (BTF) cannot be used",
    "btf_too_new": "BCC is too old for this kernel",
    "compile": f"the BPF programs did not compile on {platform.release()}",
    "load": f"the kernel {platform.release()} refused a BPF program",
}
_LOCKED = "the kernel is locked down (confidentiality), no BPF program may read its memory"


def _refused(code: int) -> str:
    return _BY_ERRNO.get(code, _REMEDIES["load"])


def check_mounted() -> None:
    """Raise HostError when a file system is missing that is needed."""
    if absent := not_mounted():
        raise HostError(f"{absent[0]} is not mounted\n  what to do: {absent[1]}")


def not_mounted() -> tuple[str, str] | None:
    """Return a file system that is needed and not there, as in a bare chroot, and the remedy."""
    for folder, inside, kind in (("/proc", "self", "proc"), ("/sys", "kernel", "sysfs")):
        if not Path(folder, inside).exists():
            return folder, f"mount -t {kind} {kind} {folder}"
    return None


def python_candidates() -> list[str]:
    """Return the interpreters that may have the distribution's BCC, likeliest first.

    The environment variable FOURWAVE_BCC_PYTHON names the only one to try.
    """
    chosen = os.environ.get("FOURWAVE_BCC_PYTHON")
    if chosen:
        return [chosen]
    names = ["python3", *(f"python3.{minor}" for minor in range(15, 8, -1))]
    found = [f"/usr/bin/{name}" for name in names if os.access(f"/usr/bin/{name}", os.X_OK)]
    on_path = shutil.which("python3")
    everything = [*found, *([on_path] if on_path else [])]
    unique: dict[str, str] = {}
    for path in everything:
        unique.setdefault(os.path.realpath(path), path)
    return list(unique.values())


def _deadline_s() -> float:
    text = os.environ.get("FOURWAVE_LOADER_TIMEOUT_S") or str(DEADLINE_S)
    with suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise UsageError(f"FOURWAVE_LOADER_TIMEOUT_S={text}: a number of seconds above 0 is needed")


def bpf_dir() -> Path:
    """Return the folder of the C sources: beside the package, or inside an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_bpf", package.parent / "bpf"):
        if (folder / "teardown.bpf.c").exists():
            return folder
    raise HostError(f"the BPF sources are missing from {package}: the installation is incomplete")
