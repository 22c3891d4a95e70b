"""Several findings learnt at once: what one alone would learn, unknown labels, and a model of its own for each."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.errors import DataError
from unlabeled.core.heads import SeveralLabels
from unlabeled.core.tokens import GridPatches
from unlabeled.medical import ImageSet, PneumoniaModel, read_images, simulate
from unlabeled.medical.several import finetune_together
from unlabeled.pipelines._medical_several import check_columns, models_in
from unlabeled.pipelines.cli import main
from unlabeled.pipelines.jobs import plain_folder

SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 2, "finetune_steps": 30, "folds": 2,
}  # fmt: skip


def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(GridPatches(grid=(8, 8), patch=(4, 4), dim=16), Encoder(dim=16, depth=1, heads=2))


def test_the_loss_is_the_mean_of_each_label_s_own_where_it_is_known() -> None:
    several = SeveralLabels(backbone(), class_weights=[torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])])
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([[1, -1], [0, 1], [-1, 0], [1, 1]])
    first, second = several.alone(0), several.alone(1)
    own = F.cross_entropy(first.logits(x[[0, 1, 3]]), torch.tensor([1, 0, 1]), weight=torch.tensor([1.0, 3.0]))
    other = F.cross_entropy(second.logits(x[1:]), torch.tensor([1, 0, 1]), weight=torch.tensor([2.0, 1.0]))
    assert several((x, labels), 0).total.item() == pytest.approx((own.item() + other.item()) / 2, rel=1e-6)
    labels[:, 1] = -1
    assert several((x, labels), 0).total.item() == pytest.approx(own.item(), rel=1e-6)
    nothing = several((x, torch.full((4, 2), -1)), 0).total
    nothing.backward()  # a batch of which nothing is known teaches nothing, and ends nothing
    assert nothing.item() == 0


def test_the_backbone_is_trained_once_and_left_to_each() -> None:
    several = SeveralLabels(backbone(), class_weights=[torch.ones(2)] * 2)
    names = [name for name, _ in several.named_parameters()]
    assert len(names) == len(set(names)) == len(list(several.backbone.parameters())) + 2 * 4
    one, other = several.alone(0), several.alone(1)
    assert one.backbone is not other.backbone
    for a, b in zip(one.backbone.parameters(), other.backbone.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("held_out", [False, True])
def test_one_finding_is_learnt_as_it_would_be_alone(phantoms: ImageSet, held_out: bool) -> None:
    base = PneumoniaModel(**SMALL).pretrain(phantoms)
    labels = np.asarray(phantoms.labels)
    rows = np.arange(len(labels)) % 3 > 0
    train, rest = phantoms.take(rows), phantoms.take(~rows)
    validation, together = None, None
    if held_out:
        validation, together = (rest, labels[~rows]), (rest, {"effusion": labels[~rows]})
    found = finetune_together(
        base, train, {"effusion": labels[rows]}, groups=train.patients, validation=together, unlabelled=phantoms
    )
    alone = base.finetune(train, labels[rows], groups=train.patients, validation=validation, unlabelled=phantoms)
    assert found["effusion"].finding == "effusion"
    np.testing.assert_allclose(found["effusion"].score(phantoms), alone.score(phantoms), rtol=1e-5)
    assert found["effusion"].decision_ == alone.decision_
    assert found["effusion"].finetuning_["held_out"] == alone.finetuning_["held_out"]  # type: ignore[index]


def test_unknown_labels_teach_nothing_of_their_finding_and_judge_nothing(phantoms: ImageSet) -> None:
    base = PneumoniaModel(**SMALL).pretrain(phantoms)
    ill = np.asarray(phantoms.labels)
    known = np.arange(len(ill)) % 4 > 0
    some = np.where(known, 1 - ill, -1)
    found = finetune_together(base, phantoms, {"a": ill, "b": some}, groups=phantoms.patients)
    assert found["b"].finetuning_ is not None
    assert found["b"].finetuning_["images"] == known.sum()
    assert found["b"].finetuning_["positives"] == (some == 1).sum()
    assert len(found["b"].finetuning_["held_out"]["label"]) == known.sum()
    assert not hasattr(base, "decision_") or base.decision_ is None  # stays as it is


def test_what_cannot_be_learnt_together(phantoms: ImageSet) -> None:
    base = PneumoniaModel(**SMALL).pretrain(phantoms)
    ill = np.asarray(phantoms.labels)
    rare = np.zeros(len(ill), dtype=int)
    rare[0] = 1
    with pytest.raises(DataError, match="nodule is too rare to be learnt beside the others"):
        finetune_together(base, phantoms, {"effusion": ill, "nodule": rare}, groups=phantoms.patients)
    with pytest.raises(DataError, match="nodule: labels hold one class only"):
        finetune_together(base, phantoms, {"effusion": ill, "nodule": rare * 0})
    with pytest.raises(DataError, match="as many pictures for each"):
        finetune_together(base, phantoms, {"effusion": ill, "nodule": ill[:-1]})
    with pytest.raises(DataError, match="one finding at a time"):
        finetune_together(base.set_params(self_training=True), phantoms, {"effusion": ill})


def test_a_finding_s_folder_lies_in_the_one_that_was_given_and_is_nobody_else_s(tmp_path: Path) -> None:
    names = ["..", ".", "", "../x", "/etc", "a/b", "a_b", "report.html", "nodule"]
    folders = [plain_folder(name, kind="finding", reserved="report") for name in names]
    assert len(set(folders)) == len(names)
    assert all((tmp_path / folder).resolve().parent == tmp_path.resolve() for folder in folders)
    assert folders[-1] == "nodule"
    assert not folders[-2].startswith("report")


def test_models_of_several_findings_are_those_that_were_finished_together(tmp_path: Path) -> None:
    assert models_in(tmp_path) == {}  # one model, the stages of a run, or what was stopped before its end
    (tmp_path / "findings.json").write_text('["nodule", "a/b"]')
    found = models_in(tmp_path)
    assert list(found) == ["nodule", "a/b"]
    assert found["nodule"] == tmp_path / "nodule"
    assert found["a/b"].parent == tmp_path
    for damaged in ("[", "1", "null", "[]", "[1]", '{"nodule": 1}'):
        (tmp_path / "findings.json").write_text(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            models_in(tmp_path)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("image_id,label", r"the same of effusion, nodule \(column label\)"),
        ("image_id,effusion", "nothing of nodule"),
        ("image_id,effusion,nodule", None),
        ("image_id,finding_labels", None),
    ],
)
def test_labels_of_several_findings_say_something_of_each(tmp_path: Path, header: str, why: str | None) -> None:
    (tmp_path / "labels.csv").write_text(header + "\n")
    with pytest.raises(DataError, match=why) if why else nullcontext():
        check_columns(tmp_path / "labels.csv", ["effusion", "nodule"])


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_command_leaves_a_model_and_a_page_for_each(
    archive: simulate.Simulated, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(archive.labels)
    patient = table["file"].str.split("/").str[0].astype(int)
    table["pleural effusion"], table["nodule"] = table.pop("label"), ((patient % 2) == 1).astype(int)
    table.loc[::5, "nodule"] = np.nan
    table.to_csv("labels.csv", index=False)
    PneumoniaModel(**SMALL).pretrain(read_images(archive.images, size=32)).save(in_tmp / "base")
    command = ["medical", "finetune", str(archive.images), "--labels", "labels.csv", "--model", "base", "--out", "m"]
    both = ["--finding", "pleural effusion", "--finding", "nodule"]
    with pytest.raises(SystemExit) as ended:
        main([*command, *both, "--dry-run"])
    assert ended.value.code == 0
    assert not (in_tmp / "m").exists()
    with pytest.raises(SystemExit) as ended:
        main([*command, *both])
    assert ended.value.code == 0, capsys.readouterr().err
    for folder, finding, other in (
        ("pleural-effusion", "pleural effusion", "nodule"),
        ("nodule", "nodule", "effusion"),
    ):
        assert PneumoniaModel.load(in_tmp / "m" / folder).finding == finding
        page = (in_tmp / "m" / folder / "report.html").read_text(encoding="utf-8")
        assert finding in page
        assert other not in page
        assert (in_tmp / "m" / folder / "baselines" / "scratch" / "manifest.json").exists()
    above = (in_tmp / "m" / "report.html").read_text(encoding="utf-8")
    for words in ("pleural-effusion/report.html", "nodule/report.html", "AUROC"):
        assert words in above
    predict = ["medical", "predict", str(archive.images), "--heat-maps", "0"]
    for model, out in (("m", "all"), ("m/nodule", "one")):
        with pytest.raises(SystemExit) as ended:
            main([*predict, "--model", model, "--out", out])
        assert ended.value.code == 0, capsys.readouterr().err
    above = (in_tmp / "all" / "report.html").read_text(encoding="utf-8")
    for words in ("pleural-effusion/report.html", "nodule/report.html", str(len(pd.read_csv("one/predictions.csv")))):
        assert words in above
    table, own = pd.read_csv("all/predictions.csv"), pd.read_csv("one/predictions.csv")
    assert {"nodule: probability", "pleural effusion: probability"} < set(table)
    assert not np.allclose(table["nodule: probability"], table["pleural effusion: probability"])
    both_say = table.set_index("image_id").loc[own["image_id"]]
    for column in ("probability", "call", "decision"):
        assert both_say[f"nodule: {column}"].to_list() == own[column].to_list()
    assert (in_tmp / "all" / "pleural-effusion" / "report.html").exists()
    for more, why in (([*both, "--self-training"], "one finding at a time"), ([*both[:2], *both[:2]], "named once")):
        with pytest.raises(SystemExit) as ended:
            main([*command, *more])
        assert ended.value.code == 1
        assert why in capsys.readouterr().err
