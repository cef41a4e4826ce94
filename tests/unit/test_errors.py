"""Every error means something on every transport, and the same thing on each."""

from __future__ import annotations

import grpc
import pytest
from twirp.errors import Errors

from connector import errors
from connector.errors import ConnectorError, InvalidArgument
from connector.storage.base import StoreError


def _all(kind: type[ConnectorError] = ConnectorError) -> list[type[ConnectorError]]:
    return [kind] + [deeper for sub in kind.__subclasses__() for deeper in _all(sub)]


@pytest.mark.parametrize("kind", _all(), ids=lambda kind: kind.__name__)
def test_codes_exist_on_their_transports(kind: type[ConnectorError]) -> None:
    Errors(kind.twirp_code)
    assert kind.grpc_code in grpc.StatusCode.__members__
    assert 400 <= kind.http_status < 600


@pytest.mark.parametrize(
    ("kind", "twirp", "status", "grpc_code"),
    [
        (errors.InvalidArgument, "invalid_argument", 400, "INVALID_ARGUMENT"),
        (errors.Malformed, "malformed", 400, "INVALID_ARGUMENT"),
        (errors.Unauthenticated, "unauthenticated", 401, "UNAUTHENTICATED"),
        (errors.PermissionDenied, "permission_denied", 403, "PERMISSION_DENIED"),
        (errors.NotFound, "not_found", 404, "NOT_FOUND"),
        (errors.Aborted, "aborted", 409, "ABORTED"),
        (errors.ResourceExhausted, "resource_exhausted", 429, "RESOURCE_EXHAUSTED"),
        (errors.Unavailable, "unavailable", 503, "UNAVAILABLE"),
        (errors.Unimplemented, "unimplemented", 501, "UNIMPLEMENTED"),
        (errors.Internal, "internal", 500, "INTERNAL"),
        (StoreError, "unavailable", 503, "UNAVAILABLE"),
    ],
)
def test_each_error_of_the_api_has_its_codes(
    kind: type[ConnectorError], twirp: str, status: int, grpc_code: str
) -> None:
    assert (kind.twirp_code, kind.http_status, kind.grpc_code) == (twirp, status, grpc_code)
    assert Errors.get_status_code(Errors(twirp)) == status


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.TokenInvalid, 404),
        (errors.TokenExpired, 410),
        (errors.TokenUsed, 410),
        (errors.SignatureInvalid, 403),
    ],
)
def test_each_trouble_with_a_connect_url_has_its_http_status(kind: type[ConnectorError], status: int) -> None:
    assert issubclass(kind, errors.ConnectUrlError)
    assert kind.http_status == status


def test_an_invalid_argument_names_its_field() -> None:
    error = InvalidArgument("room_name", "is required")
    assert (error.field, error.message, str(error)) == ("room_name", "room_name: is required", "room_name: is required")


def test_the_module_lists_every_error_it_defines() -> None:
    assert errors.__doc__ is not None
    for kind in _all():
        if kind.__module__ == errors.__name__:
            assert kind.__name__ in errors.__doc__
