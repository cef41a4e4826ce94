"""Call records in Redis, and the indexes for lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from connector.model.call import LIVE_STATES, CallFilter, CallRecord
from connector.storage.base import EVERY_CALL, Page, StoreError
from connector.storage.redis_server import PREFIX, RedisServer
from connector.storage.rows import admits, folded, from_row, searched, to_row

CHUNK = 1000
"""Records that a script reads in one run: Redis serves nobody else while a script runs."""

# A call is a hash of its columns. `calls` has all ids by age, `calls:open` the calls that have not ended,
# `calls:COLUMN:VALUE` the calls with that value. `calls:searched` has the text for `CallFilter.search`, in lower case
# because Lua can only convert ASCII. A call that is missing there was written by an earlier version of the connector
# and is in no index yet.
_CALL, _ALL, _OPEN, _SEARCHED = f"{PREFIX}call:", f"{PREFIX}calls", f"{PREFIX}calls:open", f"{PREFIX}calls:searched"
_INDEXED = ("room", "rule_id", "connector_id", "direction", "provider")
_INDEX = f"""
local indexed = {{{", ".join(f"'{name}'" for name in _INDEXED)}}}
local function index_of(column, value)
  return '{_ALL}:' .. column .. ':' .. value
end
local function drop_indexes(id)
  local values = redis.call('HMGET', '{_CALL}' .. id, unpack(indexed))
  for i, column in ipairs(indexed) do
    if values[i] and values[i] ~= '' then redis.call('ZREM', index_of(column, values[i]), id) end
  end
end
local function add_indexes(id, age)
  local values = redis.call('HMGET', '{_CALL}' .. id, unpack(indexed))
  for i, column in ipairs(indexed) do
    if values[i] and values[i] ~= '' then redis.call('ZADD', index_of(column, values[i]), age, id) end
  end
end
"""
_PUT = f"""{_INDEX}
local columns, age = cjson.decode(ARGV[1]), ARGV[2]
local id, key = columns.call_id, '{_CALL}' .. columns.call_id
local function put()
  local pairs_of = {{}}
  for column, value in pairs(columns) do
    table.insert(pairs_of, column)
    table.insert(pairs_of, value)
  end
  drop_indexes(id)
  redis.call('HSET', key, unpack(pairs_of))
  add_indexes(id, age)
  redis.call('HSET', '{_SEARCHED}', id, ARGV[3])
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
if ARGV[4] and not stands(ARGV[4]) then return 0 end
put()
return 1
"""
# ARGV[4]: the columns that the stored record must have; empty: there must be no record.
_CHANGE = f"""{_PUT}
if not ARGV[4] and redis.call('EXISTS', key) == 1 or ARGV[4] and not stands(ARGV[4]) then return 0 end
put()
return 1
"""
_GET = f"return redis.call('HGETALL', '{_CALL}' .. ARGV[1])"
# Returns the number of calls within the time range for each index, then the number of calls in no index yet.
_COUNT = f"""
local counts = {{}}
for i, index in ipairs(KEYS) do counts[i] = redis.call('ZCOUNT', index, ARGV[1], ARGV[2]) end
table.insert(counts, redis.call('ZCARD', '{_ALL}') - redis.call('HLEN', '{_SEARCHED}'))
return counts
"""
# Returns one page of an index. All values are strings, so that cjson does not change them. The result is one string,
# because Python reads one string much faster than a thousand.
_SLICE = f"""
local found = {{}}
for i, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', ARGV[3], ARGV[4])) do
  found[i] = redis.call('HGETALL', '{_CALL}' .. id)
end
return cjson.encode(found)
"""
# Searches a part of an index, starting at a score or after the call `last`. It counts the matches, skips the first
# `pass` of them and returns at most `limit`. It stops at the last of these unless all must be counted. It also returns
# the call after which the next run continues, "" at the end. This is a call, not a position, because positions in the
# index change when calls are added or deleted.
_FIND = f"""
local start, stop, last, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local pass, limit, counting = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == 'all'
local names, values, part, search = cjson.decode(ARGV[8]), cjson.decode(ARGV[9]), ARGV[10], ARGV[11]
local function before(score)
  if score == '-inf' then return 0 end
  if string.sub(score, 1, 1) == '(' then return redis.call('ZCOUNT', KEYS[1], '-inf', string.sub(score, 2)) end
  return redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. score)
