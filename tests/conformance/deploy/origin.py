"""The shipped proxy configurations run by the real programs, unprivileged, with a CA of the test's own.

`deploy/Caddyfile` and `deploy/nginx.conf` are used as they are; only ports, names and certificates are filled in.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import ssl
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from demo.connector_process import clean_environment
from demo.ports import PortLease
from demo.process import ChildProcess, ProcessFailed

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
HOST = "localhost"
APT = "apt-get install "
_START_PATIENCE = 20.0


class ProgramMissing(RuntimeError):
    """A program that the test needs is not on this machine."""


def program(name: str, how: str) -> str:
    """The path of a program; it is never skipped, so the message says what to install."""
    # Servers live in sbin, which an ordinary user's PATH may lack; packages of Python beside it.
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise ProgramMissing(f"there is no {name} on this machine: {how}")
    return found


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with one certificate for `HOST`, all PEM files."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def context(self) -> ssl.SSLContext:
        """For a client that trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.ca))


def new_authority(folder: Path) -> Authority:
    """Make one with openssl; blocking, some ten milliseconds."""
    openssl = program("openssl", APT + "openssl")
    ca, ca_key, certificate, key = (folder / name for name in ("ca.pem", "ca.key", "cert.pem", "cert.key"))
    new = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    signs = ["-addext", "keyUsage=critical,keyCertSign"]
    run(new, "-subj", "/CN=CA of the connector's tests", *signs, "-keyout", str(ca_key), "-out", str(ca))
    of_host = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-addext", "basicConstraints=CA:FALSE"]
    by = ["-CA", str(ca), "-CAkey", str(ca_key)]
    run(new, *of_host, *by, "-keyout", str(key), "-out", str(certificate))
    return Authority(ca, certificate, key)


def run(command: list[str], *more: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Raises ProcessFailed, with what it printed, for any status but 0."""
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False, env=env)
    if done.returncode:
        raise ProcessFailed(f"{command[0]} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


class Origin(ABC):
    """One https origin in front of livekit-server and a connector: `url` is the one LIVEKIT_URL."""

    name: str

    def __init__(self, folder: Path, authority: Authority, livekit: int, connector: int, grpc: int) -> None:
        """The three last are ports of 127.0.0.1; nothing needs to listen there yet."""
        self.authority = authority
        self.folder = folder
        self._leases = (PortLease(), PortLease())
        self.port, self.http_port = (lease.port for lease in self._leases)
        self.environment = {
            **clean_environment(),
            "ORIGIN_HOST": HOST,
            "LIVEKIT_ADDRESS": f"127.0.0.1:{livekit}",
            "CONNECTOR_ADDRESS": f"127.0.0.1:{connector}",
            "CONNECTOR_GRPC_ADDRESS": f"127.0.0.1:{grpc}",
        }
        self._process: ChildProcess | None = None

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @abstractmethod
    def prepare(self) -> list[str]:
        """Write what the program needs; the command that runs it in the foreground."""

    def log(self) -> str:
        """All that the program has written about requests and errors."""
        return self._process.log() if self._process else ""

    async def start(self) -> None:
        """Return when it answers over TLS."""
        self._process = ChildProcess(self.name, self.prepare(), self.environment)
        self._process.spawn()
        try:
            await self._until_answers()
        except BaseException:
            await self._process.kill()
            raise

    async def _until_answers(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self.authority.context)
        try:
            async with aiohttp.ClientSession(connector=connector) as session, asyncio.timeout(_START_PATIENCE):
                while True:
                    if not self.pid:
                        raise ProcessFailed(f"{self.name} ended:\n{self.log()}")
                    try:
                        async with session.get(f"{self.url}/healthz"):
                            return
                    except aiohttp.ClientError:
                        await asyncio.sleep(0.02)
        except TimeoutError:
            raise ProcessFailed(f"{self.name} does not answer at {self.url}:\n{self.log()}") from None

    async def stop(self) -> None:
        if self._process:
            # Both let open sockets finish first when asked nicely; the test is over.
            await self._process.stop(grace=1.0)
            self._process.close()
        for lease in self._leases:
            lease.close()


class Caddy(Origin):
    name = "caddy"

    def prepare(self) -> list[str]:
        self.environment |= {
            "ORIGIN_HTTP_PORT": str(self.http_port),
            "ORIGIN_HTTPS_PORT": str(self.port),
            "ORIGIN_TLS": f"tls {self.authority.certificate} {self.authority.key}",
            "ORIGIN_OPTIONS": "admin off\ndefault_bind 127.0.0.1",
            "XDG_DATA_HOME": str(self.folder / "data"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }
        caddy = program("caddy", APT + "caddy")
        return [caddy, "run", "--config", str(DEPLOY / "Caddyfile"), "--adapter", "caddyfile"]


class Nginx(Origin):
    name = "nginx"
    VARIABLES = (
        "ORIGIN_HOST",
        "ORIGIN_HTTP_LISTEN",
        "ORIGIN_HTTPS_LISTEN",
        "ORIGIN_CERTIFICATE",
        "ORIGIN_KEY",
        "ORIGIN_ACME_ROOT",
        "ORIGIN_LOG",
        "LIVEKIT_ADDRESS",
        "CONNECTOR_ADDRESS",
        "CONNECTOR_GRPC_ADDRESS",
    )

    def prepare(self) -> list[str]:
        self.environment |= {
            "ORIGIN_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "ORIGIN_HTTPS_LISTEN": f"127.0.0.1:{self.port}",
            "ORIGIN_CERTIFICATE": str(self.authority.certificate),
            "ORIGIN_KEY": str(self.authority.key),
            "ORIGIN_ACME_ROOT": str(self.folder),
            "ORIGIN_LOG": str(self.folder / "access.log"),
        }
        (self.folder / "origin.conf").write_text(self._filled_in(), encoding="utf-8")
        (self.folder / "nginx.conf").write_text(self._around(), encoding="utf-8")
        nginx = program("nginx", APT + "nginx-light")
        return [nginx, "-e", "stderr", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def _filled_in(self) -> str:
        """By the command of docs/deploy.md."""
        wanted = " ".join(f"${name}" for name in self.VARIABLES)
        template = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
        done = subprocess.run(
            [program("envsubst", APT + "gettext-base"), wanted],
            input=template,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout

    def _around(self) -> str:
        """The main file that a distribution would have, and all it waits for cut from 60 seconds to one.

        What the shipped file does not set for itself is so inherited sixty times shorter than in production.
        """
        me = pwd.getpwuid(os.geteuid()).pw_name
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        return "\n".join(
            (
                "daemon off;",
                f"user {me};" if os.geteuid() == 0 else "",
                "worker_processes 2;",
                f"pid {self.folder}/nginx.pid;",
                "events { worker_connections 512; }",
                "http {",
                *(f"    {kind}_temp_path {self.folder}/{kind};" for kind in kinds),
                "    proxy_read_timeout 1s; proxy_send_timeout 1s; grpc_read_timeout 1s; grpc_send_timeout 1s;",
                "    send_timeout 1s; client_body_timeout 1s; client_header_timeout 1s;",
                f"    include {self.folder}/origin.conf;",
                "}",
            )
        )

    def log(self) -> str:
        access = self.folder / "access.log"
        return super().log() + (access.read_text(encoding="utf-8") if access.exists() else "")


ORIGINS: dict[str, type[Origin]] = {"caddy": Caddy, "nginx": Nginx}
