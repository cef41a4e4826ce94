"""Answers the calls to a Twilio number: each caller gets a LiveKit room, and an agent. See README.md."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator

from aiohttp import web
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Connect, VoiceResponse

log = logging.getLogger("webhook")
INBOUND = api.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_INBOUND


def setting(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        sys.exit(f"webhook: set {name} (see README.md)")
    return value


class Webhook:
    def __init__(self, public_url: str, auth_token: str, agent_name: str) -> None:
        # The URL that Twilio signs is the one it was given, not what a proxy makes of it on the way here.
        self.url = public_url.rstrip("/") + "/voice"
        self._validator = RequestValidator(auth_token)
        self._agents = [RoomAgentDispatch(agent_name=agent_name)] if agent_name else []
        self._lkapi: api.LiveKitAPI

    async def livekit(self, _: web.Application) -> AsyncIterator[None]:
        """One client for as long as the server runs."""
        async with api.LiveKitAPI() as self._lkapi:
            yield

    async def voice(self, request: web.Request) -> web.Response:
        form = await request.post()
        signature = request.headers.get("X-Twilio-Signature", "")
        if not self._validator.validate(self.url, form, signature):
            return web.Response(status=403, text="the signature does not match\n")
        call_sid, caller = form.get("CallSid"), form.get("From")
        if not call_sid or not caller:
            return web.Response(status=400, text="this is not about a call\n")
        try:
            twiml = await self._connect(str(call_sid), str(caller))
        except Exception:  # whatever went wrong, somebody is on the phone and has to be told
            log.exception("call %s cannot be connected", call_sid)
            twiml = apology()
        return web.Response(text=twiml, content_type="text/xml")

    async def _connect(self, call_sid: str, caller: str) -> str:
        response = await self._lkapi.connector.connect_twilio_call(
            api.ConnectTwilioCallRequest(
                twilio_call_direction=INBOUND,
                room_name=f"call-{call_sid}",
                participant_identity=caller,
                participant_name=caller,
                agents=self._agents,
            )
        )
        twiml = VoiceResponse()
        twiml.say("This is LiveKit Twilio Connector.")
        connect = Connect()
        connect.stream(url=response.connect_url)
        twiml.append(connect)
        # When the stream has ended, the connector tells Twilio how the call goes on: stream again, or hang up.
        twiml.redirect("http" + response.connect_url.removeprefix("ws") + "/resume", method="POST")
        return str(twiml)


def apology() -> str:
    twiml = VoiceResponse()
    twiml.say("We are sorry, this call cannot be connected right now. Please try again later.")
    twiml.hangup()
    return str(twiml)


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        setting(name)  # the client reads them itself
    webhook = Webhook(setting("PUBLIC_URL"), setting("TWILIO_AUTH_TOKEN"), os.environ.get("AGENT_NAME", ""))
    app = web.Application()
    app.cleanup_ctx.append(webhook.livekit)
    app.router.add_post("/voice", webhook.voice)
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "3000"))
    log.info("Twilio asks %s", webhook.url)
    web.run_app(app, host=host, port=port, print=lambda _: log.info("listening on http://%s:%d", host, port))


if __name__ == "__main__":
    main()
