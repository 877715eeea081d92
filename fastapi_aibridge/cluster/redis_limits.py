"""Rate limit counters in Redis, for all processes. Operations that arrive during a round trip share the next one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from ..errors import RedisUnavailable
from .limit_rules import Counters
from .process_limits import AGAIN, Verdict
from .redis import SharedRedis

if TYPE_CHECKING:
    from redis.asyncio import Redis

LEASE = 15.0
"""Seconds after which a request that its worker has not renewed counts as ended."""
MOST_AT_ONCE = 200
"""Operations in one round trip: Redis does nothing else while it runs a script."""
MOST_WAITING = 20_000
"""Operations that may wait to be sent. Admissions are limited only by the number of running requests."""

TOGETHER = 0.005
"""Seconds over which operations that nobody waits for are collected."""

_ADMIT, _COUNT, _RELEASE, _RENEW = 1, 2, 3, 4

Operation: TypeAlias = tuple[object, ...]

SCRIPT = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local prefix = ARGV[2]

local function text(number) return string.format('%.0f', number) end

-- Each is read once and written once, however many operations it concerns.
local windows, leases = {}, {}

-- A window as it is now: its start, what the one before counted, what it has counted, how much of it is gone.
local function window(key, length)
  local found = windows[key]
  if found then return found end
  local kept = redis.call('HMGET', prefix .. key, 's', 'p', 'c')
  local start, before, count = tonumber(kept[1]) or now, tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
  local passed = math.floor((now - start) / length)
  if passed >= 1 then
    before = passed == 1 and count or 0
    count = 0
    start = start + passed * length
  end
  found = {start = start, before = before, count = count, gone = math.max(0, now - start), length = length}
  windows[key] = found
  return found
end

local function add(key, length, amount)
  local one = window(key, length)
  one.count = math.max(0, one.count + amount)
  one.is_changed = true
end

-- How many requests hold a lease.
local function running(key)
  local found = leases[key]
  if not found then
    redis.call('ZREMRANGEBYSCORE', prefix .. key, '-inf', text(now))
    found = {number = redis.call('ZCARD', prefix .. key)}
    leases[key] = found
  end
  return found
end

local function hold(key, request, lease)
  local one = running(key)
  one.number = one.number + redis.call('ZADD', prefix .. key, text(now + lease), request)
  one.lease = lease
end

local function release(key, request)
  local gone = redis.call('ZREM', prefix .. key, request)
  if leases[key] then leases[key].number = leases[key].number - gone end
end

-- How full a counter is, and when it has room again.
local function look(kind, key, limit, length, request)
  if kind == 3 then
    local number = running(key).number
    -- What was sent once more because its answer was lost has its place already.
    if number >= limit and redis.call('ZSCORE', prefix .. key, request) then number = number - 1 end
    return number, AGAIN
  end
  local one = window(key, length)
  local used, ready = one.before * (1 - one.gone / length) + one.count, 0
  if used >= limit then
    if one.count < limit then
      ready = length * (1 - (limit - one.count) / one.before) - one.gone
    else
      ready = length - one.gone + length * (1 - limit / one.count)
    end
  end
  return used, ready
end

-- What a request counts when it comes: see Counter.reserved.
local function reserved(kind, limit, size)
  return kind == 2 and math.min(math.floor(size / 4), math.floor(limit / 8)) or 1
end

local function admit(request, lease, size, counters)
  local refused, wait = 0, 0
  local used = {}
  for number, counter in ipairs(counters) do
    local kind, key, limit, length = unpack(counter)
    local ready
    used[number], ready = look(kind, key, limit, length, request)
    if used[number] >= limit and refused == 0 then refused, wait = number, math.ceil(ready) + 1 end
  end
  local answer = {refused, wait}
  for number, counter in ipairs(counters) do
    local kind, key, limit, length = unpack(counter)
    local empty = 0
    if kind == 3 then
      if refused == 0 then hold(key, request, lease) end
    else
      if refused == 0 then
        local amount = reserved(kind, limit, size)
        add(key, length, amount)
        used[number] = used[number] + amount
      end
      local one = window(key, length)
      if one.count > 0 then
        empty = 2 * length - one.gone
      elseif one.before > 0 then
        empty = length - one.gone
      end
    end
    answer[#answer + 1] = math.max(0, math.floor(limit - used[number]))
    answer[#answer + 1] = empty
  end
  return answer
end

-- What was reserved is in the window already, where this is the first that is counted of a request.
local function count(size, amount, is_first, counters)
  for _, counter in ipairs(counters) do
    local kind, key, limit, length = unpack(counter)
    add(key, length, is_first and amount - reserved(kind, limit, size) or amount)
  end
end

local answers = {}
for _, operation in ipairs(cmsgpack.unpack(ARGV[1])) do
  local kind = operation[1]
  if kind == 1 then
    answers[#answers + 1] = admit(operation[2], operation[3], operation[4], operation[5])
  elseif kind == 2 then
    count(operation[2], operation[3], operation[4], operation[5])
  elseif kind == 3 then
    for _, counter in ipairs(operation[3]) do release(counter[2], operation[2]) end
  else
    hold(operation[2], operation[3], operation[4])
  end
end
for key, one in pairs(windows) do
  if one.is_changed then
    redis.call('HSET', prefix .. key, 's', text(one.start), 'p', text(one.before), 'c', text(one.count))
    redis.call('PEXPIRE', prefix .. key, text(2 * one.length))
  end
end
for key, one in pairs(leases) do
  if one.lease then redis.call('PEXPIRE', prefix .. key, text(2 * one.lease)) end
end
return answers
""".replace("AGAIN", str(int(AGAIN * 1000)))


