"""The recommendation cache in Redis: a stream of batches, and beside it their heads, draw counts and the ledger.

Each transition of a batch is one Lua script, which Redis runs as a whole or not at all: no crash of a client can come
between a change of the stream and its change of the ledger.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import redis
from redis.commands.core import Script

from gptrec_rl.transport.cache import CacheLimits, Head, Ledger, RecommendationCache
from gptrec_rl.transport.keys import CACHE, key

_UNBOUNDED = -1

# KEYS: stream, entries (entry id -> "generator token version step draws"), ledger, state, resumed (token -> step), sent
# (generator -> sequence number), quarantined (generators).
_COMMON = """
local stream, entries, ledger, state, resumed, sent, quarantined = unpack(KEYS)

-- A run that is finished, and not resumed, leaves nothing behind: what is written now goes with the rest.
local function expire_with_the_rest()
  local left = redis.call('PTTL', ledger)
  if left > 0 then
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, left) end
  end
end

local function count(column, n) redis.call('HINCRBY', ledger, column, n) end

local function parse(entry)
  local generator, token, version, step, draws = string.match(entry, '(%d+) (%d+) (%d+) (%d+) (%d+)')
  return generator, tonumber(token), tonumber(version), tonumber(step), tonumber(draws)
end

-- Take an entry out of the stream; one that was never drawn goes over to another column of the ledger.
local function remove(id, column)
  local entry = redis.call('HGET', entries, id)
  local was_there = redis.call('XDEL', stream, id) == 1
  redis.call('HDEL', entries, id)
  if entry and select(5, parse(entry)) == 0 then
    count('waiting', -1)
    count(column, 1)
  elseif was_there and not entry then  -- somebody else's, written to the stream by hand
    count('generated', 1)
    count(column, 1)
  end
end

-- From a step that a later optimiser, resuming before it, has undone.
local function is_lost(token, step)
  local steps = redis.call('HGETALL', resumed)
  for i = 1, #steps, 2 do
    if token < tonumber(steps[i]) and step > tonumber(steps[i + 1]) then return true end
  end
  return false
end

local function is_stale(version, max_staleness, known)
  local newest = math.max(tonumber(redis.call('HGET', state, 'version') or '0'), known or 0)
  return max_staleness >= 0 and newest - version > max_staleness
end
"""

# Redis refuses the writes of a script when its memory is full, unless the first one is of a kind that can only free
# some: with this one in front a script is carried out, and may free what the others wait for.
_WITHOUT_MEMORY = """
redis.call('XDEL', stream, '0-0')  -- there is no such entry
"""

_PUT = """
local generator, number, token, version, step = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local capacity, max_staleness, data = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
if number <= tonumber(redis.call('HGET', sent, generator) or '-1') then
  count('repeated', 1)
  return 0
end
local column = 'waiting'
if is_lost(tonumber(token), tonumber(step)) or redis.call('SISMEMBER', quarantined, generator) == 1 then
  column = 'rejected'
elseif is_stale(tonumber(version), max_staleness) then
  column = 'stale'
else
  while redis.call('XLEN', stream) >= capacity do  -- first: to take its place a batch needs no free memory
    remove(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1], 'evicted')
  end
  local id = redis.call('XADD', stream, '*', 'batch', data)
  redis.call('HSET', entries, id, table.concat({generator, token, version, step, 0}, ' '))
end
redis.call('HSET', sent, generator, number)
count('generated', 1)
count(column, 1)
expire_with_the_rest()
return 1
"""

_ADVANCE = """
local token, version, step, max_staleness = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local newest_token = tonumber(redis.call('HGET', state, 'token') or '0')
if token < newest_token then return end
redis.call('HSETNX', resumed, ARGV[1], step)
if token == newest_token then version = math.max(version, tonumber(redis.call('HGET', state, 'version') or '0')) end
redis.call('HSET', state, 'token', ARGV[1], 'version', version)
local all = redis.call('HGETALL', entries)
for i = 1, #all, 2 do
  local _, entry_token, entry_version, entry_step = parse(all[i + 1])
  if is_lost(entry_token, entry_step) then
    remove(all[i], 'rejected')
  elseif is_stale(entry_version, max_staleness) then
    remove(all[i], 'stale')
  end
end
"""

_REJECT = "remove(ARGV[1], 'rejected')"

_QUARANTINE = """
redis.call('SADD', quarantined, ARGV[1])
local all = redis.call('HGETALL', entries)
for i = 1, #all, 2 do
  if parse(all[i + 1]) == ARGV[1] then remove(all[i], 'rejected') end