end
local from = last ~= '' and redis.call('ZRANK', KEYS[1], last)
from = from and from + 1 or before(start)
local to = math.min(from + most, redis.call('ZCOUNT', KEYS[1], '-inf', stop))
local ids = from < to and redis.call('ZRANGE', KEYS[1], from, to - 1) or {{}}
local texts = {{}}
if #ids > 0 and part .. search ~= '' then texts = redis.call('HMGET', '{_SEARCHED}', unpack(ids)) end
local function is_wanted(id, text)
  if search ~= '' and not string.find(text or '', search, 1, true) then return false end
  if part ~= '' and not string.find(text or '', part, 1, true) and not string.find(string.lower(id), part, 1, true) then
    return false
  end
  if #names == 0 then return true end
  local there = redis.call('HMGET', '{_CALL}' .. id, unpack(names))
  for i, value in ipairs(values) do
    if there[i] ~= value then return false end
  end
  return true
end
local found, matched = {{}}, 0
for i, id in ipairs(ids) do
  if is_wanted(id, texts[i]) then
    matched = matched + 1
    if matched > pass and #found < limit then
      table.insert(found, redis.call('HGETALL', '{_CALL}' .. id))
      if #found == limit and not counting then return {{cjson.encode(found), matched, id}} end
    end
  end
