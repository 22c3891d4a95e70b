"""Held against the installed transformers: tiny models made on the spot, every tensor of them random.

Their own start leaves biases at zero and norms at one, where a mistaken tensor would not show.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel, ViTModel

from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.errors import CheckpointError
from unlabeled.core.exchange import huggingface
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import MaskedReconstruction
from unlabeled.core.tokens import EventFields, GridPatches, take

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": 16,
    "patch_size": 4,
}
TOKENS = 16
CLOSE = 1e-5


@pytest.fixture(autouse=True)
def quiet_and_seeded() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)


def scramble(module: Any, seed: int = 0) -> Any:
    """Random numbers in every parameter, stored positions included."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return module.eval()


def vit(**changes: Any) -> ViTModel:
    return scramble(ViTModel(ViTConfig(**SIZES | changes)))


def mae(**changes: Any) -> ViTMAEModel:
    # Nothing hidden: their encoder drops patches even when it is only asked for features.
    return scramble(ViTMAEModel(ViTMAEConfig(**SIZES | {"mask_ratio": 0.0} | changes)))


def theirs(model: nn.Module, x: Tensor, **options: Any) -> Tensor:
    """(B, T, D); ViTMAE shuffles the patches by noise, so it gets some in order."""
    if isinstance(model, ViTMAEModel):
        tokens = x.shape[2] // 4 * (x.shape[3] // 4)
        options["noise"] = torch.arange(tokens).float().expand(len(x), -1)
    with torch.no_grad():
        return model(x, **options).last_hidden_state


def ours(backbone: Backbone, x: Tensor) -> Tensor:
    with torch.no_grad():
        return backbone.eval()(x)


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def backbone(*, grid: tuple[int, int] = (16, 16), patch: tuple[int, int] = (4, 4), **changes: Any) -> Backbone:
    tokenizer = GridPatches(grid=grid, patch=patch, dim=24, **changes)
    return scramble(Backbone(tokenizer, Encoder(dim=24, depth=2, heads=3, mlp_ratio=2.5)))


@pytest.mark.parametrize("make", [vit, mae])
def test_a_grey_picture_gives_the_features_that_theirs_gives_it_in_three_channels(tmp_path: Path, make: Any) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    read, matched = huggingface.read(tmp_path)
    x = torch.randn(3, 1, 16, 16)
    assert difference(ours(read, x), theirs(model, x.expand(-1, 3, -1, -1))) < CLOSE
    assert any("3 channels: their weights summed into 1" in line for line in matched.adapted)


@pytest.mark.parametrize("make", [vit, mae])
def test_a_colour_picture_gives_the_same_features(tmp_path: Path, make: Any) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    read, matched = huggingface.read(tmp_path, channels=3)
    x = torch.randn(3, 3, 16, 16)
    assert difference(ours(read, x), theirs(model, x)) < CLOSE
    assert not any("channels" in line for line in matched.adapted)


def test_two_channels_share_the_three_saved_ones(tmp_path: Path) -> None:
    model = vit()
    model.save_pretrained(tmp_path)
    x = torch.randn(2, 1, 16, 16)
    read, _ = huggingface.read(tmp_path, channels=2)
    assert difference(ours(read, x.expand(-1, 2, -1, -1)), theirs(model, x.expand(-1, 3, -1, -1))) < CLOSE


@pytest.mark.parametrize("make", [vit, mae])
@pytest.mark.parametrize("grid", [(24, 32), (8, 8), (16, 32)])
def test_on_another_grid_the_positions_are_interpolated_as_theirs_are(
    tmp_path: Path, make: Any, grid: tuple[int, int]
) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    read, matched = huggingface.read(tmp_path, grid=grid)
    x = torch.randn(2, 1, *grid)
    expected = theirs(model, x.expand(-1, 3, -1, -1), interpolate_pos_encoding=True)
    assert difference(ours(read, x), expected) < CLOSE
    assert any(f"4x4 patches interpolated to {grid[0] // 4}x{grid[1] // 4}" in line for line in matched.adapted)


