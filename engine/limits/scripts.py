"""What the gates keep in Redis, and the two scripts that change it.

| key | what |
| --- | --- |
| `lw:gates` | set of the names of all gates |
| `lw:gates:shut` | set of those whose provider is down |
| `lw:gates:workers` | hash: worker -> its incarnation, `EPOCH:NONCE:CONNECTION`; `seen`, `resumed`: see ASK |
| `lw:gates:beats` | sorted set: worker -> its last sign of life |
| `lw:gate:NAME` | hash: all that can be seen of a gate, see the script |
| `lw:gate-turns:NAME` | sorted set: workers that wait, by when they were served last |
| `lw:gate-window:NAME`, `lw:gate-tokens:NAME` | the calls of the last minute: sorted set by admission, hash of tokens |

Times are milliseconds of the server's clock, so the clocks of workers do not matter.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from engine.log.redis_keys import Script

NAMES, SHUT, WORKERS, BEATS = "lw:gates", "lw:gates:shut", "lw:gates:workers", "lw:gates:beats"
NEWS = "lw:gates:news"
"""Channel: a gate was shut or opened; the message is `shut NAME` or `open NAME`."""


def wake_channel(worker: str) -> str:
    """Where a worker is told that it may ask again; the message is the gate's name."""
    return f"lw:gates:wake:{worker}"


def gate_key(name: str) -> str:
    """The hash of a gate."""
    return f"lw:gate:{name}"


def window_key(name: str) -> str:
    """The calls of a gate's last minute."""
    return f"lw:gate-window:{name}"


def gate_keys(name: str) -> list[str]:
    """The keys of ASK."""
    return [gate_key(name), f"lw:gate-turns:{name}", window_key(name), f"lw:gate-tokens:{name}", WORKERS, BEATS]


class Ask(Struct):
    """What a worker says about one gate: all that it holds, not what changed, so that it may be said twice."""

    worker: str
    incarnation: str
    name: str
    lease: int
    calls: int
    requests: int
    tokens: int
    window: int
    """ms; this and all times below."""
    held: int
    waiting: int
    since: int
    tell: bool
    """Whether to write down how many wait."""
    costs: list[int]
    """Tokens of the first that wait, in order."""
    used: list[tuple[int, int]]
    """Entry of the window and what it really counts; -1: it never started."""
    ok: bool
    outages: int
    retry_after: int
    reason: str
    probed: str
    """What became of the probe: `ok`, `outage`, `ended` (without a word) or nothing yet."""
    first_wait: int
    longest_wait: int
    ease: int
    outages_to_shut: int
    forget: int


class Answer(Struct):
    """What may pass."""

    admitted: int
    first: int
    """The window's entry of the first admitted; they count on from there."""
    wait: int
    """ms until it makes sense to ask again, -1: until told."""
    shut: bool
    easing: bool
    """It was shut until a little while ago."""
    probe: bool
    failures: int


class Opening(Struct):
    """A worker says who it is, on every connection: what an older one may still bring the server is then refused."""

    worker: str
    epoch: int
    nonce: str
    connection: int
    word: Literal["begin", "go on", "end"]
    limits: dict[str, tuple[int, int, int]]


to_json = msgspec.json.encode
answer_of = msgspec.json.Decoder(Answer).decode

# TIME is a random command, and Redis 6.2 lets a script write after one only when its effects are replicated.
_HEAD = """
if redis.replicate_commands then redis.replicate_commands() end
local ask = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

OPEN = Script(
    _HEAD
    + """
local workers = KEYS[1]
local field = 'worker:' .. ask.worker
local known = redis.call('HGET', workers, field)
local mine = string.format('%.0f:%s:%.0f', ask.epoch, ask.nonce, ask.connection)
if known then
  local epoch, nonce, connection = string.match(known, '^(%d+):(%x+):(%d+)$')
  local newer
  if nonce == ask.nonce then
    newer = tonumber(connection) > ask.connection
  else
    newer = tonumber(epoch) > ask.epoch or ask.word ~= 'begin'
  end
  if newer then return redis.error_reply('FENCED ' .. ask.worker .. ' is ' .. known .. ' now, and this is ' .. mine) end
