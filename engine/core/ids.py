"""The names of things that are strings on the wire."""

from __future__ import annotations

from typing import NewType

RunId = NewType("RunId", str)
"""16 hex digits, hashed from workflow, key and the place of the entry that started the run."""

CallId = NewType("CallId", str)
"""`seq.index` of the record that made the call: unique within a run; `run_id.seq.index` is the idempotency key."""

Position = NewType("Position", str)
"""A place in one partition of the log. Opaque here; the log orders it."""
