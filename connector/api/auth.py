"""Who may call the API: LiveKit access tokens with the `roomCreate` grant, as LiveKit's own services ask."""

from __future__ import annotations

import jwt
from google.protobuf.json_format import ParseError
from livekit import api
from livekit.api.access_token import Claims

from connector.errors import PermissionDenied, Unauthenticated

MAX_TOKEN_LENGTH = 16 * 1024


class Authorizer:
    """Checks `Authorization` values against one API key and secret."""

    def __init__(self, api_key: str, api_secret: str) -> None:
        self._verifier = api.TokenVerifier(api_key, api_secret)

    def require_room_create(self, authorization: str | None) -> None:
        """Raises Unauthenticated without a valid token, PermissionDenied without the grant. Never echoes it."""
        claims = self._claims(authorization)
        if claims.video is None or claims.video.room_create is not True:
            raise PermissionDenied("the token lacks the roomCreate grant")

    def _claims(self, authorization: str | None) -> Claims:
        if not authorization:
            raise Unauthenticated("an Authorization header with a Bearer token is required")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("the Authorization header must be 'Bearer <token>'")
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated("the token is too long")
        try:
            return self._verifier.verify(token.strip())
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("the token is not valid yet; check both clocks") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated("the token was issued for another API key") from None
        except (jwt.PyJWTError, ParseError, ValueError, TypeError, AttributeError):
            raise Unauthenticated("the token does not verify against this connector's API secret") from None
