"""nginx and Caddy with the configurations of ``deploy/``, on this machine's ports and with a certificate of our own."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.launchers import PATIENCE, ROOT, Launcher, environment, free_port, until

PROXY_TAKES = 3 * 2**20
"""Bytes of a body, here."""
SYSTEM_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Certificate:
    """Of localhost, and trusted by whoever is given it."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))


def make_certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(folder / "fullchain.pem", folder / "privkey.pem")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


@dataclass(frozen=True)
class Proxy:
    """One that runs."""

    name: str
    port: int
    certificate: Certificate
    http: httpx.Client
    folder: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def dial(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        """A connection from an address of this machine, for what no client would send."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20, source_address=(source, 0))
        return self.certificate.context().wrap_socket(plain, server_hostname="localhost")


@contextlib.contextmanager
def nginx(launcher: Launcher, certificate: Certificate, folder: Path) -> Iterator[Proxy]:
    program = _program("nginx")
    port = free_port()
    temporary = [f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    configuration = _changed(
        ROOT / "deploy" / "nginx" / "nginx.conf",
        {
            "events {": f"pid {folder}/nginx.pid;\n{'user root;' if os.getuid() == 0 else ''}\nevents {{",
            "http {": "\n".join(["http {", *temporary]),
            "127.0.0.1:8080": f"127.0.0.1:{launcher.port}",
            "listen 80;": f"listen 127.0.0.1:{free_port()};",
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "bot.example;": "localhost;",
            "/etc/ssl/bot.example/fullchain.pem": str(certificate.certificate),
            "/etc/ssl/bot.example/privkey.pem": str(certificate.key),
            "/var/log/nginx/access.log": f"{folder}/access.log",
            "/var/log/nginx/error.log": f"{folder}/error.log",
            # A call that lasts shows that these are not for WebSockets.
            "client_max_body_size 51m": f"client_max_body_size {PROXY_TAKES}",
            "client_header_timeout 10s": "client_header_timeout 1s",
            "client_body_timeout 30s": "client_body_timeout 1s",
        },
        folder / "nginx.conf",
    )
    command = [program, "-e", f"{folder}/start.log", "-p", str(folder), "-c", str(configuration), "-g", "daemon off;"]
    with _running("nginx", command, {}, port, certificate, folder) as proxy:
        yield proxy


@contextlib.contextmanager
def caddy(launcher: Launcher, certificate: Certificate, folder: Path) -> Iterator[Proxy]:
    program = _program("caddy")
    port = free_port()
    tls = f"tls {certificate.certificate} {certificate.key}"
    configuration = _changed(
        ROOT / "deploy" / "caddy" / "Caddyfile",
        {
            "{\n\tservers {": "{\n\tadmin off\n\tauto_https off\n\tservers {",
            "{$DOMAIN:bot.example} {": f"https://localhost:{port} {{\n\t{tls}",
            "\tlog {\n": f"\tlog {{\n\t\toutput file {folder}/access.log\n",
            "{$LAUNCHER:127.0.0.1:8080}": f"127.0.0.1:{launcher.port}",
            "max_size 51MiB": f"max_size {PROXY_TAKES}",
            "read_header 10s": "read_header 1s",
            "read_body 120s": "read_body 1s",
        },
        folder / "Caddyfile",
    )
    command = [program, "run", "--adapter", "caddyfile", "--config", str(configuration)]
    variables = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with _running("caddy", command, variables, port, certificate, folder) as proxy:
        yield proxy


PROXIES = {"nginx": nginx, "caddy": caddy}


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PROGRAMS}")
    if found is None:
        pytest.skip(f"this machine lacks {name}: apt-get install {name}")
    return found


def _changed(source: Path, changes: Mapping[str, str], target: Path) -> Path:
    """The configuration that users get, with this test's ports and files. What is not found there has been renamed."""
    text = source.read_text()
    for before, after in changes.items():
        assert before in text, f"{source.name} has no {before!r}"
        text = text.replace(before, after)
    target.write_text(text)
    return target


@contextlib.contextmanager
def _running(
    name: str,
    command: Sequence[str],
    variables: Mapping[str, str],
    port: int,
    certificate: Certificate,
    folder: Path,
) -> Iterator[Proxy]:
    said = folder / "said.log"
    with (
        said.open("wb") as output,
        subprocess.Popen(command, env=environment(**variables), stdout=output, stderr=output) as process,
        httpx.Client(
            base_url=f"https://localhost:{port}", verify=certificate.context(), timeout=PATIENCE, trust_env=False
        ) as http,
    ):
        proxy = Proxy(name, port, certificate, http, folder)

        def serves() -> bool:
            assert process.poll() is None, proxy.log()
            with contextlib.suppress(httpx.TransportError):
                return http.get("/livez").status_code == 200
            return False

        try:
            until(serves, f"{name} serves")
            yield proxy
        finally:
            process.terminate()
            process.wait(PATIENCE)
