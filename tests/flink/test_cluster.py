from __future__ import annotations

import pickle
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest

from engine.flink.checkpoints import Damaged, NoWholeCheckpoint
from engine.flink.cluster import PlanRefused, check_plan, flink_options
from engine.flink.jvm import JavaFailed
from engine.flink.plan import Plan, read_plan, write_plan
from engine.flink.rest import FlinkRefused, FlinkUnreachable, Rest, SavepointFailed, words_of
from tests.flink.drivers import counting_plan

PYTHON_FAILED = """java.util.concurrent.CompletionException: org.apache.flink.util.FlinkException: broken
\tat java.base/java.util.concurrent.CompletableFuture.encodeThrowable(Unknown Source)
Caused by: org.apache.flink.util.FlinkException: broken
\t... 5 more
Caused by: pemja.core.PythonException: <class 'engine.flink.guard.Fenced'>: epoch 1 is over:
epoch 2 writes now
\tat /somewhere/operations.open_func(operations.py:127)
\tat pemja.core.PythonInterpreter.invokeMethod(Native Method)
"""


@pytest.mark.parametrize(
    ("partitions", "parallelism", "words"),
    [
        (16, 3, "parallelism is 3; it must divide the log's 16 partitions: take one of 1, 2, 4, 8, 16."),
        (16, 0, "parallelism is 0"),
        (4, 8, "parallelism is 8"),
        (12, 4, "partitions is 12; it must be a power of two"),
    ],
)
def test_partitions_that_cannot_be_dealt_out_evenly_are_refused(partitions: int, parallelism: int, words: str) -> None:
    plan = Plan(app="a:b", app_path=".", data=".", partitions=partitions, parallelism=parallelism)
    with pytest.raises(PlanRefused, match=words.replace(".", r"\.")):
        check_plan(plan)


def test_every_parallelism_that_divides_the_partitions_is_taken() -> None:
    for parallelism in (1, 2, 4, 8, 16):
        check_plan(Plan(app="a:b", app_path=".", data=".", parallelism=parallelism))


def test_the_plans_own_flink_options_win(tmp_path: Path) -> None:
    plan = counting_plan(tmp_path, flink={"execution.checkpointing.interval": "7 s"})

    assert flink_options(plan, tmp_path)["execution.checkpointing.interval"] == "7 s"


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = counting_plan(tmp_path, backend="heap", flink={"a": "b"})
    write_plan(plan, tmp_path / "plan.json")

    assert read_plan(tmp_path / "plan.json") == plan


def test_a_wrong_plan_is_named(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"app": "a:b", "app_path": ".", "data": ".", "backend": "forst"}')
    with pytest.raises(msgspec.ValidationError, match=r"forst.*\$\.backend"):
        read_plan(tmp_path / "plan.json")


def test_the_words_of_a_failure_are_those_of_the_innermost_cause() -> None:
    assert words_of(PYTHON_FAILED) == "Fenced: epoch 1 is over:\nepoch 2 writes now"
    assert words_of("java.io.IOException: disk full\n\tat a.b(C.java:1)") == "java.io.IOException: disk full"
    assert words_of("") == ""


def test_a_flink_that_is_not_there_is_named() -> None:
    with pytest.raises(FlinkUnreachable, match=r"Flink does not answer at http://localhost:1/jobs/0: .*refused"):
        Rest("http://localhost:1").status("0")


def test_a_flink_that_still_elects_its_leader_is_waited_for_like_one_that_is_not_there() -> None:
    class Electing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503, "ongoing leader election")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Electing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(FlinkUnreachable, match="leader election"):
            Rest(f"http://127.0.0.1:{server.server_port}").slots()


@pytest.mark.parametrize(
    "error",
    [
        FlinkUnreachable("url", "why"),
        FlinkRefused("url", 404, "why"),
        SavepointFailed("why"),
        JavaFailed("why"),
        PlanRefused("why"),
        NoWholeCheckpoint((Damaged(Path("chk-1"), "why"),)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__
