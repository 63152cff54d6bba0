# SPDX-License-Identifier: Apache-2.0
"""The web configuration file of Prometheus' exporter-toolkit, for TLS, clients and passwords.

Format: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md.
What cannot be done as it says there is refused, never ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracer.errors import UsageError
from tracer.web.checks import keys, texts
from tracer.web.tls import make_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

SECTIONS: Final = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
HEADERS: Final = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
)
BCRYPT: Final = re.compile(r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")
UNITS_S: Final = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket that holds `burst` requests and gets one back every `interval_s`."""

    interval_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file asks for; without a file, nothing."""

    tls: ssl.SSLContext | None = None
    allowed_sans: frozenset[str] = frozenset()
    users: Mapping[str, bytes] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate: RateLimit | None = None


def read(path: str | None) -> WebConfig:
    """Return what the file says. Raises UsageError with the file, the key and what is wrong."""
    if path is None:
        return WebConfig()
    import yaml  # noqa: PLC0415 - a megabyte that few need

    try:
        content = yaml.safe_load(Path(path).read_bytes()) or {}
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror} (errno {error.errno})") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    try:
        return _config(content, Path(path).parent)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def _config(content: Any, folder: Path) -> WebConfig:
    sections = keys(content, SECTIONS, "the file")
    tls = sections.get("tls_server_config")
    context, sans = make_context(tls, folder) if tls else (None, frozenset[str]())
    http = keys(
        sections.get("http_server_config") or {}, ("http2", "headers"), "http_server_config"
    )
    return WebConfig(
        context,
        sans,
        _users(sections.get("basic_auth_users") or {}),
        texts(http.get("headers") or {}, HEADERS, "http_server_config.headers"),
        _rate(sections.get("rate_limit") or {}),
    )


def _users(content: Any) -> dict[str, bytes]:
    if not isinstance(content, dict):
        raise ValueError(  # noqa: TRY004
            "basic_auth_users: names and their bcrypt hashes are needed"
        )
    for name, hashed in content.items():
        if not isinstance(name, str) or not isinstance(hashed, str) or not BCRYPT.fullmatch(hashed):
            what = f"basic_auth_users.{name}: not a bcrypt hash"
            raise ValueError(f"{what}; make one with: htpasswd -nBC 10 {name}")
    return {name: hashed.encode() for name, hashed in content.items()}


def _rate(content: Any) -> RateLimit | None:
    limit = keys(content, ("interval", "burst"), "rate_limit")
    interval_s = _seconds(limit.get("interval", "0s"))
    burst = limit.get("burst", 1)
    if not isinstance(burst, int) or isinstance(burst, bool) or burst < 1:
        raise ValueError(f"rate_limit.burst: a count of at least 1 is needed, not {burst!r}")
    return RateLimit(interval_s, burst) if interval_s else None


def _seconds(text: Any) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", str(text))
    if match is None:
        if text in (0, "0"):
            return 0
        raise ValueError(f"rate_limit.interval: a time like 1s or 500ms is needed, not {text!r}")
    return float(match[1]) * UNITS_S[match[2]]
