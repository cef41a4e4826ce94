"""The composition root: builds every part, starts them in order, drains and stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial

import structlog

from connector import startup
from connector.api.auth import Authorizer
from connector.api.carrier.carrier_requests import CarrierRequests
from connector.api.carrier.conference_callback import ConferenceCallback
from connector.api.carrier.conferences import ConferenceBridge, ConferenceRpc
from connector.api.carrier.connect_url import ConnectUrl, Words
from connector.api.carrier.hooks import HookRoutes
from connector.api.carrier.pins import forget_locks
from connector.api.carrier.resume_routes import ResumeRoutes
from connector.api.carrier.return_urls import return_urls
from connector.api.carrier.signed import SignatureCheck
from connector.api.carrier.sip_dial import PURPOSE as SIP_PURPOSE
from connector.api.carrier.sip_dial import SipDialler, SipParts
from connector.api.carrier.stream_passing import StreamPassing
from connector.api.carrier.transfer_routes import TransferAddresses, TransferRoutes
from connector.api.ops import OpsRoutes
from connector.api.origins import Origins
from connector.api.peer_endpoint import PeerEndpoint
from connector.api.refusals import Refusals
from connector.api.rest.administration import administration, signature_check
from connector.api.rest.call_operations import CallRest, as_json
from connector.api.rest.operation import Operation
from connector.api.rest.routes import RestRoutes
from connector.api.resume_urls import ResumeUrls
from connector.api.rpc.grpc import GrpcServer
from connector.api.rpc.methods import methods
from connector.api.rpc.service import ConnectorService
from connector.api.rpc.twirp import TwirpRoutes
from connector.call.dependencies import CallDependencies, Limits
from connector.call.registry.control import CallControl, TransferDefaults
from connector.call.registry.dialled import DialledCalls
from connector.call.registry.forwarding import Commands
from connector.call.registry.hang_ups import HangUps
from connector.call.registry.lease import LOOK_EVERY as LOOK_FOR_OTHERS_EVERY
from connector.call.registry.lease import RENEW_EVERY, OwnerLease
from connector.call.registry.manager import CallManager
from connector.call.registry.owners import LOOK_EVERY as LOOK_FOR_GONE_EVERY
from connector.call.registry.reports import CarrierReports, TransferReports
from connector.carrier_table import TABLE, Entry, carrier_secrets, carriers_of, controls_of
from connector.carriers.carrier import Carriers
from connector.chores import Chore
from connector.config import Settings
from connector.http_server import HttpServer
from connector.livekit_api import livekit_of
from connector.logs import never_log
from connector.metrics import Metrics
from connector.model.call import AgentWatch, CallRequest
from connector.model.provider import Provider
from connector.peers.client import PeerClient
from connector.peers.request_tokens import PeerSignatures
from connector.room.admin import RoomAdmin
from connector.room.admission import JoinAdmission
from connector.room.gateway import RoomGateway
from connector.room.joining import drain_abandoned
from connector.room.listener import RoomListener
from connector.sip.provisioning import SipProvisioning
from connector.sip.secrets import SipSecrets
from connector.storage.base import Store
from connector.storage.stores import store_of
from connector.telephony.apis import CarrierApis, say_signer
from connector.telephony.twilio import TwilioAccounts
from connector.telephony.twilio_conferences import TwilioConferences
from connector.tokens import TRANSFER_PURPOSE, TokenSigner, WebhookKeys
from connector.webhooks.delivery import Webhooks
from connector.worker import Recycling, WorkerLink, resident_megabytes

log = structlog.get_logger()

FORGET_EVERY = 3600.0
SWEEP_EVERY = 10.0
COUNT_EVERY = 2.0
KEPT_CONNECTIONS = 2.0
"""Seconds for which a worker that is replaced still takes new calls, on connections that clients keep."""


class Connector:
    """One process of the service. `start`, then serve until `stop`."""

    def __init__(self, settings: Settings, table: Sequence[Entry] = TABLE, link: WorkerLink | None = None) -> None:
        """`link`: to the supervisor, if this process is a worker."""
        self.settings = settings
        self._link = link
        self.carriers = carriers_of(settings, table)
        secret, own = settings.livekit_api_secret.get_secret_value(), settings.own_secrets
        never_log(secret, *own, *settings.client_secrets.values(), *carrier_secrets(settings, table))
        self.metrics = Metrics()
        self.store: Store = store_of(settings)
        self.joins = JoinAdmission(settings.joins_at_once, settings.join_wait, self.metrics)
        self.livekit = livekit_of(settings)
        self.admin = RoomAdmin(self.livekit)
        self._apis = CarrierApis(controls_of(settings, table))
        twilio = _twilio(self._apis)
        self.webhooks = Webhooks(self.store, self.metrics, as_json, allow_private=settings.webhook_allow_private)
        self.hang_ups = HangUps(self.store.hang_ups, self.carriers, self._apis.controls, self.metrics)
        self._call_parts = self._parts()
        self._dialled = DialledCalls(self._call_parts)
        peer_signatures = PeerSignatures(own)
        self.peers = PeerClient(settings.owner, peer_signatures, self.store, self.metrics)
        self.calls = CallManager(self._call_parts, settings.max_calls, self.peers)
        defaults = TransferDefaults(settings.transfer_timeout, settings.transfer_failed_sentence)
        self.control = CallControl(self.calls, self.admin, self._dialled, self.peers, settings.owner, defaults)
        self.peer_endpoint = PeerEndpoint(
            settings.owner,
            peer_signatures,
            Commands(self.calls.held).carry_out,
            self.metrics,
            self._is_draining,
        )
        signer = TokenSigner(own)
        self._webhook_keys = WebhookKeys(own)
        origins = Origins(settings.public_origin, settings.regions, settings.countries)
        signatures = self._signatures = signature_check(settings, self.carriers, origins)
        resume_urls = ResumeUrls(self.calls, signer, origins, self.carriers)
        service = ConnectorService(
            self.calls,
            self.control,
            self.store,
            signer,
            self.carriers,
            origins,
            settings.connect_timeout,
            twilio,
            resume_urls,
        )
        conferences = conference_bridge(settings, self.store, twilio)
        self._sip_provisioning = SipProvisioning(self.livekit)
        self._sip = self._sip_dialler(signatures)
        rpcs = methods(service, ConferenceRpc(conferences))
        authorizer = Authorizer(settings.livekit_api_key, secret, settings.client_secrets)
        refusals = Refusals(self.metrics)
        self.grpc = GrpcServer(rpcs, authorizer, refusals, shares_port=settings.share_ports)
        transfer_reports = TransferReports(self.calls, self._call_parts)
        self._passing = StreamPassing(link.folder if link is not None else None, settings.owner)
        reports = CarrierReports(self.calls, self.control, transfer_reports)
        requests = CarrierRequests(signer, signatures, origins, self.carriers, self.metrics)
        routes = (
            TwirpRoutes(rpcs, authorizer, refusals),
            ConnectUrl(
                self.calls,
                reports,
                self.store,
                say_signer(own),
                _words(settings, self.carriers),
                requests,
                self._passing,
            ),
            ResumeRoutes(self.calls, requests),
            TransferRoutes(transfer_reports, reports, TokenSigner(own, TRANSFER_PURPOSE), requests),
            HookRoutes(
                self.calls,
                reports,
                self.store,
                self._webhook_keys,
                signer,
                origins,
                signatures,
                self.metrics,
                self.carriers,
                self._sip,
                max_waiting=settings.max_waiting_per_connector,
            ),
            self._sip,
            ConferenceCallback(
                self.carriers[Provider.TWILIO], conferences, signatures, refusals, settings.sip_conferences
            ),
            # After the other routes below /v2: it handles all unknown paths there.
            RestRoutes(self._rest_operations(resume_urls), authorizer, refusals),
            OpsRoutes(self.calls, self.admin, self.metrics, link),
        )
        self._http = HttpServer(routes, shares_port=settings.share_ports)
        self._lease = OwnerLease(
            self._call_parts, lambda: bool(self.calls.held), lambda: self.peer_endpoint.address, self._is_draining
        )
        self._undo = contextlib.AsyncExitStack()
        self._chores: list[asyncio.Task[None]] = []
        self.port = settings.port

    def _is_draining(self) -> bool:
        return self.calls.draining or (self._link is not None and self._link.service_stops)

    def _sip_dialler(self, signatures: SignatureCheck) -> SipDialler:
        settings = self.settings
        parts = SipParts(
            endpoint=settings.sip_endpoint,
            numbers=SipSecrets(self.store.sip_numbers, settings.own_secrets),
            rooms=self._sip_provisioning,
            admin=self.admin,
            max_duration=settings.max_duration,
        )
        signer = TokenSigner(settings.own_secrets, SIP_PURPOSE)
        twilio = self.carriers[Provider.TWILIO]
        return SipDialler(twilio, self._dialled, parts, signer, signatures, self.metrics)

    def _rest_operations(self, resume_urls: ResumeUrls) -> list[Operation]:
        return [
            *administration(self.settings, self.carriers, self.store, self.webhooks.keys),
            *CallRest(self.control, self.store, resume_urls).operations(),
        ]

    def _parts(self) -> CallDependencies:
        settings = self.settings
        return CallDependencies(
            admin=self.admin,
            store=self.store,
            metrics=self.metrics,
            joins=self.joins,
            limits=Limits(
                connect_timeout=settings.connect_timeout,
                answer_grace=settings.answer_grace,
                media_timeout=settings.media_timeout,
                max_audio_age=settings.max_audio_age,
                max_duration=settings.max_duration,
                resume_grace=settings.resume_grace,
            ),
            new_room=self._new_room,
            carriers=self.carriers,
            new_codec=lambda provider: self.carriers[provider].codec(),
            owner=settings.owner,
            hang_ups=self.hang_ups,
            control=self._apis.controls,
            lifecycle=self.webhooks.lifecycle,
            watch=AgentWatch(
                warn_after=settings.agent_warn_after,
                timeout=settings.agent_timeout,
                empty_timeout=settings.room_empty_timeout,
                fallback_agent=settings.fallback_agent,
                fallback_number=settings.fallback_number,
                message=settings.no_agent_message,
            ),
            sip_attributes=settings.sip_attributes,
            return_urls=return_urls(
                TokenSigner(settings.own_secrets),
                Origins(settings.public_origin, settings.regions, settings.countries),
                self.carriers,
            ),
            transfer_urls=TransferAddresses(
                TokenSigner(settings.own_secrets, TRANSFER_PURPOSE),
                Origins(settings.public_origin, settings.regions, settings.countries),
            ),
        )

    def _new_room(self, request: CallRequest, listener: RoomListener) -> RoomGateway:
        settings = self.settings
        return RoomGateway(
            url=settings.livekit_ws_url,
            api_key=settings.livekit_api_key,
            api_secret=settings.livekit_api_secret.get_secret_value(),
            room=request.room,
            participant=request.participant,
            kind_details=self.carriers[request.provider].kind_details,
            reconnect_timeout=settings.reconnect_timeout,
            find_room=partial(self.admin.sid, request.room),
            listener=listener,
            metrics=self.metrics,
            turn=partial(self.joins.live_call, request.call_id, settings.reconnect_timeout),
        )

    async def start(self) -> None:
        """Opens the store, then the ports. Raises ConnectorError or OSError; then everything is closed again."""
        startup.warn_of_unsigned_webhooks(self.settings, self.carriers, self._signatures)
        async with contextlib.AsyncExitStack() as undo:
            await self.store.open()
            undo.push_async_callback(self.store.close)
            await startup.reseal(self.store, self._webhook_keys, self.settings.own_secrets)
            await self.webhooks.start()
            undo.push_async_callback(self.webhooks.stop)
            await startup.warn_of_held_phones(self.store, self.carriers, self.settings)
            await self.peers.start()
            undo.push_async_callback(self.peers.close)
            # Before the lease, which has its address.
            await self.peer_endpoint.start(
                self.settings.peer_host,
                self.settings.peer_port,
                self.settings.peer_url,
                several=self.settings.share_ports,
            )
            undo.push_async_callback(self.peer_endpoint.stop)
            interrupted = await self._lease.take_up()
            undo.push_async_callback(Chore("give up the lease", self._lease.give_up).once)
            if interrupted:
                log.warning("calls of an earlier process of this name were interrupted", calls=len(interrupted))
            await self.livekit.start()
            undo.push_async_callback(self.livekit.close)
            undo.push_async_callback(self.admin.close)
            await self._apis.start()
            undo.push_async_callback(self._apis.close)
            await self.hang_ups.start()
            undo.push_async_callback(self.hang_ups.stop)
            undo.push_async_callback(self._http.stop)
            undo.push_async_callback(self.grpc.stop)
            self.port = await self._http.start(self.settings.host, self.settings.port)
            undo.push_async_callback(self._passing.stop)
            self._passing.start(self._http.adopt)
            if self.settings.grpc_port:
                await self.grpc.start(self.settings.host, self.settings.grpc_port)
            # Closed after the chores have ended, because they may start a tidy-up.
            undo.push_async_callback(self._lease.close)
            self._begin_chores()
            undo.push_async_callback(self._end_chores)
            self._lease.tidy(interrupted)
            self._undo = undo.pop_all()
        log.info("connector ready", host=self.settings.host, port=self.port, public_url=self.settings.public_origin)

    async def stop(self, drain: float) -> None:
        """Refuses new calls, waits up to `drain` seconds for live calls, ends the others, and closes everything."""
        # Every step of `start` is undone, even if an error is raised on the way.
        async with self._undo:
            if self._link is not None and self._link.is_replaced:
                # New connections reach the others. Clients may have sent a request on a connection that they keep.
                self._passing.stop_listening()
                await self._http.leave_port()
                await asyncio.sleep(KEPT_CONNECTIONS)
            # Before the other processes are asked: one that stops at the same time must not hand its calls over to us.
            self.calls.begin_drain()
            await self.grpc.not_serving()
            await self._lease.announce_drain()
            if await self._shares_ports_with_another():
                # It takes the new calls, which this process would refuse until its last call has ended.
                await self._stop_listening()
                await self.grpc.stop_listening()
            if self.settings.handover == "at_once" and await self.calls.resumes.has_others():
                drain = 0.0
            await self.calls.drain(drain, self._stop_listening)
            await self.calls.resumes.close()
            await drain_abandoned()
        log.info("connector stopped")

    async def _stop_listening(self) -> None:
        self._passing.stop_listening()
        await self._http.stop_listening()

    async def _shares_ports_with_another(self) -> bool:
        """Whether another process serves on the same ports. Workers do not count while the whole service stops: a phone
        that rings may still be answered here."""
        if self._link is not None:
            return self._link.is_replaced
        return self.settings.share_ports and await self.calls.resumes.has_others()

    def _begin_chores(self) -> None:
        chores = [
            Chore("delete old call records", self._forget_old_calls).repeat(FORGET_EVERY),
            Chore("clean up after LiveKit SIP calls", self._sweep_sip).repeat(FORGET_EVERY),
            Chore("end abandoned calls", self.calls.take_overs.sweep).repeat(SWEEP_EVERY, SWEEP_EVERY),
            Chore("look for calls of dead processes", self.calls.resumes.look).repeat(LOOK_FOR_GONE_EVERY),
            Chore("renew the lease", self._lease.renew).repeat(RENEW_EVERY),
            Chore("look for dead processes", self._lease.look).repeat(LOOK_FOR_OTHERS_EVERY),
        ]
        if self._link is not None:
            recycling = Recycling(self.settings.worker_max_calls, self.settings.worker_max_memory, self._link)
            chores += [
                Chore("count the calls", self._count).repeat(COUNT_EVERY),
                Chore(
                    "ask for a successor", lambda: recycling.look(self.calls.held.taken, resident_megabytes())
                ).repeat(COUNT_EVERY),
            ]
        self._chores = [asyncio.create_task(chore) for chore in chores]
        self._chores.append(asyncio.create_task(startup.watch_livekit(self.admin)))

    async def _count(self) -> None:
        """With several workers, any of them may be asked for the metrics of all."""
        self.calls.count_states()

    async def _end_chores(self) -> None:
        for chore in self._chores:
            chore.cancel()
        if self._chores:
            await asyncio.wait(self._chores)

    async def _forget_old_calls(self) -> None:
        before = time.time() - self.settings.keep_calls_days * 86400
        gone = await self.store.forget_before(before)
        if gone:
            log.info("old call records deleted", calls=gone)
        await self.webhooks.forget_before(before)
        await forget_locks(self.store, time.time())

    async def _sweep_sip(self) -> None:
        await self._dialled.sweep()
        await self._sip.sweep()


def conference_bridge(settings: Settings, store: Store, twilio: TwilioAccounts | None) -> ConferenceBridge:
    """Builds the bridge for conferences; it uses the SIP numbers in this store."""
    return ConferenceBridge(
        TwilioConferences(twilio) if twilio else None,
        SipSecrets(store.sip_numbers, settings.own_secrets),
        settings.sip_endpoint,
    )


def _twilio(apis: CarrierApis) -> TwilioAccounts | None:
    """Returns the Twilio API for the Twilio RPCs; None if it is not configured."""
    control = apis.controls.get(Provider.TWILIO)
    return control if isinstance(control, TwilioAccounts) else None


def _words(settings: Settings, carriers: Carriers) -> Words:
    """Chooses the greetings. The default greeting is LiveKit's and applies only to connect_urls of Twilio. Calls of
    other carriers, and calls that this service places, have a greeting only if an operator has set one."""
    own = settings.greeting if "greeting" in settings.model_fields_set else ""
    greetings = {name: settings.greeting if carrier.default_greeting else own for name, carrier in carriers.items()}
    return Words(greetings, own)