end
return {{cjson.encode(found), matched, #ids == most and ids[#ids] or ''}}
"""
# Indexes some calls of an earlier version: their hash has a column with the id and the searched text, separated by
# zero bytes.
_COMPLETE = f"""{_INDEX}
local ids = redis.call('ZRANGE', '{_ALL}', ARGV[1], ARGV[2], 'WITHSCORES')
for i = 1, #ids, 2 do
  if redis.call('HEXISTS', '{_SEARCHED}', ids[i]) == 0 then
    local text = redis.call('HGET', '{_CALL}' .. ids[i], 'searched') or ''
    redis.call('HSET', '{_SEARCHED}', ids[i], (string.gsub(string.gsub(text, '^[^%z]*%z', ''), '%z', '\\n')))
    redis.call('HDEL', '{_CALL}' .. ids[i], 'searched')
    add_indexes(ids[i], ids[i + 1])
  end
end
return #ids / 2
"""
_FORGET = f"""{_INDEX}
local gone, kept = 0, 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', '{_ALL}', '(' .. ARGV[1], '+inf', 'LIMIT', ARGV[2], ARGV[3])) do
  if redis.call('ZSCORE', '{_OPEN}', id) then
    kept = kept + 1
  else
    drop_indexes(id)
    redis.call('DEL', '{_CALL}' .. id)
    redis.call('HDEL', '{_SEARCHED}', id)
    redis.call('ZREM', '{_ALL}', id)
    gone = gone + 1
  end
end
return {{gone, kept}}
"""


@dataclass(frozen=True, slots=True)
class _Search:
    """A query for a list: a range of scores (negative times) of an index, and the conditions that the index does not
    cover."""

    indexes: Sequence[str]
    start: str | float
    stop: float
    columns: dict[str, str]
    text: str
    search: str


class RedisCalls:
    """The part of `connector.storage.base.Store` for calls."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

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
        if where.id:
            return (await self._only(where))[:limit]
        search = _search(where)
        index, _ = await self._smallest(search)
        found: list[CallRecord] = []
        last = ""
        while len(found) < limit:
            page, _, last = await self._find(index, search, last, 0, limit - len(found), counting=False)
            found += [record for record in page if admits(where, record)]
            if not last:
                break
        return found

    async def page_calls(self, offset: int, limit: int, where: CallFilter = EVERY_CALL) -> Page[CallRecord]:
        if where.id:
            only = await self._only(where)
            return Page(only[offset : offset + limit], len(only))
        search = _search(where)
        index, total = await self._smallest(search)
        if len(search.indexes) == 1 and not search.columns and not search.text and not search.search:
            page = await self._server.run(_SLICE, (index,), (search.start, search.stop, offset, limit))
            return Page([self._record(columns) for columns in orjson.loads(page) or ()], total)
        found: list[CallRecord] = []
        last, total = "", 0
        while True:
            passed = max(0, offset - total)
            page, matched, last = await self._find(index, search, last, passed, limit - len(found), counting=True)
            total += matched
            found += page
            if not last:
                return Page(found, total)

    async def forget_before(self, created_before: float) -> int:
        total = skip = 0
        while True:
            gone, kept = await self._server.run(_FORGET, (), (-created_before, skip, CHUNK))
            if not gone and not kept:
                return total
            total += gone
            skip += kept

    async def _only(self, where: CallFilter) -> list[CallRecord]:
        record = await self.get_call(where.id)
        return [record] if record is not None and admits(where, record) else []

    async def _smallest(self, search: _Search) -> tuple[str, int]:
        """Returns the index with the fewest calls in the time range, and their number."""
        while True:
            *counts, missing = await self._server.run(_COUNT, search.indexes, (search.start, search.stop))
            if missing <= 0:
                break
            await self._complete()
        least = min(counts)
        return search.indexes[counts.index(least)], least

    async def _complete(self) -> None:
        """Indexes calls that an earlier version wrote, before the upgrade or in parallel with this version."""
        start = 0
        while await self._server.run(_COMPLETE, (), (start, start + CHUNK - 1)):
            start += CHUNK

    async def _find(
        self,
        index: str,
        search: _Search,
        last: str,
        passed: int,
        limit: int,
        *,
        counting: bool,
    ) -> tuple[list[CallRecord], int, str]:
        """See `_FIND`."""
        filters = (
            json.dumps(list(search.columns)),
            json.dumps(list(search.columns.values()), ensure_ascii=False),
            search.text,
            search.search,
        )
        values = (search.start, search.stop, last, CHUNK, passed, limit, "all" if counting else "", *filters)
        page, matched, last = await self._server.run(_FIND, (index,), values)
        return [self._record(columns) for columns in orjson.loads(page) or ()], matched, last

    def _record(self, columns: list[str]) -> CallRecord:
        row: dict[str, Any] = dict(zip(columns[::2], columns[1::2], strict=True))
        try:
            return from_row(row)
        except (ValueError, KeyError) as error:
            raise StoreError(f"the store {self._server.name} failed: {error}") from error


def _search(where: CallFilter) -> _Search:
    """Converts the filter. Scores are negative times: ascending order is newest first; equal scores are ordered by
    id."""
    start: str | float = "-inf"
    if where.after is not None and (where.created_before is None or where.after[0] < where.created_before):
        start = -where.after[0]
    elif where.created_before is not None:
        start = f"({-where.created_before!r}"
    columns = {
        name: str(value)
        for name in ("room", "state", "provider", "direction", "rule_id", "connector_id", "owner")
        if (value := getattr(where, name))
    }
    indexes = [f"{_ALL}:{name}:{columns[name]}" for name in _INDEXED if name in columns]
    if where.state in LIVE_STATES:
        indexes.append(_OPEN)
    elif len(indexes) == 1:
        # A single index covers the conditions on the indexed columns completely.
        columns = {name: value for name, value in columns.items() if name not in _INDEXED}
    return _Search(indexes or [_ALL], start, -where.created_from, columns, where.text.lower(), where.search.lower())


def _put(record: CallRecord) -> tuple[str | float, ...]:
    """Returns the arguments of `_PUT`."""
    return (_written(record), -record.created_at, folded(*searched(record)))


def _written(record: CallRecord) -> str:
    """Returns the columns as a JSON object of strings; numbers are formatted by Python's `repr`."""
    row = to_row(record)
    texts = {name: value if isinstance(value, str) else repr(value) for name, value in row.items() if value is not None}
    return json.dumps({**texts, "end_reason": row["end_reason"] or ""}, ensure_ascii=False)
