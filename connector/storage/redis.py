"""The store in one Redis server, which several machines can share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from connector.model import (
    CallFilter,
    CallRecord,
    CallState,
    ConnectorEntry,
    RoutingRule,
    SigningKey,
    SipNumber,
    WaitingCall,
    WebhookEndpoint,
)
from connector.storage.base import EVERY_CALL, StoreError
from connector.storage.redis_deliveries import RedisDeliveries
from connector.storage.redis_documents import RedisCollection
from connector.storage.redis_server import PREFIX, RedisServer
from connector.storage.rows import admits, from_row, searched, to_row

MIGRATIONS: Mapping[int, str] = {1: "-- The first schema starts from nothing."}
"""A step that was released is never changed."""
PAGE = 500
"""Records a script looks through before others have their turn."""

# A call is a hash of its columns. `calls` has all ids by age, `calls:open` those not ended.
_CALL, _ALL, _OPEN = f"{PREFIX}call:", f"{PREFIX}calls", f"{PREFIX}calls:open"
_SEARCHED = "searched"
"""One more column: what `CallFilter.text` looks through, in small letters, since Lua knows those of ASCII alone."""
_PUT = f"""
local columns = cjson.decode(ARGV[1])
local id, key = columns.call_id, '{_CALL}' .. columns.call_id
local function put()
  local pairs_of = {{}}
  for column, value in pairs(columns) do
    table.insert(pairs_of, column)
    table.insert(pairs_of, value)
  end
  redis.call('HSET', key, unpack(pairs_of))
  local age = ARGV[2]
  redis.call('ZADD', '{_ALL}', age, id)
  if columns.end_reason == '' then
    redis.call('ZADD', '{_OPEN}', age, id)
  else
    redis.call('ZREM', '{_OPEN}', id)
  end
end
local function stands(expected)
  for column, value in pairs(cjson.decode(expected)) do
    if (redis.call('HGET', key, column) or '') ~= value then return false end
  end
  return true
end
local ended_as = redis.call('HGET', key, 'end_reason') or ''
"""
_SAVE = f"""{_PUT}
if ended_as == '' or columns.end_reason ~= '' then put() end
"""
_END = f"""{_PUT}
if ended_as ~= '' then
  return columns.end_id ~= '' and redis.call('HGET', key, 'end_id') == columns.end_id and 1 or 0
end
if ARGV[3] and not stands(ARGV[3]) then return 0 end
put()
return 1
"""
# ARGV[3]: the columns as they must stand, or nothing where no record may.
_CHANGE = f"""{_PUT}
if not ARGV[3] and redis.call('EXISTS', key) == 1 or ARGV[3] and not stands(ARGV[3]) then return 0 end
put()
return 1
"""
_GET = f"return redis.call('HGETALL', '{_CALL}' .. ARGV[1])"
# Looks through some of an index, from a score on and past the first `skip`, until it has found enough. All values are
# texts, so that they survive cjson; and one text is read in Python in a fraction of the time of a thousand.
_FIND = f"""
local index, start, stop, skip, most, limit = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local wanted, part = cjson.decode(ARGV[6]), ARGV[7]
local function is_wanted(key)
  for column, value in pairs(wanted) do
    if redis.call('HGET', key, column) ~= value then return false end
  end
  return part == '' or string.find(redis.call('HGET', key, '{_SEARCHED}'), part, 1, true) ~= nil
end
local ids = redis.call('ZRANGEBYSCORE', index, start, stop, 'WITHSCORES', 'LIMIT', skip, most)
local found, last, same = {{}}, '', 0
for i = 1, #ids, 2 do
  same = ids[i + 1] == last and same + 1 or 1
  last = ids[i + 1]
  local key = '{_CALL}' .. ids[i]
  if is_wanted(key) then
    table.insert(found, redis.call('HGETALL', key))
    if #found == limit then return {{cjson.encode(found), last, same}} end
  end
