"""The server is killed, full, read-only, emptied, or the wrong one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from engine.log import redis_wire
from engine.log.errors import LogBusy, LogError, LogLost, LogMismatch, LogUnavailable
from engine.log.lease import Owner
from engine.log.protocol import Position, order_of
from engine.log.redis_appender import RedisAppender
from engine.log.redis_cursor import RedisCursor
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire
from engine.log.server import EmbeddedRedis, _program, describe

pytestmark = pytest.mark.redis


def kill(server: EmbeddedRedis) -> None:
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def pid_of(server: EmbeddedRedis) -> int:
    with closing(Wire(Address.parse(server.url))) as wire:
        info = wire.call("INFO", "server").decode()
    return int(info.split("process_id:")[1].split()[0])


@pytest.fixture
def own_log(server: EmbeddedRedis) -> Iterator[RedisLog]:
    with closing(RedisLog.create(server.url, 2)) as log:
        yield log


@pytest.fixture
def own_cursor(server: EmbeddedRedis, own_log: RedisLog) -> Iterator[RedisCursor]:
    with closing(RedisCursor(server.url, own_log.take_lease().epoch)) as cursor:
        yield cursor


def test_outputs_outlive_a_server_that_is_killed_before_they_are_sent(
    server: EmbeddedRedis, own_log: RedisLog, own_cursor: RedisCursor
) -> None:
    own_log.append_many([(i % 2, b"%d" % i) for i in range(20)])
    own_cursor.assign({0: None, 1: None})
    for partition, entries in own_cursor.read(10, 0):
        for position, _, payload in entries:
            own_cursor.put("journal", partition, position, 0, payload)
    kill(server)
    with pytest.raises(LogUnavailable, match="connection lost"):
        own_cursor.read(10, 5)
    with pytest.raises(LogUnavailable, match="is the server running"):
        own_cursor.reconnect()
    with pytest.raises(LogUnavailable, match="call reconnect"):
        own_cursor.flush()
    server.ensure()
    own_cursor.reconnect()

    assert own_cursor.read(10, 0) == []
    with closing(RedisLog.open(server.url)) as log:
        assert [item.payload for item in log.scan("journal", 1)] == [b"%d" % i for i in range(1, 20, 2)]


def test_outputs_that_were_written_before_the_answer_was_lost_are_there_once(
    server: EmbeddedRedis, own_log: RedisLog, own_cursor: RedisCursor
) -> None:
    position = own_log.append(0, b"x").position
    own_cursor.assign({0: None})
    own_cursor.read(10, 0)
    own_cursor.put("outbox", 0, position, 0, b"once")
    request = own_cursor._writes(b"")
    with closing(Wire(Address.parse(server.url))) as wire:
        wire.send(request)
        wire.reply()
    own_cursor.reconnect()
    own_cursor.flush()

    assert [item.payload for item in own_log.scan("outbox", 0)] == [b"once"]


def test_a_server_killed_again_and_again_loses_and_doubles_nothing(
    server: EmbeddedRedis, own_log: RedisLog, own_cursor: RedisCursor
) -> None:
    sent = [b"%d" % i for i in range(3000)]
    kills = iter([500, 1200, 2200])
    receipts = own_log.append_many([(i % 2, payload) for i, payload in enumerate(sent)])
    own_cursor.assign({0: None, 1: None})
    done, next_kill = 0, next(kills)
    while done < len(sent):
        try:
            batches = own_cursor.read(20, 1)
        except LogUnavailable:
            server.ensure()
            own_cursor.reconnect()
            continue
        for partition, entries in batches:
            for position, _, payload in entries:
                own_cursor.put("journal", partition, position, 0, payload)
                done += 1
        if done >= next_kill:
            kill(server)
            next_kill = next(kills, len(sent) * 2)
    own_cursor.flush()

    with closing(RedisLog.open(server.url)) as log:
        for partition in range(2):
            assert [item.payload for item in log.scan("journal", partition)] == sent[partition::2]
            assert log.tail(partition) == receipts[partition - 2].position


def test_a_silent_server_is_given_up(server: EmbeddedRedis, own_log: RedisLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_wire, "REPLY_SECONDS", 1)
    pid = pid_of(server)
    own_log.append(0, b"x")
    os.kill(pid, signal.SIGSTOP)
    try:
        with (
            closing(RedisLog(server.url, own_log.header)) as other,
            pytest.raises(LogUnavailable, match="silent for 1 s"),
        ):
            other.append(0, b"x")
    finally:
        os.kill(pid, signal.SIGCONT)

    assert own_log.append(0, b"x").partition == 0


def test_a_log_restarted_empty_is_refused(server: EmbeddedRedis, own_log: RedisLog, own_cursor: RedisCursor) -> None:
    own_log.append(0, b"x")
    own_cursor.assign({0: None})
    own_cursor.read(10, 0)
    kill(server)
    (server.folder / "appendonly.aof").unlink()
    server.ensure()

    with pytest.raises(LogLost, match="it is empty"):
        own_cursor.reconnect()
    with closing(RedisLog.create(server.url, 2)), pytest.raises(LogLost, match="positions at hand are of log"):
        own_cursor.reconnect()


def test_a_log_that_lost_its_end_is_refused(server: EmbeddedRedis, own_log: RedisLog, own_cursor: RedisCursor) -> None:
    own_log.append(0, b"kept")
    kill(server)
    files = (server.folder / "appendonly.aof").read_bytes()
    server.ensure()
    with pytest.raises(LogUnavailable):
        own_log.append(0, b"x")
    own_log.append(0, b"lost")
    own_cursor.reconnect()
    own_cursor.assign({0: None})
    assert len(own_cursor.read(10, 0)[0].entries) == 2
    kill(server)
    (server.folder / "appendonly.aof").write_bytes(files)
    server.ensure()

    with pytest.raises(LogLost, match="goes back to the newest checkpoint that the log still covers"):
        own_cursor.reconnect()


def test_a_server_that_was_emptied_under_a_connection_is_refused(
    log: RedisLog, cursor: RedisCursor, wire: Wire
) -> None:
    position = log.append(0, b"x").position
    cursor.assign({0: None})
    cursor.read(10, 0)
    cursor.put("journal", 0, position, 0, b"x")
    wire.call("FLUSHALL")

    with pytest.raises(LogLost, match="its server was emptied"):
        cursor.flush()


def test_an_idle_cursor_notices_that_its_server_was_emptied(log: RedisLog, cursor: RedisCursor, wire: Wire) -> None:
    cursor.assign({0: None})
    cursor.read(10, 0)
    wire.call("FLUSHALL")

    with pytest.raises(LogLost, match="its server was emptied"):
        cursor.read(10, 0)


def test_a_full_server_is_waited_for(log: RedisLog, cursor: RedisCursor, wire: Wire) -> None:
    position = log.append(0, b"x").position
    cursor.assign({0: None})
    cursor.read(10, 0)
    wire.call("CONFIG", "SET", "maxmemory", "100000")
    cursor.put("journal", 0, position, 0, b"x")
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="raise it"):
            cursor.read(10, 0)
        cursor.reconnect()
    with pytest.raises(LogUnavailable, match="raise it"):
        cursor.verdict(0, position, b"{}")
    with pytest.raises(LogUnavailable, match="raise it"):
        log.append(0, b"x")
    wire.call("CONFIG", "SET", "maxmemory", "0")
    cursor.reconnect()
    cursor.flush()

    assert [item.payload for item in log.scan("journal", 0)] == [b"x"]


def test_a_read_only_server_is_waited_for(log: RedisLog, cursor: RedisCursor, wire: Wire) -> None:
    position = log.append(0, b"x").position
    cursor.assign({0: None})
    cursor.read(10, 0)
    cursor.put("journal", 0, position, 0, b"x")
    wire.call("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(LogUnavailable, match="point --log at the primary"):
            cursor.flush()
    finally:
        wire.call("REPLICAOF", "NO", "ONE")
    cursor.reconnect()
    cursor.flush()

    assert [item.payload for item in log.scan("journal", 0)] == [b"x"]


def test_a_server_that_forgot_its_scripts_gets_them_again(log: RedisLog, cursor: RedisCursor, wire: Wire) -> None:
    position = log.append(0, b"x").position
    cursor.assign({0: None})
    wire.call("SCRIPT", "FLUSH")
    cursor.put("journal", 0, position, 0, b"x")
    with pytest.raises(LogUnavailable):
        cursor.flush()
    cursor.reconnect()
    cursor.flush()

    assert [item.payload for item in log.scan("journal", 0)] == [b"x"]


def test_ids_do_not_follow_a_clock_that_goes_back(log: RedisLog, wire: Wire) -> None:
    an_hour_ahead = log.header.origin + 3_600_000
    wire.call("XADD", "lw:log:0", f"{an_hour_ahead}-0", "e", "before")

    assert log.append(0, b"after").position == f"{an_hour_ahead}-1"
    assert log.tail(0) == f"{an_hour_ahead}-1"


def test_a_header_is_fixed(log: RedisLog, url: str) -> None:
    with closing(RedisLog.create(url, 4)) as same:
        assert same.header == log.header
    with pytest.raises(LogMismatch, match=r"partitions 8 was asked for and the log was made with 4"):
        RedisLog.create(url, 8)
    with pytest.raises(LogMismatch, match=r"lapse 20000.* was asked for and the log was made with 1"):
        RedisLog.open(url, lapse=20_000)
    with pytest.raises(LogLost, match="positions at hand are of log other"):
        RedisLog.open(url, log_id="other")
    with pytest.raises(LogError, match="a power of two"):
        RedisLog.create(url, 12)


def test_a_header_of_a_later_format_is_refused(log: RedisLog, url: str, wire: Wire) -> None:
    wire.call("HSET", "lw:header", "format", "2")

    with pytest.raises(LogMismatch, match="take a newer Longwatch"):
        RedisLog.open(url)


def test_there_is_no_log_before_it_is_made(url: str) -> None:
    with pytest.raises(LogLost, match="no log was made here"):
        RedisLog.open(url)
    with pytest.raises(LogLost, match="no log was made here"):
        RedisCursor(url, 1)


@pytest.mark.parametrize("text", ["redis:///0", "http://host", "here", "redis://host:port", "redis://u:secret@host/x"])
def test_an_address_that_is_none_is_named_without_its_password(text: str) -> None:
    with pytest.raises(LogError, match="give unix://") as caught:
        Address.parse(text)

    assert "secret" not in str(caught.value)


def test_addresses_are_read() -> None:
    assert Address.parse("redis://me:p%40ss@host:7/3") == Address(
        host="host", port=7, user="me", password="p@ss", database=3
    )
    assert Address.parse("rediss://host").tls
    assert str(Address.parse("unix:///a/b.sock")) == "unix:///a/b.sock"
    assert str(Address.parse("redis://me:secret@host:7/3")) == "redis://host:7/3"


@pytest.fixture
def own_url(tmp_path: Path) -> Iterator[str]:
    """Of a server that somebody else has set up, reached by host and port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    url = f"redis://127.0.0.1:{port}/3"
    process = subprocess.Popen(
        [_program(), "--port", str(port), "--dir", tmp_path, "--save", "", "--loglevel", "warning"],
        stdout=subprocess.DEVNULL,
    )
    for _ in range(200):
        with suppress(LogUnavailable):
            Wire(Address.parse(url)).close()
            break
        time.sleep(0.02)
    yield url
    process.terminate()
    process.wait()


