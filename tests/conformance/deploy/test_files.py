"""The files of deploy/ that cannot be run here (there is no Docker, no systemd): checked by their own checkers."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import AliasChoices

from connector.config import Settings
from connector.supervisor import END_MARGIN
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


def _compose_connectors() -> list[dict[str, Any]]:
    services = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text())["services"]
    return [service for name, service in services.items() if name.startswith("connector-")]


def _kubernetes() -> dict[str, dict[str, Any]]:
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def _pod() -> dict[str, Any]:
    pod: dict[str, Any] = _kubernetes()["Deployment"]["spec"]["template"]["spec"]
    return pod


def test_every_setting_that_these_files_name_exists() -> None:
    known = set()
    for field in Settings.model_fields.values():
        assert isinstance(field.validation_alias, AliasChoices)
        known |= {str(choice).upper() for choice in field.validation_alias.choices}
    image = set(re.findall(r"\b(CONNECTOR_[A-Z_]+)=", (DEPLOY / "Dockerfile").read_text()))
    for connector in _compose_connectors():
        assert set(connector["environment"]) <= known
    assert {variable["name"] for variable in _pod()["containers"][0]["env"]} <= known
    assert image
    assert image <= known
    assert _names(DEPLOY / "connector.env.example") <= known


def test_calls_may_drain_before_they_are_killed() -> None:
    (drain,) = re.findall(r"CONNECTOR_DRAIN_TIMEOUT=(\d+)", (DEPLOY / "connector.env.example").read_text())
    (stop,) = re.findall(r"TimeoutStopSec=(\d+)", (DEPLOY / "connector.service").read_text())
    # The supervisor kills a worker that has not ended after this margin.
    assert int(stop) > int(drain) + END_MARGIN
    for connector in _compose_connectors():
        grace = int(connector["stop_grace_period"].removesuffix("s"))
        assert grace > int(connector["environment"]["CONNECTOR_DRAIN_TIMEOUT"]) + END_MARGIN
    pod = _pod()
    (container,) = pod["containers"]
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + int(values["CONNECTOR_DRAIN_TIMEOUT"]) + END_MARGIN


def test_an_update_leaves_a_process_to_which_calls_are_handed_over() -> None:
    unit = (DEPLOY / "connector.service").read_text()
    # systemd would send SIGTERM to each worker too, and the supervisor's would be the second one, which ends the calls.
    assert "\nKillMode=mixed\n" in unit
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in unit
    assert "\nCONNECTOR_WORKERS=2\n" in (DEPLOY / "connector.env.example").read_text()
    connectors = [connector["environment"] for connector in _compose_connectors()]
    assert len({environment["CONNECTOR_INSTANCE"] for environment in connectors}) == 2
    assert all(environment["CONNECTOR_SHARE_PORTS"] == "true" for environment in connectors)
    deployment = _kubernetes()["Deployment"]["spec"]
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    # The Service is named connector: Kubernetes would set CONNECTOR_PORT to its address.
    assert _pod()["enableServiceLinks"] is False


def test_the_manifests_name_their_pods_and_ports() -> None:
    kinds = _kubernetes()
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert kinds["Service"]["spec"]["selector"] == labels
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    ports = {port["name"]: port["containerPort"] for port in _pod()["containers"][0]["ports"]}
    opened = [port["port"] for rule in kinds["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]]
    assert set(opened) == set(ports)
    assert {port["targetPort"] for port in kinds["Service"]["spec"]["ports"]} == {"http", "grpc"}
    assert (ports["http"], ports["grpc"]) == (
        Settings.model_fields["port"].default,
        Settings.model_fields["grpc_port"].default,
    )
    values = {variable["name"]: variable.get("value") for variable in _pod()["containers"][0]["env"]}
    assert values["CONNECTOR_PEER_PORT"] == str(ports["peer"])


def test_systemd_understands_every_line_of_the_units(tmp_path: Path) -> None:
    """In a small root of their own, with the programs they start and the units they want."""
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for name in UNITS:
        shutil.copy(DEPLOY / name, units)
        for command in re.findall(r"^Exec(?:Start|Reload)=(\S+)", (DEPLOY / name).read_text(), re.MULTILINE):
            started = tmp_path / command.removeprefix("/")
            started.parent.mkdir(parents=True, exist_ok=True)
            started.write_text("#!/bin/sh\n")
            started.chmod(0o755)
    for target in ("sysinit", "basic", "network-online", "shutdown", "multi-user"):
        (units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    shutil.copy(DEPLOY / "connector.service", units / "connector@.service")
    # What it does not know it only warns of, with status 0.
    verify = [program("systemd-analyze", APT + "systemd"), "verify", f"--root={tmp_path}"]
    verified = run(verify, *UNITS, "connector@a.service")
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
