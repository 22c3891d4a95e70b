"""Starting from somebody else's encoder: tiny models of transformers, made on the spot, every tensor of them random."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import IJepaConfig, IJepaModel, ViTConfig, ViTMAEConfig, ViTMAEModel, ViTModel

from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical import _network as network
from unlabeled.medical import _planning as planning
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical.baselines import from_scratch
from unlabeled.medical.export import to_huggingface
from unlabeled.medical.transforms import standardise
from unlabeled.pipelines import medical as jobs
from unlabeled.pipelines.cli import main

# Three channels, and neither our size nor our options.
THEIRS: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
SMALL: dict[str, Any] = {"image_size": 32, "pretrain_epochs": 1, "finetune_steps": 4, "folds": 2}
CLOSE = 1e-5
# MLflow and what it loads warn about their own future.
tracked = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")


def made(folder: Path, kind: str = "vit", **changes: Any) -> Path:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config, model = {
        "vit": (ViTConfig, ViTModel), "mae": (ViTMAEConfig, ViTMAEModel), "ijepa": (IJepaConfig, IJepaModel)
    }[kind]  # fmt: skip
    module: Any = model(config(**THEIRS | {"mask_ratio": 0.0} | changes if kind == "mae" else THEIRS | changes))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    module.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made(tmp_path_factory.mktemp("theirs") / "tiny-vit")
    (folder / "README.md").write_text("---\ntags: [vision]\nlicense: apache-2.0\n---\n# A model\nlicense: none\n")
    return folder


def theirs_on(folder: Path, images: np.ndarray) -> np.ndarray:
    """The mean patch of transformers' own network on the grey picture in three channels."""
    model: Any = transformers.AutoModel.from_pretrained(folder).eval()
    x = standardise(torch.from_numpy(images)).expand(-1, 3, -1, -1)
    with torch.no_grad():
        tokens = model(x, interpolate_pos_encoding=True).last_hidden_state
    return tokens[:, 0 if isinstance(model, IJepaModel) else 1 :].mean(dim=1).numpy()


