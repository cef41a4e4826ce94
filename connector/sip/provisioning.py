"""Provisions numbers in LiveKit SIP: inbound trunks and dispatch rules, over LiveKit's server API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from livekit import api

from connector.errors import FailedPrecondition, Internal
from connector.livekit_api import LiveKitApi
from connector.sip import plan
from connector.sip.plan import RoomForCall

SIP_TIMEOUT = 5.0
"""Seconds for all requests of one method together: a change first reads all trunks and rules."""


@dataclass(frozen=True, slots=True)
class SipNumberSetup:
    """The configuration of one number in LiveKit."""

    number: str
    trunk_id: str
    trunk_name: str
    username: str
    password: str = field(repr=False)
    rule_id: str = ""
    """Empty: none of our rules serves the trunk."""
    room_prefix: str = ""
    agents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetupDone:
    setup: SipNumberSetup
    changes: tuple[str, ...]
    """Descriptions of the changes; empty if nothing had to change."""


class CallerTaken(FailedPrecondition):
    """Another call with the same caller ID already has a dispatch rule, so LiveKit cannot distinguish the two."""


class SipProvisioning:
    """Every method raises ConnectorError on failure."""

    def __init__(self, livekit: LiveKitApi) -> None:
        self._livekit = livekit
        self._creating = asyncio.Lock()

    @property
    def _sip(self) -> api.sip_service.SipService:
        return self._livekit.sdk.sip

    async def set_up(self, wanted: plan.Wanted) -> SetupDone:
        """Creates or updates the trunk and the rule. Settings that already match are not changed."""
        changes: list[str] = []
        async with self._livekit.request(SIP_TIMEOUT):
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
        """Creates a dispatch rule for one call, with priority over the rules of its trunk. Raises CallerTaken if
        another call with the same caller has one."""
        try:
            # One at a time: LiveKit's check for conflicts and its write are not atomic.
            async with self._creating, self._livekit.request(SIP_TIMEOUT):
                await self._sip.create_dispatch_rule(
                    api.CreateSIPDispatchRuleRequest(dispatch_rule=plan.rule_of_call(call))
                )
        except Internal as error:
            if isinstance(error.__cause__, api.TwirpError) and "already exists" in error.__cause__.message:
                raise CallerTaken("LiveKit already has a dispatch rule for a call of this caller") from error
            raise

    async def forget_call(self, call_id: str) -> None:
        """Deletes the rule of `send_to_room`, if there is one."""
        async with self._livekit.request(SIP_TIMEOUT):
            for rule in await self._rules():
                if rule.name == plan.name_of(call_id):
                    await self._sip.delete_dispatch_rule(
                        api.DeleteSIPDispatchRuleRequest(sip_dispatch_rule_id=rule.sip_dispatch_rule_id)
                    )

    async def calls_with_rules(self) -> list[str]:
        """Returns the ids of the calls that have a rule of `send_to_room`."""
        async with self._livekit.request(SIP_TIMEOUT):
            return [call_id for rule in await self._rules() if (call_id := plan.call_of(rule))]

    async def list_numbers(self) -> list[SipNumberSetup]:
        """Returns one entry per number of each inbound trunk, ours or not; a trunk for all has the number ""."""
        async with self._livekit.request(SIP_TIMEOUT):
            trunks, rules = await self._trunks(), await self._rules()
        return [
            _summary(number, trunk, plan.find_rule(rules, number, trunk.sip_trunk_id))
            for trunk in trunks
            for number in (trunk.numbers or [""])
        ]

    async def remove(self, number: str) -> tuple[str, ...]:
        """Removes the number, and its trunk and rule if they serve no other number. Returns the changes in words."""
        changes: list[str] = []
        async with self._livekit.request(SIP_TIMEOUT):
            trunk = plan.find_trunk(await self._trunks(), number)
            trunk_id = trunk.sip_trunk_id if trunk else ""
            others = [each for each in trunk.numbers if not plan.same_number(each, number)] if trunk else []
            rule = plan.find_rule(await self._rules(), number, trunk_id)
            # If the trunk still has other numbers, they need the rule.
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
