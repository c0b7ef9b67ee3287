"""The keys that a log has in Redis, and the scripts that write them.

Everything stands under `lw:`. One log a database: two logs take two databases or two servers.
"""

from __future__ import annotations

from hashlib import sha1

import hiredis

from engine.log.errors import LogLost, LogMismatch
from engine.log.protocol import FORMAT, Header, Position, Topic, order_of
from engine.log.redis_wire import Reply, Wire, encode, refused

HEADER = "lw:header"
EPOCH = "lw:epoch"
LEASE = "lw:lease"
PASSED = "lw:passed"
TRIMMED = "lw:trimmed"
"""Hash of partition -> position: up to here the log's entries and outputs stand in the archive alone."""
PASSED_KEPT = 20_000
"""Publications kept, over an hour of one cursor; the janitor needs those since the oldest retained checkpoint."""
FIELD = b"e"


def stream(topic: Topic, partition: int) -> str:
    """Where a topic of a partition stands."""
    return f"lw:{topic}:{partition}"


def verdicts(partition: int) -> str:
    """Where the verdicts of a partition stand: a hash of position -> verdict."""
    return f"lw:verdicts:{partition}"


class Script:
    """A Lua script by its hash; load it once a connection."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = sha1(source.encode()).hexdigest()  # noqa: S324 - Redis names scripts so


# XADD counts as a random command, and Redis 6.2 lets a script write after one only when its effects are replicated.
_EFFECTS = "if redis.replicate_commands then redis.replicate_commands() end\n"
_GUARD = """
local epoch = redis.call('GET', KEYS[1])
if not epoch then return redis.error_reply('LOST the log has no epoch: its server was emptied') end
if tonumber(epoch) > tonumber(ARGV[1]) then
  return redis.error_reply('FENCED epoch ' .. epoch .. ' writes now, and this is epoch ' .. ARGV[1])
end
"""

PUT = Script(
    _EFFECTS
    + _GUARD
    + """
for i = 3, #ARGV, 3 do
  local reply = redis.pcall('XADD', ARGV[i], ARGV[i + 1], 'e', ARGV[i + 2])
  if type(reply) == 'table' and reply.err and not string.find(reply.err, 'equal or smaller', 1, true) then
    return reply
  end
end
if ARGV[2] ~= '' then return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', 20000, '*', 'e', ARGV[2]) end
return 1
""".replace("20000", str(PASSED_KEPT))
)
"""KEYS epoch, passed; ARGV own epoch, publication or '', then (stream, id, payload) for each output."""

VERDICT = Script(
    _EFFECTS
    + _GUARD
    + """
local stored = redis.pcall('HSETNX', KEYS[2], ARGV[2], ARGV[3])
if type(stored) == 'table' and stored.err then return stored end
return redis.call('HGET', KEYS[2], ARGV[2])
"""
)
"""KEYS epoch, verdicts; ARGV own epoch, position, verdict."""

CREATE = Script(
    _EFFECTS
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local now = redis.call('TIME')
local origin = string.format('%.0f', tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000))
redis.call('HSET', KEYS[1], 'origin', origin, unpack(ARGV))
redis.call('SETNX', KEYS[2], 0)
return 1
"""
)
"""KEYS header, epoch; ARGV fields and values of the header, all but the origin."""

TRIM = Script(
    _EFFECTS
    + """
local epoch = redis.call('GET', KEYS[1])
if ARGV[1] ~= '' and tonumber(epoch) > tonumber(ARGV[1]) then
  return redis.error_reply('FENCED epoch ' .. epoch .. ' trims now, and this is epoch ' .. ARGV[1])
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
for i = 4, #KEYS do redis.call('XTRIM', KEYS[i], 'MINID', '=', ARGV[i]) end
for i = #KEYS + 1, #ARGV do redis.call('HDEL', KEYS[3], ARGV[i]) end
return 1
"""
)
"""KEYS epoch, trimmed, verdicts, then streams; ARGV own epoch or '', partition, position, then for each stream the
first id that stays, then the positions of verdicts that go."""

TAKE = Script(
    """
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] or (redis.call('GET', KEYS[1]) or '0') ~= ARGV[2] then
  return redis.error_reply('LEASED meanwhile')
end
redis.call('SET', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4])
return 1
"""
)
"""KEYS epoch, lease; ARGV lease and epoch that were seen, epoch and lease that come."""

RENEW = Script(
    _GUARD
    + """
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""
)
"""KEYS epoch, lease; ARGV own epoch, lease."""

RELEASE = Script(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
"""
)
"""KEYS epoch, lease; ARGV own epoch."""


def check_epoch(stored: bytes | None, own: int) -> None:
    """Refuse what the scripts refuse, where nothing is written.

    Raises:
        LogLost: the log has no epoch.
        Fenced: it has a later one.

    """
    if stored is None:
        raise refused(Exception("LOST the log has no epoch: its server was emptied"))
    if int(stored) > own:
        raise refused(Exception(f"FENCED epoch {int(stored)} writes now, and this is epoch {own}"))


def header_of(fields: list[bytes], where: object) -> Header:
    """Read the answer of HGETALL.

    Raises:
        LogLost: there is no log.
        LogMismatch: a later version made it.
    """
    values = pairs(fields)
    if not values:
        msg = (
            f"log {where}: it is empty, no log was made here; `longwatch run` makes one in a new data folder, "
            "an old one needs its files back"
        )
        raise LogLost(msg)
    if (stored := int(values["format"])) > FORMAT:
        msg = f"log {where}: it has format {stored} and this Longwatch reads up to {FORMAT}; take a newer Longwatch"
        raise LogMismatch(msg)
    return Header(values["log_id"], int(values["partitions"]), int(values["origin"]), float(values["lapse"]), stored)


def pairs(flat: list[bytes]) -> dict[str, str]:
    """The answer of HGETALL or XINFO as a dictionary, where all values are text."""
    return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}


def tail_of(wire: Wire, partition: int) -> Position | None:
    """The last position ever given in a partition, also when its entry was trimmed."""
    wire.send(encode("XINFO", "STREAM", stream("log", partition)))
    reply: Reply = wire.raw_reply()
    if isinstance(reply, hiredis.ReplyError):
        if "no such key" in str(reply):
            return None
        raise refused(reply)
    return Position(reply[reply.index(b"last-generated-id") + 1].decode())


def verdicts_of(flat: list[bytes], after: Position | None) -> dict[Position, bytes]:
    """The answer of HGETALL on verdicts, in order, behind a position."""
    found = {Position(name.decode()): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
    least = order_of(after or "0-0")
    return {position: found[position] for position in sorted(found, key=order_of) if order_of(position) > least}