end
"""

# A client that lost the reply asks again with the same number, and gets the same answer.
_PICK = """
local number, uniform, max_reuse = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local max_staleness, known = tonumber(ARGV[4]), tonumber(ARGV[5])
if redis.call('HGET', state, 'draw') == number then return cjson.decode(redis.call('HGET', state, 'drawn')) end
local alive = {}
for i = 6, #ARGV do
  local entry = redis.call('HGET', entries, ARGV[i])
  if entry and is_stale(select(3, parse(entry)), max_staleness, known) then
    remove(ARGV[i], 'stale')
  elseif entry then
    alive[#alive + 1] = ARGV[i]
  end
end
if #alive == 0 then return {} end
local place = math.floor(uniform * #alive) + 1
local picked = alive[place]
local generator, token, version, step, draws = parse(redis.call('HGET', entries, picked))
if draws == 0 then
  count('waiting', -1)
  count('drawn', 1)
end
redis.call('HSET', entries, picked, string.format('%s %d %d %d %d', generator, token, version, step, draws + 1))
if max_reuse >= 0 and draws + 1 >= max_reuse then
  remove(picked, 'evicted')
  table.remove(alive, place)
end
table.insert(alive, 1, picked)
redis.call('HSET', state, 'draw', number, 'drawn', cjson.encode(alive))
return alive
"""


class RedisCache(RecommendationCache):
    """A cache shared by all processes of a run; the optimiser that draws from it finds its counts after a crash.

    Args:
        client: connection to Redis, not decoding replies.
        run_id: names the keys; see also `RecommendationCache`.
        limits: see `CacheLimits`; the same in every process of a run.
        catalogue_hash: batches of another catalogue are rejected.
        split_hash: batches of another split are rejected.
    """

    def __init__(
        self, client: redis.Redis, run_id: str, limits: CacheLimits, catalogue_hash: str, split_hash: str
    ) -> None:
        super().__init__(run_id, limits, catalogue_hash, split_hash)
        self._keys = [key(run_id, name) for name in CACHE]
        self._stream, _, self._ledger, self._state, _, _, self._quarantined = self._keys
        self._client = client
        self._run_id = run_id
        self._cursor = b"0"
        self._version = 0  # the newest that was published through here; a Redis that crashed may know an older one
        self._reader = secrets.token_hex(8)
        self._n_draws = 0
        self._put = client.register_script(_COMMON + _PUT)
        self._advance, self._take_out, self._bar, self._draw = (
            client.register_script(_COMMON + _WITHOUT_MEMORY + body) for body in (_ADVANCE, _REJECT, _QUARANTINE, _PICK)
        )

    def put_encoded(self, head: Head, data: bytes) -> bool:
        """Add a batch that is already encoded; see `put`."""
        limits = (self.limits.capacity, _bound(self.limits.max_staleness))
        origin = (head.token, head.policy_version, head.learner_step)
        return bool(self._run(self._put, head.generator_id, head.sequence_number, *origin, *limits, data))

    def room(self) -> bool:
        """Return whether fewer than M batches are waiting."""
        return int(self._client.hget(self._ledger, "waiting") or 0) < self.limits.capacity

    def is_stale(self, version: int) -> bool:
        """Return whether a policy is more than `max_staleness` versions behind the newest."""
        bound = self.limits.max_staleness
        return bound is not None and int(self._client.hget(self._state, "version") or 0) - version > bound

    def advance(self, token: int, version: int, step: int) -> None:
        """Take note of the newest policy; see `RecommendationCache.advance`."""
        self._version = version
        self._run(self._advance, token, version, step, _bound(self.limits.max_staleness))

    def quarantine(self, generator_id: int) -> None:
        """Reject all batches of a generator; see `RecommendationCache.quarantine`."""
        self._run(self._bar, generator_id)

    def quarantined(self) -> frozenset[int]:
        """Return the ids of the generators in quarantine."""
        members: Any = self._client.smembers(self._quarantined)
        return frozenset(map(int, members))

    def ledger(self) -> Ledger:
        """Return the ledger."""
        return ledger_of(self._client, self._run_id)

    def _new_entries(self) -> Iterator[tuple[str, bytes]]:
        replies: Any = self._client.xread({self._stream: self._cursor})
        for entry_id, values in replies[0][1] if replies else []:
            yield entry_id.decode(), values.get(b"batch", b"")
            self._cursor = entry_id  # after its use, so that a lost connection skips none

    def _reject(self, entry_id: str) -> None:
        self._run(self._take_out, entry_id)

    def _pick(self, uniform: float, entry_ids: list[str]) -> tuple[str | None, list[str]]:
        number = f"{self._reader}-{self._n_draws}"
        bounds = (_bound(self.limits.max_reuse), _bound(self.limits.max_staleness))
        answer = self._run(self._draw, number, uniform, *bounds, self._version, *entry_ids)
        self._n_draws += 1
        reply = [entry_id.decode() for entry_id in answer]
        return (reply[0], reply[1:]) if reply else (None, [])

    def _run(self, script: Script, *arguments: int | float | str | bytes) -> Any:
        return script(keys=self._keys, args=arguments)


def _bound(limit: int | None) -> int:
    return _UNBOUNDED if limit is None else limit


def ledger_of(client: redis.Redis, run_id: str) -> Ledger:
    """Return the ledger of a run's cache."""
    counts: Any = client.hgetall(key(run_id, "cache:ledger"))
    return Ledger(**{column.name: int(counts.get(column.name.encode(), 0)) for column in fields(Ledger)})