end
if ask.word == 'end' then
  redis.call('HDEL', workers, field)
  redis.call('ZREM', KEYS[2], ask.worker)
else
  redis.call('HSET', workers, field, mine)
end
for name, limit in pairs(ask.limits) do
  redis.call('SADD', KEYS[3], name)
  redis.call('HSET', 'lw:gate:' .. name, 'calls', limit[1], 'requests', limit[2], 'tokens', limit[3])
end
if ask.word == 'go on' then return mine end
for _, name in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local gate, turns = 'lw:gate:' .. name, 'lw:gate-turns:' .. name
  local had = redis.call('HDEL', gate, 'running:' .. ask.worker, 'waiting:' .. ask.worker, 'since:' .. ask.worker)
  had = had + redis.call('ZREM', turns, ask.worker)
  if redis.call('HGET', gate, 'probe') == ask.worker then
    had = had + redis.call('HDEL', gate, 'probe')
  end
  local first = redis.call('ZRANGE', turns, 0, 0)[1]
  if had > 0 and first then redis.call('PUBLISH', 'lw:gates:wake:' .. first, name) end
end
return mine
"""
)
"""KEYS workers, beats, names; ARGV an Opening. To begin or to end frees what the worker held."""

ASK = Script(
    _HEAD
    + """
local gate, turns, window, tokens, workers, beats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local worker = ask.worker

local known = redis.call('HGET', workers, 'worker:' .. worker)
if not known then
  redis.call('HSET', workers, 'worker:' .. worker, ask.incarnation)
elseif known ~= ask.incarnation then
  return redis.error_reply('FENCED ' .. worker .. ' is ' .. known .. ' now, and this is ' .. ask.incarnation)
end

-- A sign of life. Time in which nobody could give one, since the server was away, is held against nobody.
if now - tonumber(redis.call('ZSCORE', beats, worker) or 0) > ask.lease / 6 then
  if now - tonumber(redis.call('HGET', workers, 'seen') or 0) > ask.lease / 2 then
    redis.call('HSET', workers, 'resumed', now)
  end
  redis.call('HSET', workers, 'seen', now)
  redis.call('ZADD', beats, now, worker)
end

local state = {}
local flat = redis.call('HGETALL', gate)
for i = 1, #flat, 2 do state[flat[i]] = flat[i + 1] end
if #flat == 0 then redis.call('SADD', 'lw:gates', ask.name) end
local function number(field) return tonumber(state[field] or 0) end
local function put(field, value)
  if value == nil or value == 0 or value == '' then
    if state[field] then redis.call('HDEL', gate, field) end
    state[field] = nil
  elseif state[field] ~= tostring(value) then
    if type(value) == 'number' then value = string.format('%.0f', value) end
    if state[field] ~= value then redis.call('HSET', gate, field, value) end
    state[field] = value
  end
end
local function news(word) redis.call('PUBLISH', 'lw:gates:news', word .. ' ' .. ask.name) end

put('running:' .. worker, ask.held)
if ask.tell then
  put('waiting:' .. worker, ask.waiting)
  put('since:' .. worker, ask.since)
end

-- What calls really used. An entry that left the window no longer counts.
for _, entry in ipairs(ask.used) do
  local id = string.format('%.0f', entry[1])
  local counted = redis.call('HGET', tokens, id)
  if counted and entry[2] < 0 then
    redis.call('ZREM', window, id)
    redis.call('HDEL', tokens, id)
    put('used', number('used') - counted)
  elseif counted then
    redis.call('HSET', tokens, id, entry[2])
    put('used', number('used') - counted + entry[2])
  end
end

