"""The checkpoints and savepoints of a data folder: which one to go on from, and which may be deleted.

Flink writes `checkpoints/JOB/chk-N/_metadata` last, so a folder without it was never completed. A start goes on from
the newest whole one, and the job then owns it (claim mode): Flink deletes it, and the shared files of incremental
checkpoints, as newer ones take its place. What older jobs leave besides is swept here, once the new job has enough of
its own.

Numbers of checkpoints rise over restarts, because a restored job counts on from the one it was restored from; so they,
not the files' times, say which is the newest (the clock may be set back). Whether one is whole is asked of Flink's own
reader, in the JVM.

When the log has lost its end, the newest that it still covers is looked for; see `engine.flink.positions`. The newer
ones stay on the disk as `_metadata.ahead` until the new job has as many of its own as are kept.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from py4j.protocol import Py4JJavaError

from engine.log.checks import END_LOST
from engine.log.errors import LogLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_METADATA: Final = "_metadata"
_DAMAGED: Final = "_metadata.damaged"
_AHEAD: Final = "_metadata.ahead"
_WRAPPERS: Final = frozenset({"KeyGroupsStateHandle", "KeyGroupsSavepointStateHandle", "OperatorStreamStateHandle"})
_NUMBERED: Final = re.compile(r"chk-(\d+)")


class NoWholeCheckpoint(RuntimeError):
    """Checkpoints are there, and none of them can be used: beginning anew would forget every run, so nothing is begun.

    Attributes:
        damaged: what is wrong with each, newest first.

    """

    def __init__(self, damaged: tuple[Damaged, ...]) -> None:
        self.damaged = damaged
        reasons = "; ".join(f"{item.path}: {item.why}" for item in damaged)
        super().__init__(
            f"None of the {len(damaged)} checkpoints can be read ({reasons}). Put one back from a copy, or move the"
            " folders `checkpoints` and `savepoints` away to fold archive and log from the beginning.",
        )

    def __reduce__(self) -> tuple[type[NoWholeCheckpoint], tuple[tuple[Damaged, ...]]]:
        return NoWholeCheckpoint, (self.damaged,)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A checkpoint that cannot be used, damaged itself or by the loss of what it stands on, and why."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a start goes on from."""

    path: Path | None
    """The newest whole checkpoint or savepoint; None in a data folder that has none yet."""
    damaged: tuple[Damaged, ...] = ()
    """Newer ones that were passed over."""


class NoneCovered(LogLost):
    """The log has lost its end, and every checkpoint stands on what is gone: nothing is begun.

    Attributes:
        ahead: what each holds that the log does not, newest first.

    """

    def __init__(self, ahead: tuple[Damaged, ...]) -> None:
        self.ahead = ahead
        reasons = "; ".join(f"{_name(item.path)}: {item.why}" for item in ahead)
        super().__init__(
            f"the log has lost its end, and none of the {len(ahead)} checkpoints stands on what is left of it"
            f" ({reasons}). Give the log its files back, or move the folders `checkpoints` and `savepoints` away to"
            " fold archive and log from the beginning.",
        )

    def __reduce__(self) -> tuple[type[NoneCovered], tuple[tuple[Damaged, ...]]]:
        """Survive pickling, which calls the class with its facts."""
        return NoneCovered, (self.ahead,)


@dataclass(frozen=True, slots=True)
class Covered:
    """What a start goes on from when the log has lost its end."""

    path: Path | None
    """The newest whole checkpoint that the log covers in every partition; None in a data folder that has none yet."""
    ahead: tuple[Damaged, ...] = ()
    """Newer ones, which stand on entries that are gone."""
    damaged: tuple[Damaged, ...] = ()
    """Newer ones that cannot be read."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What Flink's reader says of one checkpoint."""

    number: int
    files: tuple[tuple[Path, int], ...]
    """Files that it needs, and the size of each in bytes."""


