# SPDX-License-Identifier: Apache-2.0
"""The HTTP side: who may see it, who cannot stop it."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import bcrypt
import pytest

from tests.serve.served import Served, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

SCRAPES = 200
LORISES = 600
SCRAPE_MAX_S = 0.020


def test_the_landing_page_tells_a_person(served: Served) -> None:
    page = served.get("/")[0].decode()
    for words in ("<h1>fourwave", "Closes", "Hooks", "tp_btf", 'href="metrics"', "close_wait_leak"):
        assert words in page


def test_health_and_readiness(served: Served) -> None:
    assert served.get("/-/healthy")[0] == served.get("/-/ready")[0] == b"OK\n"


@pytest.mark.parametrize("path", ["/x", "/metrics/", "/..%2f..%2fetc/passwd"])
def test_there_is_nothing_else(served: Served, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        served.get(path)
    with error.value as answer:
        assert answer.code == 404


def test_only_reading_is_allowed(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.request("POST", "/metrics", body=b"x")
    assert connection.getresponse().status in {400, 405, 413}
    connection.close()
    assert served.get("/-/healthy")


def scrape(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with closing(connection):
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        answer.read()
        return answer.status


def test_two_hundred_scrapes_at_once(served: Served) -> None:
    with ThreadPoolExecutor(SCRAPES) as pool:
        assert list(pool.map(scrape, [served.port] * SCRAPES)) == [200] * SCRAPES


def test_a_scrape_is_quick(served: Served) -> None:
    """The best of ten, each by a new connection: the host may be busy with something else."""
    took = []
    for _ in range(10):
        began = time.perf_counter()
        scrape(served.port)
        took.append(time.perf_counter() - began)
        time.sleep(0.15)
    assert min(took) < SCRAPE_MAX_S


def test_slow_clients_keep_nobody_out(served: Served) -> None:
    """More connections than are kept, each with half a request: the next scrape is answered."""
    lorises = []
    try:
        for _ in range(LORISES):
            loris = socket.create_connection(("127.0.0.1", served.port), timeout=10)
            loris.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            lorises.append(loris)
        assert scrape(served.port) == 200
        lorises[0].settimeout(5)
        assert lorises[0].recv(100) == b""  # the oldest made room
    finally:
        for loris in lorises:
            loris.close()


def flood(client: socket.socket) -> None:
    for _ in range(10_000):
        client.sendall(b"X-Filler: " + b"x" * 1000 + b"\r\n")


def test_a_head_without_end_is_refused(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            flood(client)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, a server's and a client's certificate."""
    folder = tmp_path_factory.mktemp("pki")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    san = "subjectAltName=DNS:{name},IP:127.0.0.1"

    def openssl(words: str) -> None:
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)

    openssl(f"req -x509 {key} -subj /CN=authority -keyout ca.key -out ca.pem")
    for name in ("server", "client", "stranger"):
        openssl(
            f"req -x509 -CA ca.pem -CAkey ca.key {key} -subj /CN={name} -keyout {name}.key "
            f"-out {name}.pem -addext {san.format(name=name)}"
        )
    return folder


def curl(folder: Path, port: int, *words: str) -> tuple[int, str]:
    """Return curl's exit status and the status of the answer."""
    address = f"https://127.0.0.1:{port}/metrics"
    asked = subprocess.run(
        [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--cacert",
            "ca.pem",
            *words,
            address,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return asked.returncode, asked.stdout


def config(pki: Path, password: str = "secret", more: str = "") -> str:  # noqa: S107
    """Write a web configuration for alice."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(5)).decode()
    (pki / "web.yml").write_text(f"""
tls_server_config:
  cert_file: server.pem
  key_file: server.key
{more}
basic_auth_users:
  alice: {hashed}
""")
    return str(pki / "web.yml")


MTLS = """\
  client_ca_file: ca.pem
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [client]
"""


@pytest.fixture
def secured(pki: Path) -> Iterator[Served]:
    """A server with TLS and a password, of which the key is root's alone."""
    (pki / "server.key").chmod(0o600)
    with Served("--web-config-file", config(pki), "--census", "0", "--user", "root") as running:
        yield running


def test_tls_and_password(secured: Served, pki: Path) -> None:
    port = secured.port
    assert curl(pki, port, "-u", "alice:secret") == (0, "200")
    assert curl(pki, port) == (0, "401")
    assert curl(pki, port, "-u", "alice:wrong") == (0, "401")
    assert curl(pki, port, "-u", "bob:secret") == (0, "401")
    assert curl(pki, port, "-u", "alice:secret", "--tls-max", "1.1")[0] != 0
    plain = subprocess.run(
        ["curl", "-s", f"http://127.0.0.1:{port}/metrics"], capture_output=True, check=False
    )
    assert plain.returncode != 0


def test_hangup_reads_the_file_again(secured: Served, pki: Path) -> None:
    config(pki, "new")
    secured.process.send_signal(signal.SIGHUP)
    assert until(lambda: curl(pki, secured.port, "-u", "alice:new") == (0, "200"))
    assert curl(pki, secured.port, "-u", "alice:secret") == (0, "401")
    (pki / "web.yml").write_text("tls_server_config: {oops: 1}")
    secured.process.send_signal(signal.SIGHUP)
    assert until(lambda: "reload refused" in secured.said())
    assert curl(pki, secured.port, "-u", "alice:new") == (0, "200")


def test_client_certificates(pki: Path) -> None:
    with Served("--web-config-file", config(pki, more=MTLS), "--census", "0") as running:
        port, alice = running.port, ("-u", "alice:secret")
        client = ("--cert", "client.pem", "--key", "client.key")
        stranger = ("--cert", "stranger.pem", "--key", "stranger.key")
        assert curl(pki, port, *alice, *client) == (0, "200")
        assert curl(pki, port, *client) == (0, "401")
        assert curl(pki, port, *alice, *stranger) == (0, "403")
        assert curl(pki, port, *alice)[0] != 0


def test_a_wrong_file_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: none.pem, key_file: n.key}")
    assert ended("--web-config-file", str(tmp_path / "web.yml")) == (2, "none.pem: No such file")


def test_a_port_in_use_is_told(served: Served) -> None:
    assert ended("--listen", f"127.0.0.1:{served.port}") == (1, "Address already in use")


def test_a_user_that_is_not_there_is_told() -> None:
    assert ended("--user", "nosuchuser") == (2, "no user nosuchuser")


# Returns the exit status, and of what was said the part that is expected if it is there.
def ended(*words: str) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, "-m", "tracer", "serve", "--listen", "127.0.0.1:0", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in run.stderr
    expected = ("none.pem: No such file", "Address already in use", "no user nosuchuser")
    return run.returncode, next((text for text in expected if text in run.stderr), run.stderr)
