"""What fine-tuning may change, and how fast."""

import copy

import pytest
import torch
from torch import Tensor, nn

from unlabeled.core.batches import Batches
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.errors import DataError
from unlabeled.core.finetuning import LowRank, Tuning, merge, prepare
from unlabeled.core.heads import Classifier
from unlabeled.core.optimization import TrainingSettings, parameter_groups, train_step
from unlabeled.core.tokens import GridPatches
from unlabeled.core.training import fit

DIM, DEPTH = 8, 2


def backbone(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(GridPatches(grid=(8, 8), patch=(4, 4), dim=DIM), Encoder(dim=DIM, depth=DEPTH, heads=2))


def pictures(n: int = 32) -> tuple[Tensor, Tensor]:
    """Bright on the left (1) or on the right (0)."""
    torch.manual_seed(1)
    labels = torch.arange(n) % 2
    x = torch.rand(n, 1, 8, 8)
    x[labels == 1, :, :, :4] += 1
    x[labels == 0, :, :, 4:] += 1
    return x, labels


def trained(tuning: Tuning, **settings: float) -> tuple[Backbone, Classifier, float]:
    before = backbone()
    classifier = Classifier(copy.deepcopy(before))
    prepare(classifier.backbone, tuning, rank=2)
    x, labels = pictures()
    batches = Batches(x.numpy(), labels, batch_size=16)
    history = fit(classifier, batches, settings=TrainingSettings(steps=60, lr=1e-2, **settings))
    return before, classifier, history.curves["loss"][-1][1]


def test_everything_an_adapter_or_nothing_of_the_backbone_changes() -> None:
    changed = {}
    for tuning in ("full", "adapters", "head"):
        before, classifier, loss = trained(tuning)
        merge(classifier.backbone)
        now = classifier.backbone.state_dict()
        changed[tuning] = {name for name, value in before.state_dict().items() if not torch.equal(value, now[name])}
        assert loss < 0.5, tuning  # a coin gives 0.69
    assert changed["head"] == set()
    maps = ("qkv", "proj", "mlp.0", "mlp.2")
    assert changed["adapters"] == {f"encoder.blocks.{i}.{name}.weight" for i in range(DEPTH) for name in maps}
    assert changed["full"] == {name for name, _ in backbone().named_parameters()}


def test_an_adapter_changes_a_map_by_a_matrix_of_its_rank_and_starts_at_none() -> None:
    before = backbone()
    x, _ = pictures(4)
    fresh = copy.deepcopy(before)
    prepare(fresh, "adapters", rank=2)
    torch.testing.assert_close(fresh.embed(x), before.embed(x), rtol=0, atol=0)
    _, classifier, _ = trained("adapters")
    embedded = classifier.backbone.embed(x).detach()
    merge(classifier.backbone)
    torch.testing.assert_close(classifier.backbone.embed(x), embedded)
    for old, new in zip(before.encoder.blocks, classifier.backbone.encoder.blocks, strict=True):
        assert torch.linalg.matrix_rank(new.qkv.weight - old.qkv.weight, atol=1e-5) == 2


def test_the_formula_of_an_adapter() -> None:
    adapter = LowRank(2, 3, rank=2)
    adapter.down.data = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    adapter.up.data = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    assert adapter(torch.ones(2, 3)).tolist() == [[2, 1, 3], [1, 3, 1]]


def test_merged_it_is_an_ordinary_backbone_again() -> None:
    _, classifier, _ = trained("adapters")
    merge(classifier.backbone)
    assert set(classifier.backbone.state_dict()) == set(backbone().state_dict())
    assert all(p.requires_grad for p in classifier.backbone.parameters())
    merge(classifier.backbone)  # nothing left to merge


def test_adapters_train_few_weights() -> None:
    full, few = backbone(), backbone()
    prepare(few, "adapters", rank=1)
    counts = [sum(p.numel() for p in b.parameters() if p.requires_grad) for b in (full, few)]
    # Of each map (rows, columns) a rank of one has rows + columns: qkv, proj and the two of the inner network.
    assert counts[1] == DEPTH * ((24 + 8) + (8 + 8) + (32 + 8) + (8 + 32))
    assert counts[1] < counts[0] / 5


@pytest.mark.parametrize("decay", [0.5, 0.75])
def test_the_rate_falls_with_every_layer_that_lies_above(decay: float) -> None:
    classifier = Classifier(backbone())
    found = {}
    for group in parameter_groups(classifier, 0.05, decay):
        for name, parameter in classifier.named_parameters():
            if any(parameter is p for p in group["params"]):
                found[name] = group["scale"]
    assert len(found) == len(list(classifier.parameters()))
    assert found["linear.weight"] == found["norm.weight"] == found["backbone.encoder.norm.weight"] == 1
    assert found["backbone.encoder.blocks.1.qkv.weight"] == decay
    assert found["backbone.encoder.blocks.0.norm1.bias"] == decay**2
    assert {scale for name, scale in found.items() if "tokenizer" in name} == {decay**3}


def test_a_step_of_a_lower_layer_is_shorter_by_its_scale() -> None:
    x, labels = pictures(8)
    moved = {}
    for decay in (1.0, 0.5):
        classifier = Classifier(backbone())
        nn.init.normal_(classifier.linear.weight)
        before = copy.deepcopy(classifier.state_dict())
        settings = TrainingSettings(steps=10, lr=1e-2, weight_decay=0.0, warmup=0.1, layer_decay=decay)
        optimizer = torch.optim.AdamW(parameter_groups(classifier, 0.0, decay), lr=1e-2)
        train_step(classifier, optimizer, (x, labels), 0, settings, torch.device("cpu"))
        moved[decay] = {name: (value - before[name]).abs().max() for name, value in classifier.state_dict().items()}
    # The first step of Adam is as long as the learning rate.
    for name, layers in (("linear.weight", 0), ("backbone.encoder.blocks.1.qkv.weight", 1)):
        assert moved[1.0][name] == pytest.approx(1e-2, rel=1e-2)
        assert moved[0.5][name] == pytest.approx(1e-2 * 0.5**layers, rel=1e-2)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(DataError, match="no tuning 'half': choose one of full, adapters, head"):
        prepare(backbone(), "half")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="rank of at least 1, got 0"):
        prepare(backbone(), "adapters", rank=0)