def find(data: Path, java: Any) -> Found:  # noqa: ANN401 (py4j has no types)
    """The newest whole checkpoint or savepoint in a data folder.

    Damaged ones that are newer are set aside (their `_metadata` is renamed), so that a checkpoint made later under the
    same number is never mistaken for them.

    Args:
        data: the data folder.
        java: the classes of a JVM with Flink (`Cluster.java`).

    Raises:
        NoWholeCheckpoint: if there are some, and all are damaged.

    """
    damaged: list[Damaged] = []
    for path in _newest_first(data, java):
        why = _whats_wrong(path, java)
        if why is None:
            _set_aside(damaged)
            return Found(path, tuple(damaged))
        damaged.append(Damaged(path, why))
    if damaged:
        raise NoWholeCheckpoint(tuple(damaged))
    return Found(None)


def find_covered(data: Path, java: Any, check: Callable[[Path], None]) -> Covered:  # noqa: ANN401
    """The newest whole checkpoint or savepoint in a data folder that the log still covers.

    Newer ones are set aside (their `_metadata` is renamed), so that no later start goes on from them. If there is none,
    all stay as they are: the log may get its files back.

    Args:
        data: the data folder.
        java: the classes of a JVM with Flink (`Cluster.java`).
        check: raises `LogLost` for a checkpoint that the log does not cover.

    Raises:
        NoneCovered: the log covers none of those that are there.
        NoWholeCheckpoint: all are damaged.

    """
    damaged: list[Damaged] = []
    ahead: list[Damaged] = []
    for path in _newest_first(data, java):
        if (why := _whats_wrong(path, java)) is not None:
            damaged.append(Damaged(path, why))
            continue
        try:
            check(path)
        except LogLost as error:
            ahead.append(Damaged(path, str(error).partition(f": {END_LOST}")[0]))
            continue
        _set_aside(ahead, _AHEAD)
        _set_aside(damaged)
        return Covered(path, tuple(ahead), tuple(damaged))
    if ahead:
        raise NoneCovered(tuple(ahead))
    if damaged:
        raise NoWholeCheckpoint(tuple(damaged))
    return Covered(None)


def sweep(data: Path, java: Any, kept: Iterable[Path]) -> int | None:  # noqa: ANN401
    """Delete every file under `checkpoints/` and `savepoints/` that is needed by none of the kept checkpoints.

    Call it when a job has completed as many checkpoints as are to be kept: then nothing of older jobs is needed but the
    shared files that its own still point to. Files of the kept checkpoints' own job are left to Flink, which may be
    writing the next one.

    Returns:
        How many files were deleted; None, and nothing is done, if one of the kept is gone already: a later one has
        taken its place, so ask again which are kept.

    """
    paths = [path.absolute() for path in kept]
    try:
        needed = {file for path in paths for file, _ in _read(path, java).files}
    except Py4JJavaError:
        if all((path / _METADATA).exists() for path in paths):
            raise
        return None
    own = {path.parent for path in paths} | {path for path in paths if not _NUMBERED.fullmatch(path.name)}
    deleted = 0
    for folder in _owners(data):
        if folder not in own:
            deleted += _delete_unneeded(folder, needed)
    return deleted


def _newest_first(data: Path, java: Any) -> list[Path]:  # noqa: ANN401
    found = [path.parent for path in _folder(data, "checkpoints").glob(f"*/chk-*/{_METADATA}")]
    found += [path.parent for path in _folder(data, "savepoints").glob(f"*/{_METADATA}")]
    return sorted(found, key=lambda path: (_number(path, java), _written(path)), reverse=True)


def _number(path: Path, java: Any) -> float:  # noqa: ANN401
    """The number of a checkpoint; a damaged savepoint, whose number is not in its name, comes first to be reported."""
    numbered = _NUMBERED.fullmatch(path.name)
    if numbered is not None:
        return int(numbered[1])
    try:
        return _read(path, java).number
    except Py4JJavaError:  # `_whats_wrong` reports it
        return float("inf")