async def test_a_server_of_ones_own_is_reached_by_host_and_port(own_url: str) -> None:
    with closing(RedisLog.create(own_url, 2)) as log:
        appender = RedisAppender(own_url, log.header.log_id, 2)
        appender.append(1, b"x")
        await appender.drain()
        await appender.close()
        with closing(RedisCursor(own_url, log.take_lease().epoch)) as cursor:
            cursor.assign({1: None})
            ((partition, entries),) = cursor.read(10, 0)

        assert (partition, entries[0][2]) == (1, b"x")
        assert describe(own_url).fsync == "off"


def test_a_password_and_a_database_are_used(server: EmbeddedRedis) -> None:
    with closing(Wire(Address.parse(server.url))) as wire:
        wire.call("CONFIG", "SET", "requirepass", "open sesame")
        with pytest.raises(LogError, match="NOAUTH"):
            RedisLog.create(server.url, 2)
        with closing(RedisLog.create(f"unix://:open%20sesame@{server.socket}", 2)) as log:
            log.append(0, b"x")
        wire.call("CONFIG", "SET", "requirepass", "")


# -- the lease


def test_a_living_owner_is_not_replaced(log: RedisLog) -> None:
    owner = Owner.this_process()
    parent = Owner(owner.host, owner.boot, os.getppid(), _started(os.getppid()))
    log.take_lease(parent, seconds=0)

    with pytest.raises(LogBusy, match="stop that one") as caught:
        log.take_lease()
    assert (caught.value.pid, caught.value.host) == (os.getppid(), owner.host)


