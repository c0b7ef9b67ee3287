"""A server on loopback that speaks the part of Grafana's HTTP API that a push uses, as its documentation has it.

It stands in for a real Grafana, which the package registries do not have: what a real one makes of a board's JSON is
not seen here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "glsa_a-token-of-a-test"
Answer = tuple[int, Any]


@dataclass
class Saved:
    """A board and its history, the oldest version first."""

    board: dict[str, Any]
    folder: str
    history: list[dict[str, Any]]
    provisioned: bool = False


@dataclass
class Grafana:
    """What the server holds."""

    url: str = ""
    version: str = "12.3.3"
    may_write: bool = True
    keeps_history: bool = True
    folders: dict[str, str] = field(default_factory=dict)
    """Titles by uid."""
    boards: dict[str, Saved] = field(default_factory=dict)
    writes: int = 0
    seen: list[str] = field(default_factory=list)
    """Methods and paths, in order."""
    before_save: list[Any] = field(default_factory=list)
    """Called once each before a save is looked at: somebody who is faster."""

    def change(self, uid: str, **fields: Any) -> None:
        """Somebody saves the board in a browser."""
        saved = self.boards[uid]
        saved.board = {**saved.board, **fields, "version": saved.board["version"] + 1}
        saved.history.append({"version": saved.board["version"], "createdBy": "ann", "message": ""})

    def answer(self, method: str, path: str, token: str, body: dict[str, Any]) -> Answer:
        self.seen.append(f"{method} {path}")
        if path == "/api/health":
            return 200, {"database": "ok", "version": self.version}
        if token != f"Bearer {TOKEN}":
            return 401, {"message": "Invalid API key"}
        if method == "POST" and not self.may_write:
            return 403, {"message": "You'll need additional permissions to perform this action"}
        match method, path.split("?", maxsplit=1)[0].split("/")[2:]:
            case "GET", ["folders"]:
                return 200, [{"uid": uid, "title": title} for uid, title in self.folders.items()]
            case "POST", ["folders"]:
                self.folders[body["uid"]] = body["title"]
                return 200, body
            case "GET", ["dashboards", "uid", uid]:
                return self._board(uid)
            case "GET", ["dashboards", "uid", uid, "versions"] if self.keeps_history and uid in self.boards:
                return 200, {"continueToken": "", "versions": self.boards[uid].history[::-1]}
            case "POST", ["dashboards", "db"]:
                return self._save(body)
            case _:
                pass
        return 404, {"message": "Not found"}

    def _board(self, uid: str) -> Answer:
        if uid not in self.boards:
            return 404, {"message": "Dashboard not found"}
        saved = self.boards[uid]
        return 200, {"dashboard": saved.board, "meta": {"folderUid": saved.folder, "provisioned": saved.provisioned}}

    def _save(self, body: dict[str, Any]) -> Answer:
        while self.before_save:
            self.before_save.pop()()
        board = body["dashboard"]
        there = self.boards.get(board["uid"])
        now = there.board["version"] if there else 0
        if there and there.provisioned:
            return 400, {"message": "Cannot save provisioned dashboard"}
        if there and board["version"] != now and not body["overwrite"]:
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        self.writes += 1
        history = [
            *(there.history if there else []),
            {"version": now + 1, "createdBy": "robot", "message": body["message"]},
        ]
        self.boards[board["uid"]] = Saved({**board, "id": 7, "version": now + 1}, body["folderUid"], history)
        return 200, {"uid": board["uid"], "version": now + 1, "status": "success"}


@contextmanager
def serve(grafana: Grafana) -> Iterator[Grafana]:
    """Serve it on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: dict[str, Any]) -> None:
            status, found = grafana.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
            text = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    grafana.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield grafana
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