class RedisLimits:
    """Sends operations in the order of their arrival. Those that Redis did not take are lost: counts are too low then,
    and leases expire by themselves.

    Nobody waits for counts and releases, so they are sent with the next admission, or `TOGETHER` seconds later.
    """

    def __init__(self, redis: SharedRedis) -> None:
        self._redis = redis
        self._script = redis.script(SCRIPT)
        self._prefix = redis.key("")
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Operation, asyncio.Future[Verdict] | None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        return self._redis.available

    def admit(self, counters: Counters, request: str, size: int) -> asyncio.Future[Verdict]:
        """Return a future of the verdict, or of `RedisUnavailable`. A request that is sent again keeps its place."""
        future: asyncio.Future[Verdict] = self._loop.create_future()
        self._waiting.append(((_ADMIT, request, round(LEASE * 1000), size, counters.packed), future))
        if self._sender is None:
            self._send()
        return future

    def count(self, counters: Counters, size: int, tokens: int, *, is_first: bool) -> None:
        """Count tokens of a request with a body of `size` bytes; `is_first` replaces those reserved at admission."""
        self._later((_COUNT, size, tokens, is_first, counters.packed))

    def release(self, counters: Counters, request: str) -> None:
        """Release the request's leases."""
        self._later((_RELEASE, request, counters.packed))

    def renew(self, key: str, request: str) -> None:
        """Extend the request's lease to `LEASE` seconds from now."""
        self._later((_RENEW, key, request, round(LEASE * 1000)))

    def _later(self, operation: Operation) -> None:
        if len(self._waiting) < MOST_WAITING and self._redis.available:
            self._waiting.append((operation, None))
            if self._sender is None and self._timer is None:
                self._timer = self._loop.call_later(TOGETHER, self._send)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sender is None and self._waiting:
            self._sender = self._loop.create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                await self._send_batch(batch)
        finally:
            self._sender = None

    async def _send_batch(self, batch: list[tuple[Operation, asyncio.Future[Verdict] | None]]) -> None:
        data = msgspec.msgpack.encode([operation for operation, _ in batch])
        futures = [future for _, future in batch if future is not None]
        try:
            answers = await self._redis.call(lambda client: self._run(client, data))
        except BaseException as error:
            for future in futures:
                if not future.done():
                    future.set_exception(RedisUnavailable())
                    future.exception()  # no warning if nobody awaits it
            if not isinstance(error, RedisUnavailable):
                raise
            return
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(_verdict(answer))

    async def _run(self, client: Redis, data: bytes) -> list[list[int]]:
        answers: Any = await self._script(client, data, self._prefix)
        return answers  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Send all waiting operations, for one second at most."""
        self._send()
        if self._sender is not None:
            await asyncio.wait((self._sender,), timeout=1.0)


def _verdict(answer: list[int]) -> Verdict:
    refused, wait, *rest = answer
    left = [(rest[number], rest[number + 1] / 1000) for number in range(0, len(rest), 2)]
    return Verdict(refused - 1 if refused else None, wait / 1000, left)
