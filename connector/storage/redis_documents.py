"""Documents with unique names, in Redis."""

from __future__ import annotations

import builtins
import json
from typing import Any, Generic

from connector.storage.base import (
    EVERY_DOCUMENT,
    DocumentFilter,
    NameTaken,
    Page,
    T,
    index_text,
    names_of,
    part_of_index,
)
from connector.storage.json_form import Form
from connector.storage.redis_server import PREFIX, RedisServer
from connector.storage.vault import Vault

# KEYS of all scripts: id → body; ids by age; name → id; id → its names, as JSON; id → its index text for filters.
_OPENING = """
local documents, by_age, names, named, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local function drop_names(id)
  for _, name in ipairs(cjson.decode(redis.call('HGET', named, id) or '[]')) do
    redis.call('HDEL', names, name)
  end
  redis.call('HDEL', named, id)
end
local function put(id, age, body, wanted, text)
  redis.call('HSET', index, id, text)
  redis.call('HSET', documents, id, body)
  redis.call('ZADD', by_age, age, id)
  redis.call('HSET', named, id, wanted)
  for _, name in ipairs(cjson.decode(wanted)) do
    redis.call('HSET', names, name, id)
  end
end
local function taken_by_another(id, wanted)
  for _, name in ipairs(cjson.decode(wanted)) do
    local owner = redis.call('HGET', names, name)
    if owner and owner ~= id then return name end
  end
  return nil
end
"""
_INSERT = f"""{_OPENING}
local id, age, body, wanted, text = unpack(ARGV)
if redis.call('HEXISTS', documents, id) == 1 then return id end
local taken = taken_by_another(id, wanted)
if taken then return taken end
put(id, age, body, wanted, text)
return 1
"""
_REPLACE = f"""{_OPENING}
local id, age, body, wanted, text, expected = unpack(ARGV)
local present = redis.call('HGET', documents, id)
if not present then return 0 end
if expected and present ~= expected then return 2 end
local taken = taken_by_another(id, wanted)
if taken then return taken end
drop_names(id)
put(id, age, body, wanted, text)
return 1
"""
_DELETE = f"""{_OPENING}
drop_names(ARGV[1])
redis.call('ZREM', by_age, ARGV[1])
redis.call('HDEL', index, ARGV[1])
return redis.call('HDEL', documents, ARGV[1])
"""
_TAKE = f"""{_OPENING}
local body = redis.call('HGET', documents, ARGV[1])
drop_names(ARGV[1])
redis.call('ZREM', by_age, ARGV[1])
redis.call('HDEL', index, ARGV[1])
redis.call('HDEL', documents, ARGV[1])
return body
"""
_CHANGED = 2
"""Result of `_REPLACE` if the stored body is not the expected one."""
_GET = "return redis.call('HGET', KEYS[1], ARGV[1])"
_FIND = """
local id = redis.call('HGET', KEYS[3], ARGV[1])
return id and redis.call('HGET', KEYS[1], id)
"""
_LIST = """
local bodies = {}
for i, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  bodies[i] = redis.call('HGET', KEYS[1], id)
end
return bodies
"""

