# SPDX-License-Identifier: Apache-2.0
"""The web process: read the configuration, give up privilege, then answer.

Usage: python -m tracer.web OPTIONS_JSON. It inherits a channel to the tracer and the listening
sockets. Samples come in on the channel, one message each; it answers `ready` once, or an error
{message, exit_code}. The end of the channel is the end of this process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

from tracer import confinement, confinement_syscalls, memory, privileges, samples
from tracer.errors import FourwaveError, UsageError, WireError
from tracer.web import config
from tracer.web.server import Site, listen, make_server

MESSAGE_MAX: Final = 1 << 20
LOG: Final = logging.getLogger("fourwave")


def main(options: dict[str, Any]) -> int:
    """Serve until the tracer ends; return the exit status."""
    logging.basicConfig(format="fourwave web: %(message)s", level=logging.WARNING)
    memory.keep_little()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is the tracer's to answer
    with socket.socket(fileno=options["channel"]) as channel:
        try:
            chosen = config.read(options["config"])
            confinement.version()  # loads what confine() needs; later it may be out of reach
            account = options["account"]
            privileges.drop(privileges.Account(*account) if account else None)
        except FourwaveError as error:
            report = {"message": str(error), "exit_code": error.exit_code}
            channel.send(json.dumps(report).encode())
            return error.exit_code
        memory.settle()
        # Certificates may be anywhere, and a renewed one somewhere else.
        readable = {Path("/")} if options["config"] else confinement.own_code()
        failures = {  # in this order: a library is out of reach then
            "seccomp": confinement_syscalls.confine(),
            "Landlock": confinement.confine(readable),
        }
        for failure in filter(None, failures.values()):
            LOG.warning("not confined: %s", failure)
        asyncio.run(serve(options, Site(chosen, failures), channel))
    return 0


async def serve(options: dict[str, Any], site: Site, channel: socket.socket) -> None:
    """Answer until the channel ends."""
    server = make_server(site)
    ended = asyncio.Event()

    def reload() -> None:
        try:
            site.configure(config.read(options["config"]))
        except UsageError as error:
            LOG.warning("reload refused, going on as before: %s", error)
            return
        server.ssl_options = site.config.tls
        LOG.warning("reloaded %s", options["config"] or "nothing: no --web-config-file")

    def receive() -> None:
        message = channel.recv(MESSAGE_MAX)
        if not message:
            ended.set()
            return
        if message == b"same":
            site.touch()
            return
        try:
            site.show(samples.from_json(message))
        except WireError as error:
            LOG.warning("%s", error)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGTERM, lambda: None)  # the tracer's end is ours
    channel.setblocking(False)
    loop.add_reader(channel, receive)
    listen(server, [_listening(fd) for fd in options["sockets"]])
    channel.send(b'{"ready": true}')
    await ended.wait()
    server.stop()


def _listening(fd: int) -> socket.socket:
    made = socket.socket(fileno=fd)
    made.setblocking(False)
    return made


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
