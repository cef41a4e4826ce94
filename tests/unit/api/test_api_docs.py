"""docs/api.md names every method, field and error that there is."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from connector.api.carrier.conferences import ConferenceRpc
from connector.api.rpc.methods import OUR_SERVICE, Method, methods
from connector.api.rpc.service import ConnectorService
from connector.errors import CarrierProtocolError, ConnectorError, ConnectUrlError
from connectorpb.v1 import connector_pb2 as pb

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
TABLE = methods(create_autospec(ConnectorService), create_autospec(ConferenceRpc))
OURS = [method for method in TABLE if method.service == OUR_SERVICE]


@pytest.mark.parametrize("method", OURS, ids=lambda method: method.name)
def test_every_method_has_a_section_with_its_fields_and_both_examples(method: Method) -> None:
    section = SECTIONS[method.name]
    for field in method.request.DESCRIPTOR.fields:
        assert f"`{field.name}`" in section, field.name
    for field in method.response.DESCRIPTOR.fields:
        assert f"`{field.name}`" in section, field.name
    assert re.search(rf"curl -s \$CONNECTOR/twirp/\S+/{method.name} ", section)
    assert re.search(rf"grpcurl .*?\$GRPC \S+/{method.name}\n", section, re.DOTALL)
    assert "Errors: " in section


@pytest.mark.parametrize("method", TABLE, ids=lambda method: f"{method.service}/{method.name}")
def test_every_method_is_named(method: Method) -> None:
    assert re.search(rf"\b{method.name}\b", PAGE)


def test_every_field_of_a_call_is_told() -> None:
    for field in pb.Call.DESCRIPTOR.fields:
        assert f"`{field.name}`" in SECTIONS["Call"], field.name
    for enum in (pb.Call.State, pb.Call.Provider, pb.Call.Direction):
        for name in enum.keys():  # noqa: SIM118 - not a dict
            assert name.endswith("UNSPECIFIED") or f"`{name}`" in SECTIONS["Call"], name


def test_the_error_table_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \|", SECTIONS["Errors"], re.MULTILINE)
    told = {(twirp, int(status), code) for twirp, status, code in rows}
    ours = {
        (error.twirp_code, error.http_status, error.grpc_code)
        for error in ConnectorError.__subclasses__()
        if error not in (CarrierProtocolError, ConnectUrlError)
    }
    assert told == ours
