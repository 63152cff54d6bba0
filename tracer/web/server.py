# SPDX-License-Identifier: Apache-2.0
"""Answers HTTP from the last samples; never waits for the tracer.

Tornado: one thread however many clients, no thread for a slow one, TLS with client certificates
by Python's ssl, a deadline for a request's head, and no dependencies of its own.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from tracer.outputs.exporter import expose
from tracer.web.auth import Passwords
from tracer.web.page import as_html

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping

    from tornado.iostream import IOStream

    from tracer.outputs.exporter import Exposition
    from tracer.samples import Samples
    from tracer.web.config import RateLimit, WebConfig

HEAD_S: Final = 20.0
"""For a TLS handshake and a request's head; also how long an idle connection is kept."""
SEND_S: Final = 30.0
HEAD_MAX_BYTES: Final = 16 << 10
BODY_MAX_BYTES: Final = 0
CONNECTIONS_MAX: Final = 512
STALE_S: Final = 15.0
"""Samples come every second; older ones mean that the tracer hangs."""
GZIP_LEVEL: Final = 1

HEADERS: Final = {
    "Server": "fourwave",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}


class Bucket:
    """Lets through what a RateLimit allows."""

    def __init__(self, limit: RateLimit | None) -> None:
        """Begin with a full one; without a limit it never empties."""
        self._limit = limit
        self._tokens = float(limit.burst) if limit else 0.0
        self._at_s = time.monotonic()

    def take(self) -> bool:
        """Say whether one more request may be answered."""
        if self._limit is None:
            return True
        now_s = time.monotonic()
        gained = (now_s - self._at_s) / self._limit.interval_s
        self._tokens, self._at_s = min(self._limit.burst, self._tokens + gained), now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Site:
    """What all requests share: the samples, their rendered forms, and who may see them."""

    def __init__(self, config: WebConfig, confinement: Mapping[str, str | None]) -> None:
        """Begin without samples: not ready.

        `confinement`: what keeps this process from doing more, each with why it does not.
        """
        self._confinement = confinement
        self._samples: Samples | None = None
        self._came_s = 0.0
        self._rendered: dict[tuple[str, bool], Exposition] = {}
        self.configure(config)

    def configure(self, config: WebConfig) -> None:
        """Take a configuration in place of the one before."""
        self.config = config
        self.passwords = Passwords(config.users)
        self.bucket = Bucket(config.rate)

    def show(self, samples: Samples) -> None:
        """Answer with these from now on."""
        self._samples = samples
        self.touch()
        self._rendered.clear()

    def touch(self) -> None:
        """Take what is shown for still true."""
        self._came_s = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether there are samples, and not from long ago."""
        return self._samples is not None and time.monotonic() - self._came_s < STALE_S

    def metrics(self, accept: str, zipped: bool) -> Exposition | None:
        """Return the exposition; every form is made once for each set of samples."""
        if self._samples is None or not self.ready:
            return None
        # A handful of formats exist; a client that makes up more gets them, unremembered.
        key = accept, zipped
        if key not in self._rendered:
            made = expose(self._samples, accept)
            if zipped:
                made = made._replace(text=gzip.compress(made.text, GZIP_LEVEL))
            if len(self._rendered) >= 8:
                return made
            self._rendered[key] = made
        return self._rendered[key]

    def page(self) -> bytes:
        """Return the landing page."""
        return as_html(self._samples if self.ready else None, self._confinement)


class Handler(RequestHandler):
    """Lets in whom the configuration allows; sends within a deadline."""

    site: Site

    def initialize(self, site: Site) -> None:
        """Take what is shared; Tornado calls this."""
        self.site = site

    def set_default_headers(self) -> None:
        """Set what every answer carries."""
        for name, value in HEADERS.items():
            self.set_header(name, value)

    async def prepare(self) -> None:
        """Turn away who may not see anything."""
        for name, value in self.site.config.headers.items():
            self.set_header(name, value)
        if not self.site.bucket.take():
            await self.answer("too many requests\n", status=429)
        elif not self._name_fits():
            await self.answer("the client's certificate has none of the names asked for\n", 403)
        elif not await self.site.passwords.allow(self.request.headers.get("Authorization")):
            self.set_header("WWW-Authenticate", 'Basic realm="fourwave"')
            await self.answer("Unauthorized\n", status=401)

    def _name_fits(self) -> bool:
        wanted = self.site.config.allowed_sans
        if not wanted:
            return True
        certificate: Any = self.request.get_ssl_certificate() or {}
        return any(name in wanted for _, name in certificate.get("subjectAltName", ()))

    async def answer(
        self, body: str | bytes, status: int = 200, content_type: str = "text/plain; charset=utf-8"
    ) -> None:
        """Send all of it, or close the connection to who does not take it in time."""
        self.set_status(status)
        self.set_header("Content-Type", content_type)
        try:
            async with asyncio.timeout(SEND_S):
                await self.finish(body)
        except TimeoutError:
            self.detach().close()

    def write_error(self, status_code: int, **_: Any) -> None:
        """Send the status alone: no traceback, no page."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {self._reason}\n")