def test_what_was_done_is_said(tmp_path: Path) -> None:
    vit(qkv_bias=False).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    lines = huggingface.read(tmp_path, grid=(32, 32))[1].lines()
    assert lines == [
        "matched:  vit encoder: 2 blocks, width 24, 3 heads, layer norm eps 1e-12",
        "adapted:  patch projection 4x4, 3 channels: their weights summed into 1",
        "adapted:  positions (learned): 4x4 patches interpolated to 8x8",
        "adapted:  class token: its position was added to it",
        "adapted:  query, key and value: had no bias, got zeros",
        "not used: pooler (2 tensors)",
        "not used: preprocessor_config.json: standardise the pictures as it says",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"qkv_bias": False},
        {"layer_norm_eps": 0.01},
        {"intermediate_size": 31},
        {"image_size": [8, 24], "patch_size": [2, 4]},
    ],
)
def test_settings_are_followed(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = vit(**changes)
    model.save_pretrained(tmp_path)
    read, _ = huggingface.read(tmp_path, channels=3)
    x = torch.randn(2, 3, *read.tokenizer.grid)  # type: ignore[misc]
    assert difference(ours(read, x), theirs(model, x)) < CLOSE


def test_what_a_config_leaves_out_is_what_theirs_takes_it_for(tmp_path: Path) -> None:
    model = vit()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    sizes = {name: value for name, value in json.loads(path.read_text()).items() if name in (*SIZES, "model_type")}
    path.write_text(json.dumps(sizes))
    read, _ = huggingface.read(tmp_path, channels=3)
    assert read.encoder.norm_eps == ViTConfig.from_pretrained(tmp_path).layer_norm_eps == 1e-12
    x = torch.randn(2, 3, 16, 16)
    assert difference(ours(read, x), theirs(ViTModel.from_pretrained(tmp_path).eval(), x)) < CLOSE


@pytest.mark.parametrize("options", [{"save_original_format": False}, {"max_shard_size": "10KB"}])
def test_other_ways_of_saving_are_read_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    model = vit()
    model.save_pretrained(tmp_path, **options)
    assert (tmp_path / "model.safetensors").exists() == ("max_shard_size" not in options)
    x = torch.randn(2, 3, 16, 16)
    assert difference(ours(huggingface.read(tmp_path, channels=3)[0], x), theirs(model, x)) < CLOSE


def test_half_precision_is_read_as_single(tmp_path: Path) -> None:
    model = vit().bfloat16()
    model.save_pretrained(tmp_path)
    x = torch.randn(2, 3, 16, 16)
    assert difference(ours(huggingface.read(tmp_path, channels=3)[0], x), theirs(model.float(), x)) < CLOSE


@pytest.mark.parametrize(("kind", "config"), [("vit", ViTConfig), ("mae", ViTMAEConfig)])
def test_the_encoder_is_found_in_a_model_with_a_head(tmp_path: Path, kind: str, config: Any) -> None:
    whole: Any = transformers.ViTForImageClassification if kind == "vit" else ViTMAEForPreTraining
    decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    model = scramble(whole(config(**SIZES | ({} if kind == "vit" else decoder | {"mask_ratio": 0.0}))))
    model.save_pretrained(tmp_path)
    read, matched = huggingface.read(tmp_path, channels=3)
    x = torch.randn(2, 3, 16, 16)
    assert difference(ours(read, x), theirs(model.vit, x)) < CLOSE
    assert len(matched.unused) == 1
    assert matched.unused[0].startswith("classifier (2" if kind == "vit" else "decoder (")


def test_reading_leaves_the_random_numbers_of_others_alone(tmp_path: Path) -> None:
    vit().save_pretrained(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    huggingface.read(tmp_path)
    assert torch.equal(torch.rand(1), expected)


# Writing


@pytest.mark.parametrize("positions", ["sincos", "fixed", "learned"])
def test_a_backbone_with_a_class_token_is_written_as_a_vit(tmp_path: Path, positions: str) -> None:
    written = backbone(class_token=True, positions=positions)
    huggingface.write(tmp_path / "out", written)
    model, loading = ViTModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values())  # nothing missing, nothing left over, nothing of another shape
    x = torch.randn(3, 1, 16, 16)
    assert difference(theirs(model.eval(), x), ours(written, x)) < CLOSE
    with torch.no_grad():
        assert difference(model(x).pooler_output, written.embed(x, "class")) < CLOSE


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_a_backbone_without_a_class_token_is_written_as_an_ijepa_encoder(tmp_path: Path, positions: str) -> None:
    written = backbone(positions=positions)
    huggingface.write(tmp_path / "out", written)
    model, loading = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model).__name__ == "IJepaModel"
    assert not any(loading.values())
    x = torch.randn(3, 1, 16, 16)
    assert difference(theirs(model.eval(), x), ours(written, x)) < CLOSE
    with torch.no_grad():
        assert difference(model(x).last_hidden_state.mean(dim=1), written.embed(x)) < CLOSE