def test_a_dead_owner_is_replaced_at_once(log: RedisLog) -> None:
    here = Owner.this_process()
    reused = Owner(here.host, here.boot, here.pid, here.started - 1)
    gone = Owner(here.host, here.boot, 2**22 + 1, 1)

    assert [log.take_lease(owner, 3600).epoch for owner in (reused, gone, here, here)] == [1, 2, 3, 4]


@pytest.mark.parametrize("host", ["elsewhere", Owner.this_process().host])
def test_an_owner_of_another_boot_has_its_time(log: RedisLog, host: str) -> None:
    elsewhere = Owner(host, "another boot", 1, 1)
    log.take_lease(elsewhere, 3600)
    with pytest.raises(LogBusy, match="or wait 3600 s"):
        log.take_lease()
    lease = log.lease()
    assert lease is not None
    log.renew_lease(lease, seconds=-1)

    assert log.take_lease().epoch == 2


def test_a_lease_given_back_is_free(log: RedisLog) -> None:
    lease = log.take_lease(Owner("elsewhere", "boot", 1, 1), 3600)
    log.release_lease(lease)

    assert log.lease() is None
    assert log.take_lease().epoch == 2


def test_a_lease_that_was_taken_cannot_be_renewed(log: RedisLog) -> None:
    old = log.take_lease()
    new = log.take_lease()
    log.release_lease(old)

    with pytest.raises(LogError, match="it must stop"):
        log.renew_lease(old)
    assert log.lease() == new


