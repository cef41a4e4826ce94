"""Lifecycle webhooks from a running connector to servers of 127.0.0.1: what is delivered, when, and to whom not."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.exceptions import InvalidSignature
from typer.testing import CliRunner

from connector.app import Connector
from connector.cli.root_commands import app
from connector.model.webhook import Delivery, LifecycleEvent, WebhookEndpoint
from connector.webhooks.sender import GIVE_UP_AFTER
from demo.connector_process import clean_environment
from tests.integration.harness import PATIENCE, Stage
from tests.integration.webhooks import EVERY_EVENT, Received, Receiver, Rest, happened

WEBHOOKS = "/v2/sip/webhooks"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"
REFUSED = "the host's address is not public; CONNECTOR_WEBHOOK_ALLOW_PRIVATE allows that"


@pytest.fixture
async def connector(stage: Stage) -> Connector:
    return await stage.connector(webhook_allow_private=True)


@pytest.fixture
async def rest(stage: Stage, connector: Connector) -> Rest:
    return Rest(await stage.http(), connector.settings)


@pytest.fixture
async def new_receiver() -> AsyncIterator[Callable[[], Awaitable[Receiver]]]:
    async with AsyncExitStack() as stack:

        async def make() -> Receiver:
            return await stack.enter_async_context(Receiver())

        yield make


@pytest.fixture
async def receiver(new_receiver: Callable[[], Awaitable[Receiver]]) -> Receiver:
    return await new_receiver()


async def logged(rest: Rest, webhook_id: str, number: int) -> list[dict[str, Any]]:
    """The delivery log, once it has this many lines: the answer reaches it after the request has been answered."""
    async with asyncio.timeout(PATIENCE):
        while len(lines := await rest.log_of(webhook_id)) < number:  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(0.02)
    return lines


async def test_webhooks_are_registered_changed_listed_and_deleted(rest: Rest) -> None:
    made = await rest.ask("POST", WEBHOOKS, {"url": "https://example.com/a", "events": ["call-started"]}, 201)
    assert made["id"].startswith("wh_")
    assert len(made["id"]) == 19
    assert made["createdAt"] == made["updatedAt"]
    other = await rest.register("https://example.com/b?key=1", ["call-hangup", "call-hangup"])
    one = f"{WEBHOOKS}/{made['id']}"
    assert await rest.ask("GET", one) == made
    page = await rest.ask("GET", f"{WEBHOOKS}?page=1&perPage=1")
    assert [webhook["id"] for webhook in page["data"]] == [other]
    assert page["data"][0]["events"] == ["call-hangup"]
    assert page["pageInfo"] == {"currentPage": 1, "perPage": 1, "lastPage": 2, "total": 2}
    found = await rest.ask("GET", f"{WEBHOOKS}?search=COM/A")
    assert [webhook["id"] for webhook in found["data"]] == [made["id"]]
    changed = await rest.ask("PATCH", one, {"url": "https://example.com/c", "events": ["call-missed"]})
    assert (changed["url"], changed["events"]) == ("https://example.com/c", ["call-missed"])
    assert changed["createdAt"] == made["createdAt"]
    assert (await rest.ask("PATCH", one, {"events": ["call-update"]}))["url"] == "https://example.com/c"
    assert await rest.ask("DELETE", one) == {"message": "Webhook deleted successfully"}
    for method, path in (("GET", one), ("PATCH", one), ("DELETE", one), ("GET", f"{one}/deliveries")):
        assert (await rest.ask(method, path, {} if method == "PATCH" else None, 404))["message"] == "Webhook not found"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"events": ["call-started"]}, "url: is required"),
        ({"url": "https://example.com"}, "events: is required"),
        ({"url": "https://example.com", "events": []}, "events: "),
        ({"url": "https://example.com", "events": ["call-begun"]}, "events.0: must be 'call-started', 'call-ringing'"),
        ({"url": "example.com", "events": ["call-started"]}, "url: must be an absolute http or https URL"),
        ({"url": "ftp://example.com", "events": ["call-started"]}, "url: must be an absolute http or https URL"),
        ({"url": "https://a:b@example.com", "events": ["call-started"]}, "url: must not hold a user or password"),
    ],
)
async def test_what_cannot_be_registered(rest: Rest, body: dict[str, object], message: str) -> None:
    answer = await rest.ask("POST", WEBHOOKS, body, 400)
    assert answer["message"].startswith(message)


async def test_only_the_public_key_is_for_everybody(stage: Stage, connector: Connector) -> None:
    http = await stage.http()
    for method, path in (("GET", WEBHOOKS), ("POST", WEBHOOKS), ("GET", f"{WEBHOOKS}/wh_1/deliveries")):
        async with http.request(method, connector.settings.public_origin + path) as response:
            assert response.status == 401
    async with http.get(connector.settings.public_origin + "/v2/public/rsa-public-key") as response:
        assert response.status == 200
        assert "PRIVATE" not in await response.text()


async def test_events_of_a_call_arrive_in_order_signed_and_logged(
    rest: Rest, connector: Connector, receiver: Receiver
) -> None:
    webhook = await rest.register(receiver.url + "?secret=s3cret")
    events = (LifecycleEvent.STARTED, LifecycleEvent.RINGING, LifecycleEvent.ANSWERED, LifecycleEvent.HANGUP)
    await happened(connector, *events)
    received = await receiver.count(4)
    assert [one.type for one in received] == ["call-started", "call-ringing", "call-answered", "call-hangup"]
    public_key = await rest.public_key()
    for one in received:
        one.verify(public_key)
        assert one.path == "/hook?secret=s3cret"
    assert len({one.id for one in received}) == 4
    lines = await logged(rest, webhook, 4)
    assert [line["deliveryId"] for line in lines] == [one.id for one in reversed(received)]
    for line in lines:
        assert (line["status"], line["error"], line["attempt"], line["callId"]) == (200, None, 1, "call_1")


async def test_only_the_events_that_were_asked_for(rest: Rest, connector: Connector, receiver: Receiver) -> None:
    await rest.register(receiver.url, ["call-answered"])
    await happened(connector, LifecycleEvent.STARTED, LifecycleEvent.ANSWERED, LifecycleEvent.HANGUP)
    await rest.register(receiver.url, ["call-missed"])
    await happened(connector, LifecycleEvent.MISSED, call_id="call_2")
    await receiver.until(lambda received: len(received) == 2)
    assert sorted(receiver.types()) == ["call-answered", "call-missed"]


async def test_a_server_that_was_down_gets_everything_in_order_when_it_is_back(
    rest: Rest, connector: Connector, receiver: Receiver
) -> None:
    await receiver.stop()
    webhook = await rest.register(receiver.url)
    await happened(connector, LifecycleEvent.STARTED, LifecycleEvent.HANGUP)
    lines = await logged(rest, webhook, 1)
    assert (lines[-1]["status"], lines[-1]["error"]) == (None, "connection refused")
    await receiver.start()
    received = await receiver.count(2)
    assert [one.type for one in received] == ["call-started", "call-hangup"]
    lines = await logged(rest, webhook, 3)
    assert {line["deliveryId"] for line in lines} == {one.id for one in received}
    assert lines[0]["attempt"] == 1
    assert lines[1]["attempt"] > 1


async def test_an_answer_that_is_not_2xx_is_a_failure_and_the_id_stays(
    rest: Rest, connector: Connector, receiver: Receiver
) -> None:
    receiver.status = 500
    webhook = await rest.register(receiver.url)
    await happened(connector, LifecycleEvent.STARTED)
    await receiver.count(1)
    receiver.status = 204
    first, second = await receiver.count(2)
    assert (first.id, first.raw) == (second.id, second.raw)
    newest, oldest = await logged(rest, webhook, 2)
    assert (oldest["status"], oldest["error"], oldest["attempt"]) == (500, "HTTP 500", 1)
    assert (newest["status"], newest["error"], newest["attempt"]) == (204, None, 2)


async def test_redirects_are_not_followed(
    rest: Rest, connector: Connector, new_receiver: Callable[[], Awaitable[Receiver]]
) -> None:
    redirecting, goal = await new_receiver(), await new_receiver()
    redirecting.status, redirecting.headers = 307, {"Location": goal.url}
    webhook = await rest.register(redirecting.url)
    await happened(connector, LifecycleEvent.STARTED)
    line = (await logged(rest, webhook, 1))[-1]
    assert (line["status"], line["error"]) == (307, "HTTP 307: redirects are not followed")
    assert goal.received == []


async def test_a_silent_server_delays_nobody(
    rest: Rest, connector: Connector, new_receiver: Callable[[], Awaitable[Receiver]]
) -> None:
    silent, well = await new_receiver(), await new_receiver()
    silent.answering.clear()
    await rest.register(silent.url)
    await rest.register(well.url)
    calls = [f"call_{number}" for number in range(20)]
    for call_id in calls:
        await happened(connector, LifecycleEvent.STARTED, LifecycleEvent.HANGUP, call_id=call_id)
    await well.count(40)
    for call_id in calls:
        assert well.types(call_id) == ["call-started", "call-hangup"]
    # Not one of its deliveries is through: the others did not wait for them.
    assert set(silent.types()) == {"call-started"}
    assert not silent.answering.is_set()


async def test_what_a_process_left_undone_the_next_one_does(stage: Stage, receiver: Receiver) -> None:
    settings = stage.settings(webhook_allow_private=True)
    first = Connector(settings)
    await first.start()
    try:
        async with aiohttp.ClientSession() as http:
            await receiver.stop()
            await Rest(http, settings).register(receiver.url)
            await happened(first, LifecycleEvent.STARTED, LifecycleEvent.HANGUP)
    finally:
        await first.stop(0)
    await receiver.start()
    second = Connector(settings)
    await second.start()
    try:
        received = await receiver.count(2)
    finally:
        await second.stop(0)
    assert [one.type for one in received] == ["call-started", "call-hangup"]


async def test_it_is_given_up_after_a_day(rest: Rest, connector: Connector, receiver: Receiver) -> None:
    receiver.status = 503
    webhook = await rest.register(receiver.url)
    now = time.time()
    old = Delivery("whd_old", webhook, "call_1", LifecycleEvent.STARTED, "{}", now - GIVE_UP_AFTER - 1, now)
    await connector.store.deliveries.put([old, replace(old, id="whd_next", created_at=now)])
    # Which also wakes the sender.
    await happened(connector, LifecycleEvent.UPDATE, call_id="call_2")
    await receiver.count(3)
    sent = [one.headers["videosdk-delivery-id"] for one in receiver.received]
    assert [name for name in sent if name in ("whd_old", "whd_next")][:2] == ["whd_old", "whd_next"]
    assert sent.count("whd_old") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254"])
async def test_private_addresses_are_refused_by_default(stage: Stage, host: str) -> None:
    connector = await stage.connector()
    rest = Rest(await stage.http(), connector.settings)
    body = {"url": f"http://{host}:8000/hook", "events": EVERY_EVENT}
    answer = await rest.ask("POST", WEBHOOKS, body, 400)
    assert "CONNECTOR_WEBHOOK_ALLOW_PRIVATE" in answer["message"]


async def test_a_name_that_leads_to_a_private_address_is_not_connected_to(stage: Stage, receiver: Receiver) -> None:
    connector = await stage.connector()
    rest = Rest(await stage.http(), connector.settings)
    # Registration cannot know what a name will resolve to.
    url = receiver.url.replace("127.0.0.1", "localhost")
    await connector.store.endpoints.insert(WebhookEndpoint("wh_1", url, tuple(LifecycleEvent), 1.0, 1.0))
    await happened(connector, LifecycleEvent.STARTED)
    line = (await logged(rest, "wh_1", 1))[-1]
    assert (line["status"], line["error"]) == (None, REFUSED)
    assert receiver.received == []


async def test_what_waits_for_a_deleted_webhook_is_not_delivered(
    rest: Rest, connector: Connector, receiver: Receiver
) -> None:
    await receiver.stop()
    webhook = await rest.register(receiver.url)
    await happened(connector, LifecycleEvent.STARTED)
    await logged(rest, webhook, 1)
    await rest.ask("DELETE", f"{WEBHOOKS}/{webhook}")
    assert await connector.store.deliveries.pending() == 0
    await receiver.start()
    await rest.register(receiver.url)
    await happened(connector, LifecycleEvent.STARTED, call_id="call_2")
    await receiver.count(1)
    assert receiver.types() == ["call-started"]
    assert receiver.received[0].data["callId"] == "call_2"


async def test_the_log_names_neither_bodies_nor_queries(
    rest: Rest, connector: Connector, receiver: Receiver, log: list[Any]
) -> None:
    receiver.status = 500
    await rest.register(receiver.url + "?secret=s3cret")
    await happened(connector, LifecycleEvent.STARTED)
    await receiver.count(1)
    receiver.status = 200
    await receiver.count(2)
    assert "webhook not delivered" in str(log)
    assert "s3cret" not in str(log)
    assert "webhookType" not in str(log)


async def test_the_command_line_lists_rotates_and_revokes(rest: Rest, connector: Connector, receiver: Receiver) -> None:
    settings = connector.settings
    environment = {
        **clean_environment(),
        "LIVEKIT_API_KEY": settings.livekit_api_key,
        "LIVEKIT_API_SECRET": settings.livekit_api_secret.get_secret_value(),
        "CONNECTOR_STORE": settings.store,
        "CONNECTOR_PORT": str(settings.port),
    }

    async def run(*arguments: str) -> str:
        result = await asyncio.to_thread(lambda: CliRunner(env=environment).invoke(app, ["webhooks", *arguments]))
        assert result.exit_code == 0, result.stderr
        return result.stdout

    webhook = await rest.register(receiver.url)
    assert f'"webhook": "{webhook}"' in await run("list", "--json")
    await happened(connector, LifecycleEvent.STARTED)
    await logged(rest, webhook, 1)
    assert '"status": 200' in await run("deliveries", webhook, "--call", "call_1", "--json")
    assert "call-started" in await run("deliveries")

    old = await rest.public_key()
    new = await run("rotate-key")
    assert await rest.public_key() == new != old
    await happened(connector, LifecycleEvent.HANGUP)
    received = (await receiver.count(2))[1]
    received.verify(new)
    received.verify(old, "videosdk-signature-retired")
    # The command runs in this process: what the connector logs meanwhile would be in its output.
    await logged(rest, webhook, 2)

    only = await run("revoke-key")
    assert await rest.public_key() == only not in (old, new)
    await happened(connector, LifecycleEvent.UPDATE)
    received = (await receiver.count(3))[2]
    received.verify(only)
    assert "videosdk-signature-retired" not in received.headers


async def test_the_python_of_the_documentation_verifies(rest: Rest, connector: Connector, receiver: Receiver) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    deliveries = names["Deliveries"](connector.settings.public_origin)

    async def verified(received: Received, raw: bytes) -> Any:
        return await asyncio.to_thread(deliveries.verified, raw, received.headers)

    await rest.register(receiver.url)
    await happened(connector, LifecycleEvent.STARTED)
    (first,) = await receiver.count(1)
    assert (await verified(first, first.raw))["webhookType"] == "call-started"
    with pytest.raises(InvalidSignature):
        await verified(first, first.raw + b" ")
    await connector.webhooks.keys.rotate()
    await happened(connector, LifecycleEvent.HANGUP)
    second = (await receiver.count(2))[1]
    assert (await verified(second, second.raw))["webhookType"] == "call-hangup"