@pytest.mark.parametrize("class_token", [False, True])
def test_oblong_grids_and_patches_of_many_channels_are_written(tmp_path: Path, class_token: bool) -> None:
    written = backbone(grid=(8, 24), patch=(2, 6), channels=2, class_token=class_token)
    huggingface.write(tmp_path / "out", written)
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    x = torch.randn(3, 2, 8, 24)
    assert difference(theirs(model, x), ours(written, x)) < CLOSE


@pytest.mark.parametrize("class_token", [False, True])
def test_what_is_written_is_read_back(tmp_path: Path, class_token: bool) -> None:
    written = backbone(class_token=class_token, positions="learned")
    read, matched = huggingface.read(huggingface.write(tmp_path / "out", written))
    x = torch.randn(3, 1, 16, 16)
    assert torch.equal(ours(read, x), ours(written, x))
    assert read.tokenizer.config() == written.tokenizer.config()  # type: ignore[operator]
    assert read.encoder.config() == written.encoder.config()
    assert matched.unused == (("pooler (2 tensors)",) if class_token else ())


def task(written: Backbone, **changes: Any) -> MaskedReconstruction:
    # Of 16 patches theirs would keep 5 by this ratio, ours 6.
    settings = {"mask": RandomMask(0.65), "dim": 16, "depth": 2, "heads": 2, "normalise": False}
    return scramble(MaskedReconstruction(written.tokenizer, **settings | changes), seed=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pretrained_pair_is_written_as_a_vitmae_with_the_same_predictions_and_loss(
    tmp_path: Path, channels: int
) -> None:
    written = backbone(class_token=True, channels=channels)
    pretext = task(written)
    huggingface.write(tmp_path / "out", written, pretext)
    model, loading = ViTMAEForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values())
    x = torch.randn(5, channels, 16, 16)
    with torch.no_grad():
        prediction, masked = pretext.reconstruct(written, x, 7)
        loss = pretext.loss(written, x, 7).total
        # Their mask is drawn by noise, the lowest kept.
        noise = torch.arange(TOKENS).float().repeat(5, 1)
        found = model.eval()(x, noise=noise + TOKENS * torch.zeros(5, TOKENS).scatter(1, masked, 1.0))
    assert torch.equal(found.mask.nonzero()[:, 1].view(5, -1), masked)
    assert difference(take(found.logits, masked), prediction) < CLOSE
    assert float(found.loss) == pytest.approx(float(loss), rel=1e-5)


def test_a_normalised_target_is_written_down(tmp_path: Path) -> None:
    written = backbone(class_token=True)
    huggingface.write(tmp_path / "out", written, task(written, normalise=True))
    assert ViTMAEConfig.from_pretrained(tmp_path / "out").norm_pix_loss is True


def test_a_pair_that_was_read_and_trained_on_goes_back(tmp_path: Path) -> None:
    mae().save_pretrained(tmp_path / "theirs")
    read, _ = huggingface.read(tmp_path / "theirs")
    pretext = task(read, norm_eps=read.encoder.norm_eps)
    position = read.tokenizer.get_buffer("position").clone()
    optimizer = torch.optim.SGD([*read.parameters(), *pretext.parameters()], lr=0.1)
    pretext.loss(read, torch.randn(4, 1, 16, 16), 0).total.backward()
    assert all(parameter.grad is not None for parameter in read.parameters())
    optimizer.step()
    assert torch.equal(read.tokenizer.get_buffer("position"), position)
    huggingface.write(tmp_path / "back", read, pretext)
    model = ViTMAEModel.from_pretrained(tmp_path / "back", mask_ratio=0.0).eval()
    x = torch.randn(2, 1, 16, 16)
    assert difference(theirs(model, x), ours(read, x)) < CLOSE


