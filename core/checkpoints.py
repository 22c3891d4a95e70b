"""Models on disk: a folder with safetensors weights, a JSON manifest, and nothing that can run code."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unlabeled import __version__
from unlabeled.core.errors import CheckpointError

FORMAT = "unlabeled/1"
_ABSENT = object()
WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"


def check_free(folder: str | Path) -> None:
    """Raises a CheckpointError where :func:`save` would refuse to write, so that it is said before a training."""
    folder = Path(folder)
    if not folder.name:
        raise CheckpointError(f"a model cannot be written to '{folder}' itself: name a folder in it")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).exists())):
        raise CheckpointError(f"{folder} exists and is not a model of ours: name another folder")


def save(
    folder: str | Path,
    *,
    kind: str,
    tensors: Mapping[str, Tensor],
    manifest: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
) -> Path:
    """Writes a model folder so that a reader sees the old one or the new one, never half of either, after a kill or a
    power cut as well.

    Args:
        folder: where; replaced when it exists.
        kind: what it is, e.g. ``medical.PneumoniaModel``; :func:`load` checks it.
        tensors: weights by name.
        manifest: anything JSON can hold (architecture, preprocessing, data fingerprint, licence...).
        files: further text files by plain name (a LightGBM model, say).

    Raises:
        CheckpointError: the folder exists and holds something else than a model.
        OSError: it cannot be written (disk full, say).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = Path(folder)
    check_free(folder)
    with replacing(folder) as new:
        # A copy, because safetensors refuses tensors that share memory.
        copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        try:
            save_file(copies, str(new / WEIGHTS))
        except SafetensorError as error:  # its own kind of error even where the system's was at fault
            raise _as_of_the_system(error, new / WEIGHTS) from None
        for name, text in (files or {}).items():
            if Path(name).name != name:
                raise ValueError(f"a file in a model folder has a plain name, got {name!r}")
            (new / name).write_text(text, encoding="utf-8")
        content = {
            "format": FORMAT,
            "kind": kind,
            "version": __version__,
            **manifest,
            "sha256": {name: _sha256(new / name) for name in (WEIGHTS, *(files or {}))},
        }
        (new / MANIFEST).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return folder


def read_manifest(folder: str | Path, *, kind: str | None = None) -> dict[str, Any]:
    """The manifest alone, checked for format and kind."""
    put_back(Path(folder))
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no model ({MANIFEST} is missing): give the folder that was saved to")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}): restore the folder or train again") from None
    if not isinstance(manifest, dict):
        raise CheckpointError(f"{path} is damaged (no JSON object): restore the folder or train again")
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{folder} has format {manifest.get('format')!r}; this version reads {FORMAT!r}")
    if kind is not None and manifest.get("kind") != kind:
        raise CheckpointError(f"{folder} is a {manifest.get('kind')}, but a {kind} is needed here")
    return manifest


def load(folder: str | Path, *, kind: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights by name and the manifest.

    Raises:
        CheckpointError: missing, damaged (checksums), of another format or kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    manifest = read_manifest(folder, kind=kind)
    if not isinstance(manifest.get("sha256"), dict):
        raise CheckpointError(
            f"{folder / MANIFEST} is damaged (it holds no checksums): restore the folder or train again"
        )
    for name, expected in manifest["sha256"].items():
        path = folder / Path(name).name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: restore the folder or train again")
        if _sha256(path) != expected:
            raise CheckpointError(f"{path} is damaged (its checksum differs from the manifest's): train again")
    try:
        return load_file(str(folder / WEIGHTS)), manifest
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} holds no safetensors weights ({error}): train again") from None


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def put(module: nn.Module, tensors: Mapping[str, Tensor], *, what: object) -> None:
    """Puts a module's saved state into place.

    Raises:
        CheckpointError: the tensors are not those of such a module (says which).
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        why = " ".join(str(error).split(":", 1)[-1].split())
        raise CheckpointError(f"{what} is of another network or version ({why}): train again") from None


def check_same(saved: Mapping[str, Any], wanted: Mapping[str, Any], *, what: str) -> None:
    """Raises a CheckpointError that lists every entry in which two descriptions differ."""
    differ = _differences(saved, wanted)
    if differ:
        raise CheckpointError(f"{what} does not fit: " + "; ".join(differ))


def _differences(saved: Mapping[str, Any], wanted: Mapping[str, Any], *, within: str = "") -> list[str]:
    """Entries that differ, those of entries in entries one by one."""
    found = []
    for name in sorted(set(saved) | set(wanted)):
        one, other = saved.get(name, _ABSENT), wanted.get(name, _ABSENT)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += _differences(one, other, within=f"{within}{name}.")
        elif one != other:
            found.append(f"{within}{name}: saved {_shown(one)}, now {_shown(other)}")
    return found


def _shown(value: object) -> str:
    return "nothing" if value is _ABSENT else repr(value)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of ``folder`` if the block ends well, and vanishes if not.

    A process that is killed between the two renames leaves nothing under the name: :func:`put_back` mends that. Both
    folders are locked meanwhile, which ends with the process, so that others can tell what was left from what is at
    work.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    put_back(folder)
    for left in _beside(folder, "new"):
        _drop(left)
    new, old = (folder.with_name(f".{folder.name}.{what}-{os.getpid()}") for what in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        with _locked(new):
            yield new
            for path in (*new.rglob("*"), new):
                _onto_the_disk(path)
            with _locked(folder):
                if folder.exists():
                    os.replace(folder, old)
                os.replace(new, folder)
        _onto_the_disk(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            os.replace(old, folder)


def put_back(folder: Path) -> None:
    """Gives a folder its name again that a process, killed while it was replacing it, had moved aside; removes what
    such processes left beside one that is there."""
    folder = folder.absolute()
    for aside in _beside(folder, "old"):
        if folder.exists():
            _drop(aside)
        else:
            with suppress(OSError), _locked(aside) as ours:  # one that cannot be read or written stays as it is
                if ours:
                    os.replace(aside, folder)


def _beside(folder: Path, what: str) -> list[Path]:
    """What :func:`replacing` calls so beside a folder, the newest first."""
    name = re.compile(rf"\.{re.escape(folder.name)}\.{what}-\d+")
    try:
        found = [path for path in folder.parent.iterdir() if name.fullmatch(path.name)]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []


def _drop(folder: Path) -> None:
    """Removes a folder that nobody is at work with."""
    with _locked(folder) as ours:
        if ours:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Holds a folder; ``False`` where another process does, where there is none, or where the system knows no locks of
    folders."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except OSError:
            ours = False
        yield ours
    finally:
        os.close(handle)


def write_atomically(path: str | Path, text: str) -> Path:
    """Writes a text file so that a reader sees all of it or the one before."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    _onto_the_disk(new)
    os.replace(new, path)
    return path


def _onto_the_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, would survive a power cut, where the system can tell."""
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:  # a folder that may be written to but not read, or any folder on Windows
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES, errno.ENOTSUP):  # not for this file system
            raise
    finally:
        os.close(handle)


def _as_of_the_system(error: Exception, path: Path) -> OSError:
    """The system's own error, whose number stands in the text of safetensors' one."""
    number = re.search(r"os error (\d+)", str(error))
    if number is None:
        return OSError(f"{path} could not be written: {error}")
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
