"""The store in one Redis server, which several machines can share."""

from __future__ import annotations

from collections.abc import Mapping

from connector.model.call import WaitingCall
from connector.model.connector import ConnectorEntry, SipNumber
from connector.model.rule import PinLock, RoutingRule
from connector.model.webhook import SigningKey, WebhookEndpoint
from connector.storage.base import DEFAULT_PREFIX
from connector.storage.redis_calls import RedisCalls
from connector.storage.redis_deliveries import RedisDeliveries
from connector.storage.redis_documents import RedisCollection
from connector.storage.redis_hang_ups import RedisHangUps
from connector.storage.redis_server import PREFIX, RedisServer
from connector.storage.vault import Vault

MIGRATIONS: Mapping[int, str] = {
    1: "-- The first schema starts from nothing.",
    2: "-- Calls and documents are put into their indexes when a list is first asked for, some at a time.",
}
"""A released migration is never changed."""
# Owner → time of the last renewal.
_LEASES = f"{PREFIX}leases"
# Owner → address. A hash of its own, because earlier versions, which may run at the same time, read the other one. They
# leave the address behind when they drop a lease.
_ADDRESSES = f"{PREFIX}addresses"
# The owners that are about to stop.
_DRAINING = f"{PREFIX}draining"
_RENEW = f"""
redis.call('HSET', '{_LEASES}', ARGV[1], ARGV[2])
redis.call('HSET', '{_ADDRESSES}', ARGV[1], ARGV[3])
redis.call(ARGV[4] == '1' and 'SADD' or 'SREM', '{_DRAINING}', ARGV[1])
"""
_READ_DRAINING = f"return redis.call('SMEMBERS', '{_DRAINING}')"
_ADDRESS = f"""
if redis.call('HEXISTS', '{_LEASES}', ARGV[1]) == 0 then return '' end
return redis.call('HGET', '{_ADDRESSES}', ARGV[1]) or ''
"""
_READ_LEASES = f"return redis.call('HGETALL', '{_LEASES}')"
_DROP_LEASE = f"""
local renewed_at = redis.call('HGET', '{_LEASES}', ARGV[1])
if not renewed_at or ARGV[2] and renewed_at ~= ARGV[2] then return 0 end
redis.call('HDEL', '{_ADDRESSES}', ARGV[1])
redis.call('SREM', '{_DRAINING}', ARGV[1])
return redis.call('HDEL', '{_LEASES}', ARGV[1])
"""
_KEEPS_ALL = "noeviction"
_INFO = "return redis.call('INFO', 'memory') .. redis.call('INFO', 'persistence')"


class RedisStore(RedisCalls):
    """See `connector.storage.base.Store`."""

    def __init__(self, url: str, vault: Vault | None = None, prefix: str = DEFAULT_PREFIX) -> None:
        """`url`: redis[s]://[[user]:password@]host[:port][/db]. Every key begins with `prefix`."""
        super().__init__(RedisServer(url, MIGRATIONS, prefix))
        self.connectors = RedisCollection(self._server, "connectors", ConnectorEntry)
        self.rules = RedisCollection(self._server, "rules", RoutingRule, vault)
        self.endpoints = RedisCollection(self._server, "endpoints", WebhookEndpoint)
        self.keys = RedisCollection(self._server, "keys", SigningKey, vault)
        self.sip_numbers = RedisCollection(self._server, "sip_numbers", SipNumber)
        self.waiting = RedisCollection(self._server, "waiting", WaitingCall)
        self.pin_locks = RedisCollection(self._server, "pin_locks", PinLock)
        self.deliveries = RedisDeliveries(self._server)
        self.hang_ups = RedisHangUps(self._server)

    async def open(self) -> None:
        await self._server.open()

    async def close(self) -> None:
        await self._server.close()

    async def reseal(self) -> int:
        return await self.rules.reseal() + await self.keys.reseal()

    async def renew_lease(self, owner: str, at: float, address: str = "", draining: bool = False) -> None:
        await self._server.run(_RENEW, (), (owner, at, address, int(draining)))

    async def leases(self) -> dict[str, float]:
        told = await self._server.run(_READ_LEASES)
        return {owner: float(at) for owner, at in zip(told[::2], told[1::2], strict=True)}

    async def draining(self) -> set[str]:
        return set(await self._server.run(_READ_DRAINING))

    async def address_of(self, owner: str) -> str:
        return str(await self._server.run(_ADDRESS, (), (owner,)))

    async def drop_lease(self, owner: str, renewed_at: float | None = None) -> bool:
        values = (owner,) if renewed_at is None else (owner, renewed_at)
        return bool(await self._server.run(_DROP_LEASE, (), values))

    async def weaknesses(self) -> list[tuple[str, str]]:
        """Returns settings of the server that can cause data loss, each with its remedy."""
        lines = str(await self._server.run(_INFO)).splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        found = []
        policy = info.get("maxmemory_policy", _KEEPS_ALL)
        if policy != _KEEPS_ALL and info.get("maxmemory", "0") != "0":
            found.append(("evicts keys when its memory is full", f"set maxmemory-policy {_KEEPS_ALL}, not {policy}"))
        if info.get("aof_enabled") == "0":
            found.append(("loses the last minutes, or everything, in a crash", "set appendonly yes"))
        return found