def _written(path: Path) -> float:
    return (path / _METADATA).stat().st_mtime


def _whats_wrong(path: Path, java: Any) -> str | None:  # noqa: ANN401
    try:
        read = _read(path, java)
    except Py4JJavaError as error:
        return f"Flink cannot read its {_METADATA} ({_first_line(error)})"
    for file, size in read.files:
        if not file.exists():
            return f"its file {file.name} is missing"
        if file.stat().st_size < size:
            return f"its file {file.name} has {file.stat().st_size} bytes instead of {size}"
    return None


def _read(path: Path, java: Any) -> _Read:  # noqa: ANN401
    stream = java.java.io.DataInputStream(
        java.java.io.BufferedInputStream(java.java.io.FileInputStream(str(path / _METADATA))),
    )
    try:
        loader = java.java.lang.Thread.currentThread().getContextClassLoader()
        reader = java.org.apache.flink.runtime.checkpoint.Checkpoints
        metadata = reader.loadCheckpointMetadata(stream, loader, path.absolute().as_uri())
    finally:
        stream.close()
    return _Read(int(metadata.getCheckpointId()), tuple(_files(metadata)))


def _files(metadata: Any) -> Iterator[tuple[Path, int]]:  # noqa: ANN401
    for operator in _each(metadata.getOperatorStates()):
        yield from _file(operator.getCoordinatorState())
        for subtask in _each(operator.getStates()):
            for handles in _handles(subtask):
                for handle in _each(handles):
                    yield from _file(handle)


def _handles(subtask: Any) -> Iterator[Any]:  # noqa: ANN401
    yield subtask.getManagedKeyedState()
    yield subtask.getRawKeyedState()
    yield subtask.getManagedOperatorState()
    yield subtask.getRawOperatorState()


def _file(handle: Any) -> Iterator[tuple[Path, int]]:  # noqa: ANN401
    """The files behind a state handle, whatever is wrapped around them."""
    if handle is None:
        return
    kind = handle.getClass().getSimpleName()
    if kind in {"FileStateHandle", "RelativeFileStateHandle"}:
        yield Path(urlsplit(handle.getFilePath().toUri().toString()).path), handle.getStateSize()
    elif kind == "IncrementalRemoteKeyedStateHandle":
        yield from _file(handle.getMetaDataStateHandle())
        for shared in (*_each(handle.getSharedState()), *_each(handle.getPrivateState())):
            yield from _file(shared.getHandle())
    elif kind in _WRAPPERS:
        yield from _file(handle.getDelegateStateHandle())


def _each(collection: Any) -> Iterator[Any]:  # noqa: ANN401
    """What is in a Java collection; py4j makes lists and sets iterable, but no other kind."""
    steps = collection.iterator()
    while steps.hasNext():
        yield steps.next()


def _set_aside(passed: Iterable[Damaged], name: str = _DAMAGED) -> None:
    for item in passed:
        (item.path / _METADATA).rename(item.path / name)


def _name(path: Path) -> str:
    """Name a checkpoint with its job, a savepoint alone."""
    return f"{path.parent.name}/{path.name}"


def _owners(data: Path) -> list[Path]:
    """The folders of jobs and of savepoints."""
    folders = [*_folder(data, "checkpoints").iterdir(), *_folder(data, "savepoints").iterdir()]
    return [folder for folder in folders if folder.is_dir()]


def _folder(data: Path, name: str) -> Path:
    folder = data.absolute() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _delete_unneeded(folder: Path, needed: set[Path]) -> int:
    deleted = 0
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(parent, name)
            if file not in needed:
                file.unlink(missing_ok=True)
                deleted += 1
        if not any(Path(parent).iterdir()):
            Path(parent).rmdir()
    return deleted


def _first_line(error: Py4JJavaError) -> str:
    return str(error.java_exception.toString()).partition("\n")[0]