end
if #ids < 2 * most then last = '' end
return {{cjson.encode(found), last, same}}
"""
_KEEPS_ALL = "noeviction"
_INFO = "return redis.call('INFO', 'memory') .. redis.call('INFO', 'persistence')"
_FORGET = f"""
local gone, kept = 0, 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', '{_ALL}', '(' .. ARGV[1], '+inf', 'LIMIT', ARGV[2], ARGV[3])) do
  if redis.call('ZSCORE', '{_OPEN}', id) then
    kept = kept + 1
  else
    redis.call('DEL', '{_CALL}' .. id)
    redis.call('ZREM', '{_ALL}', id)
    gone = gone + 1
  end
end
return {{gone, kept}}
"""


class RedisStore:
    """See `connector.storage.base.Store`."""

    def __init__(self, url: str) -> None:
        """`url`: redis[s]://[[user]:password@]host[:port][/db]"""
        self._server = RedisServer(url, MIGRATIONS)
        self.connectors = RedisCollection(self._server, "connectors", ConnectorEntry)
        self.rules = RedisCollection(self._server, "rules", RoutingRule)
        self.endpoints = RedisCollection(self._server, "endpoints", WebhookEndpoint)
        self.keys = RedisCollection(self._server, "keys", SigningKey)
        self.sip_numbers = RedisCollection(self._server, "sip_numbers", SipNumber)
        self.waiting = RedisCollection(self._server, "waiting", WaitingCall)
        self.deliveries = RedisDeliveries(self._server)

    async def open(self) -> None:
        await self._server.open()

    async def close(self) -> None:
        await self._server.close()

    async def weaknesses(self) -> list[tuple[str, str]]:
        """What in the server's own settings could lose what is kept there, and what to do about it."""
        lines = str(await self._server.run(_INFO)).splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        found = []
        policy = info.get("maxmemory_policy", _KEEPS_ALL)
        if policy != _KEEPS_ALL and info.get("maxmemory", "0") != "0":
            found.append(
                ("throws keys away when its memory is full", f"set maxmemory-policy {_KEEPS_ALL}, not {policy}")
            )
        if info.get("aof_enabled") == "0":
            found.append(("forgets the last minutes, or everything, when it dies", "set appendonly yes"))
        return found

    async def save_call(self, record: CallRecord) -> None:
        await self._server.run(_SAVE, (), _put(record))

    async def change_call(self, before: CallRecord | None, after: CallRecord) -> bool:
        values = _put(after) if before is None else (*_put(after), _written(before))
        return bool(await self._server.run(_CHANGE, (), values))

    async def end_call(self, record: CallRecord, expected: CallRecord | None = None) -> bool:
        values = _put(record) if expected is None else (*_put(record), _written(expected))
        return bool(await self._server.run(_END, (), values))

    async def get_call(self, call_id: str) -> CallRecord | None:
        columns = await self._server.run(_GET, (), (call_id,))
        return self._record(columns) if columns else None

    async def list_calls(self, limit: int = 50, where: CallFilter = EVERY_CALL) -> list[CallRecord]:
        """Scores are negative times: upwards is newest first, and equal ones by id."""
        index = _ALL if where.state in (None, CallState.ENDED) else _OPEN
        bounds = [-where.created_before] if where.created_before is not None else []
        bounds += [-where.after[0]] if where.after is not None else []
        start: float | str = max(bounds, default="-inf")
        end = -where.created_from
        wanted = {
            name: str(value)
            for name in ("room", "state", "provider", "direction", "rule_id", "connector_id", "owner")
            if (value := getattr(where, name))
        }
        filters = (orjson.dumps(wanted).decode(), where.text.lower())
        found: list[CallRecord] = []
        skip = 0
        while len(found) < limit:
            values = (start, end, skip, PAGE, limit - len(found), *filters)
            page, last, same = await self._server.run(_FIND, (index,), values)
            records = [self._record(columns) for columns in orjson.loads(page) or ()]
            found += [record for record in records if admits(where, record)]
            if not last:
                break
            # On from the last one's moment, past those of that moment that were seen.
            skip = same + (skip if last == start else 0)
            start = last
        return found

    async def forget_before(self, created_before: float) -> int:
        total = skip = 0
        while True:
            gone, kept = await self._server.run(_FORGET, (), (-created_before, skip, PAGE))
            if not gone and not kept:
                return total
            total += gone
            skip += kept

    def _record(self, columns: list[str]) -> CallRecord:
        row: dict[str, Any] = dict(zip(columns[::2], columns[1::2], strict=True))
        try:
            return from_row(row)
        except (ValueError, KeyError) as error:
            raise StoreError(f"the store {self._server.name} failed: {error}") from error


def _put(record: CallRecord) -> tuple[str | float, ...]:
    """What `_PUT` reads."""
    return (_written(record), -record.created_at)


def _written(record: CallRecord) -> str:
    """The columns as one JSON object of texts: numbers as Python writes them."""
    row = to_row(record)
    texts = {name: value if isinstance(value, str) else repr(value) for name, value in row.items() if value is not None}
    more = {"end_reason": row["end_reason"] or "", _SEARCHED: "\0".join(searched(record)).lower()}
    return json.dumps({**texts, **more}, ensure_ascii=False)