def features(model: PneumoniaModel, images: ImageSet) -> np.ndarray:
    return network.embeddings(model.module_.backbone, images.images)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("vit", {}), ("mae", {}), ("ijepa", {}), ("vit", {"qkv_bias": False, "layer_norm_eps": 0.01})],
)
def test_it_starts_with_their_features_trains_on_and_is_saved_whole(
    phantoms: ImageSet, tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    folder = made(tmp_path / "theirs", kind, **changes)
    model = PneumoniaModel(**SMALL).start_from(folder)
    np.testing.assert_allclose(features(model, phantoms), theirs_on(folder, phantoms.images), atol=CLOSE)
    assert (model.patch, model.dim, model.depth, model.heads) == (4, 24, 2, 3)
    assert model.class_token == (kind != "ijepa")
    started = model.module_.backbone.state_dict()
    model.pretrain(phantoms)
    assert model.pretraining_ is not None
    moved, random = (
        sum(float((part.state_dict()[name] - value).norm()) for name, value in started.items())
        for part in (model.module_.backbone, model._fresh().backbone)
    )
    assert 0 < moved < random / 2
    again = PneumoniaModel.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(features(again, phantoms), features(model, phantoms))
    assert again.module_.backbone.tokenizer.config() == model.module_.backbone.tokenizer.config()  # type: ignore[operator]
    assert again.module_.backbone.encoder.config() == model.module_.backbone.encoder.config()
    assert again.get_params() == model.get_params()
    assert again.start_ is not None
    assert model.start_ is not None
    assert again.start_.facts() == model.start_.facts()


def test_what_it_started_from_is_kept_without_its_place(vit: Path, phantoms: ImageSet, tmp_path: Path) -> None:
    saved = PneumoniaModel(**SMALL).start_from(vit).pretrain(phantoms).save(tmp_path / "m")
    text = (saved / "manifest.json").read_text(encoding="utf-8")
    assert str(vit.parent) not in text
    start = json.loads(text)["start"]
    assert start["name"] == "tiny-vit"
    assert start["licence"] == "apache-2.0"
    assert start["lines"] == [
        "matched:  vit encoder: 2 blocks, width 24, 3 heads, layer norm eps 1e-12",
        "adapted:  patch projection 4x4, 3 channels: their weights summed into 1",
        "adapted:  positions (learned): 4x4 patches interpolated to 8x8",
        "adapted:  class token: its position was added to it",
        "not used: pooler (2 tensors)",
        "adapted:  pictures: each is standardised by its own mean and deviation",
    ]
    copied = Path(shutil.copytree(vit, tmp_path / "copied"))
    same = PneumoniaModel(**SMALL).start_from(copied).start_
    assert same is not None
    assert same.fingerprint == start["fingerprint"]
    (copied / "README.md").unlink()
    other = PneumoniaModel(**SMALL).start_from(made(copied, layer_norm_eps=1e-6)).start_
    assert other is not None
    assert other.licence is None
    assert other.fingerprint != start["fingerprint"]


def test_labels_can_teach_it_at_once_beside_the_same_network_from_scratch(
    vit: Path, phantoms: ImageSet, tmp_path: Path
) -> None:
    assert phantoms.labels is not None
    model = PneumoniaModel(**SMALL).start_from(vit)
    assert not model.fills_in
    model.finetune(phantoms, phantoms.labels, groups=phantoms.patients)
    assert all(member.probe is not None for member in model.members_)
    assert model.pretraining_ is None
    again = PneumoniaModel.load(model.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.score(phantoms), model.score(phantoms))
    np.testing.assert_array_equal(again.explain(phantoms.take([0])), model.explain(phantoms.take([0])))
    scratch = from_scratch(model, Labelled(phantoms.images, phantoms.labels), groups=phantoms.patients)
    assert scratch.start_ is None
    assert all(member.probe is None for member in scratch.members_)
    assert scratch.module_.backbone.encoder.config() == model.module_.backbone.encoder.config()
    ours, random = (m.module_.backbone.encoder.blocks[0].qkv.weight for m in (model, scratch))  # type: ignore[union-attr]
    assert not torch.equal(ours, random)
    reloaded = PneumoniaModel.load(scratch.save(tmp_path / "scratch"))
    np.testing.assert_array_equal(reloaded.score(phantoms), scratch.score(phantoms))


def test_pretraining_again_begins_at_the_start_or_says_that_it_is_gone(
    vit: Path, phantoms: ImageSet, tmp_path: Path
) -> None:
    model = PneumoniaModel(**SMALL).start_from(vit)
    unused = PneumoniaModel.load(model.save(tmp_path / "started"))
    expected = features(model.pretrain(phantoms), phantoms)
    np.testing.assert_array_equal(features(model.pretrain(phantoms), phantoms), expected)
    np.testing.assert_array_equal(features(unused.pretrain(phantoms), phantoms), expected)
    with pytest.raises(DataError, match=r"weights of tiny-vit, .* are not kept in it: call start_from again"):
        PneumoniaModel.load(model.save(tmp_path / "m")).pretrain(phantoms)


def test_what_the_start_fixes_cannot_be_changed(vit: Path, phantoms: ImageSet) -> None:
    model = PneumoniaModel(**SMALL).start_from(vit)
    with pytest.raises(
        CheckpointError, match=r"started from does not fit: depth: saved 2, now 3; dim: saved 24, now 8"
    ):
        model.set_params(dim=8, depth=3).pretrain(phantoms)


@pytest.mark.parametrize("task", ["masked", "contrastive", "vicreg", "rotation", "order", "joint"])
def test_every_task_goes_on_from_it(vit: Path, phantoms: ImageSet, task: str) -> None:
    model = PneumoniaModel(**SMALL | {"image_size": 16, "task": task}).start_from(vit)
    small = phantoms.images[:16, ::2, ::2].copy()
    module, (batches, _) = planning.started(model), planning.pretraining(model, small)
    loss = module(batches.at(0), 0).total
    loss.backward()
    assert torch.isfinite(loss)
    assert module.backbone.tokenizer.project.weight.grad is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("pretrained", [False, True])
def test_it_goes_back_to_transformers(phantoms: ImageSet, tmp_path: Path, pretrained: bool) -> None:
    model = PneumoniaModel(**SMALL).start_from(made(tmp_path / "theirs", "mae"))
    if pretrained:
        model.pretrain(phantoms)
    to_huggingface(model, tmp_path / "back")
    # A decoder that has learnt nothing stays here.
    kind = json.loads((tmp_path / "back" / "config.json").read_text())["model_type"]
    assert kind == ("vit_mae" if pretrained else "vit")
    opened: Any = transformers.AutoModel.from_pretrained(tmp_path / "back", **{"mask_ratio": 0.0} if pretrained else {})
    with torch.no_grad():
        tokens = opened.eval()(standardise(torch.from_numpy(phantoms.images))).last_hidden_state
    np.testing.assert_allclose(tokens[:, 1:].mean(dim=1).numpy(), features(model, phantoms), atol=CLOSE)
    assert "started from the encoder of theirs" in (tmp_path / "back" / "README.md").read_text(encoding="utf-8")


def test_a_folder_of_before_there_were_starts_is_read(phantoms: ImageSet, tmp_path: Path) -> None:
    model = PneumoniaModel(**SMALL, dim=16, depth=1, heads=2).pretrain(phantoms)
    path = model.save(tmp_path / "m") / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["start"], manifest["architecture"], manifest["parameters"]["class_token"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    again = PneumoniaModel.load(tmp_path / "m")
    np.testing.assert_array_equal(features(again, phantoms), features(model, phantoms))


def test_an_interrupted_pretraining_goes_on_from_the_same_start_only(
    vit: Path, phantoms: ImageSet, tmp_path: Path
) -> None:
    def power_cut(values: dict[str, float], step: int) -> None:
        if step >= 20:
            raise OSError("no power")

    settings, state = SMALL | {"pretrain_epochs": 4}, tmp_path / "state"
    with pytest.raises(OSError, match="no power"):
        PneumoniaModel(**settings).start_from(vit).pretrain(phantoms, state=state, log=power_cut)
    other = made(tmp_path / "other", layer_norm_eps=1e-6)
    with pytest.raises(CheckpointError, match=r"start: saved 'tiny-vit \(\w{16}\)', now 'other \(\w{16}\)'\. Delete"):
        PneumoniaModel(**settings).start_from(other).pretrain(phantoms, state=state)
    resumed = PneumoniaModel(**settings).start_from(vit).pretrain(phantoms, state=state)
    whole = PneumoniaModel(**settings).start_from(vit).pretrain(phantoms)
    np.testing.assert_array_equal(features(resumed, phantoms), features(whole, phantoms))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["medical", *arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@tracked
@pytest.mark.integration
def test_the_commands_start_from_a_folder_and_keep_where_they_did(
    archive: simulate.Simulated, vit: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    source, labels = str(archive.images), str(archive.labels)
    code, _, err = run(
        capsys, "pretrain", source, "--start-from", str(vit), "--size", "32", "--epochs", "1", "--out", "p"
    )
    assert code == 0, err
    assert "starting from tiny-vit (" in err
    assert "licence: apache-2.0; pictures of 32 pixels" in err
    assert "adapted:  positions (learned): 4x4 patches interpolated to 8x8" in err
    assert "starting from the encoder of tiny-vit" in (in_tmp / "p" / "report.html").read_text(encoding="utf-8")
    code, _, err = run(
        capsys, "finetune", source, "--labels", labels, "--model", str(vit), "--steps", "4", "--out", "m"
    )
    assert code == 0, err
    assert "pictures of 16 pixels" in err  # its own size
    assert "from the encoder of tiny-vit as it was" in (in_tmp / "m" / "report.html").read_text(encoding="utf-8")
    assert run(capsys, "predict", source, "--model", "m", "--out", "s")[0] == 0
    client = MlflowClient(tracking_uri=f"sqlite:///{in_tmp / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("unlabeled/medical")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 3
    for one in runs:
        assert one.data.params["start"] == "tiny-vit"
        assert len(one.data.params["start_fingerprint"]) == 16
        assert one.data.params["start_licence"] == "apache-2.0"
    before = sorted(in_tmp.rglob("*"))
    for verb in (["pretrain", source, "--start-from"], ["finetune", source, "--labels", labels, "--model"]):
        code, out, err = run(capsys, *verb, str(vit), "--dry-run")
        assert code == 0, err
        assert "nothing was kept" in out
        assert "tiny-vit" in err
    assert sorted(in_tmp.rglob("*")) == before


@tracked
@pytest.mark.integration
def test_what_cannot_be_started_from_is_one_plain_line_before_any_picture_is_read(
    archive: simulate.Simulated,
    vit: Path,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reads(*_: object, **__: object) -> None:
        raise AssertionError("pictures were read")

    monkeypatch.setattr(jobs, "read_images", reads)
    monkeypatch.setattr(jobs, "read", reads)
    (in_tmp / "empty").mkdir()
    ours = PneumoniaModel(**SMALL, dim=16, depth=1, heads=2).start_from(vit).save(in_tmp / "ours")
    pickled = Path(shutil.copytree(vit, in_tmp / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    made(in_tmp / "oblong", image_size=[8, 16])
    made(in_tmp / "strips", patch_size=[2, 4])
    bert = Path(shutil.copytree(vit, in_tmp / "bert"))
    (bert / "config.json").write_text('{"model_type": "bert"}')
    for folder, options, message in (
        (in_tmp / "empty", [], "holds no Hugging Face model (config.json is missing)"),
        (ours, [], "ours --to huggingface makes one of it"),
        (pickled, [], "as a pickle (pytorch_model.bin)"),
        (bert, [], "model_type: saved 'bert', now 'vit or"),
        (in_tmp / "oblong", [], "reads pictures of 8x16, but square ones are needed: give --size"),
        (in_tmp / "strips", [], "cuts patches of 2x4, but square ones are needed"),
        (vit, ["--size", "30"], "patches of 4x4, which do not divide a grid of 30x30"),
    ):
        code, _, err = run(capsys, "pretrain", str(archive.images), "--start-from", str(folder), *options)
        assert code == 1
        assert message in err
        assert len([line for line in err.splitlines() if line.startswith("unlabeled: ")]) == 1
        assert "Traceback" not in err
    code, _, err = run(capsys, "finetune", str(archive.images), "--model", str(ours), "--size", "64")
    assert code == 1
    assert "was pretrained on 32 pixels, and --size 64 cannot change that" in err
