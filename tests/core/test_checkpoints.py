import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unlabeled.core import checkpoints
from unlabeled.core.errors import CheckpointError


def save(folder: Path, value: float = 1.0, **extra: object) -> Path:
    tensors = {"a": torch.full((2, 3), value)}
    return checkpoints.save(
        folder, kind="test.Thing", tensors=tensors, manifest={"x": [1, 2], **extra}, files={"t.txt": "hi"}
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    tensors, manifest = checkpoints.load(save(tmp_path / "model"), kind="test.Thing")
    assert torch.equal(tensors["a"], torch.ones(2, 3))
    assert manifest["x"] == [1, 2]
    assert (tmp_path / "model" / "t.txt").read_text() == "hi"


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    a = torch.arange(4.0)
    checkpoints.save(tmp_path / "m", kind="k", tensors={"a": a, "b": a[:2]}, manifest={})
    assert checkpoints.load(tmp_path / "m")[0]["b"].tolist() == [0, 1]


def test_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a test\.Thing, but a other\.Thing is needed"):
        checkpoints.load(save(tmp_path / "model"), kind="other.Thing")


def test_weights_of_another_module_are_refused_with_the_names_that_differ(tmp_path: Path) -> None:
    module, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2, bias=False)
    checkpoints.put(
        module, checkpoints.under("it.", {"it.weight": torch.ones(2, 3), "it.bias": torch.ones(2)}), what=""
    )
    assert module(torch.ones(1, 3)).tolist() == [[4.0, 4.0]]
    with pytest.raises(CheckpointError, match=r"m is of another network or version.*Missing key.*bias"):
        checkpoints.put(module, other.state_dict(), what=tmp_path / "m")


@pytest.mark.parametrize("name", ["weights.safetensors", "t.txt"])
def test_a_changed_file_is_noticed(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / "model")
    (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"!")
    with pytest.raises(CheckpointError, match=rf"{name} is damaged"):
        checkpoints.load(folder)


def test_a_missing_file_and_a_missing_model_are_told_apart(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / "t.txt").unlink()
    with pytest.raises(CheckpointError, match=r"t\.txt is missing"):
        checkpoints.load(folder)
    with pytest.raises(CheckpointError, match="holds no model"):
        checkpoints.load(tmp_path)


def test_a_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": "unlabeled/99"}))
    with pytest.raises(CheckpointError, match=r"format 'unlabeled/99'; this version reads 'unlabeled/1'"):
        checkpoints.load(folder)


def test_a_save_that_fails_leaves_the_old_model_and_no_litter(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", 1.0)
    with pytest.raises(TypeError):
        save(folder, 2.0, unserialisable=object())
    assert checkpoints.load(folder)[0]["a"][0, 0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_save_replaces_the_model_before(tmp_path: Path) -> None:
    save(tmp_path / "model", 1.0)
    assert checkpoints.load(save(tmp_path / "model", 2.0))[0]["a"][0, 0] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from unlabeled.core import checkpoints

really, left = os.replace, [int(sys.argv[2])]

def pause():
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1

def replace(*paths):
    pause()
    really(*paths)
    pause()

os.replace = replace
checkpoints.save(Path(sys.argv[1]), kind="test.Thing", tensors={"a": torch.full((2, 3), 2.0)}, manifest={})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills by a signal")
@pytest.mark.parametrize("moment", range(4))
def test_a_process_that_is_killed_while_it_replaces_a_model_loses_neither(tmp_path: Path, moment: int) -> None:
    """Before and after each of the two renames."""
    folder = save(tmp_path / "model", 1.0)
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(moment)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert checkpoints.load(folder)[0]["a"][0, 0] == (2 if moment == 3 else 1)
    assert checkpoints.load(save(folder, 3.0))[0]["a"][0, 0] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


WAITING = """
import os, sys
from pathlib import Path
import torch
from unlabeled.core import checkpoints

really, calls = os.replace, []

def replace(*paths):
    calls.append(paths)
    if len(calls) == 2:
        print("between", flush=True)
        sys.stdin.readline()
    really(*paths)

os.replace = replace
checkpoints.save(Path(sys.argv[1]), kind="test.Thing", tensors={"a": torch.full((2, 3), 2.0)}, manifest={})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks of folders")
def test_what_a_process_at_work_has_moved_aside_stays_where_it_is(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", 1.0)
    command = [sys.executable, "-c", WAITING, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "between\n"
        with pytest.raises(CheckpointError, match="holds no model"):
            checkpoints.load(folder)
        assert len(list(tmp_path.glob(".model.old-*"))) == 1
        writer.stdin.write("go on\n")
    assert writer.returncode == 0
    assert checkpoints.load(folder)[0]["a"][0, 0] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_what_others_named_alike_is_nobody_s_to_remove(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", 1.0)
    others = [save(tmp_path / name, 5.0) for name in (".model.old-backup", ".model.old-v2.old-7", ".model.new-draft")]
    checkpoints.load(save(folder, 2.0))
    assert all(checkpoints.load(other)[0]["a"][0, 0] == 5 for other in others)


def test_a_folder_that_is_no_model_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="is not a model of ours"):
        save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_file_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain name"):
        checkpoints.save(tmp_path / "m", kind="k", tensors={}, manifest={}, files={"../evil.txt": ""})
    assert not (tmp_path / "evil.txt").exists()


def test_differences_are_listed() -> None:
    with pytest.raises(
        CheckpointError, match="the model does not fit: dim: saved 3, now 4; size: saved nothing, now 64"
    ):
        checkpoints.check_same({"dim": 3, "same": 1}, {"dim": 4, "same": 1, "size": 64}, what="the model")
