"""The files of deploy/ that cannot be run here (there is no Docker, no systemd): checked by their own checkers."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import AliasChoices

from connector.config import Settings
from demo.connector_process import clean_environment
from demo.livekit_server import find_binary
from demo.ports import PortLease
from demo.process import ChildProcess
from tests.conformance.deploy.origin import APT, DEPLOY, Nginx, program, run

ROOT = DEPLOY.parent
PIP = "pip install --requirement tests/conformance/deploy/requirements.txt"
UNITS = ("connector.service", "livekit-server.service")
LARGEST_EXPOSURE = 20
"""Tenths, of systemd's own measure from 0 to 10; its authors call everything up to 4 OK."""


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert run([program("hadolint", PIP)], str(DEPLOY / "Dockerfile")).stdout == ""


def test_what_the_dockerfile_copies_is_enough_to_build_the_package(tmp_path: Path) -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    ignored_but = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for copied in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE):
        *sources, target = copied.split()
        for source in sources:
            assert f"!{source}" in ignored_but
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, tmp_path / target)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    run(build, "--wheel-dir", str(tmp_path / "wheels"), str(tmp_path))
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.startswith("livekit_telephony_connector-")


def test_the_compose_file_is_one() -> None:
    check = program("check-jsonschema", PIP)
    run([check, "--builtin-schema", "vendor.compose-spec"], str(DEPLOY / "docker-compose.yaml"))


def test_the_compose_file_mounts_what_is_there_and_asks_for_what_the_example_names() -> None:
    text = (DEPLOY / "docker-compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    files = {mount.partition(":")[0] for mount in mounts if mount.startswith("./")}
    assert files == {"./Caddyfile", "./livekit.yaml"}
    assert all((DEPLOY / file).is_file() for file in files)
    assert set(re.findall(r"\$\{([A-Z_]+)", text)) == _names(DEPLOY / "compose.env.example")
    assert not [
        service["image"] for service in services.values() if not re.search(r":v?\d", service.get("image", ":1"))
    ]


def _names(file: Path) -> set[str]:
    return set(re.findall(r"^([A-Z_]+)=", file.read_text(), re.MULTILINE))


def test_every_setting_that_these_files_name_exists() -> None:
    known = set()
    for field in Settings.model_fields.values():
        assert isinstance(field.validation_alias, AliasChoices)
        known |= {str(choice).upper() for choice in field.validation_alias.choices}
    compose = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text())["services"]["connector"]["environment"]
    image = set(re.findall(r"\b(CONNECTOR_[A-Z_]+)=", (DEPLOY / "Dockerfile").read_text()))
    assert set(compose) <= known
    assert image
    assert image <= known
    assert _names(DEPLOY / "connector.env.example") <= known


def test_calls_may_drain_before_they_are_killed() -> None:
    (drain,) = re.findall(r"CONNECTOR_DRAIN_TIMEOUT=(\d+)", (DEPLOY / "connector.env.example").read_text())
    (stop,) = re.findall(r"TimeoutStopSec=(\d+)", (DEPLOY / "connector.service").read_text())
    assert int(stop) > int(drain) + 5
    connector = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text())["services"]["connector"]
    grace = int(connector["stop_grace_period"].removesuffix("s"))
    assert grace > int(connector["environment"]["CONNECTOR_DRAIN_TIMEOUT"]) + 5


def test_systemd_understands_every_line_of_the_units(tmp_path: Path) -> None:
    """In a small root of their own, with the programs they start and the units they want."""
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for name in UNITS:
        shutil.copy(DEPLOY / name, units)
        (command,) = re.findall(r"^ExecStart=(\S+)", (DEPLOY / name).read_text(), re.MULTILINE)
        started = tmp_path / command.removeprefix("/")
        started.parent.mkdir(parents=True)
        started.write_text("#!/bin/sh\n")
        started.chmod(0o755)
    for target in ("sysinit", "basic", "network-online", "shutdown", "multi-user"):
        (units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    # What it does not know it only warns of, with status 0.
    verified = run([program("systemd-analyze", APT + "systemd"), "verify", f"--root={tmp_path}"], *UNITS)
    assert verified.stdout + verified.stderr == ""


@pytest.mark.parametrize("unit", UNITS)
def test_the_units_leave_little_open(unit: str) -> None:
    analyze = [program("systemd-analyze", APT + "systemd"), "security", "--offline=true", "--no-pager"]
    run([*analyze, f"--threshold={LARGEST_EXPOSURE}"], str(DEPLOY / unit))


async def test_livekit_server_starts_with_the_shipped_configuration() -> None:
    """It refuses keys that it does not know. Ports and the question for its own address are this machine's."""
    config = yaml.safe_load((DEPLOY / "livekit.yaml").read_text())
    assert (config["port"], config["bind_addresses"]) == (7880, ["127.0.0.1"])
    leases = PortLease(), PortLease()
    config["port"], config["rtc"]["tcp_port"] = (lease.port for lease in leases)
    config["rtc"] |= {"use_external_ip": False, "node_ip": "127.0.0.1"}
    environment = {"LIVEKIT_KEYS": f"key: {secrets.token_hex(24)}"}
    server = ChildProcess("livekit-server", [str(find_binary()), "--config-body", json.dumps(config)], environment)
    try:
        server.spawn()
        await server.until_answers(f"http://127.0.0.1:{config['port']}", 20)
    finally:
        await server.stop(grace=0.3)
        server.close()
        for lease in leases:
            lease.close()


def test_the_template_the_document_and_the_test_fill_in_the_same_names() -> None:
    template = set(re.findall(r"\$\{([A-Z_]+)\}", (DEPLOY / "nginx.conf").read_text()))
    assert template == set(Nginx.VARIABLES)
    document = (ROOT / "docs/deploy.md").read_text()
    (command,) = re.findall(r"envsubst '([^']+)'", document)
    assert command.split() == [f"${name}" for name in Nginx.VARIABLES]
    assert set(re.findall(r"^export ([A-Z_]+)=", document, re.MULTILINE)) >= template


def test_the_document_tells_of_every_file() -> None:
    document = (ROOT / "docs/deploy.md").read_text()
    files = {file.name for file in DEPLOY.iterdir() if not file.name.startswith(".")}
    assert not {name for name in files if name not in document} - {"Dockerfile.dockerignore"}


def test_the_caddyfile_is_as_caddy_formats_it() -> None:
    text = (DEPLOY / "Caddyfile").read_text()
    assert run([program("caddy", APT + "caddy"), "fmt", str(DEPLOY / "Caddyfile")]).stdout == text


def test_the_caddyfile_needs_nothing_but_a_name(tmp_path: Path) -> None:
    adapt = [program("caddy", APT + "caddy"), "adapt", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")]
    named = {**clean_environment(), "ORIGIN_HOST": "voice.example.com", "HOME": str(tmp_path)}
    (server,) = json.loads(run(adapt, env=named).stdout)["apps"]["http"]["servers"].values()
    assert server["listen"] == [":443"]
    dialled = set(re.findall(r'"dial": "([^"]+)"', json.dumps(server)))
    assert dialled == {"127.0.0.1:7880", "127.0.0.1:8080", "127.0.0.1:8081"}
