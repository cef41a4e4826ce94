"""The queue of phones to hang up, in Redis."""

from __future__ import annotations

from dataclasses import replace

from connector.model.call import HangUp
from connector.storage.json_form import Form
from connector.storage.redis_server import PREFIX, RedisServer

# Two hashes by id, a sorted set of ids by due time, and a sorted set of the withdrawn ids.
_OPENING = f"""
local bodies, tries, due = '{PREFIX}hang_ups', '{PREFIX}hang_ups:tries', '{PREFIX}hang_ups:due'
local withdrawn = '{PREFIX}hang_ups:withdrawn'
"""
_PUT = f"""{_OPENING}
local id, body, leased_until, attempts = unpack(ARGV)
if redis.call('ZSCORE', withdrawn, id) then return 0 end
if redis.call('HSETNX', bodies, id, body) == 0 then return 0 end
redis.call('HSET', tries, id, attempts)
redis.call('ZADD', due, leased_until, id)
return 1
"""
_TAKE = f"""{_OPENING}
local taken = {{}}
for i, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
  redis.call('ZADD', due, ARGV[2], id)
  taken[i] = {{redis.call('HGET', bodies, id), redis.call('HGET', tries, id)}}
end
return taken
"""
_RETRY = f"""{_OPENING}
local id, at, attempts = unpack(ARGV)
if redis.call('HEXISTS', bodies, id) == 0 then return end
if tonumber(attempts) > tonumber(redis.call('HGET', tries, id)) then redis.call('HSET', tries, id, attempts) end
redis.call('ZADD', due, at, id)
"""
_FORGET = """
redis.call('HDEL', bodies, ARGV[1])
redis.call('HDEL', tries, ARGV[1])
redis.call('ZREM', due, ARGV[1])
"""
_SETTLE = f"{_OPENING}{_FORGET}"
_WITHDRAW = f"""{_OPENING}
redis.call('ZREMRANGEBYSCORE', withdrawn, '-inf', '(' .. ARGV[2])
redis.call('ZADD', withdrawn, ARGV[3], ARGV[1])
{_FORGET}
"""
_ALLOW = f"{_OPENING} redis.call('ZREM', withdrawn, ARGV[1])"
_NEXT_DUE = f"{_OPENING} return redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]"
_PENDING = f"{_OPENING} return redis.call('HLEN', bodies)"


class RedisHangUps:
    """See `connector.storage.base.HangUpQueue`."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._form = Form(HangUp)

    async def put(self, hang_up: HangUp, leased_until: float) -> bool:
        values = (hang_up.id, self._form.write(hang_up), leased_until, hang_up.attempts)
        return bool(await self._server.run(_PUT, (), values))

    async def withdraw(self, hang_up_id: str, now: float, until: float) -> None:
        await self._server.run(_WITHDRAW, (), (hang_up_id, now, until))

    async def allow(self, hang_up_id: str) -> None:
        await self._server.run(_ALLOW, (), (hang_up_id,))

    async def take(self, now: float, leased_until: float, limit: int) -> list[HangUp]:
        taken = await self._server.run(_TAKE, (), (now, leased_until, limit))
        return [replace(self._form.read(body), attempts=int(tries)) for body, tries in taken]

    async def retry(self, hang_up_id: str, at: float, attempts: int) -> None:
        await self._server.run(_RETRY, (), (hang_up_id, at, attempts))

    async def settle(self, hang_up_id: str) -> None:
        await self._server.run(_SETTLE, (), (hang_up_id,))

    async def next_due(self) -> float | None:
        due = await self._server.run(_NEXT_DUE)
        return None if due is None else float(due)

    async def pending(self) -> int:
        return int(await self._server.run(_PENDING))