-- The breaker: `shut` (since), `wait` (the length of the pause), `next` (the next probe), `probe` (who makes it).
-- After it `opened`, few may pass at first, then more and more; `eased` so many did. Shut again, it takes up its pauses
-- where it stood (`waited`).
local function clear(...)
  for _, field in ipairs({...}) do put(field, nil) end
end
local function open()
  local waited = number('wait')
  clear('shut', 'wait', 'next', 'probe', 'why', 'failures', 'failed')
  put('opened', now)
  put('waited', waited)
  redis.call('SREM', 'lw:gates:shut', ask.name)
  news('open')
end
local function shut()
  put('shut', now)
  put('wait', math.max(ask.first_wait, math.min(2 * number('waited'), ask.longest_wait)))
  put('next', now + math.max(number('wait'), ask.retry_after))
  clear('opened', 'eased', 'waited')
  redis.call('SADD', 'lw:gates:shut', ask.name)
  news('shut')
end
if state.opened and now - number('opened') > 16 * ask.ease then clear('opened', 'eased', 'waited') end
if ask.probed ~= '' and state.probe == worker then
  put('probe', nil)
  if ask.probed == 'ok' then
    open()
  elseif ask.probed == 'outage' then
    put('wait', math.min(2 * number('wait'), ask.longest_wait))
    put('next', now + math.max(number('wait'), ask.retry_after))
    if ask.reason ~= '' then put('why', ask.reason) end
  else
    put('next', now)
  end
end
if ask.ok and not state.shut then put('failures', nil) end
if ask.outages > 0 then
  if ask.reason ~= '' then put('why', ask.reason) end
  if state.shut then
    if ask.retry_after > 0 then put('next', math.max(number('next'), now + ask.retry_after)) end
  else
    if now - number('failed') > ask.forget then put('failures', nil) end
    put('failures', number('failures') + ask.outages)
    put('failed', now)
    if number('failures') >= ask.outages_to_shut or ask.retry_after > 0 then shut() end
  end
end

-- What left the window.
local windowed = ask.requests >= 0 or ask.tokens >= 0
while windowed do
  local old = redis.call('ZRANGEBYSCORE', window, '-inf', now - ask.window, 'LIMIT', 0, 500)
  if #old == 0 then break end
  local freed = 0
  for _, cost in ipairs(redis.call('HMGET', tokens, unpack(old))) do freed = freed + tonumber(cost or 0) end
  redis.call('ZREM', window, unpack(old))
  redis.call('HDEL', tokens, unpack(old))
  put('used', number('used') - freed)
end

-- What dead workers held.
local resumed = tonumber(redis.call('HGET', workers, 'resumed') or 0)
local function dead(other)
  local beat = tonumber(redis.call('ZSCORE', beats, other) or 0)
  return now - math.max(beat, resumed) > ask.lease
end
local function bury(other)
  for _, field in ipairs({'running:', 'waiting:', 'since:'}) do put(field .. other, nil) end
  redis.call('ZREM', turns, other)
  if state.probe == other then put('probe', nil) end
end
local running = 0
local function count()
  running = 0
  for field, value in pairs(state) do
    if string.sub(field, 1, 8) == 'running:' then running = running + tonumber(value) end
  end
