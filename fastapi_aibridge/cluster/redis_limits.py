"""The same counts for all processes, in Redis: what comes while one round trip runs goes into the next together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from ..errors import RedisUnavailable
from .limit_rules import Counter, Kind
from .process_limits import AGAIN, Verdict
from .redis import SharedRedis

if TYPE_CHECKING:
    from redis.asyncio import Redis

LEASE = 15.0
"""Seconds after which a request that its worker does not report counts as over."""
MOST_AT_ONCE = 200
"""Operations in one round trip: while Redis runs a script, it does nothing else."""
MOST_WAITING = 20_000
"""Counts that wait to be sent. Those of requests are bounded by the requests that there are."""

_ADMIT, _COUNT, _RELEASE, _RENEW = 1, 2, 3, 4

Operation: TypeAlias = list[object]

SCRIPT = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

local function text(number) return string.format('%.0f', number) end

-- The window as it is now: its start, what the one before counted, what it has counted, how much of it is gone.
local function window(key, length)
  local found = redis.call('HMGET', key, 's', 'p', 'c')
  local start, before, count = tonumber(found[1]), tonumber(found[2]) or 0, tonumber(found[3]) or 0
  if not start then return now, 0, 0, 0 end
  local passed = math.floor((now - start) / length)
  if passed >= 1 then
    before = passed == 1 and count or 0
    count = 0
    start = start + passed * length
  end
  return start, before, count, math.max(0, now - start)
end

local function keep(key, length, start, before, count)
  redis.call('HSET', key, 's', text(start), 'p', text(before), 'c', text(count))
  redis.call('PEXPIRE', key, text(2 * length))
end

local function add(key, length, amount)
  local start, before, count = window(key, length)
  keep(key, length, start, before, math.max(0, count + amount))
end

-- How full it is, when it has room again, and its state.
local function look(kind, key, limit, length, request)
  if kind == 3 then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now))
    local running = redis.call('ZCARD', key)
    -- What was sent once more because its answer was lost has its place already.
    if running >= limit and redis.call('ZSCORE', key, request) then running = running - 1 end
    return running, AGAIN, nil
  end
  local start, before, count, gone = window(key, length)
  local used, ready = before * (1 - gone / length) + count, 0
  if used >= limit then
    if count < limit then
      ready = length * (1 - (limit - count) / before) - gone
    else
      ready = length - gone + length * (1 - limit / count)
    end
  end
  return used, ready, {start, before, count, gone}
end

local function admit(request, lease, counters)
  local refused, wait = 0, 0
  local states, used = {}, {}
  for number, counter in ipairs(counters) do
    local kind, key, limit, length = unpack(counter)
    local ready
    used[number], ready, states[number] = look(kind, key, limit, length, request)
    states[number] = states[number] or false
    if used[number] >= limit and refused == 0 then refused, wait = number, math.ceil(ready) + 1 end
  end
  local answer = {refused, wait}
  for number, counter in ipairs(counters) do
    local kind, key, limit, length, amount = unpack(counter)
    local empty = 0
    if kind == 3 then
      if refused == 0 then
        redis.call('ZADD', key, text(now + lease), request)
        redis.call('PEXPIRE', key, text(2 * lease))
      end
    else
      local start, before, count, gone = unpack(states[number])
      if refused == 0 then
        count = count + amount
        used[number] = used[number] + amount
        keep(key, length, start, before, count)
      end
      if count > 0 then empty = 2 * length - gone elseif before > 0 then empty = length - gone end
    end
    answer[#answer + 1] = math.max(0, math.floor(limit - used[number]))
    answer[#answer + 1] = empty
  end
  return answer
end

local answers = {}
for _, operation in ipairs(cmsgpack.unpack(ARGV[1])) do
  local kind = operation[1]
  if kind == 1 then
    answers[#answers + 1] = admit(operation[2], operation[3], operation[4])
  elseif kind == 2 then
    add(operation[2], operation[3], operation[4])
  elseif kind == 3 then
    redis.call('ZREM', operation[2], operation[3])
  else
    redis.call('ZADD', operation[2], text(now + operation[4]), operation[3])
    redis.call('PEXPIRE', operation[2], text(2 * operation[4]))
  end
end
return answers
""".replace("AGAIN", str(int(AGAIN * 1000)))


class RedisLimits:
    """Sends operations in the order in which they come. Those that Redis did not take are lost: what they counted is
    too little then, and leases end by themselves.
    """

    def __init__(self, redis: SharedRedis) -> None:
        self._redis = redis
        self._script = redis.script(SCRIPT)
        self._waiting: list[tuple[Operation, asyncio.Future[Verdict] | None]] = []
        self._sender: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        return self._redis.available

    def admit(self, counters: Sequence[Counter], request: str, size: int) -> asyncio.Future[Verdict]:
        """The verdict; `RedisUnavailable` where there is none. A request that comes again keeps its place."""
        asked = [
            [int(one.kind), self._key(one), one.limit, round(one.window * 1000), one.reserved(size)] for one in counters
        ]
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._send([_ADMIT, request, round(LEASE * 1000), asked], future)
        return future

    def count(self, counter: Counter, amount: int) -> None:
        self._send([_COUNT, self._key(counter), round(counter.window * 1000), amount])

    def release(self, counters: Sequence[Counter], request: str) -> None:
        """The request is over."""
        for counter in counters:
            if counter.kind is Kind.CONCURRENT:
                self._send([_RELEASE, self._key(counter), request])

    def renew(self, key: str, request: str) -> None:
        """The request runs for another `LEASE`."""
        self._send([_RENEW, self._redis.key(key), request, round(LEASE * 1000)])

    def _key(self, counter: Counter) -> str:
        return self._redis.key(counter.key)

    def _send(self, operation: Operation, future: asyncio.Future[Verdict] | None = None) -> None:
        if future is None and (not self._redis.available or len(self._waiting) >= MOST_WAITING):
            return
        self._waiting.append((operation, future))
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send_all())

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
                    future.exception()  # whoever has gone does not ask for it
            if not isinstance(error, RedisUnavailable):
                raise
            return
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(_verdict(answer))

    async def _run(self, client: Redis, data: bytes) -> list[list[int]]:
        answers: Any = await self._script(client, data)
        return answers  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Wait until all has been sent."""
        if self._sender is not None:
            await asyncio.wait((self._sender,), timeout=1.0)


def _verdict(answer: list[int]) -> Verdict:
    refused, wait, *rest = answer
    left = [(rest[number], rest[number + 1] / 1000) for number in range(0, len(rest), 2)]
    return Verdict(refused - 1 if refused else None, wait / 1000, left)
