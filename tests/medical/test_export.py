"""Exported models give our numbers where other people's programs run them, prepared as the text beside them says."""

import copy
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import ViTMAEForPreTraining

from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.core.tokens import take
from unlabeled.medical import ImageSet, PneumoniaModel
from unlabeled.medical import _card as card
from unlabeled.medical import _network as network
from unlabeled.medical._decisions import decide, held_out
from unlabeled.medical.export import to_huggingface, to_onnx
from unlabeled.medical.transforms import standardise
from unlabeled.pipelines.cli import main

SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 4, "folds": 2,
}  # fmt: skip
CLOSE = 1e-5


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def fine_tuned(phantoms: ImageSet) -> PneumoniaModel:
    model = PneumoniaModel(**SMALL).pretrain(phantoms)
    return model.finetune(phantoms, phantoms.labels, groups=phantoms.patients)


def as_written_beside(folder: Path, pictures: np.ndarray) -> dict[str, Any]:
    """What the code in the README gives, run as it stands."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {"pictures": pictures}
    exec(compile(code.replace("FOLDER", folder.as_posix()), "README.md", "exec"), names)
    return names


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"class_token": True}, "vit_mae"),
        ({"class_token": True, "masking": "lungs", "task": "joint"}, "vit_mae"),
        ({"class_token": True, "masking": "adaptive"}, "vit"),
        ({"class_token": True, "task": "rotation"}, "vit"),
        ({}, "ijepa"),
    ],
)
def test_transformers_gives_the_same_features_on_pictures_prepared_as_written(
    phantoms: ImageSet, tmp_path: Path, settings: dict[str, Any], kind: str
) -> None:
    model = PneumoniaModel(**SMALL | settings).pretrain(phantoms)
    done = to_huggingface(model, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == kind
    found = as_written_beside(tmp_path / "out", phantoms.images)["features"]
    ours = network.embeddings(model.module_.backbone, phantoms.images)
    np.testing.assert_allclose(found, ours, atol=CLOSE)
    assert np.abs(ours[0] - ours[1]).max() > 10 * CLOSE
    assert [check.partition(":")[0] for check in done.checks] == [
        "read back",
        f"opened with transformers {transformers.__version__}",
    ]
    left_out = "was left out" in " ".join(done.parts)
    assert left_out == (kind != "vit_mae" and model.fills_in)


def test_the_decoder_goes_along_and_predicts_the_same(phantoms: ImageSet, tmp_path: Path) -> None:
    model = PneumoniaModel(**SMALL, class_token=True).pretrain(phantoms)
    to_huggingface(model, tmp_path / "out")
    theirs = ViTMAEForPreTraining.from_pretrained(tmp_path / "out").eval()
    x = standardise(torch.from_numpy(phantoms.images[:5]))
    pretext = network.filling_in(model.module_.pretext)
    assert pretext is not None
    with torch.no_grad():
        prediction, masked = pretext.reconstruct(model.module_.backbone, x, 0)
        # Their mask is drawn by noise, the lowest kept.
        noise = torch.arange(16).float() + 16 * torch.zeros(5, 16).scatter(1, masked, 1.0)
        found = theirs(x, noise=noise)
    assert torch.equal(found.mask.nonzero()[:, 1].view(5, -1), masked)
    assert float((take(found.logits, masked) - prediction).abs().max()) < CLOSE


def test_the_preprocessing_is_written_for_programs(fine_tuned: PneumoniaModel, tmp_path: Path) -> None:
    to_huggingface(fine_tuned, tmp_path / "out")
    said = json.loads((tmp_path / "out" / "preprocessing.json").read_text(encoding="utf-8"))
    assert said["pictures"] == {"rows": 32, "columns": 32, "channels": 1, "values": "8-bit, 0 to 255"}
    assert said["standardise"]["per"] == "picture"
    assert said["mirror"] is False
    assert said["network"] == "ijepa"
    assert fine_tuned.pretraining_ is not None
    assert said["pretraining"]["fingerprint"] == fine_tuned.pretraining_["fingerprint"]
    assert not (tmp_path / "out" / "preprocessor_config.json").exists()
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "not a medical device" in text
    assert "the classifier is not in here" in text


def test_onnx_gives_our_embeddings_and_our_probabilities(
    fine_tuned: PneumoniaModel, phantoms: ImageSet, tmp_path: Path
) -> None:
    done = to_onnx(fine_tuned, tmp_path / "out")
    assert len(done.checks) == 2
    found = as_written_beside(tmp_path / "out", phantoms.images)
    ours = network.embeddings(fine_tuned.module_.backbone, phantoms.images)
    np.testing.assert_allclose(found["features"], ours, atol=CLOSE)
    np.testing.assert_allclose(found["probability"], fine_tuned.score(phantoms), atol=CLOSE)
    assert fine_tuned.decision_ is not None
    said = json.loads((tmp_path / "out" / "preprocessing.json").read_text(encoding="utf-8"))
    assert said["decision"]["threshold"] == fine_tuned.decision_.threshold


def test_the_card_tells_the_thresholds_that_predictions_are_made_at(
    fine_tuned: PneumoniaModel, phantoms: ImageSet, tmp_path: Path
) -> None:
    """Also of a model whose earlier version saved another one, and to the last digit that a call depends on."""
    assert fine_tuned.decision_ is not None
    held = held_out(fine_tuned)
    scores = fine_tuned.decision_.probability(held.logits)
    earlier = copy.copy(fine_tuned)
    earlier.decision_ = replace(fine_tuned.decision_, sensitive_threshold=float(scores[held.labels == 1].min()))
    table = decide(earlier, phantoms).table
    for number, model in enumerate((fine_tuned, earlier)):
        to_onnx(model, tmp_path / str(number))
        text = (tmp_path / str(number) / "README.md").read_text(encoding="utf-8")
        plain, sensitive = map(float, re.findall(r"[Aa]t or above ([\d.e-]+)[, ]", " ".join(text.split())))
        assert plain == pytest.approx(table.threshold[0], rel=1e-11)
        assert sensitive == pytest.approx(table.sensitive_threshold[0], rel=1e-11)
        np.testing.assert_array_equal(scores >= sensitive, scores >= table.sensitive_threshold[0])
        assert (scores >= sensitive)[held.labels == 1].mean() >= 0.95


def test_a_threshold_between_scores_that_are_close_is_told_apart_from_both() -> None:
    assert float(card._exact(1.00004e-7)) == 1.00004e-7
    assert 0.2500001 < float(card._exact(0.25000015)) < 0.2500002


def test_of_a_model_without_labels_the_encoder_alone_is_written_and_of_one_from_scratch_the_classifier(
    phantoms: ImageSet, tmp_path: Path
) -> None:
    to_onnx(PneumoniaModel(**SMALL).pretrain(phantoms), tmp_path / "encoder")
    assert {p.suffix: p.stem for p in (tmp_path / "encoder").iterdir()}[".onnx"] == "encoder"
    scratch = PneumoniaModel(**SMALL).finetune(phantoms, phantoms.labels, groups=phantoms.patients)
    to_onnx(scratch, tmp_path / "scratch")
    found = as_written_beside(tmp_path / "scratch", phantoms.images[:3])
    assert "features" not in found
    np.testing.assert_allclose(found["probability"], scratch.score(phantoms.take(range(3))), atol=CLOSE)
    with pytest.raises(DataError, match="fine-tuned from scratch, so that it has no encoder of its own"):
        to_huggingface(scratch, tmp_path / "hf")
    for write in (to_huggingface, to_onnx):
        with pytest.raises(DataError, match="has learnt nothing yet"):
            write(PneumoniaModel(**SMALL), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_an_earlier_export_is_replaced_and_nothing_else(fine_tuned: PneumoniaModel, tmp_path: Path) -> None:
    to_huggingface(fine_tuned, tmp_path / "out")
    to_onnx(fine_tuned, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
    # Another's download has the same names, all but one.
    download = tmp_path / "download"
    download.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (download / name).write_text("precious")
    saved = fine_tuned.save(tmp_path / "saved")
    for folder in (download, saved):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(CheckpointError, match="is not an export of ours: name another folder"):
            to_huggingface(fine_tuned, folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_without_transformers_it_is_written_and_read_back_all_the_same(
    fine_tuned: PneumoniaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "transformers" else find(name, *a)
    )
    first, second = to_huggingface(fine_tuned, tmp_path / "out").checks
    assert first.startswith("read back: features differ by at most")
    assert second == "not opened with transformers, which is not installed"


def test_an_export_that_gives_other_features_is_not_kept(
    fine_tuned: PneumoniaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unlabeled.core.exchange import _names

    plain = _names.encoder_to

    def shifts_a_norm(*arguments: Any, **options: Any) -> Any:
        tensors = plain(*arguments, **options)
        return tensors | {"layernorm.bias": tensors["layernorm.bias"] + 1e-3}

    monkeypatch.setattr(_names, "encoder_to", shifts_a_norm)
    with pytest.raises(CheckpointError, match=r"differ from the model's by 0\.001, more than 1e-05"):
        to_huggingface(fine_tuned, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_the_command_writes_says_how_close_it_was_and_refuses_in_one_line(
    fine_tuned: PneumoniaModel,
    phantoms: ImageSet,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fine_tuned.save(in_tmp / "model")
    scratch = PneumoniaModel(**SMALL).finetune(phantoms, phantoms.labels, groups=phantoms.patients)
    scratch.save(in_tmp / "scratch")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["medical", "export", *arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    code, out, _ = run("model", "--to", "onnx", "--out", "x")
    assert code == 0
    for words in (
        "check: encoder.onnx in onnxruntime: differs by at most",
        "classifier.onnx:",
        "README.md: x/README.md",
    ):
        assert words in out
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else find(name, *a))
    for arguments, wanted, message in (
        (["model", "--to", "onnx"], 1, "pip install 'unlabeled[onnx]'"),
        (["scratch", "--to", "huggingface"], 1, "fine-tuned from scratch"),
        (["nowhere", "--to", "huggingface"], 1, "nowhere holds no model"),
        (["model", "--to", "huggingface", "--out", "model"], 1, "is not an export of ours"),
        (["model", "--to", "pickle"], 2, "pickle"),
        (["model"], 2, "Missing option"),
    ):
        code, _, err = run(*arguments)
        assert code == wanted
        assert message in err
        assert "Traceback" not in err
        if code == 1:
            assert len([line for line in err.splitlines() if line.startswith("unlabeled: ")]) == 1
    assert not (in_tmp / "medical-export").exists()
