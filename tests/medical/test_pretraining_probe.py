"""After a pretraining the page says what the features know of people and pictures, before any label is used."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from unlabeled.core.store import Store
from unlabeled.medical import ImageSet, PneumoniaModel
from unlabeled.medical.shortcuts import FITS, PROBED, REFITS, encoded
from unlabeled.pipelines._medical_pretraining import pretrain

# MLflow and what it loads warn about their own future.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
TITLE = "What the features know before any label"
NOBODY = "Nothing is known of the people on the pictures"


def films(n: int, *, seed: int = 0) -> ImageSet:
    """Noise; on pictures of women the upper half is brighter. The machine shows nowhere, all are of one view, and the
    site of none is known."""
    rng = np.random.default_rng(seed)
    women = rng.random(n) < 0.5
    pictures = rng.integers(0, 120, (n, 32, 32), dtype=np.uint8)
    pictures[women, :16] += 100
    return ImageSet(
        images=pictures,
        ids=np.array([f"film {i}" for i in range(n)]),
        patients=np.array([f"person {i}" for i in range(n)]),
        attributes={
            "sex": np.where(women, "F", "M"),
            "device": np.where(rng.random(n) < 0.5, "one", "other"),
            "view": np.full(n, "PA"),
            "site": np.full(n, ""),
        },
    )


def small(seed: int = 0) -> PneumoniaModel:
    return PneumoniaModel(image_size=32, dim=16, depth=1, heads=2, pretrain_epochs=1, random_state=seed)


def test_what_the_features_encode_is_on_the_page_in_the_run_and_in_the_answer(in_tmp: Path) -> None:
    from mlflow import MlflowClient

    done = pretrain(small(), films(160), out=in_tmp / "p", synthetic=False)
    found = done.to_json()["encoded"]
    # A sex that shows on every picture is read off the features; a machine that shows nowhere is not.
    assert found["sex"]["auroc"] > 0.9
    assert found["sex"]["p_holm"] < 0.05
    assert sum(found["sex"]["values"].values()) == 160
    assert found["device"]["low"] < 0.6
    assert found["device"]["p_holm"] > 0.05
    # One value cannot be told apart, which is said; what is known of nobody is not asked.
    assert "two values" in found["view"]["note"]
    assert set(found) == {"sex", "device", "view"}

    page = done.files["report"].read_text(encoding="utf-8")
    section = page[page.index(TITLE) :]
    assert f"{found['sex']['auroc']:.3f}" in section
    assert "not tried: a probe needs two values" in section
    assert "judged on patients it did not see" in section
    assert NOBODY not in page

    client = MlflowClient(tracking_uri=f"sqlite:///{in_tmp / 'mlflow.db'}")
    logged = client.get_run(str(done.run_id)).data.metrics
    assert logged["encodes.sex"] == pytest.approx(found["sex"]["auroc"])
    assert "encodes.device" in logged
    assert "encodes.view" not in logged


def test_where_nothing_is_known_one_sentence_says_so(in_tmp: Path) -> None:
    unknown = replace(films(40), attributes={"site": np.full(40, "")})
    done = pretrain(small(), unknown, out=in_tmp / "p", synthetic=False)
    page = done.files["report"].read_text(encoding="utf-8")
    assert NOBODY in page[page.index(TITLE) :]
    assert "Glocker" not in page
    assert done.details["encoded"] == {}


def test_asking_is_repeatable_and_leaves_the_network_as_it_was(in_tmp: Path) -> None:
    images = films(120)
    first, second = (pretrain(small(3), images, out=in_tmp / name, synthetic=False) for name in ("a", "b"))
    assert first.details["encoded"] == second.details["encoded"]
    alone = small(3).pretrain(images)
    alone.save(in_tmp / "alone")
    ours, theirs = (load_file(in_tmp / name / "weights.safetensors") for name in ("a", "alone"))
    assert all(np.array_equal(value, theirs[name]) for name, value in ours.items())
    # By the model's own seed, which decides on folds and shuffles.
    before = encoded(alone, images)
    after = encoded(alone.set_params(random_state=4), images)
    assert [s.found and s.found.p for s in before] != [s.found and s.found.p for s in after]


def test_no_more_than_some_pictures_are_asked_about_from_first_to_last(tmp_path: Path) -> None:
    """A large store is not read whole, and its first hospital is not asked about alone."""
    n = 2 * PROBED
    few = films(60)
    model = small().pretrain(few)
    np.save(tmp_path / "pictures.npy", np.resize(few.pixels, (n, 32, 32)))
    many = ImageSet(
        images=Store(tmp_path / "pictures.npy"),
        ids=np.arange(n).astype(str),
        patients=np.arange(n).astype(str),
        attributes={"site": np.repeat(["early", "late"], n // 2)},
    )
    (site,) = encoded(model, many)
    assert site.found is not None
    assert site.found.values == {"early": PROBED // 2, "late": PROBED // 2}


def test_many_values_are_asked_about_with_fewer_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device for each ward must not make the end of a pretraining take minutes; few values are judged in full."""
    asked = []
    monkeypatch.setattr(
        "unlabeled.medical.shortcuts.representation_probes", lambda *_, shuffles, **__: asked.append(shuffles) or []
    )
    images = films(200)
    model = small().pretrain(images)
    for values in (2, 60, 200):
        encoded(model, replace(images, attributes={"device": (np.arange(200) % values).astype(str)}))
    assert asked == [REFITS, FITS // 60, REFITS // 5]
