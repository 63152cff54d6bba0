# SPDX-License-Identifier: Apache-2.0
"""The tracer's end of the web process: start it, feed it, start it again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Self

from tracer.errors import FourwaveError, HostError, UsageError
from tracer.runs import tell
from tracer.serve_resident import search_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracer.privileges import Account

READY_S: Final = 30.0
END_S: Final = 5.0
GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED)
"""The web process has ended: the next samples start it again."""
RESTART_S: Final = 5.0
MESSAGE_BYTES: Final = 1 << 20
BACKLOG: Final = 512
SAME: Final = b"same"
"""In place of samples: they are as they were."""


class Listening:
    """Bound sockets; a port below 1024 may need privilege that is gone later."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        """Own these."""
        self.sockets = sockets

    @property
    def names(self) -> list[str]:
        """Return the addresses, with the ports the kernel chose."""
        return [_name(*made.getsockname()[:2]) for made in self.sockets]

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self.close()

    def close(self) -> None:
        """Close them, in this process."""
        for made in self.sockets:
            made.close()


def listen(addresses: Iterable[tuple[str, int]]) -> Listening:
    """Return sockets that listen there. Raises FourwaveError: in use, or not an address here."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(_bound(*where, _name(host, port)))
            for host, port in addresses
            for where in _resolve(host, port)
        ]
        stack.pop_all()
    return Listening(sockets)


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    flags = socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise UsageError(f"cannot listen at {_name(host, port)}: {error.strerror}") from error
    return list(dict.fromkeys((family, address) for family, *_, address in found))


def _bound(family: socket.AddressFamily, address: Any, name: str) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        why = f"{os.strerror(error.errno or 0)} (errno {error.errno})"
        remedy = "stop what listens there (ss -ltnp), or choose another with --listen"
        raise FourwaveError(f"cannot listen at {name}: {why}\n  what to do: {remedy}") from error
    return made


def _name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Web:
    """The web process. When it ends by itself it is started again, as the user we are by then."""

    def __init__(
        self, listening: Listening, config_path: str | None, account: Account | None
    ) -> None:
        """Start it; it reads its files while it is still who we are now."""
        self._fds = [made.fileno() for made in listening.sockets]
        self._config_path = config_path
        self._account = account
        self._started_s = 0.0
        self._last = SAME
        self._start()

    def wait_ready(self) -> None:
        """Wait until it accepts connections. Raises what went wrong there."""
        self._channel.settimeout(READY_S)
        try:
            answer = json.loads(self._channel.recv(MESSAGE_BYTES) or b"{}")
        except TimeoutError:
            answer = {}
        self._channel.setblocking(False)
        if "ready" in answer:
            return
        for kind in (UsageError, HostError):
            if answer.get("exit_code") == kind.exit_code:
                raise kind(answer["message"])
        raise FourwaveError(answer.get("message") or "the web process ended before it was ready")

    def show(self, samples: bytes) -> None:
        """Give it new samples; one that is too busy to take them gets the next ones."""
        self._last = samples
        self._revive()
        self._send(samples)

    def show_again(self) -> None:
        """Say that the last ones are still true; a new process gets them whole."""
        self._send(self._last if self._revive() else SAME)

    def _send(self, samples: bytes) -> None:
        try:
            self._channel.send(samples)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in GONE:
                tell(f"samples of {len(samples)} bytes not handed over: {error.strerror}")

    def warn(self) -> None:
        """Tell who could not be started again because the user we are by now cannot read it."""
        needed = (sys.executable, os.__file__, __file__)
        hidden = next((path for path in needed if not os.access(path, os.R_OK)), None)
        if hidden is not None:
            tell(
                f"should the web process ever end, this one will end with 1: uid {os.geteuid()} "
                f"cannot read {hidden}; install fourwave where every user can, as with "
                "pipx install --global"
            )

    def reload(self) -> None:
        """Let it read its configuration again."""
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGHUP)

    def forget(self) -> None:
        """Let go of the channel in a process that is not the tracer."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._channel.close()
        try:
            self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    # Says whether it had to be started again.
    def _revive(self) -> bool:
        if self._child.poll() is None or time.monotonic() - self._started_s < RESTART_S:
            return False
        tell(f"the web process ended with {self._child.returncode}; starting it again")
        self._channel.close()
        self._account = None  # we are that user by now
        try:
            self._start()
        except OSError as error:
            raise FourwaveError(
                f"the web process cannot be started again: {error.strerror} (errno {error.errno}); "
                "install fourwave where its user can read it"
            ) from error
        return True

    def _start(self) -> None:
        self._started_s = time.monotonic()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        ours.setblocking(False)
        account = self._account
        options = {
            "channel": theirs.fileno(),
            "sockets": self._fds,
            "config": self._config_path,
            "account": [account.name, account.uid, account.gid] if account else None,
        }
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "tracer.web", json.dumps(options)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[*self._fds, theirs.fileno()],
                env={**os.environ, "PYTHONPATH": search_path(), "NOTIFY_SOCKET": ""},
            )
        self._channel = ours