class Metrics(Handler):
    """/metrics."""

    async def get(self) -> None:
        """Send the exposition, compressed for who takes that."""
        zipped = "gzip" in self.request.headers.get("Accept-Encoding", "")
        made = self.site.metrics(self.request.headers.get("Accept", "")[:1024], zipped)
        self.set_header("Vary", "Accept, Accept-Encoding")
        if made is None:
            await self.answer("the tracer does not answer\n", status=503)
            return
        if zipped:
            self.set_header("Content-Encoding", "gzip")
        await self.answer(made.text, content_type=made.content_type)

    head = get


class Page(Handler):
    """/, for people."""

    async def get(self) -> None:
        """Send the landing page."""
        await self.answer(self.site.page(), content_type="text/html; charset=utf-8")

    head = get


class Healthy(Handler):
    """/-/healthy: this process answers."""

    async def get(self) -> None:
        """Send OK."""
        await self.answer("OK\n")

    head = get


class Ready(Handler):
    """/-/ready: the tracer is attached and tells."""

    async def get(self) -> None:
        """Send OK, or 503."""
        ready = self.site.ready
        await self.answer("OK\n" if ready else "no samples\n", status=200 if ready else 503)

    head = get


class Nothing(Handler):
    """Any other path."""

    async def get(self) -> None:
        """Send 404."""
        await self.answer("404: there are /, /metrics, /-/healthy and /-/ready\n", status=404)

    head = get


class Server(HTTPServer):
    """Keeps so many connections; beyond that the oldest makes room for the newest."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Begin with no connection; Tornado calls this."""
        super().initialize(*args, **kwargs)
        self._streams: list[IOStream] = []

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Take a new connection."""
        if len(self._streams) >= CONNECTIONS_MAX:
            self._streams = [one for one in self._streams if not one.closed()]
        if len(self._streams) >= CONNECTIONS_MAX:
            self._streams.pop(0).close()
        self._streams.append(stream)
        super().handle_stream(stream, address)


def make_server(site: Site) -> Server:
    """Return the server of this site; it listens nowhere yet."""
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    routes = [("/", Page), ("/metrics", Metrics), ("/-/healthy", Healthy), ("/-/ready", Ready)]
    application = Application(
        [(path, handler, {"site": site}) for path, handler in (*routes, (".*", Nothing))]
    )
    return Server(
        application,
        ssl_options=site.config.tls,
        idle_connection_timeout=HEAD_S,
        body_timeout=HEAD_S,
        max_header_size=HEAD_MAX_BYTES,
        max_body_size=BODY_MAX_BYTES,
    )


def listen(server: Server, sockets: Iterable[socket.socket]) -> None:
    """Accept connections from these sockets; needs a running loop."""
    server.add_sockets(sockets)
