"""Documents with unique names, in Redis."""

from __future__ import annotations

import builtins
import json
from typing import Generic

from connector.storage.base import NameTaken, T, names_of
from connector.storage.forms import Form
from connector.storage.redis_server import PREFIX, RedisServer

# KEYS of all: id → body; ids by age; name → id; id → its names, as JSON.
_OPENING = """
local documents, by_age, names, named = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local function drop_names(id)
  for _, name in ipairs(cjson.decode(redis.call('HGET', named, id) or '[]')) do
    redis.call('HDEL', names, name)
  end
  redis.call('HDEL', named, id)
end
local function put(id, age, body, wanted)
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
local id, age, body, wanted = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('HEXISTS', documents, id) == 1 then return id end
local taken = taken_by_another(id, wanted)
if taken then return taken end
put(id, age, body, wanted)
return 1
"""
_REPLACE = f"""{_OPENING}
local id, age, body, wanted, expected = unpack(ARGV)
local present = redis.call('HGET', documents, id)
if not present then return 0 end
if expected and present ~= expected then return 2 end
local taken = taken_by_another(id, wanted)
if taken then return taken end
drop_names(id)
put(id, age, body, wanted)
return 1
"""
_DELETE = f"""{_OPENING}
drop_names(ARGV[1])
redis.call('ZREM', by_age, ARGV[1])
return redis.call('HDEL', documents, ARGV[1])
"""
_TAKE = f"""{_OPENING}
local body = redis.call('HGET', documents, ARGV[1])
drop_names(ARGV[1])
redis.call('ZREM', by_age, ARGV[1])
redis.call('HDEL', documents, ARGV[1])
return body
"""
_CHANGED = 2
"""What `_REPLACE` returns when another body than the expected one is there."""
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


class RedisCollection(Generic[T]):
    """See `connector.storage.base.Collection`."""

    def __init__(self, server: RedisServer, name: str, kind: type[T]) -> None:
        self._server = server
        self._form = Form(kind)
        self._keys = tuple(f"{PREFIX}{name}{part}" for part in ("", ":by_age", ":names", ":named"))

    async def insert(self, document: T) -> None:
        taken = await self._server.run(_INSERT, self._keys, self._values(document))
        if isinstance(taken, str):
            raise NameTaken(taken)

    async def replace(self, document: T, expected: T | None = None) -> bool:
        values: tuple[str | float, ...] = self._values(document)
        while True:
            if expected is not None:
                # Read here, since the text of one that an earlier version wrote may lack a field.
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

    async def list(self) -> builtins.list[T]:
        return [self._form.read(body) for body in await self._server.run(_LIST, self._keys)]

    def _values(self, document: T) -> tuple[str, float, str, str]:
        # By age: Redis sorts upwards, and equal ones by id.
        names = json.dumps(list(dict.fromkeys(names_of(document))), ensure_ascii=False)
        return (document.id, -document.created_at, self._form.write(document), names)

    def _read(self, body: str | None) -> T | None:
        return self._form.read(body) if body is not None else None
