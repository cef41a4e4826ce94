"""The webhook queue and its log, in Redis."""

from __future__ import annotations

import json
from collections.abc import Collection as Several
from collections.abc import Sequence
from dataclasses import replace

from connector.model.webhook import Attempt, Delivery
from connector.storage.json_form import Form
from connector.storage.redis_server import PREFIX, RedisServer

CHUNK = 500
"""Log entries that a script deletes or reads in one run: Redis serves nobody else while a script runs."""

# A line is the list of the ids that wait for one endpoint and one call. Only the first id of a line is in the sorted
# set of its endpoint, by its due time. An endpoint is in `endpoints` while its sorted set is not empty.
_OPENING = f"""
local deliveries, due, tries = '{PREFIX}deliveries', '{PREFIX}deliveries:due', '{PREFIX}deliveries:tries'
local endpoints = '{PREFIX}deliveries:endpoints'
local function line_of(endpoint, call)
  return '{PREFIX}deliveries:line:' .. #endpoint .. ':' .. endpoint .. ':' .. call
end
local function takeable_of(endpoint)
  return '{PREFIX}deliveries:takeable:' .. endpoint
end
local function forget(id)
  redis.call('HDEL', deliveries, id)
  redis.call('HDEL', due, id)
  redis.call('HDEL', tries, id)
end
local function idle_endpoints(busy)
  local is_busy, idle = {{}}, {{}}
  for _, endpoint in ipairs(cjson.decode(busy)) do is_busy[endpoint] = true end
  for _, endpoint in ipairs(redis.call('SMEMBERS', endpoints)) do
    if not is_busy[endpoint] then table.insert(idle, endpoint) end
  end
  return idle
end
local attempts, attempt_lines = '{PREFIX}attempts', '{PREFIX}attempts:lines'
local function logs_of(endpoint, call)
  return {{attempts, '{PREFIX}attempts:endpoint:' .. endpoint, '{PREFIX}attempts:call:' .. call}}
end
"""
_PUT = f"""{_OPENING}
for i = 1, #ARGV, 5 do
  local id, endpoint, call, body, due_at = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  if redis.call('HSETNX', deliveries, id, body) == 1 then
    redis.call('HSET', due, id, due_at)
    if redis.call('RPUSH', line_of(endpoint, call), id) == 1 then
      redis.call('ZADD', takeable_of(endpoint), due_at, id)
      redis.call('SADD', endpoints, endpoint)
    end
  end
end
"""
_TAKE = f"""{_OPENING}
local now, leased_until, limit, busy = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local found = {{}}
for _, endpoint in ipairs(idle_endpoints(busy)) do
  local key = takeable_of(endpoint)
  local first = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #first, 2 do
    table.insert(found, {{key = key, id = first[i], at = tonumber(first[i + 1])}})
  end
end
table.sort(found, function(a, b)
  if a.at == b.at then return a.id < b.id end
  return a.at < b.at
end)
local taken = {{}}
for i = 1, math.min(#found, limit) do
  local id = found[i].id
  redis.call('ZADD', found[i].key, leased_until, id)
  taken[i] = {{redis.call('HGET', deliveries, id), redis.call('HGET', due, id), redis.call('HGET', tries, id) or '0'}}
end
return taken
"""
_SETTLE = f"""{_OPENING}
local id, endpoint, call, number, at, attempt, retry_at = unpack(ARGV)
local key = string.format('%016d', redis.call('INCR', '{PREFIX}attempts:last'))
redis.call('HSET', attempt_lines, key, attempt)
for _, log in ipairs(logs_of(endpoint, call)) do redis.call('ZADD', log, at, key) end
if redis.call('HEXISTS', deliveries, id) == 0 then return end
local line, takeable = line_of(endpoint, call), takeable_of(endpoint)
if retry_at ~= '' then
  redis.call('HSET', due, id, retry_at)
  if tonumber(number) > tonumber(redis.call('HGET', tries, id) or '0') then redis.call('HSET', tries, id, number) end
  redis.call('ZADD', takeable, retry_at, id)
  return
end
forget(id)
redis.call('LREM', line, 1, id)
redis.call('ZREM', takeable, id)
local first = redis.call('LINDEX', line, 0)
if first and not redis.call('ZSCORE', takeable, first) then
  redis.call('ZADD', takeable, redis.call('HGET', due, first), first)
end
if redis.call('EXISTS', takeable) == 0 then redis.call('SREM', endpoints, endpoint) end
"""
_NEXT_DUE = f"""{_OPENING}
local earliest = nil
for _, endpoint in ipairs(idle_endpoints(ARGV[1])) do
  local at = redis.call('ZRANGE', takeable_of(endpoint), 0, 0, 'WITHSCORES')[2]
  if at and (not earliest or tonumber(at) < tonumber(earliest)) then earliest = at end
end
return earliest
"""
_PENDING = f"return redis.call('HLEN', '{PREFIX}deliveries')"
_DROP_ENDPOINT = f"""{_OPENING}
local endpoint, dropped = ARGV[1], 0
for _, first in ipairs(redis.call('ZRANGE', takeable_of(endpoint), 0, -1)) do
  local line = line_of(endpoint, cjson.decode(redis.call('HGET', deliveries, first)).call_id)
  for _, id in ipairs(redis.call('LRANGE', line, 0, -1)) do
    forget(id)
    dropped = dropped + 1
  end
  redis.call('DEL', line)
end
redis.call('DEL', takeable_of(endpoint))
redis.call('SREM', endpoints, endpoint)
return dropped
"""
_ATTEMPTS = f"""{_OPENING}
local endpoint, call, start, stop = unpack(ARGV)
local logs = logs_of(endpoint, call)
local log = call ~= '' and logs[3] or endpoint ~= '' and logs[2] or logs[1]
local found = {{}}
for i, key in ipairs(redis.call('ZREVRANGE', log, start, stop)) do
  found[i] = redis.call('HGET', attempt_lines, key)
end
return found
"""
_FORGET = f"""{_OPENING}
local old = redis.call('ZRANGEBYSCORE', attempts, '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, key in ipairs(old) do
  local attempt = cjson.decode(redis.call('HGET', attempt_lines, key))
  for _, log in ipairs(logs_of(attempt.endpoint_id, attempt.call_id)) do redis.call('ZREM', log, key) end
  redis.call('HDEL', attempt_lines, key)
end
return #old
"""


