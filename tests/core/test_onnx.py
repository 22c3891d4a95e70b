import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone, Encoder, Pool
from unlabeled.core.errors import CheckpointError, UnlabeledError
from unlabeled.core.exchange import onnx
from unlabeled.core.tokens import EventFields, GridPatches


def images(**changes: Any) -> Backbone:
    torch.manual_seed(0)
    return Backbone(GridPatches(grid=(8, 12), patch=(4, 4), dim=16, **changes), Encoder(dim=16, depth=2, heads=2))


def run(path: Path, batch: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["features"], {"batch": batch.numpy()})[0]


@pytest.mark.parametrize(("pool", "class_token"), [("mean", False), ("mean", True), ("class", True)])
def test_the_file_gives_our_embeddings_at_any_batch_size(tmp_path: Path, pool: Pool, class_token: bool) -> None:
    backbone = images(class_token=class_token, channels=2).train()
    path = onnx.write(tmp_path / "new" / "model.onnx", backbone, torch.randn(1, 2, 8, 12), pool=pool)
    assert backbone.training
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    for rows in (1, 7):
        x = torch.randn(rows, 2, 8, 12)
        with torch.no_grad():
            expected = backbone.eval().embed(x, pool).numpy()
        np.testing.assert_allclose(run(path, x), expected, atol=1e-5)


def test_a_causal_network_over_events_is_written_with_its_padding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = EventFields(sizes=(5, 7), dim=16, length=8)
    backbone = Backbone(tokenizer, Encoder(dim=16, depth=2, heads=2, causal=True)).eval()
    path = onnx.write(tmp_path / "events.onnx", backbone, torch.randint(1, 5, (3, 6, 2)), pool="last")
    for rows in (1, 5):
        codes = torch.randint(1, 5, (rows, 6, 2))
        codes[0, 3:] = 0
        with torch.no_grad():
            expected = backbone.embed(codes).numpy()
        np.testing.assert_allclose(run(path, codes), expected, atol=1e-5)


def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("the one before")
    export = onnx._export

    def exports_other_weights(new: Path, module: Any, batch: Tensor, output: str) -> None:
        shift = module.backbone.encoder.norm.bias.data
        shift += 0.5
        export(new, module, batch, output)
        shift -= 0.5

    monkeypatch.setattr(onnx, "_export", exports_other_weights)
    with pytest.raises(CheckpointError, match=r"differs from the network by 0\.5, more than 0\.0001"):
        onnx.write(path, images(), torch.randn(2, 1, 8, 12))
    monkeypatch.setattr(onnx, "_export", lambda new, module, batch, output: new.write_text("no model"))
    with pytest.raises(CheckpointError, match="does not run on 2 rows and was not kept"):
        onnx.write(path, images(), torch.randn(1, 1, 8, 12))
    assert path.read_text() == "the one before"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(("shift", "said"), [(1e-3, r"0\.00(1|099\d|100\d)"), (float("nan"), "nan")])
def test_a_file_that_is_off_by_little_or_gives_no_number_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float, said: str
) -> None:
    torch.manual_seed(0)
    layer, export = nn.Linear(3, 2), onnx._export
    bias = layer.bias.detach().clone()

    def exports_another_bias(new: Path, module: Any, batch: Tensor, output: str) -> None:
        module.bias.data += shift
        export(new, module, batch, output)
        module.bias.data = bias

    monkeypatch.setattr(onnx, "_export", exports_another_bias)
    with pytest.raises(CheckpointError, match=rf"on 2 rows .* by {said}, more than 0\.0001, and was not kept"):
        onnx.write_module(tmp_path / "model.onnx", layer, torch.randn(1, 3))
    assert not list(tmp_path.iterdir())


class OtherwiseAlone(nn.Module):
    """Treats a single row in another way than one of several: the exporter writes down the latter for both."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, batch: Tensor) -> Tensor:
        return self.layer(batch) + (1 if batch.shape[0] == 1 else 0)


def test_a_file_that_is_right_for_several_rows_and_wrong_for_one_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="on 1 rows the ONNX file differs from the network by 1,"):
        onnx.write_module(tmp_path / "model.onnx", OtherwiseAlone(), torch.randn(4, 3))
    assert not list(tmp_path.iterdir())


class Squeezed(nn.Module):
    """Gives one row of output a row, but loses the rows where there is one only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, batch: Tensor) -> Tensor:
        found = self.layer(batch)
        return found[0] if batch.shape[0] == 1 else found


def test_a_file_whose_output_has_another_shape_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"on 1 rows the ONNX file gives \(1, 2\), the network \(2,\)"):
        onnx.write_module(tmp_path / "model.onnx", Squeezed(), torch.randn(4, 3))
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def finds_no_runtime(name: str, package: str | None = None) -> Any:
        return None if name == "onnxruntime" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", finds_no_runtime)
    with pytest.raises(UnlabeledError, match=r"needs onnxruntime, .*pip install 'unlabeled\[onnx\]'"):
        onnx.write(tmp_path / "model.onnx", images(), torch.randn(1, 1, 8, 12))


def test_an_example_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least one row, got shape \(0, 1, 8, 12\)"):
        onnx.write(tmp_path / "model.onnx", images(), torch.randn(0, 1, 8, 12))
