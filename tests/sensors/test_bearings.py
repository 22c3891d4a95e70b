"""Rates by hand, certainty that holds where nothing repeats itself, and simulated and real faults named."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from unlabeled.core.errors import DataError
from unlabeled.pipelines.cli import main
from unlabeled.sensors import MachineMonitor, Recording, bearings, read, simulate
from unlabeled.sensors.bearings import CATALOGUE, CERTAIN, Bearing
from unlabeled.sensors.recording import make

CWRU = Path(__file__).parents[3] / "shared" / "data" / "vibration" / "cwru"
FS, SHAFT = 12_800.0, 30.0
DEEP_GROOVE = CATALOGUE["6205"]


def test_the_rates_of_a_bearing_are_those_of_its_geometry() -> None:
    # Eight balls of 2 on a circle of 10 under 60 degrees: the ratio is 0.1.
    orders = Bearing(elements=8, element_diameter=2, pitch_diameter=10, contact_angle=60).orders()
    assert orders == pytest.approx({"BPFO": 3.6, "BPFI": 4.4, "BSF": 2.5 * 0.99, "FTF": 0.45})
    # As the Case Western Reserve University states them for its drive end, a turn of the element touching both races.
    drive_end = DEEP_GROOVE.orders()
    assert drive_end["BPFO"] == pytest.approx(3.5848, abs=1e-4)
    assert drive_end["BPFI"] == pytest.approx(5.4152, abs=1e-4)
    assert 2 * drive_end["BSF"] == pytest.approx(4.7135, abs=1e-3)
    assert drive_end["FTF"] == pytest.approx(0.39828, abs=1e-4)
    fan_end = CATALOGUE["6203"].orders()
    assert (fan_end["BPFO"], fan_end["BPFI"]) == pytest.approx((3.0530, 4.9469), abs=2e-3)
    # Hertz of the IMS rig at 2000 revolutions a minute.
    assert CATALOGUE["ZA-2115"].orders()["BPFO"] * 2000 / 60 == pytest.approx(236.4, abs=0.5)


@pytest.mark.parametrize(
    "given",
    [
        {"elements": 2, "element_diameter": 1, "pitch_diameter": 5},
        {"elements": 8, "element_diameter": 5, "pitch_diameter": 5},
        {"elements": 8, "element_diameter": 0, "pitch_diameter": 5},
        {"elements": 8, "element_diameter": 1, "pitch_diameter": 5, "contact_angle": 90},
    ],
)
def test_what_is_no_bearing_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(DataError, match="a bearing has at least 3 elements"):
        Bearing(**given)  # type: ignore[arg-type]


def test_a_bearing_comes_from_the_catalogue_or_a_file(tmp_path: Path) -> None:
    assert bearings.find("6205") is DEEP_GROOVE
    (tmp_path / "own.toml").write_text("elements = 9\nelement_diameter = 7.94\npitch_diameter = 39.04\n")
    assert bearings.find(str(tmp_path / "own.toml")) == DEEP_GROOVE
    with pytest.raises(DataError, match="no bearing '6999': known are 6203, 6205"):
        bearings.find("6999")
    for content in ("elements = ", "elements = 9\n", "elements = 9\nballs = 3\n", 'elements = "nine"\n' * 1):
        (tmp_path / "bad.toml").write_text(content)
        with pytest.raises(DataError, match="does not describe a bearing"):
            bearings.find(str(tmp_path / "bad.toml"))
    with pytest.raises(DataError, match="does not describe a bearing"):
        bearings.find(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("shape", [(1, 12_800), (9, 2_560)])
def test_where_nothing_repeats_itself_certainty_is_as_rare_as_it_says(shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    t = np.arange(shape[1]) / FS
    # Shaft harmonics and a coloured spectrum are no fault.
    turning = sum(np.sin(2 * np.pi * SHAFT * k * t + k) / k for k in range(1, 7))
    least = []
    for _ in range(400):
        noise = draw.normal(size=(shape[0], shape[1] + 1))
        spectrum = bearings.envelope(turning + noise[:, 1:] + 0.8 * noise[:, :-1], FS)
        least.append(bearings.evidence(spectrum, DEEP_GROOVE, SHAFT)[0].p_value)
    for level in (0.1, 0.05, 0.01):
        called = int((np.array(least) < level).sum())
        # Holm's bound, with what estimating the surroundings adds: no more than half as often again.
        assert stats.binom.sf(called - 1, len(least), 1.5 * level) > 0.01, (level, called)


@pytest.mark.parametrize("name", ["BPFO", "BPFI", "BSF"])
def test_strikes_are_named_by_their_rate(name: str) -> None:
    rate = DEEP_GROOVE.orders()[name] * SHAFT
    draw = np.random.default_rng(1)
    pieces = np.stack(
        [
            0.1 * draw.normal(size=12_800)
            + 0.5 * simulate._ringing(draw, samples=12_800, fs=FS, rate=rate, resonance=3500.0)
            for _ in range(3)
        ]
    )
    first, *others = bearings.evidence(bearings.envelope(pieces, FS), DEEP_GROOVE, SHAFT)
    assert first.name == name
    assert first.hz == pytest.approx(rate)
    assert first.p_value < 1e-6
    assert first.levels[0] > 6
    assert all(one.p_value > CERTAIN for one in others)


def test_a_gain_and_an_offset_change_nothing() -> None:
    x = np.random.default_rng(2).normal(size=(2, 4096))
    one, other = (bearings.evidence(bearings.envelope(y, FS), DEEP_GROOVE, SHAFT) for y in (x, 5 - 300 * x))
    assert [e.name for e in one] == [e.name for e in other]
    np.testing.assert_allclose([e.p_value for e in one], [e.p_value for e in other], rtol=1e-6)


def test_long_snapshots_are_cut_into_a_few_turns() -> None:
    x = np.random.default_rng(3).normal(size=(2, 12_800, 1))  # thirty turns
    (long,) = bearings.repeats(make("m", x, np.arange(2.0), names=["a"], fs=FS), DEEP_GROOVE, SHAFT)
    assert long.spectrum.pieces == 10
    assert long.spectrum.hz[1] == pytest.approx(SHAFT / bearings.TURNS)
    (short,) = bearings.repeats(make("m", x[:, :1280], np.arange(2.0), names=["a"], fs=FS), DEEP_GROOVE, SHAFT)
    assert short.spectrum.pieces == 2


def test_pieces_follow_each_other_and_leave_out_what_is_left_over() -> None:
    # At 1000 Hz six turns of a shaft of 10 Hz are 600 samples: 1300 hold two of 650, and 1301 one sample more.
    values = np.arange(2 * 1301 * 2).reshape(2, 1301, 2)
    cut = bearings.pieces(make("m", values, np.arange(2.0), names=["a", "b"], fs=1000.0), 10.0)
    assert cut.shape == (4, 650, 2)
    np.testing.assert_array_equal(cut[1], values[0, 650:1300])
    np.testing.assert_array_equal(cut[2], values[1, :650])
    # However long, a piece has 512 samples at least; a snapshot that holds fewer turns stays whole.
    for shaft, count, samples in ((1e9, 4, 650), (1.0, 2, 1301)):
        cut = bearings.pieces(make("m", values, np.arange(2.0), names=["a", "b"], fs=1000.0), shaft)
        assert cut.shape == (count, samples, 2)


def test_snapshots_too_short_for_a_slow_shaft_are_no_all_clear() -> None:
    x = np.random.default_rng(3).normal(size=(9, 1280, 1))  # a tenth of a second
    found = bearings.repeats(make("m", x, np.arange(9.0), names=["a"], fs=FS), DEEP_GROOVE, 8.0)
    assert bearings.words(found)[0].startswith("Snapshots are too short")
    # However fast the shaft is said to be, a piece holds enough for a spectrum.
    (fast,) = bearings.repeats(make("m", x, np.arange(9.0), names=["a"], fs=FS), DEEP_GROOVE, 1e9)
    assert fast.spectrum.pieces == 18


def test_an_explanation_names_the_race(fresh: MachineMonitor, plant: list[Recording], tmp_path: Path) -> None:
    failing = plant[3]
    fresh.set_params(bearing=DEEP_GROOVE, shaft_hz=simulate.Plan().rpm / 60).fit(failing, normal_share=0.5)
    loaded = MachineMonitor.load(fresh.save(tmp_path / "m"))
    assert loaded.bearing == DEEP_GROOVE
    told = loaded.explain(failing)
    assert [one.axis for one in told.repeats] == ["horizontal", "vertical"]
    assert any("outer race (BPFO, 106.9 Hz)" in sentence for sentence in told.words)
    quiet = loaded.explain(failing, row=40)
    assert "Nothing shows in the envelope at the rates of the bearing." in quiet.words
    for use in (loaded.set_params(shaft_hz=None).fit, loaded.explain):
        with pytest.raises(DataError, match="give --shaft-hz too"):
            use(failing)
    assert loaded.set_params(bearing=None).explain(failing).repeats == ()


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_command_says_it_on_the_page(plant: list[Recording], in_tmp: Path) -> None:
    simulate.write(plant[3], Path("plant"))
    known = ["--bearing", "6205", "--shaft-hz", "29.83"]
    for command in (
        ["fit", "plant", "--normal-share", "0.5", "--steps", "20", *known, "--out", "model"],
        ["score", "plant", "--model", "model", "--out", "scored"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(["sensors", *command])
        assert ended.value.code == 0
    page = Path("scored/report.html").read_text(encoding="utf-8")
    assert "outer race (BPFO" in page
    assert "Squared envelope spectrum" in page


@pytest.mark.skipif(not CWRU.exists(), reason="needs ../shared/data/vibration/cwru")
@pytest.mark.parametrize(
    ("file", "expected"),
    [("IR007_0hp_48k_de_109", {"BPFI"}), ("OR007_at6_0hp_48k_de_135", {"BPFO"}), ("normal_0hp_48k_part1", set())],
)
def test_recorded_faults_are_named_and_a_sound_bearing_has_none(file: str, expected: set[str]) -> None:
    with np.load(CWRU / f"{file}.npz") as stored:
        shaft = float(stored["rpm"]) / 60
    (recording,) = read(CWRU / f"{file}.npz")
    first = [
        bearings.repeats(recording.rows(slice(start, start + 9)), DEEP_GROOVE, shaft)[0].evidence[0]
        for start in range(0, len(recording) - 9, 9)
    ]
    named = [one.name for one in first if one.p_value < CERTAIN]
    assert set(named) == expected
    assert len(named) >= (0.5 * len(first) if expected else 0)  # each over nine tenths of a second