def test_writing_again_replaces_an_export_and_nothing_else(tmp_path: Path) -> None:
    first, second = backbone(), backbone(class_token=True)
    huggingface.write(tmp_path / "out", first)
    huggingface.write(tmp_path / "out", second)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "vit"
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="is not an export of ours"):
        huggingface.write(tmp_path / "out", first)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


# Refusals


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickled_checkpoint_is_refused_and_not_opened(tmp_path: Path) -> None:
    vit().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(Trap(tmp_path / "ran"), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"as a pickle \(pytorch_model\.bin\).*never read here"):
        huggingface.read(tmp_path)
    assert not (tmp_path / "ran").exists()


def changed(folder: Path, **settings: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"model_type": "bert"}, "model_type: saved 'bert', now 'vit or vit_mae or ijepa'"),
        ({"hidden_act": "gelu_new"}, "hidden_act: saved 'gelu_new', now 'gelu'"),
        ({"head_dim": 16}, "head_dim: saved 16, now 8"),
        ({"model_type": "ijepa"}, r"position_embeddings: saved \[1, 17, 24\], now \[1, 16, 24\]"),
        ({"num_hidden_layers": 3}, r"encoder\.layer\.2\.layernorm_before\.bias: saved None, now \[24\]"),
        ({"num_hidden_layers": 1}, r"encoder\.layer\.1\.\S*bias: saved \[24\], now None"),
        ({"qkv_bias": False}, r"encoder\.layer\.0\.attention\.attention\.key\.bias: saved \[24\], now None"),
        ({"intermediate_size": 44}, r"intermediate\.dense\.bias: saved \[40\], now \[44\]"),
    ],
)
def test_another_architecture_is_refused_with_what_differs(
    tmp_path: Path, settings: Mapping[str, Any], difference: str
) -> None:
    vit().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"does not fit: .*{difference}"):
        huggingface.read(changed(tmp_path, **settings))


def test_a_folder_that_is_incomplete_or_damaged_is_refused_by_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        huggingface.read(tmp_path)
    vit().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        huggingface.read(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        huggingface.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        huggingface.read(tmp_path)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    vit().save_pretrained(folder)
    save_file(load_file(folder / "model.safetensors"), tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"embeddings.cls_token": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"model.elsewhere\.safetensors is missing"):
        huggingface.read(folder)


def test_a_grid_that_the_patches_do_not_divide_is_refused(tmp_path: Path) -> None:
    vit().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="patches of 4x4, which do not divide a grid of 18x16"):
        huggingface.read(tmp_path, grid=(18, 16))


def test_what_theirs_cannot_hold_is_refused_with_what_to_do(tmp_path: Path) -> None:
    out = tmp_path / "out"
    events = Backbone(EventFields(sizes=(3, 4), dim=24, length=5), Encoder(dim=24, depth=1, heads=3))
    with pytest.raises(CheckpointError, match="only a backbone over GridPatches"):
        huggingface.write(out, events)
    causal = Backbone(GridPatches(grid=(8, 8), patch=(4, 4), dim=24), Encoder(dim=24, heads=3, causal=True))
    with pytest.raises(CheckpointError, match="that is not causal"):
        huggingface.write(out, causal)
    with pytest.raises(CheckpointError, match=r"pretrain with class_token=True"):
        huggingface.write(out, backbone(), task(backbone()))
    oblong = backbone(grid=(8, 16), class_token=True)
    with pytest.raises(CheckpointError, match="square pictures in square patches, not 8x16 in 4x4"):
        huggingface.write(out, oblong, task(oblong))
    written = backbone(class_token=True)
    with pytest.raises(CheckpointError, match="make the task with norm_eps=1e-05"):
        huggingface.write(out, written, task(written, norm_eps=1e-6))
    assert not out.exists()


def test_the_hidden_width_survives_the_ratio() -> None:
    wrong = [
        (dim, hidden)
        for dim in range(1, 200)
        for hidden in range(1, 900)
        if int(dim * huggingface._mlp_ratio(dim, hidden)) != hidden
    ]
    assert wrong == []
