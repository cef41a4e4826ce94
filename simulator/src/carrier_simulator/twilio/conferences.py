"""Twilio's conferences, as the REST API steers them: people in one, a SIP address that is called into it.

https://www.twilio.com/docs/voice/api/conference-resource and .../conference-participant-resource. Nobody's audio is
mixed; who is in is all there is of a conference here.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime

from aiohttp import web
from multidict import MultiMapping

from carrier_simulator.dialect import Office
from carrier_simulator.faults import CarrierError, Refused
from carrier_simulator.moments import Moment
from carrier_simulator.sip.leg import SipLeg
from carrier_simulator.terms import Callback
from carrier_simulator.twilio.dialect import API_VERSION
from carrier_simulator.twilio.rest import ApiError, Handler, texts

_SID = re.compile(r"CA[0-9a-f]{32}")
_LONGEST_LABEL = 128
_START, _END, _JOIN, _LEAVE = "start", "end", "join", "leave"
_EVENTS = {_START: "conference-start", _END: "conference-end", _JOIN: "participant-join", _LEAVE: "participant-leave"}
LABEL_TAKEN = 16025


@dataclass(eq=False)
class Participant:
    call_sid: str
    label: str = ""
    status: str = "connected"
    """queued, ringing or connected."""
    to: str = ""
    from_: str = ""
    leg: SipLeg | None = None
    joined: Moment = field(default_factory=lambda: Moment("joined the conference"))
    left: Moment = field(default_factory=lambda: Moment("left the conference"))
    task: asyncio.Task[None] | None = None


class Conference:
    """Begins with its first participant; in progress from the second on, as when everybody's
    startConferenceOnEnter is true."""

    def __init__(self, office: Office, account_sid: str, friendly_name: str, callback: Callback | None) -> None:
        self.sid = "CF" + secrets.token_hex(16)
        self.account_sid = account_sid
        self.friendly_name = friendly_name
        self.status = "init"
        self.participants: list[Participant] = []
        self.errors: list[CarrierError] = []
        self.created = datetime.now(UTC)
        self.begun = Moment("told the application that the conference is in progress")
        self._office = office
        self._callback = callback
        self._sequence = 0

    def named(self, who: str) -> Participant | None:
        """By CallSid or label."""
        return next((each for each in self.participants if who in (each.call_sid, each.label)), None)

    async def join(self, participant: Participant) -> None:
        """Somebody is in; returns when the application has been told."""
        participant.status = "connected"
        if participant not in self.participants:
            self.participants.append(participant)
        participant.joined.come()
        await self._tell(_JOIN, participant)
        inside = [each for each in self.participants if each.status == "connected"]
        if self.status == "init" and len(inside) > 1:
            self.status = "in-progress"
            await self._tell(_START, participant)
            self.begun.come()

    async def person(self) -> Participant:
        """Somebody with a telephone."""
        participant = Participant(self._office.dialect.call_id())
        await self.join(participant)
        return participant

    async def invite(self, participant: Participant, username: str, password: str) -> None:
        """Call a SIP address; who answers is in until one of the two hangs up."""
        try:
            leg = await self._office.sip.open(participant.to, participant.from_, username, password)
            participant.leg, participant.status = leg, "ringing"
            outcome = await leg.dial()
            if outcome.status != 200 or outcome.fault:
                await leg.hang_up()
                return
            await self.join(participant)
            await leg.ended.wait(None)
        except Refused as refused:
            self.errors.append(refused.error)
        except asyncio.CancelledError:
            if participant.leg is not None:
                await participant.leg.cancel()
            raise
        finally:
            await self.leave(participant)

    async def leave(self, participant: Participant) -> None:
        if participant not in self.participants:
            return
        self.participants.remove(participant)
        participant.left.come()
        if participant.joined.has_come():
            await self._tell(_LEAVE, participant)
        if not any(each.status == "connected" for each in self.participants):
            self.status = "completed"
            await self._tell(_END, participant)

    async def remove(self, participant: Participant) -> None:
        """As DELETE does."""
        if participant.leg is not None and participant.joined.has_come():
            await participant.leg.hang_up()
        elif participant.task is not None:
            participant.task.cancel()
        await self.leave(participant)

    async def close(self) -> None:
        tasks = [each.task for each in self.participants if each.task is not None]
        self._callback = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, event: str, participant: Participant) -> None:
        if self._callback is None or event not in self._callback.events:
            return
        self._sequence += 1
        form = [
            ("ConferenceSid", self.sid),
            ("FriendlyName", self.friendly_name),
            ("AccountSid", self.account_sid),
            ("StatusCallbackEvent", _EVENTS[event]),
            ("SequenceNumber", str(self._sequence)),
            ("Timestamp", format_datetime(datetime.now(UTC))),
        ]
        if event in (_JOIN, _LEAVE):
            form += [("CallSid", participant.call_sid), ("Muted", "false"), ("Hold", "false")]
            form += [("ParticipantLabel", participant.label)] if participant.label else []
        try:
            await self._office.web.notify(self._callback.url, self._callback.method, form)
        except Refused as refused:
            self.errors.append(refused.error)


class ConferenceApi:
    """The resources of a simulator's conferences."""

    def __init__(self, account_sid: str, office: Callable[[], Office], checked: Callable[[Handler], Handler]) -> None:
        self.conferences: dict[str, Conference] = {}
        self._account_sid = account_sid
        self._office = office
        self._checked = checked

    def open(self, friendly_name: str, callback: Callback | None = None) -> Conference:
        """One that nobody has joined yet; `callback.events` are of start, end, join and leave."""
        conference = Conference(self._office(), self._account_sid, friendly_name, callback)
        self.conferences[conference.sid] = conference
        return conference

    async def close(self) -> None:
        await asyncio.gather(*(conference.close() for conference in self.conferences.values()))

    def routes(self) -> Sequence[web.RouteDef]:
        base = f"/{API_VERSION}/Accounts/{{account}}/Conferences/{{conference}}"
        one = base + "/Participants/{who}.json"
        return [
            web.get(base + ".json", self._checked(self._show)),
            web.get(base + "/Participants.json", self._checked(self._list)),
            web.post(base + "/Participants.json", self._checked(self._create)),
            web.get(one, self._checked(self._fetch)),
            web.delete(one, self._checked(self._delete)),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        conference = self._conference(request)
        return web.json_response(
            {
                "sid": conference.sid,
                "account_sid": conference.account_sid,
                "friendly_name": conference.friendly_name,
                "status": conference.status,
                "date_created": format_datetime(conference.created),
            }
        )

    async def _list(self, request: web.Request) -> web.Response:
        conference = self._conference(request)
        participants = [_resource(conference, each) for each in conference.participants]
        return web.json_response({"participants": participants, "page": 0, "next_page_uri": None, "uri": request.path})

    async def _create(self, request: web.Request) -> web.Response:
        conference = self._conference(request)
        form = texts(await request.post())
        participant = Participant(self._office().dialect.call_id(), form.get("Label", ""), "queued", _to(form))
        participant.from_ = form.get("From", "")
        if not participant.from_:
            raise ApiError(400, 21213, "No 'From' number is specified")
        self._check_label(conference, participant.label)
        conference.participants.append(participant)
        work = conference.invite(participant, form.get("SipAuthUsername", ""), form.get("SipAuthPassword", ""))
        participant.task = asyncio.create_task(work, name=f"participant {participant.call_sid}")
        return web.json_response(_resource(conference, participant), status=201)

    def _check_label(self, conference: Conference, label: str) -> None:
        if len(label) > _LONGEST_LABEL or "/" in label or _SID.fullmatch(label):
            raise ApiError(400, 16023, "Participant label invalid (max 128 chars, not CallSid, no '/')")
        if label and conference.named(label) is not None:
            raise ApiError(400, LABEL_TAKEN, "Participant label is in use by another participant")

    async def _fetch(self, request: web.Request) -> web.Response:
        conference, participant = self._participant(request)
        return web.json_response(_resource(conference, participant))

    async def _delete(self, request: web.Request) -> web.Response:
        conference, participant = self._participant(request)
        await conference.remove(participant)
        return web.Response(status=204)

    def _conference(self, request: web.Request) -> Conference:
        conference = self.conferences.get(request.match_info["conference"])
        if conference is None or conference.status == "completed":
            raise ApiError(404, 20404, f"The requested resource {request.path} was not found")
        return conference

    def _participant(self, request: web.Request) -> tuple[Conference, Participant]:
        conference = self._conference(request)
        participant = conference.named(request.match_info["who"])
        if participant is None:
            raise ApiError(404, 20404, f"The requested resource {request.path} was not found")
        return conference, participant


def _to(form: MultiMapping[str]) -> str:
    to = form.get("To", "")
    if not to:
        raise ApiError(400, 21201, "No 'To' number is specified")
    if not to.startswith("sip:"):
        raise ApiError(400, 21211, "only SIP addresses are simulated as participants")
    return to


def _resource(conference: Conference, participant: Participant) -> dict[str, object]:
    path = f"/{API_VERSION}/Accounts/{conference.account_sid}/Conferences/{conference.sid}"
    return {
        "account_sid": conference.account_sid,
        "call_sid": participant.call_sid,
        "label": participant.label or None,
        "conference_sid": conference.sid,
        "status": participant.status,
        "muted": False,
        "hold": False,
        "coaching": False,
        "call_sid_to_coach": None,
        "start_conference_on_enter": True,
        "end_conference_on_exit": False,
        "date_created": format_datetime(conference.created),
        "date_updated": format_datetime(conference.created),
        "queue_time": "0",
        "uri": f"{path}/Participants/{participant.call_sid}.json",
    }
