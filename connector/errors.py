"""All errors that this project raises deliberately, with their codes for Twirp, gRPC and HTTP.

::

    ConnectorError                 base; never raised itself
    ├── InvalidArgument            a field of the request is wrong; names the field
    ├── Malformed                  the body could not be decoded at all
    ├── Unauthenticated            no token, or an invalid one
    ├── PermissionDenied           the token lacks the grant
    ├── NotFound                   no such call, rule, connector …
    │   └── CarrierCallOver        a carrier's REST API knows the call, and it has ended
    ├── FailedPrecondition         impossible in this state of the call, or with this configuration
    ├── Aborted                    concurrent change of the same object
    ├── ResourceExhausted          the configured limit of calls is reached
    ├── Unavailable                LiveKit is unreachable, or the service is draining
    ├── DeadlineExceeded           the client's deadline passed first
    ├── Unimplemented              a method that LiveKit defines but we do not implement
    ├── Internal                   the operator's setup is wrong (credentials, config)
    │   └── CredentialsRefused     a carrier's REST API refuses our credentials
    ├── ConnectUrlError            a connect_url cannot be used
    │   ├── TokenInvalid           malformed, altered or not ours
    │   ├── TokenExpired           expired, or its call has ended
    │   ├── TokenUsed              another WebSocket has used it before
    │   └── SignatureInvalid       the carrier's signature is missing or wrong
    └── CarrierProtocolError       the carrier broke the protocol of the media socket
"""

from __future__ import annotations


class ConnectorError(Exception):
    """Base of all deliberate errors; `message` is safe to show to the client."""

    twirp_code = "internal"
    grpc_code = "INTERNAL"
    http_status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(ConnectorError):
    twirp_code = "invalid_argument"
    grpc_code = "INVALID_ARGUMENT"
    http_status = 400

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class Malformed(ConnectorError):
    twirp_code = "malformed"
    grpc_code = "INVALID_ARGUMENT"
    http_status = 400


class Unauthenticated(ConnectorError):
    twirp_code = "unauthenticated"
    grpc_code = "UNAUTHENTICATED"
    http_status = 401


class PermissionDenied(ConnectorError):
    twirp_code = "permission_denied"
    grpc_code = "PERMISSION_DENIED"
    http_status = 403


class NotFound(ConnectorError):
    twirp_code = "not_found"
    grpc_code = "NOT_FOUND"
    http_status = 404


class CarrierCallOver(NotFound):
    pass


class FailedPrecondition(ConnectorError):
    twirp_code = "failed_precondition"
    grpc_code = "FAILED_PRECONDITION"
    http_status = 412


class Aborted(ConnectorError):
    twirp_code = "aborted"
    grpc_code = "ABORTED"
    http_status = 409


class ResourceExhausted(ConnectorError):
    twirp_code = "resource_exhausted"
    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 429


class Unavailable(ConnectorError):
    twirp_code = "unavailable"
    grpc_code = "UNAVAILABLE"
    http_status = 503


class DeadlineExceeded(ConnectorError):
    twirp_code = "deadline_exceeded"
    grpc_code = "DEADLINE_EXCEEDED"
    http_status = 408


class Unimplemented(ConnectorError):
    twirp_code = "unimplemented"
    grpc_code = "UNIMPLEMENTED"
    http_status = 501


class Internal(ConnectorError):
    pass


class CredentialsRefused(Internal):
    pass


class ConnectUrlError(ConnectorError):
    twirp_code = "not_found"
    grpc_code = "NOT_FOUND"
    http_status = 404


class TokenInvalid(ConnectUrlError):
    pass


class TokenExpired(ConnectUrlError):
    http_status = 410


class TokenUsed(ConnectUrlError):
    http_status = 410


class SignatureInvalid(ConnectUrlError):
    http_status = 403


class CarrierProtocolError(ConnectorError):
    """The peer broke its protocol; `close_code` is the WebSocket close code it gets (RFC 6455, 7.4)."""

    http_status = 400

    def __init__(self, message: str, close_code: int = 1002) -> None:
        super().__init__(message)
        self.close_code = close_code


PASSING = (Unavailable, ResourceExhausted)
"""Errors that may disappear without intervention, so a retry makes sense."""
