"""Who may use the REST API: LiveKit's tokens and VideoSDK's, with and without `Bearer`."""

from __future__ import annotations

import datetime
import time
from typing import Any

import jwt
import pytest
from livekit import api

from connector.api.auth import MAX_TOKEN_LENGTH, Authorizer
from connector.errors import PermissionDenied, Unauthenticated

KEY, SECRET = "APIkey", "a-secret-of-at-least-thirty-two-bytes"
AUTHORIZER = Authorizer(KEY, SECRET)


def livekit(secret: str = SECRET, key: str = KEY, **grants: Any) -> str:
    token = api.AccessToken(key, secret).with_grants(api.VideoGrants(**(grants or {"room_create": True})))
    return token.to_jwt()


def videosdk(secret: str = SECRET, **changes: Any) -> str:
    """As VideoSDK's `generateToken` makes it; None leaves a claim out."""
    now = int(time.time())
    claims = {
        "apikey": KEY,
        "permissions": ["allow_join", "allow_mod"],
        "version": 2,
        "roles": ["crawler"],
        "iat": now,
        "exp": now + 600,
    } | changes
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret, "HS256")


@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer ", "BEARER  "])
@pytest.mark.parametrize("make", [livekit, videosdk])
def test_either_token_opens_the_door(make: Any, prefix: str) -> None:
    AUTHORIZER.require_rest(prefix + make())


def test_roles_may_be_missing() -> None:
    AUTHORIZER.require_rest(videosdk(roles=None, version=None))


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (None, "required"),
        ("", "required"),
        ("Bearer ", "required"),
        ("nonsense", "does not verify"),
        ("a.b.c", "does not verify"),
        ("x" * (MAX_TOKEN_LENGTH + 1), "too long"),
        (livekit(secret="another-secret-of-thirty-two-bytes!!"), "does not verify"),
        (livekit(key="other"), "another API key"),
        (videosdk(secret="another-secret-of-thirty-two-bytes!!"), "does not verify"),
        (videosdk(apikey="other"), "another API key"),
        (videosdk(apikey=None), "does not verify"),
        (videosdk(exp=None), "has no expiry"),
        (videosdk(exp=int(time.time()) - 3600), "has expired"),
        (videosdk(nbf=int(time.time()) + 3600), "not valid yet"),
        (jwt.encode({"apikey": KEY, "permissions": ["allow_mod"]}, "", "none"), "does not verify"),
    ],
)
def test_no_valid_token(token: str | None, why: str) -> None:
    with pytest.raises(Unauthenticated, match=why) as caught:
        AUTHORIZER.require_rest(token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (livekit(room_list=True), "roomCreate"),
        (videosdk(permissions=["allow_join"]), "allow_mod"),
        (videosdk(permissions="allow_mod"), "allow_mod"),
        (videosdk(permissions=None), "allow_mod"),
        (videosdk(roles=["rtc"]), "participant"),
        (videosdk(roles=None, participantId="p"), "participant"),
        (videosdk(roles=[], roomId="r"), "participant"),
    ],
)
def test_a_valid_token_that_may_not(token: str, why: str) -> None:
    with pytest.raises(PermissionDenied, match=why):
        AUTHORIZER.require_rest(token)


def test_an_expired_livekit_token() -> None:
    token = api.AccessToken(KEY, SECRET).with_grants(api.VideoGrants(room_create=True))
    expired = token.with_ttl(datetime.timedelta(seconds=-3600)).to_jwt()
    with pytest.raises(Unauthenticated, match="expired"):
        AUTHORIZER.require_rest(expired)


def test_twirp_takes_no_videosdk_token() -> None:
    with pytest.raises((Unauthenticated, PermissionDenied)):
        AUTHORIZER.require_room_create(f"Bearer {videosdk()}")


OTHER_KEY, OTHER_SECRET = "APIother", "another-secret-of-thirty-two-bytes!!"
SEVERAL = Authorizer(KEY, SECRET, {OTHER_KEY: OTHER_SECRET})


def test_each_key_with_its_own_secret() -> None:
    for authorizer_call in (SEVERAL.require_rest, lambda token: SEVERAL.require_room_create(f"Bearer {token}")):
        authorizer_call(livekit())
        authorizer_call(livekit(OTHER_SECRET, OTHER_KEY))
    SEVERAL.require_rest(videosdk())
    SEVERAL.require_rest(videosdk(OTHER_SECRET, apikey=OTHER_KEY))


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (livekit(SECRET, OTHER_KEY), "does not verify"),
        (livekit(OTHER_SECRET, KEY), "does not verify"),
        (livekit(OTHER_SECRET, "third"), "does not verify"),
        (livekit(SECRET, "third"), "another API key"),
        (videosdk(SECRET, apikey=OTHER_KEY), "does not verify"),
        (videosdk(OTHER_SECRET), "does not verify"),
        (videosdk(SECRET, apikey="third"), "another API key"),
        (videosdk(SECRET, apikey=["APIkey"]), "another API key"),
    ],
)
def test_no_key_with_the_secret_of_another(token: str, why: str) -> None:
    with pytest.raises(Unauthenticated, match=why):
        SEVERAL.require_rest(token)
