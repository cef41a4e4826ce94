"""LiveKit's SIP API, as far as an inbound number needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from livekit import api

from connector.errors import FailedPrecondition, Internal, Unavailable
from connector.livekit_errors import translated
from connector.sip import plan
from connector.sip.plan import RoomForCall

REQUEST_TIMEOUT = 5.0
"""Seconds for one thing asked of LiveKit."""
WITHOUT_REDIS = (
    "livekit-server runs without Redis, and its SIP API does not work without: set `redis: address:` in "
    "livekit-server's config, give livekit-sip the same, and start both again"
)


@dataclass(frozen=True, slots=True)
class SipNumberSetup:
    """How LiveKit is set up for one number."""

    number: str
    trunk_id: str
    trunk_name: str
    username: str
    password: str = field(repr=False)
    rule_id: str = ""
    """Empty: no rule of ours serves the trunk."""
    room_prefix: str = ""
    agents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetupDone:
    setup: SipNumberSetup
    changes: tuple[str, ...]
    """What was done, in words; empty when all was as wanted."""


class CallerTaken(FailedPrecondition):
    """Two calls cannot be told apart by their caller."""


class SipAdmin:
    """`start` before use. Every method raises ConnectorError for what fails."""

    def __init__(self, url: str, api_key: str, api_secret: str) -> None:
        self._url = url
        self._key = api_key
        self._secret = api_secret
        self._api: api.LiveKitAPI | None = None
        self._creating = asyncio.Lock()

    async def start(self) -> None:
        self._api = api.LiveKitAPI(self._url, self._key, self._secret, failover=False)

    async def close(self) -> None:
        if self._api is not None:
            await self._api.aclose()
            self._api = None

    @property
    def _sip(self) -> api.sip_service.SipService:
        if self._api is None:
            raise RuntimeError("SipAdmin.start() has not run")
        return self._api.sip

    async def set_up(self, wanted: plan.Wanted) -> SetupDone:
        """Make trunk and rule as wanted: what is missing is created, what differs is updated, the rest is left."""
        changes: list[str] = []
        async with self._translated():
            trunk = await self._put_trunk(wanted, changes)
            rule = await self._put_rule(wanted, trunk.sip_trunk_id, changes)
        return SetupDone(_summary(wanted.number, trunk, rule), tuple(changes))

    async def _put_trunk(self, wanted: plan.Wanted, changes: list[str]) -> api.SIPInboundTrunkInfo:
        old = plan.find_trunk(await self._trunks(), wanted.number)
        new = plan.trunk_for(wanted, old)
        if old is None:
            changes.append("inbound trunk created")
            return await self._sip.create_inbound_trunk(api.CreateSIPInboundTrunkRequest(trunk=new))
        fields = plan.changed_fields(old, new)
        if not fields:
            return old
        changes.append(f"inbound trunk updated: {', '.join(fields)}")
        return await self._sip.update_inbound_trunk(old.sip_trunk_id, new)

    async def _put_rule(self, wanted: plan.Wanted, trunk_id: str, changes: list[str]) -> api.SIPDispatchRuleInfo:
        old = plan.find_rule(await self._rules(), wanted.number, trunk_id)
        new = plan.rule_for(wanted, old, trunk_id)
        if old is None:
            changes.append("dispatch rule created")
            return await self._sip.create_dispatch_rule(api.CreateSIPDispatchRuleRequest(dispatch_rule=new))
        fields = plan.changed_fields(old, new)
        if not fields:
            return old
        changes.append(f"dispatch rule updated: {', '.join(fields)}")
        return await self._sip.update_dispatch_rule(old.sip_dispatch_rule_id, new)

    async def send_to_room(self, call: RoomForCall) -> None:
        """A dispatch rule for one call alone, before the rules of its trunk. CallerTaken when another call with the
        same caller has one."""
        try:
            # One after the other: LiveKit looks for a conflict first and stores the rule then.
            async with self._creating, self._translated():
                await self._sip.create_dispatch_rule(
                    api.CreateSIPDispatchRuleRequest(dispatch_rule=plan.rule_of_call(call))
                )
        except Internal as error:
            if isinstance(error.__cause__, api.TwirpError) and "already exists" in error.__cause__.message:
                raise CallerTaken("LiveKit has a dispatch rule for a call of this caller already") from error
            raise

    async def forget_call(self, call_id: str) -> None:
        """Delete the rule of `send_to_room`, if there is one."""
        async with self._translated():
            for rule in await self._rules():
                if rule.name == plan.name_of(call_id):
                    await self._sip.delete_dispatch_rule(
                        api.DeleteSIPDispatchRuleRequest(sip_dispatch_rule_id=rule.sip_dispatch_rule_id)
                    )

    async def calls_with_rules(self) -> list[str]:
        """Ids of the calls that have one."""
        async with self._translated():
            return [call_id for rule in await self._rules() if (call_id := plan.call_of(rule))]

    async def list_numbers(self) -> list[SipNumberSetup]:
        """One for each number of each inbound trunk, ours or not; a trunk for every number has the number ""."""
        async with self._translated():
            trunks, rules = await self._trunks(), await self._rules()
        return [
            _summary(number, trunk, plan.find_rule(rules, number, trunk.sip_trunk_id))
            for trunk in trunks
            for number in (trunk.numbers or [""])
        ]

    async def remove(self, number: str) -> tuple[str, ...]:
        """Take the number out: its trunk and rule are deleted, unless they serve other numbers too. What was done."""
        changes: list[str] = []
        async with self._translated():
            trunk = plan.find_trunk(await self._trunks(), number)
            trunk_id = trunk.sip_trunk_id if trunk else ""
            others = [each for each in trunk.numbers if not plan.same_number(each, number)] if trunk else []
            rule = plan.find_rule(await self._rules(), number, trunk_id)
            # A trunk that goes on with other numbers keeps the rule that its calls follow.
            if rule is not None and not others:
                await self._remove_rule(rule, trunk_id, changes)
            if trunk is not None and others:
                await self._sip.update_inbound_trunk_fields(trunk_id, numbers=others)
                changes.append(f"inbound trunk {trunk_id} no longer takes the number")
            elif trunk is not None:
                await self._sip.delete_trunk(api.DeleteSIPTrunkRequest(sip_trunk_id=trunk_id))
                changes.append(f"inbound trunk {trunk_id} deleted")
        return tuple(changes)

    async def _remove_rule(self, rule: api.SIPDispatchRuleInfo, trunk_id: str, changes: list[str]) -> None:
        rule_id = rule.sip_dispatch_rule_id
        if [each for each in rule.trunk_ids if each != trunk_id]:
            left = api.SIPDispatchRuleInfo()
            left.CopyFrom(rule)
            left.trunk_ids.remove(trunk_id)
            await self._sip.update_dispatch_rule(rule_id, left)
            changes.append(f"dispatch rule {rule_id} no longer serves the trunk")
            return
        await self._sip.delete_dispatch_rule(api.DeleteSIPDispatchRuleRequest(sip_dispatch_rule_id=rule_id))
        changes.append(f"dispatch rule {rule_id} deleted")

    async def _trunks(self) -> list[api.SIPInboundTrunkInfo]:
        return list((await self._sip.list_inbound_trunk(api.ListSIPInboundTrunkRequest())).items)

    async def _rules(self) -> list[api.SIPDispatchRuleInfo]:
        return list((await self._sip.list_dispatch_rule(api.ListSIPDispatchRuleRequest())).items)

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            async with translated(self._url, REQUEST_TIMEOUT):
                yield
        except Unavailable as error:
            if isinstance(error.__cause__, api.TwirpError) and "redis required" in error.__cause__.message:
                raise FailedPrecondition(WITHOUT_REDIS) from error
            raise


def _summary(number: str, trunk: api.SIPInboundTrunkInfo, rule: api.SIPDispatchRuleInfo | None) -> SipNumberSetup:
    return SipNumberSetup(
        number=number,
        trunk_id=trunk.sip_trunk_id,
        trunk_name=trunk.name,
        username=trunk.auth_username,
        password=trunk.auth_password,
        rule_id=rule.sip_dispatch_rule_id if rule else "",
        room_prefix=rule.rule.dispatch_rule_individual.room_prefix if rule else "",
        agents=tuple(agent.agent_name for agent in rule.room_config.agents) if rule else (),
    )
