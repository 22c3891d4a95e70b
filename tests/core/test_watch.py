"""What a watch promises: it changes nothing, trips on a collapse and on nothing healthy, and loses nothing."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from unlabeled.core import checkpoints
from unlabeled.core.audit import Watch, alignment, deviation, effective_rank, uniformity
from unlabeled.core.audit.collapse import linear_probe, nearest_neighbours_accuracy
from unlabeled.core.audit.watch import DEVIATION, PROJECTED_DEVIATION, PROJECTED_RANK, RANK, looked_at
from unlabeled.core.batches import Batches
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.errors import BadBatchError, CollapseError, DataError
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import EventModelling, Joint, Loss, MaskedReconstruction, Pretext, Pretraining, Rotation
from unlabeled.core.several_kinds import SeveralKinds, SideBySide, WatchOfKinds, sharing
from unlabeled.core.tokens import EventFields, GridPatches
from unlabeled.core.training import History, TrainingSettings, fit


class TwoViews(Pretext):
    """Two noisy views of each row, pulled together; with ``negatives`` pushed away from the others (InfoNCE)."""

    remedies = ("another temperature", "weaker augmentation")

    def __init__(self, *, negatives: bool, dim: int = 32) -> None:
        super().__init__()
        self.negatives = negatives
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def project(self, embedding_bd: Tensor) -> Tensor:
        return self.head(embedding_bd)

    def loss(self, backbone: Backbone, batch: Tensor, step: int) -> Loss:
        draw = torch.Generator().manual_seed(step)
        a, b = (
            F.normalize(self.project(backbone.embed(batch + 0.3 * noise.to(batch))), dim=1)
            for noise in (torch.randn(batch.shape, generator=draw) for _ in range(2))
        )
        if self.negatives:
            return Loss(F.cross_entropy(a @ b.T / 0.2, torch.arange(len(a), device=a.device)), {})
        return Loss((a - b).square().sum(dim=1).mean(), {})


def waves(n: int = 256) -> np.ndarray:
    """Pictures (N, 1, 16, 16) of waves with a frequency and phases of their own, and noise."""
    draw = np.random.default_rng(0)
    phase, times, at = draw.uniform(0, 6.28, (n, 1, 1)), draw.integers(1, 4, (n, 1, 1)), np.arange(16) / 16
    x = np.sin(2 * np.pi * times * at[None, None, :] + phase)
    x = x + 0.5 * np.cos(2 * np.pi * times * at[None, :, None] + 2 * phase)
    return (x + 0.2 * draw.normal(size=x.shape))[:, None].astype("float32")


def noise(n: int = 256) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 1, 16, 16)).astype("float32")


def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(GridPatches(grid=(16, 16), patch=(4, 4), dim=32), Encoder(dim=32, depth=2, heads=2))


def reconstruction(ratio: float = 0.75) -> Pretraining:
    made = backbone()
    assert isinstance(made.tokenizer, GridPatches)
    task = MaskedReconstruction(made.tokenizer, mask=RandomMask(ratio), dim=16, depth=1, heads=2)
    return Pretraining(made, task)


def two_views(*, negatives: bool) -> Pretraining:
    return Pretraining(backbone(), TwoViews(negatives=negatives))


def watched(
    module: nn.Module, data: np.ndarray, *, lr: float = 1e-3, steps: int = 150, every: int = 5, **options: Any
) -> History:
    batches = Batches(data, batch_size=32)
    watch = Watch.over(batches, every=every)
    settings = TrainingSettings(steps=steps, lr=lr, checkpoint_every=1)
    return fit(module, batches, settings=settings, watch=watch, **options)


def collapse(state: Path | None = None, **options: Any) -> tuple[Pretraining, CollapseError]:
    module = two_views(negatives=False)
    with pytest.raises(CollapseError) as caught:
        watched(module, waves(), lr=3e-3, state=state, **options)
    return module, caught.value


def health(rank: list[float], spread: list[float] | None = None, **more: list[float]) -> tuple[int, bool, int | None]:
    curves = {RANK: rank, DEVIATION: [0.5] * len(rank) if spread is None else spread, **more}
    steps = {name: [(10 * i, value) for i, value in enumerate(values)] for name, values in curves.items()}
    found = Watch(torch.zeros(2, 1)).health(steps)
    return found.low, found.collapsed, found.kept


def test_the_rules_by_hand() -> None:
    assert health([]) == (0, False, None)
    # A dip of the untrained encoder's excess to 2 % is no collapse, one to under 1 % is.
    assert health([11, 1.2, 1.2]) == (0, False, 20)
    assert health([11, 1.2, 1.2, 1.2, 5]) == (0, False, 40)
    assert health([11, 1.09, 1.09]) == (2, True, 0)
    # Once it has risen (to an excess of 9), a tenth of that is the line, twice in a row.
    assert health([3, 2, 10, 1.8]) == (1, False, 20)
    assert health([3, 2, 10, 1.8, 2.0]) == (0, False, 40)
    assert health([3, 2, 10, 1.8, 1.8]) == (2, True, 20)
    # The deviation decides as well, alone.
    assert health([5, 5, 5, 5, 5], [0.2, 0.1, 0.4, 0.03, 0.03]) == (2, True, 20)
    # A projection's untrained height counts.
    low = {PROJECTED_RANK: [4.0, 1.2, 1.2], PROJECTED_DEVIATION: [0.5, 0.5, 0.5]}
    assert health([5, 5, 5], **low) == (2, True, 0)
    # What never told anything apart has nothing to fall from.
    assert health([1 + 1e-9, 1, 1, 1], [1e-9, 0, 0, 0]) == (0, False, 30)


@given(st.lists(st.floats(2.1, 11), min_size=1, max_size=20))
def test_what_never_falls_to_a_tenth_of_its_height_is_healthy_at_every_look(ranks: list[float]) -> None:
    for end in range(1, len(ranks) + 1):
        assert health(ranks[:end]) == (0, False, 10 * (end - 1))


@given(
    st.integers(1, 5000), st.integers(2, 512), st.integers(2, 300), st.sampled_from([1, 7, 100]), st.integers(1, 2),
    st.integers(0, 128),
)  # fmt: skip
def test_looking_keeps_to_its_share_of_the_rows_trained_on(
    steps: int, batch: int, rows: int, checkpoint_every: int, views: int, asked: int
) -> None:
    sample = torch.zeros(rows, 1)
    known = (torch.zeros(asked, 1), np.zeros(asked)) if asked else None
    watch = Watch(sample, view=sample if views == 2 else None, asked=known)
    every = watch.rhythm(steps=steps, batch_size=batch, checkpoint_every=checkpoint_every)
    assert every % checkpoint_every == 0
    share = 0.1 if asked else 0.02
    assert views * rows + asked <= share * every * batch * (1 + 1e-9)
    assert steps / every <= 12
    # No rarer than that asks for, or a saved state does.
    least = max((views * rows + asked) / (share * batch), steps / 12)
    assert every < least + checkpoint_every


def test_rows_that_are_asked_about_have_no_say_in_what_a_collapse_is() -> None:
    module, x = two_views(negatives=True), torch.from_numpy(waves(70))
    alone = Watch(x).look(module)
    same = torch.zeros_like(x[:10])  # of which no encoder could tell anything
    asked = Watch(x, asked=(same, np.arange(10) % 2)).look(module)
    assert {name: asked[name] for name in alone} == alone


def test_a_look_is_the_measures_of_the_sample_s_embeddings_and_leaves_the_module_as_it_was() -> None:
    module, x = two_views(negatives=True), torch.from_numpy(waves(70))
    labels, state = np.arange(30) % 2, torch.get_rng_state()
    seen = Watch(x, view=x.flip(0), asked=(x[:30] + 0.1, labels)).look(module.train())
    assert module.training
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        embedding = module.backbone.embed(x)
        other = module.backbone.embed(x.flip(0))
        projected = module.pretext.project(embedding)
        known = module.backbone.embed(x[:30] + 0.1).numpy()
    assert seen[RANK] == pytest.approx(effective_rank(embedding), rel=1e-5)
    assert seen[DEVIATION] == pytest.approx(deviation(embedding), rel=1e-5)
    assert seen[PROJECTED_RANK] == pytest.approx(effective_rank(projected), rel=1e-5)
    assert seen["watch.alignment"] == pytest.approx(alignment(embedding, other), rel=1e-5)
    assert seen["watch.alignment"] > 0.01  # the other view is of other rows
    assert seen["watch.uniformity"] == pytest.approx(uniformity(embedding), rel=1e-5)
    assert seen["watch.linear_probe"] == pytest.approx(linear_probe(known, labels), abs=1e-6)
    assert seen["watch.nearest_neighbours"] == nearest_neighbours_accuracy(known, labels)
    assert 0 < seen["watch.nearest_neighbours"] < 1
    assert list(seen)[4:] == [f"watch.{n}" for n in ("alignment", "uniformity", "nearest_neighbours", "linear_probe")]


def test_a_joint_task_without_projections_is_watched_by_its_embeddings_alone() -> None:
    module = reconstruction()
    alone, contrast = Rotation(module.backbone.encoder.dim), two_views(negatives=True).pretext
    watch = Watch(torch.from_numpy(waves(70)))
    for tasks, projects in (({"a": alone}, False), ({"a": alone, "b": contrast}, True)):
        module.pretext = Joint({name: (task, 1.0) for name, task in tasks.items()})
        assert module.pretext.projects == projects
        assert (PROJECTED_RANK in watch.names(module)) == projects


def test_a_watched_training_goes_through_the_losses_of_an_unwatched_one() -> None:
    batches, settings = Batches(waves(), batch_size=32), TrainingSettings(steps=20)
    with_watch, without = reconstruction(), reconstruction()
    seen = fit(with_watch, batches, settings=settings, watch=Watch.over(batches, every=3)).curves
    unseen = fit(without, batches, settings=settings).curves
    assert {name: curve for name, curve in seen.items() if not name.startswith("watch.")} == unseen
    assert [step for step, _ in seen[RANK]] == [0, 3, 6, 9, 12, 15, 18, 20]
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_watch.state_dict()[name])


def test_the_sample_is_the_same_rows_in_two_views() -> None:
    def jitter(batch: tuple[Tensor, ...], draw: torch.Generator) -> tuple[Tensor, ...]:
        return (batch[0] + 0.25 * torch.rand(batch[0].shape, generator=draw),)

    def view(batch: Tensor, draw: torch.Generator) -> Tensor:
        return batch + 0.25 * torch.rand(batch.shape, generator=draw)

    batches = Batches(np.arange(50.0), batch_size=5, transform=jitter)
    watch, again = (Watch.over(batches, rows=20, view=view) for _ in range(2))
    assert watch is not None
    assert again is not None
    assert watch.view is not None
    assert again.view is not None
    assert torch.equal(watch.sample, again.sample)
    assert torch.equal(watch.view, again.view)
    assert not torch.equal(watch.sample, watch.view)
    assert torch.equal(watch.sample.floor(), watch.view.floor())
    assert len(set(watch.sample.floor().tolist())) == 20
    assert Watch.over(Batches(np.zeros(1), batch_size=1)) is None
    with pytest.raises(ValueError, match="sample and view must have one length"):
        Watch(torch.zeros(3, 1), view=torch.zeros(2, 1))
    with pytest.raises(ValueError, match="asked about and what is known of them must have one length"):
        Watch(torch.zeros(3, 1), asked=(torch.zeros(3, 1), [0, 1]))


@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=4),
    unknown=st.integers(0, 5),
    most=st.integers(8, 100),
    seed=st.integers(0, 3),
)
def test_of_each_class_as_many_are_looked_at_as_there_are_up_to_an_even_share(
    counts: list[int], unknown: int, most: int, seed: int
) -> None:
    labels = np.repeat([*range(len(counts)), 9], [*counts, unknown])
    labels = np.random.default_rng(seed).permutation(labels)
    rows = looked_at(labels, labels != 9, rows="rows", seed=seed, most=most)
    assert (np.diff(rows) > 0).all()
    assert 9 not in labels[rows]
    # Dealt one by one to every class that has some left, the rarest first, the number of each is the same.
    dealt, left = dict.fromkeys(range(len(counts)), 0), min(most, sum(counts))
    rarest_last = sorted(dealt, key=lambda c: (counts[c], c), reverse=True)
    while left:
        for c in rarest_last:
            if left and dealt[c] < counts[c]:
                dealt[c], left = dealt[c] + 1, left - 1
    assert [int((labels[rows] == c).sum()) for c in dealt] == list(dealt.values())
    np.testing.assert_array_equal(rows, looked_at(labels, labels != 9, rows="rows", seed=seed, most=most))


@pytest.mark.parametrize(
    ("labels", "got"),
    [([1, 1, 1], "got 3 labelled 1$"), ([1, 1, 0, -1], "got 1 labelled 0 and 2 labelled 1$"), ([-1], "got none$")],
)
def test_a_probe_needs_two_rows_of_two_classes(labels: list[int], got: str) -> None:
    with pytest.raises(DataError, match=f"at least two labelled rows each.*{got}"):
        looked_at(labels, np.asarray(labels) >= 0, rows="rows", seed=0)


def test_of_one_unit_a_label_is_looked_at_once() -> None:
    labels, units = np.array([0, 0, 0, 1, 1, 1, 1, -1]), np.array(["a", "a", "b", "a", "c", "c", "d", "e"])
    rows = looked_at(labels, labels >= 0, rows="films", units=units, seed=0)
    assert sorted(zip(units[rows], labels[rows], strict=True)) == [("a", 0), ("a", 1), ("b", 0), ("c", 1), ("d", 1)]
    drawn = {tuple(looked_at(labels, labels >= 0, rows="films", units=units, seed=seed)) for seed in range(20)}
    assert len(drawn) == 4  # either film of a without it, either of c


@pytest.mark.integration
@pytest.mark.parametrize(
    ("data", "lr", "ratio"),
    [(waves, 1e-4, 0.75), (waves, 1e-3, 0.75), (waves, 1e-2, 0.75), (waves, 3e-3, 0.9), (noise, 1e-3, 0.75)],
)
def test_masked_reconstruction_never_trips_it(data: Any, lr: float, ratio: float) -> None:
    history = watched(reconstruction(ratio), data(), lr=lr)
    assert history.steps == 150
    spread = [value for _, value in history.curves[DEVIATION]]
    assert min(spread) < 0.7 * spread[0]  # the dip that must not be taken for a collapse


@pytest.mark.integration
@pytest.mark.parametrize("lr", [1e-3, 1e-2])
@pytest.mark.parametrize("codes", [4, 20])
def test_event_modelling_never_trips_it(lr: float, codes: int) -> None:
    draw = np.random.default_rng(0)
    one = draw.integers(1, codes, (256, 9, 1))
    torch.manual_seed(0)
    tokenizer = EventFields(sizes=(codes, codes), dim=32, length=9)
    encoder = Encoder(dim=32, depth=2, heads=2, causal=True)
    module = Pretraining(Backbone(tokenizer, encoder), EventModelling(tokenizer, hidden=32))
    assert watched(module, np.concatenate([one, one], axis=2), lr=lr).steps == 150


@pytest.mark.integration
@pytest.mark.parametrize("lr", [1e-3, 3e-2])
def test_contrast_with_negatives_never_trips_it(lr: float) -> None:
    history = watched(two_views(negatives=True), waves(), lr=lr)
    assert history.curves[PROJECTED_DEVIATION][-1][1] > 0.8


def test_pulling_views_together_and_nothing_else_is_stopped_with_what_was_seen_and_what_to_try() -> None:
    _, error = collapse()
    assert 10 <= error.step <= 100
    said = str(error)
    assert f"at step {error.step}" in said
    assert "a deviation of the projections of 0.0" in said
    assert "Try another temperature, or weaker augmentation." in said
    assert f"weights of step {error.kept}, the last healthy look, are back in the model" in said


def test_after_a_collapse_model_and_disk_hold_the_last_healthy_weights(tmp_path: Path) -> None:
    looks: dict[int, dict[str, float]] = {}

    def log(values: dict[str, float], step: int) -> None:
        if RANK in values:
            looks[step] = values

    module, error = collapse(tmp_path / "state", log=log)
    assert error.kept is not None
    assert 0 < error.kept < error.step
    watch = Watch.over(Batches(waves(), batch_size=32))
    assert watch is not None
    assert watch.look(module) == pytest.approx(looks[error.kept])
    newest = max((tmp_path / "state").iterdir())
    assert newest.name == f"step-{error.kept:09d}"
    assert str(tmp_path / "state") in str(error)
    tensors, _ = checkpoints.load(newest)
    for name, value in module.state_dict().items():
        assert torch.equal(value, tensors[f"module.{name}"])


def test_a_run_that_is_cut_off_while_it_collapses_finds_the_same_end_and_the_same_weights(tmp_path: Path) -> None:
    whole, expected = collapse()

    def cut(values: dict[str, float], step: int) -> None:
        if RANK in values and step == expected.step:
            raise KeyboardInterrupt

    module = two_views(negatives=False)
    with pytest.raises(KeyboardInterrupt):
        watched(module, waves(), lr=3e-3, state=tmp_path / "state", log=cut)
    again, error = collapse(tmp_path / "state")
    assert (error.step, error.kept) == (expected.step, expected.kept)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_embeddings_that_are_no_numbers_are_no_collapse() -> None:
    class Breaks(Pretraining):
        def forward(self, batch: tuple[Tensor, ...], step: int) -> Loss:
            if step == 4:
                with torch.no_grad():
                    next(self.parameters()).fill_(math.nan)
                return Loss(next(iter(self.pretext.parameters())).sum(), {})
            return super().forward(batch, step)

    plain = reconstruction()
    with pytest.raises(BadBatchError, match="embeddings were not finite after the batch at step 4"):
        watched(Breaks(plain.backbone, plain.pretext), waves())


def several(*tasks: Pretraining) -> SeveralKinds:
    """Their encoders share the blocks of the first."""
    trunk = tasks[0].backbone.encoder
    for task in tasks[1:]:
        task.backbone.encoder = sharing(trunk, causal=False)
    return SeveralKinds(dict(zip("ab", tasks, strict=False)))


def test_several_kinds_are_looked_at_one_by_one() -> None:
    module, sample = several(reconstruction(), two_views(negatives=True)), torch.from_numpy(waves(8))
    watch = WatchOfKinds({"a": Watch(sample), "b": Watch(sample)})
    seen = watch.look(module)
    assert tuple(seen) == watch.names(module)
    for name, task in module.tasks.items():
        alone = Watch(sample).look(task)
        assert {key: seen[f"{name}.{key}"] for key in alone} == alone
    assert f"b.{PROJECTED_RANK}" in seen
    assert f"a.{PROJECTED_RANK}" not in seen


def test_a_collapse_of_one_kind_is_a_collapse_and_is_named() -> None:
    fine, falling = [(10 * i, 9.0) for i in range(5)], [(10 * i, rank) for i, rank in enumerate((9, 9, 9, 1.01, 1.01))]
    spread = [(10 * i, 0.5) for i in range(5)]
    watch = WatchOfKinds({name: Watch(torch.zeros(2, 1)) for name in "ab"})
    curves = {f"a.{RANK}": fine, f"a.{DEVIATION}": spread, f"b.{RANK}": falling, f"b.{DEVIATION}": spread}
    found = watch.health(curves)
    assert (found.low, found.collapsed, found.kept) == (2, True, 20)
    assert found.seen == "an effective rank of 1.01 (at best 9) for 'b'"
    healthy = watch.health({**curves, f"b.{RANK}": fine})
    assert (healthy.low, healthy.collapsed, healthy.kept) == (0, False, 40)


def test_a_training_of_several_kinds_stops_when_one_of_them_collapses() -> None:
    module = several(two_views(negatives=False), two_views(negatives=True))
    data = SideBySide({name: Batches(waves(), batch_size=32) for name in "ab"})
    watch = WatchOfKinds({name: Watch(torch.from_numpy(waves(64)), every=5) for name in "ab"})
    settings = TrainingSettings(steps=200, lr=3e-3, checkpoint_every=1)
    with pytest.raises(CollapseError, match="for 'a'"):
        fit(module, data, settings=settings, watch=watch)