end
if #ask.costs > 0 then
  local others = redis.call('ZRANGE', turns, 0, -1)
  for field in pairs(state) do
    if string.sub(field, 1, 8) == 'running:' then others[#others + 1] = string.sub(field, 9) end
  end
  if state.probe then others[#others + 1] = state.probe end
  for _, other in ipairs(others) do
    if other ~= worker and dead(other) then bury(other) end
  end
end
count()

-- Whose turn it is: workers are served in turn. The first is called when there is something for it. One that does not
-- hear (it is gone) or does not come within half a second lets the others go first.
local stamp = string.format('%.0f', time[1] * 1000000 + time[2])
local function room()
  if state.shut and (state.probe or now < number('next')) then return false end
  return ask.calls < 0 or running < ask.calls
end
local function call_first()
  while true do
    local first = redis.call('ZRANGE', turns, 0, 0)[1]
    if not first or first == worker or not room() then return first end
    if state.called ~= first then
      if redis.call('PUBLISH', 'lw:gates:wake:' .. first, ask.name) > 0 then
        put('called', first)
        put('called_at', now)
        return first
      end
      redis.call('ZREM', turns, first)
    elseif now - number('called_at') < 500 then
      return first
    else
      put('called', nil)
      redis.call('ZADD', turns, stamp, first)
    end
  end
end
if state.called == worker then put('called', nil) end
local first = call_first()
local my_turn = not first or first == worker

-- When the window will have room for so many more of them, or for so many tokens.
local function when_fits(missing, weigh)
  local from = 0
  while missing > 0 do
    local some = redis.call('ZRANGE', window, from, from + 99, 'WITHSCORES')
    if #some == 0 then return -1 end
    local ids = {}
    for i = 1, #some, 2 do ids[#ids + 1] = some[i] end
    local costs = weigh and redis.call('HMGET', tokens, unpack(ids))
    for i = 1, #ids do
      missing = missing - (costs and tonumber(costs[i] or 0) or 1)
      if missing <= 0 then return math.max(1, tonumber(some[2 * i]) + ask.window - now + 1) end
    end
    from = from + 100
  end
  return 1
end

local function eases()
  return state.opened and number('eased') >= math.floor(4 * 2 ^ ((now - number('opened')) / ask.ease))
end

local admitted, wait, probe, blocked, entry = 0, 0, false, nil, 0
local in_window = windowed and redis.call('ZCARD', window) or 0
for _, cost in ipairs(ask.costs) do
  if not my_turn then
    blocked, wait = 'turn', -1
  elseif state.shut and state.probe then
    blocked, wait = 'shut', -1
  elseif state.shut and now < number('next') then
    blocked, wait = 'shut', number('next') - now
  elseif eases() then
    blocked, wait = 'easing', math.ceil(ask.ease * math.log((number('eased') + 1) / 4) / math.log(2))
    wait = math.max(1, wait - (now - number('opened')))
  elseif ask.calls >= 0 and running >= ask.calls then
    blocked, wait = 'calls', -1
  elseif ask.requests >= 0 and in_window >= ask.requests then
    blocked, wait = 'requests', when_fits(in_window - ask.requests + 1, false)
  elseif ask.tokens >= 0 and number('used') + cost > ask.tokens then
    blocked, wait = 'tokens', when_fits(number('used') + cost - ask.tokens, true)
  end
  if blocked then break end
  admitted = admitted + 1
  running = running + 1
  if windowed then
    put('seq', number('seq') + 1)
    if entry == 0 then entry = number('seq') end
    redis.call('ZADD', window, now, state.seq)
    redis.call('HSET', tokens, state.seq, cost)
    put('used', number('used') + cost)
    in_window = in_window + 1
  end
  if state.opened then put('eased', number('eased') + 1) end
  if state.shut then
    probe = true
    put('probe', worker)
  end
end
if admitted > 0 and ask.calls >= 0 then put('running:' .. worker, ask.held + admitted) end
if #ask.costs > 0 and blocked ~= 'turn' then put('blocked', blocked) end

if ask.waiting <= admitted then
  redis.call('ZREM', turns, worker)
elseif admitted > 0 or not redis.call('ZSCORE', turns, worker) then
  redis.call('ZADD', turns, stamp, worker)
end
call_first()

return cjson.encode({
  admitted = admitted, first = entry, wait = wait, probe = probe,
  shut = state.shut ~= nil, easing = state.opened ~= nil, failures = number('failures'),
})
"""
)
"""KEYS of `gate_keys`; ARGV an Ask. Tells what may pass, as an Answer."""