def _started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[19])


# -- the embedded server


def test_a_server_is_found_again_and_ended_by_another_object(tmp_path: Path) -> None:
    one, other = EmbeddedRedis(tmp_path), EmbeddedRedis(tmp_path, fsync="everysec")
    assert not one.running()
    assert one.ensure()
    assert not other.ensure()

    assert (describe(one.url).fsync, describe(one.url).acknowledged_is_on_disk) == ("everysec", False)
    other.stop()
    assert not one.running()
    one.stop()
    assert one.ensure()
    assert describe(one.url).acknowledged_is_on_disk
    one.stop()


def test_what_was_appended_is_there_after_a_kill(server: EmbeddedRedis, own_log: RedisLog) -> None:
    receipts = own_log.append_many([(0, b"x")] * 100)
    kill(server)
    assert server.ensure()

    with closing(RedisLog.open(server.url)) as log:
        assert [item.id for item in log.scan("log", 0)] == [receipt.position for receipt in receipts]


def test_of_many_that_start_a_server_at_once_one_does(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from engine.log.server import EmbeddedRedis; "
        f"print(EmbeddedRedis(Path({str(tmp_path)!r})).ensure())"
    )
    starters = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(4)]
    answers = sorted(starter.communicate(timeout=30)[0] for starter in starters)
    server = EmbeddedRedis(tmp_path)
    server.stop()

    assert answers == [b"False\n"] * 3 + [b"True\n"]


def test_an_emptied_stream_knows_its_end_after_a_rewrite_and_a_kill(
    server: EmbeddedRedis, own_log: RedisLog, own_cursor: RedisCursor
) -> None:
    position = own_log.append(0, b"x").position
    own_cursor.assign({0: None})
    own_cursor.read(10, 0)
    own_cursor.put("journal", 0, position, 0, b"x")
    own_cursor.flush()
    own_log.trim(0, position)
    with closing(Wire(Address.parse(server.url))) as wire:
        wire.call("BGREWRITEAOF")
        while b"aof_rewrite_in_progress:1" in (info := wire.call("INFO", "persistence")):
            assert b"aof_last_bgrewrite_status:ok" in info
    kill(server)
    server.ensure()
    own_cursor.reconnect()
    own_cursor.put("journal", 0, position, 0, b"x")
    own_cursor.flush()

    with closing(RedisLog.open(server.url)) as log:
        assert (log.held("journal", 0), log.held("log", 0), log.tail(0)) == ((0, None), (0, None), position)
        assert order_of(log.append(0, b"x").position) > order_of(position)


def test_a_server_that_does_not_come_up_is_quoted(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.folder.mkdir()
    (server.folder / "appendonly.aof").write_bytes(b"no such file\n" * 100)

    with pytest.raises(LogError, match="Bad file format reading the append only file"):
        server.ensure()


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / ("long" * 30))

    assert len(str(server.socket)) < 100
    assert server.ensure()
    server.stop()


def test_an_unknown_fsync_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="it is one of always, everysec"):
        EmbeddedRedis(tmp_path, fsync="never")  # type: ignore[arg-type]


def test_large_entries_come_in_small_reads(log: RedisLog, cursor: RedisCursor) -> None:
    for partition in range(4):
        log.append_many([(partition, b"x" * (1 << 20))] * 20)
    cursor.assign(dict.fromkeys(range(4)))
    first, second = (sum(len(entries) for _, entries in cursor.read(count, 0)) for count in (2, 1000))

    assert (first, second) == (8, 64)


def test_a_position_of_a_cursor_is_not_moved_by_a_failed_read(log: RedisLog, cursor: RedisCursor, wire: Wire) -> None:
    first, second = log.append_many([(0, b"1"), (0, b"2")])
    cursor.assign({0: first.position})
    wire.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(LogUnavailable):
        cursor.read(10, 0)
    cursor.reconnect()

    assert cursor.read(10, 0) == [(0, [(second.position, int(second.position.split("-")[0]), b"2")])]
    assert cursor.tail(0) == Position(second.position)
