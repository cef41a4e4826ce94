"""Authorises API requests. LiveKit access tokens need the `roomCreate` grant, as in LiveKit's own services. The REST
API also accepts the tokens of VideoSDK's SDKs: HS256 with the secret, claims `apikey` and `permissions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt
from google.protobuf.json_format import ParseError
from livekit import api
from livekit.api.access_token import Claims

from connector.errors import PermissionDenied, Unauthenticated

MAX_TOKEN_LENGTH = 16 * 1024
LEEWAY = 60.0
"""Allowed clock difference in seconds; the same as in LiveKit's own check."""
_MODERATOR = "allow_mod"
_API_ROLE = "crawler"
"""The role of VideoSDK's server-side tokens. `rtc` is a participant's role, which has no access to the API."""


class Authorizer:
    """Checks `Authorization` values against API keys and their secrets."""

    def __init__(self, api_key: str, api_secret: str, more: Mapping[str, str] | None = None) -> None:
        """`more`: additional API keys -> secrets."""
        self._api_key = api_key
        self._secrets = {**(more or {}), api_key: api_secret}
        self._verifiers = {key: api.TokenVerifier(key, secret) for key, secret in self._secrets.items()}

    def require_room_create(self, authorization: str | None) -> None:
        """Raises Unauthenticated without a valid token, PermissionDenied without the grant. Messages never contain the
        token."""
        if not authorization:
            raise Unauthenticated("an Authorization header with a Bearer token is required")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("the Authorization header must be 'Bearer <token>'")
        self._require_grant(self._claims(token))

    def require_rest(self, authorization: str | None) -> None:
        """As `require_room_create`, for the REST API: both kinds of token, with or without `Bearer `."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else f"{scheme} {token}".strip()
        if not token:
            raise Unauthenticated("an Authorization header with a token is required")
        if "apikey" in _unverified(token):
            self._require_videosdk(token)
        else:
            self._require_grant(self._claims(token))

    def _require_grant(self, claims: Claims) -> None:
        if claims.video is None or claims.video.room_create is not True:
            raise PermissionDenied("the token lacks the roomCreate grant")

    def _require_videosdk(self, token: str) -> None:
        """Checks a token of VideoSDK's `generateToken`. A participant's token is valid but gets PermissionDenied."""
        try:
            claims = jwt.decode(
                token,
                self._secrets[self._named(_unverified(token).get("apikey"))],
                algorithms=["HS256"],
                leeway=LEEWAY,
                options={"verify_aud": False, "require": ["exp"]},
            )
        except jwt.MissingRequiredClaimError:
            raise Unauthenticated("the token has no expiry: it needs the claim exp") from None
        except jwt.PyJWTError as error:
            raise _unauthenticated(error) from None
        if self._named(claims["apikey"]) != claims["apikey"]:
            raise Unauthenticated("the token was issued for another API key")
        permissions, roles = claims.get("permissions"), claims.get("roles")
        if not isinstance(permissions, list) or _MODERATOR not in permissions:
            raise PermissionDenied(f"the token's permissions lack {_MODERATOR}")
        if isinstance(roles, list) and roles and _API_ROLE not in roles:
            raise PermissionDenied(f"the token is for a participant: its roles lack {_API_ROLE}")
        if not roles and ("participantId" in claims or "roomId" in claims):
            raise PermissionDenied("the token is for a participant: it names a participant or a room")

    def _named(self, key: Any) -> str:
        """Returns the API key that the token names. For an unknown key, returns our first key: the check then fails."""
        return key if isinstance(key, str) and key in self._secrets else self._api_key

    def _claims(self, token: str) -> Claims:
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated("the token is too long")
        try:
            return self._verifiers[self._named(_unverified(token).get("iss"))].verify(token.strip())
        except (jwt.PyJWTError, ParseError, ValueError, TypeError, AttributeError) as error:
            raise _unauthenticated(error) from None


def _unverified(token: str) -> Mapping[str, Any]:
    """Returns the unverified claims, only to find out the kind of token; empty if they cannot be read."""
    if len(token) > MAX_TOKEN_LENGTH:
        raise Unauthenticated("the token is too long")
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return {}
    return claims


def _unauthenticated(error: Exception) -> Unauthenticated:
    match error:
        case jwt.ExpiredSignatureError():
            return Unauthenticated("the token has expired")
        case jwt.ImmatureSignatureError():
            return Unauthenticated("the token is not valid yet; check both clocks")
        case jwt.InvalidIssuerError():
            return Unauthenticated("the token was issued for another API key")
        case _:
            return Unauthenticated("the token does not verify against this connector's API secret")
