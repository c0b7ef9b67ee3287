"""The durable log: a small protocol, and its kinds.

| file | for whom |
| --- | --- |
| protocol.py, errors.py, checks.py | everybody: the shapes, what goes wrong, what is compared |
| memory.py | tests |
| redis_cursor.py | the partition engine |
| redis_appender.py | the steps' asyncio loop |
| redis_log.py, lease.py | command line, client, view, supervisor |
| redis_wire.py, redis_keys.py | these three: bytes on a socket; keys and scripts |
| server.py | whoever needs the embedded server to run |
| archive.py, janitor.py | what the log no longer holds, and who moves it there |
"""
