# SPDX-License-Identifier: Apache-2.0
"""tls_server_config of a web configuration file as an ssl.SSLContext.

Names of versions, suites and curves are those of Go's crypto/tls, as in the file's definition.
"""

from __future__ import annotations

import os
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tracer.web.checks import keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS: Final = (
    "cert",
    "key",
    "client_ca",
    "cert_file",
    "key_file",
    "client_ca_file",
    "client_auth_type",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)
CLIENTS: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
# They take any certificate for a good one.
UNVERIFIED: Final = ("RequestClientCert", "RequireAnyClientCert")
VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
CURVES: Final = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
# Those of TLS 1.3 are not to choose from, in Go neither.
ALWAYS: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")


def make_context(section: Any, folder: Path) -> tuple[ssl.SSLContext, frozenset[str]]:
    """Return the context, and the subject alternative names of which a client must have one.

    Files are relative to `folder`. Raises ValueError with the key and what is wrong.
    """
    section = keys(section, KEYS, "tls_server_config")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.minimum_version = VERSIONS[_choice(section, "min_version", VERSIONS, "TLS12")]
    context.maximum_version = VERSIONS[_choice(section, "max_version", VERSIONS, "TLS13")]
    _load_certificate(context, section, folder)
    sans = _load_clients(context, section, folder)
    _choose_ciphers(context, section)
    return context, sans


def _load_certificate(context: ssl.SSLContext, section: dict[str, Any], folder: Path) -> None:
    with _pem(section, "cert", folder) as cert, _pem(section, "key", folder) as key:
        if cert is None or key is None:
            raise ValueError("tls_server_config: a certificate and its key are needed")
        try:
            # Nobody is there to type a pass phrase.
            context.load_cert_chain(cert, key, password=b"")
        except (OSError, ValueError) as error:
            raise ValueError(f"tls_server_config: certificate or key: {_why(error)}") from error


def _load_clients(context: ssl.SSLContext, section: dict[str, Any], folder: Path) -> frozenset[str]:
    kind = section.get("client_auth_type")
    if kind in UNVERIFIED:
        raise ValueError(
            f"tls_server_config.client_auth_type: {kind} accepts anybody's certificate and is not "
            "supported; use RequireAndVerifyClientCert"
        )
    verify = CLIENTS[_choice(section, "client_auth_type", CLIENTS, "NoClientCert")]
    sans = _names(section, "client_allowed_sans")
    with _pem(section, "client_ca", folder) as authority:
        if (authority is None) != (verify is ssl.CERT_NONE) or (sans and authority is None):
            raise ValueError(
                "tls_server_config: client_ca_file and a client_auth_type that verifies go together"
            )
        if authority is not None:
            try:
                context.load_verify_locations(authority)
            except (OSError, ValueError) as error:
                raise ValueError(f"tls_server_config.client_ca: {_why(error)}") from error
    context.verify_mode = verify
    return frozenset(sans)


def _choose_ciphers(context: ssl.SSLContext, section: dict[str, Any]) -> None:
    wanted = [name for name in _names(section, "cipher_suites") if name not in ALWAYS]
    for name in wanted:
        if name not in SUITES:
            raise ValueError(f"tls_server_config.cipher_suites: {name} is not known or not secure")
    if wanted:
        context.set_ciphers(":".join(SUITES[name] for name in wanted))
    if section.get("prefer_server_cipher_suites", True):
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    curves = _names(section, "curve_preferences")
    if len(curves) > 1 or not set(curves) <= set(CURVES):
        raise ValueError(f"tls_server_config.curve_preferences: one of {', '.join(CURVES)}")
    for name in curves:
        context.set_ecdh_curve(CURVES[name])


def _choice(section: dict[str, Any], key: str, known: dict[str, Any], default: str) -> str:
    value = section.get(key) or default
    if value not in known:
        raise ValueError(f"tls_server_config.{key}: {value!r} is none of {', '.join(known)}")
    return str(value)


def _names(section: dict[str, Any], key: str) -> list[str]:
    values = section.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"tls_server_config.{key}: a list of names is needed, not {values!r}")
    return values


# What the file holds itself goes through memory: OpenSSL wants a path.
@contextmanager
def _pem(section: dict[str, Any], key: str, folder: Path) -> Iterator[str | None]:
    inline, name = section.get(key), section.get(f"{key}_file")
    if inline and name:
        raise ValueError(f"tls_server_config: {key} and {key}_file exclude each other")
    for value in filter(None, (inline, name)):
        if not isinstance(value, str):
            raise ValueError(  # noqa: TRY004
                f"tls_server_config.{key}: a text is needed, not {value!r}"
            )
    if not inline:
        yield _readable(folder / name, f"{key}_file") if name else None
        return
    fd = os.memfd_create(key, os.MFD_CLOEXEC)
    try:
        os.write(fd, inline.encode())
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


# OpenSSL does not say which file it was.
def _readable(path: Path, key: str) -> str:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"tls_server_config.{key}: {path}: {_why(error)}") from error
    return str(path)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) or not isinstance(error, OSError):
        return str(error)
    return f"{error.strerror} (errno {error.errno})"