_SLICE = """
local bodies = {}
for i, id in ipairs(redis.call('ZRANGE', KEYS[2], ARGV[1], ARGV[2])) do
  bodies[i] = redis.call('HGET', KEYS[1], id)
end
return {redis.call('ZCARD', KEYS[2]), bodies}
"""
# Searches a range of positions. Returns the number of documents, the number of matches, and at most `limit` matches
# after the first `pass`.
_NARROW = """
local ids = redis.call('ZRANGE', KEYS[2], ARGV[1], ARGV[2])
local pass, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
local groups, parts = cjson.decode(ARGV[5]), cjson.decode(ARGV[6])
local function has_one(text, wanted, from)
  for _, part in ipairs(wanted) do
    if string.find(text, part, from, true) then return true end
  end
  return false
end
local function is_wanted(text)
  for _, group in ipairs(groups) do
    if not has_one(text, group, 1) then return false end
  end
  return #parts == 0 or has_one(text, parts, string.find(text, '\\n\\n', 1, true) + 2)
end
local bodies, matched = {}, 0
local texts = #ids > 0 and redis.call('HMGET', KEYS[5], unpack(ids)) or {}
for i, id in ipairs(ids) do
  if texts[i] and is_wanted(texts[i]) then
    matched = matched + 1
    if matched > pass and #bodies < limit then table.insert(bodies, redis.call('HGET', KEYS[1], id)) end
  end
end
return {#ids, matched, bodies}
"""
_UNINDEXED = """
local found = {}
if redis.call('HLEN', KEYS[1]) == redis.call('HLEN', KEYS[5]) then return found end
for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do
  if #found < tonumber(ARGV[1]) and redis.call('HEXISTS', KEYS[5], id) == 0 then
    table.insert(found, redis.call('HGET', KEYS[1], id))
  end
end
return found
"""
_INDEX = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HSETNX', KEYS[5], ARGV[1], ARGV[2]) end
"""
CHUNK = 500
"""Documents that a script reads in one run: Redis serves nobody else while a script runs."""


class RedisCollection(Generic[T]):
    """See `connector.storage.base.Collection`."""

    def __init__(self, server: RedisServer, name: str, kind: type[T], vault: Vault | None = None) -> None:
        self._server = server
        self._form = Form(kind, vault)
        self._keys = tuple(f"{PREFIX}{name}{part}" for part in ("", ":by_age", ":names", ":named", ":index"))

    async def insert(self, document: T) -> None:
        taken = await self._server.run(_INSERT, self._keys, self._values(document))
        if isinstance(taken, str):
            raise NameTaken(taken)

    async def replace(self, document: T, expected: T | None = None) -> bool:
        values: tuple[str | float, ...] = self._values(document)
        while True:
            if expected is not None:
                # Compared in Python, not in Lua: the JSON from an earlier version may lack a field.
                body = await self._server.run(_GET, self._keys, (document.id,))
                if body is None or self._form.read(body) != expected:
                    return False
                values = (*self._values(document), body)
            replaced = await self._server.run(_REPLACE, self._keys, values)
            if isinstance(replaced, str):
                raise NameTaken(replaced)
            if replaced != _CHANGED:
                return bool(replaced)

    async def delete(self, document_id: str) -> bool:
        return bool(await self._server.run(_DELETE, self._keys, (document_id,)))

    async def take(self, document_id: str) -> T | None:
        return self._read(await self._server.run(_TAKE, self._keys, (document_id,)))

    async def get(self, document_id: str) -> T | None:
        return self._read(await self._server.run(_GET, self._keys, (document_id,)))

    async def find(self, name: str) -> T | None:
        return self._read(await self._server.run(_FIND, self._keys, (name,)))

    async def reseal(self) -> int:
        bodies = await self._server.run(_LIST, self._keys)
        stale = [self._form.read(body) for body in bodies if not self._form.is_current(body)]
        return sum([await self.replace(document, document) for document in stale])

    async def list(self) -> builtins.list[T]:
        return [self._form.read(body) for body in await self._server.run(_LIST, self._keys)]

    async def page(self, offset: int, limit: int, where: DocumentFilter = EVERY_DOCUMENT) -> Page[T]:
        if where == EVERY_DOCUMENT:
            total, bodies = await self._server.run(_SLICE, self._keys, (offset, offset + limit - 1))
            return Page([self._form.read(body) for body in bodies], total)
        await self._complete()
        groups = [[part_of_index(label) for label in group] for group in where.labels]
        filters = (_json(groups), _json([part.lower() for part in where.texts]))
        found: builtins.list[T] = []
        total = start = 0
        while True:
            values = (start, start + CHUNK - 1, max(0, offset - total), limit - len(found), *filters)
            looked, matched, bodies = await self._server.run(_NARROW, self._keys, values)
            found += [self._form.read(body) for body in bodies]
            total += matched
            start += CHUNK
            if looked < CHUNK:
                return Page(found, total)

    async def _complete(self) -> None:
        """Indexes documents that an earlier version wrote, before the upgrade or in parallel with this version."""
        while bodies := await self._server.run(_UNINDEXED, self._keys, (CHUNK,)):
            for body in bodies:
                document = self._form.read(body)
                await self._server.run(_INDEX, self._keys, (document.id, index_text(document)))

    def _values(self, document: T) -> tuple[str, float, str, str, str]:
        # The score is the negative time: Redis sorts ascending, and equal scores by id.
        names = _json(list(dict.fromkeys(names_of(document))))
        return (document.id, -document.created_at, self._form.write(document), names, index_text(document))

    def _read(self, body: str | None) -> T | None:
        return self._form.read(body) if body is not None else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