class RedisDeliveries:
    """See `connector.storage.base.DeliveryQueue`."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._deliveries = Form(Delivery)
        self._attempts = Form(Attempt)

    async def put(self, deliveries: Sequence[Delivery]) -> None:
        values: list[str | float] = []
        for one in deliveries:
            values += (one.id, one.endpoint_id, one.call_id, self._deliveries.write(one), one.due_at)
        await self._server.run(_PUT, (), values)

    async def take(self, now: float, leased_until: float, limit: int, busy: Several[str] = ()) -> list[Delivery]:
        taken = await self._server.run(_TAKE, (), (now, leased_until, limit, _listed(busy)))
        return [self._delivery(*row) for row in taken]

    async def settle(self, attempt: Attempt, retry_at: float | None) -> None:
        await self._server.run(
            _SETTLE,
            (),
            (
                attempt.delivery_id,
                attempt.endpoint_id,
                attempt.call_id,
                attempt.number,
                attempt.at,
                self._attempts.write(attempt),
                "" if retry_at is None else retry_at,
            ),
        )

    async def next_due(self, busy: Several[str] = ()) -> float | None:
        due = await self._server.run(_NEXT_DUE, (), (_listed(busy),))
        return float(due) if due is not None else None

    async def pending(self) -> int:
        return int(await self._server.run(_PENDING))

    async def drop_endpoint(self, endpoint_id: str) -> int:
        return int(await self._server.run(_DROP_ENDPOINT, (), (endpoint_id,)))

    async def attempts(self, limit: int = 50, endpoint_id: str = "", call_id: str = "") -> list[Attempt]:
        found: list[Attempt] = []
        size = CHUNK if endpoint_id and call_id else min(limit, CHUNK)
        start = 0
        while len(found) < limit:
            values = (endpoint_id, call_id, start, start + size - 1)
            page = [self._attempts.read(text) for text in await self._server.run(_ATTEMPTS, (), values)]
            found += [attempt for attempt in page if not endpoint_id or attempt.endpoint_id == endpoint_id]
            start += size
            if len(page) < size:
                break
        return found[:limit]

    async def forget_before(self, at: float) -> int:
        total = 0
        while gone := int(await self._server.run(_FORGET, (), (at, CHUNK))):
            total += gone
        return total

    def _delivery(self, body: str, due_at: str, tries: str) -> Delivery:
        put = self._deliveries.read(body)
        return replace(put, due_at=float(due_at), attempts=max(put.attempts, int(tries)))


def _listed(ids: Several[str]) -> str:
    return json.dumps(list(ids), ensure_ascii=False)
