# SPDX-License-Identifier: Apache-2.0
"""The web configuration file: what it may say, and that nothing else is taken in silence."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from base64 import b64encode
from typing import TYPE_CHECKING

import bcrypt
import pytest

from tracer.errors import UsageError
from tracer.web.auth import Passwords
from tracer.web.config import RateLimit, read
from tracer.web.server import Bucket

if TYPE_CHECKING:
    from pathlib import Path

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
TLS = "tls_server_config:\n  cert_file: c.pem\n  key_file: k.pem\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a certificate and its key."""
    made = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=x"
    subprocess.run(
        ["openssl", *words.split(), "-keyout", "k.pem", "-out", "c.pem"],
        cwd=made,
        check=True,
        capture_output=True,
    )
    return made


def written(folder: Path, text: str) -> str:
    (folder / "web.yml").write_text(text)
    return str(folder / "web.yml")


def test_no_file_asks_for_nothing() -> None:
    config = read(None)
    assert (config.tls, config.users, config.rate) == (None, {}, None)


def test_an_empty_file_asks_for_nothing(folder: Path) -> None:
    assert read(written(folder, "")).tls is None


def test_everything_at_once(folder: Path) -> None:
    text = f"""
tls_server_config:
  cert_file: c.pem
  key_file: k.pem
  client_ca_file: c.pem
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [prometheus]
  min_version: TLS13
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
  curve_preferences: [CurveP256]
http_server_config:
  http2: true
  headers: {{X-Frame-Options: deny}}
basic_auth_users: {{alice: {HASH}}}
rate_limit: {{interval: 100ms, burst: 5}}
"""
    config = read(written(folder, text))
    assert config.tls is not None
    assert config.tls.verify_mode is ssl.CERT_REQUIRED
    assert config.tls.minimum_version is ssl.TLSVersion.TLSv1_3
    assert config.allowed_sans == {"prometheus"}
    assert config.users == {"alice": HASH.encode()}
    assert config.headers == {"X-Frame-Options": "deny"}
    assert config.rate == RateLimit(0.1, 5)


def test_certificate_and_key_may_be_in_the_file(folder: Path) -> None:
    parts = {name: (folder / f"{name[0]}.pem").read_text() for name in ("cert", "key")}
    lines = ["tls_server_config:"]
    for name, pem in parts.items():
        lines += [f"  {name}: |", *(f"    {line}" for line in pem.splitlines())]
    assert read(written(folder, "\n".join(lines))).tls is not None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "not YAML"),
        ("- a", "keys and values"),
        ("tls_config: {}", "'tls_config' is not known"),
        ("tls_server_config: {cert_file: c.pem}", "a certificate and its key"),
        ("tls_server_config: {cert_file: no.pem, key_file: k.pem}", "cert_file: "),
        ("tls_server_config: {cert_file: k.pem, key_file: k.pem}", "certificate or key"),
        (TLS + "  min_version: TLS9", "min_version"),
        (TLS + "  client_auth_type: RequireAnyClientCert", "anybody's certificate"),
        (TLS + "  client_auth_type: RequireAndVerifyClientCert", "client_ca_file"),
        (TLS + "  client_ca_file: c.pem", "client_auth_type"),
        (TLS + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]", "not known or not secure"),
        (TLS + "  curve_preferences: [CurveP256, X25519]", "one of"),
        (TLS + "  passwords: x", "'passwords' is not known"),
        (TLS + "  cert: x", "exclude each other"),
        ("basic_auth_users: {alice: secret}", "basic_auth_users.alice: not a bcrypt hash"),
        ("basic_auth_users: [alice]", "basic_auth_users"),
        ("http_server_config: {headers: {X-Powered-By: us}}", "'X-Powered-By' is not known"),
        ('http_server_config: {headers: {X-Frame-Options: "a\\r\\nb"}}', "X-Frame-Options"),
        ("rate_limit: {interval: soon}", "rate_limit.interval"),
        ("rate_limit: {interval: 1s, burst: 0}", "rate_limit.burst"),
    ],
)
def test_what_is_wrong_is_told(folder: Path, text: str, told: str) -> None:
    path = written(folder, text)
    with pytest.raises(UsageError) as error:
        read(path)
    assert told in str(error.value)
    assert str(error.value).startswith(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read(str(tmp_path / "none.yml"))


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def allowed(*headers: str | None) -> list[bool]:
    async def ask() -> list[bool]:
        passwords = Passwords({"alice": HASH.encode()})
        answers = [await passwords.allow(header) for header in headers]
        passwords.close()
        return answers

    return asyncio.run(ask())


def test_only_the_right_password_opens() -> None:
    headers = (
        basic("alice", "secret"),
        basic("alice", "secret"),
        basic("alice", "Secret"),
        basic("bob", "secret"),
        basic("alice", "secret\0"),
        basic("alice", "secret" * 20),
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic " + b64encode(b"alice").decode(),
        "Basic " + b64encode(b"\xff:secret").decode(),
        "Bearer secret",
    )
    assert allowed(*headers) == [True, True, *[False] * 11]


def test_without_users_everybody_may() -> None:
    assert asyncio.run(Passwords({}).allow(None))


def test_a_burst_and_then_no_more() -> None:
    bucket = Bucket(RateLimit(3600, 3))
    assert [bucket.take() for _ in range(5)] == [True, True, True, False, False]
    assert all(Bucket(None).take() for _ in range(100))
