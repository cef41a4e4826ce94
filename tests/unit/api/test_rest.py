"""The way that every REST request goes: authorised, bounded, checked, and answered in one shape."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connector.errors import Unavailable
from tests.unit.api.rest_stage import TOKEN, Rest, rest_api


@pytest.fixture
async def rest() -> AsyncIterator[Rest]:
    async with rest_api() as rest:
        yield rest


@pytest.mark.parametrize("headers", [{}, {"Authorization": ""}, {"Authorization": "Bearer x.y.z"}])
async def test_without_a_token_401(rest: Rest, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/v2/connectors"), ("POST", "/v2/connectors"), ("DELETE", "/v2/connectors/cn_1")):
        status, answer = await rest(method, path, headers=headers)
        assert (status, answer["code"]) == (401, "unauthenticated")
        assert answer["message"]


async def test_a_token_with_bearer_is_good_too(rest: Rest) -> None:
    answer = await rest.ok("GET", "/v2/connectors", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer["data"] == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", "the body must be a JSON object"),
        (b'"twilio"', "the body must be a JSON object"),
        (b"{}", "provider: is required"),
        (b'{"provider": null}', "provider: must be 'twilio', 'telnyx' or 'plivo'"),
        (b'{"provider": "vonage"}', "provider: must be 'twilio', 'telnyx' or 'plivo'"),
        (b'{"provider": "twilio", "name": 5}', "name: must be a valid string"),
        (b'{"provider": "twilio", "defaultRoomId": ""}', "defaultRoomId: must have at least 1 character"),
        (b'{"provider": "twilio", "defaultRoomId": "a\\u0000"}', "defaultRoomId: must have no control characters"),
    ],
)
async def test_what_cannot_be_understood_400(rest: Rest, body: bytes, message: str) -> None:
    status, answer = await rest("POST", "/v2/connectors", data=body)
    assert status == 400
    assert answer["message"].startswith(message)
    assert not await rest.store.connectors.list()


async def test_a_body_that_is_too_large_413(rest: Rest) -> None:
    status, answer = await rest("POST", "/v2/connectors", data=b" " * 200_000)
    assert (status, answer["code"]) == (413, "too_large")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    status, answer = await rest("POST", "/v2/connectors", data=pieces())
    assert (status, answer["code"]) == (413, "too_large")


async def test_a_body_needs_no_content_type(rest: Rest) -> None:
    answer = await rest.ok("POST", "/v2/connectors", data=b'{"provider": "twilio"}')
    assert answer["data"]["provider"] == "twilio"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v2/connectors", {"provider": "twilio", "agent": "a"}, "agent: is not a field of this request; did you mean"),
        ("/v2/connectors", {"provider": "twilio", "x": {"a": [1]}}, "x: is not a field of this request"),
        (
            "/v2/sip/routing-rule",
            {"name": "n", "type": "inbound", "blokedNumbers": ["+1900*"]},
            "blokedNumbers: is not a field of this request; did you mean blockedNumbers?",
        ),
        (
            "/v2/sip/routing-rule",
            {"name": "n", "type": "inbound", "room": {"type": "dynamic", "pni": "1"}},
            "room.pni: is not a field of this request",
        ),
        ("/v2/sip/call/end", {"callId": "call_1", "reason": "x"}, "reason: is not a field of this request"),
    ],
)
async def test_an_unknown_field_of_a_body_is_refused_with_its_name(
    rest: Rest, path: str, body: dict[str, Any], message: str
) -> None:
    status, answer = await rest("POST", path, json=body)
    assert (status, answer["code"]) == (400, "invalid_argument")
    assert answer["message"].startswith(message)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v2/connectors", "POST, GET"),
        ("POST", "/v2/connectors/cn_1", "GET, DELETE"),
        ("GET", "/v2/connectors/cn_1/rotate-key", "POST"),
        ("GET", "/v2/sip/call/end", "POST"),
        ("DELETE", "/v2/openapi.json", "GET"),
    ],
)
async def test_another_method_405(rest: Rest, method: str, path: str, allowed: str) -> None:
    async with rest.client.request(method, path, headers={"Authorization": TOKEN}) as response:
        answer = await response.json()
        assert (response.status, response.headers["Allow"]) == (405, allowed)
        assert answer["code"] == "method_not_allowed"


async def test_a_store_that_fails_is_told_503_and_a_bug_500(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> Any:
        async def listed(*_: Any) -> None:
            raise error

        return listed

    monkeypatch.setattr(rest.store.connectors, "page", fail(Unavailable("the store is away")))
    assert await rest("GET", "/v2/connectors") == (503, {"message": "the store is away", "code": "unavailable"})
    monkeypatch.setattr(rest.store.connectors, "page", fail(ZeroDivisionError("secret detail")))
    status, answer = await rest("GET", "/v2/connectors")
    assert (status, answer["code"]) == (500, "internal")
    assert "secret" not in answer["message"]


async def test_the_document_is_served_to_everybody(rest: Rest) -> None:
    answer = await rest.ok("GET", "/v2/openapi.json", headers={})
    assert answer == rest.document
    assert answer["openapi"].startswith("3.1")
    assert set(answer["paths"]) == {
        "/v2/connectors",
        "/v2/connectors/{id}",
        "/v2/connectors/{id}/rotate-key",
        "/v2/sip/routing-rule",
        "/v2/sip/routing-rule/{id}",
        "/v2/sip/call",
        "/v2/sip/call/{id}",
        "/v2/sip/call/end",
        "/v2/sip/call/transfer",
        "/v2/sip/call/switch-room",
    }


def test_every_reference_of_the_document_leads_somewhere_and_every_id_is_its_own(rest: Rest) -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [each for value in part.values() for each in references(value)]
        return [each for value in part for each in references(value)] if isinstance(part, list) else []

    names = {reference.removeprefix("#/components/schemas/") for reference in references(rest.document)}
    assert names <= set(rest.document["components"]["schemas"])
    operations = [operation for path in rest.document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) == 15


@pytest.mark.parametrize("path", ["/v2/rooms", "/v2/", "/v2/sip", "/v2/sip/call/a/b", "/v2/connectors/", "/v2/hooksy"])
async def test_a_path_that_there_is_not_404(rest: Rest, path: str) -> None:
    status, answer = await rest("POST", path, {})
    assert (status, answer["code"]) == (404, "not_found")
    assert path in answer["message"]


async def test_the_paths_of_carriers_are_not_the_api_s(rest: Rest) -> None:
    async with rest.client.get("/v2/hooks/twilio/whk_1/more") as response:
        assert (response.status, response.content_type) == (404, "text/plain")
