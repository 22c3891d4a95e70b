"""Lines by hand, naming that is as rare as it says where nothing changed, and what grows named and nothing else."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitoring import events, put
from numpy.typing import NDArray
from scipy import stats

from unlabeled.core import checkpoints
from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.pipelines.cli import main
from unlabeled.sensors import MachineMonitor, Recording, harmonics
from unlabeled.sensors.harmonics import CERTAIN, SLIP, Comparison, Normal
from unlabeled.sensors.monitor import KIND
from unlabeled.sensors.recording import make

FS, SHAFT = 2000.0, 25.0
WELL = {1.0: 0.3, 2.0: 0.1, 3.0: 0.05}


def machine(
    seed: int,
    n: int,
    lines: dict[float, float],
    *,
    seconds: float = 1.0,
    noise: float = 0.3,
    gain: NDArray | float = 1.0,
    other: dict[float, float] = WELL,
) -> NDArray:
    """(n, samples, 2): lines at multiples of a speed that wanders by half a percent, in noise, on one axis; ``other``
    lines on the other."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * FS)) / FS
    speed = SHAFT * (1 + 0.005 * rng.normal(size=n).clip(-3, 3))
    values = noise * rng.normal(size=(n, len(t), 2))
    for axis, amplitudes in enumerate((lines, other)):
        for order, amplitude in amplitudes.items():
            phase = rng.uniform(0, 2 * np.pi, size=(n, 1))
            values[:, :, axis] += amplitude * np.sin(2 * np.pi * order * speed[:, None] * t + phase)
    return values * np.broadcast_to(gain, n)[:, None, None]


def compared(normal: NDArray, now: NDArray) -> Comparison:
    return harmonics.compare(Normal.of(normal, fs=FS, shaft_hz=SHAFT), now, names=("x", "y"), fs=FS)


def risen(found: Comparison) -> set[tuple[str, float]]:
    return {(one.axis, one.order) for one in found.harmonics if one.rose}


@settings(max_examples=40, deadline=None)
@given(
    slip=st.floats(-SLIP, SLIP), phase=st.floats(0, 6.28), seconds=st.sampled_from([0.4, 1.0, 2.3, 9.0]),
    order=st.sampled_from([1.0, 2.0, 5.0]),
)  # fmt: skip
def test_a_line_has_its_amplitude_wherever_it_lies_within_the_slip(
    slip: float, phase: float, seconds: float, order: float
) -> None:
    t = np.arange(round(seconds * FS)) / FS
    x = 7 + 2 * np.sin(2 * np.pi * order * SHAFT * (1 + slip) * t + phase)
    column = harmonics.judged(len(t), fs=FS, shaft_hz=SHAFT).index(order)
    level = harmonics.measure(x[None, :, None], fs=FS, shaft_hz=SHAFT).level
    assert level[0, 0, column] == pytest.approx(20 * np.log10(2), abs=0.12)  # 6.02 dB


def test_only_orders_that_can_be_told_apart_are_judged() -> None:
    whole, all_of_them = (1.0, 2.0, 3.0, 4.0, 5.0), harmonics.ORDERS
    # Turns in a snapshot: 3, 10, 20, 25.
    for seconds, expected in ((0.12, ()), (0.4, whole), (0.8, all_of_them), (1.0, all_of_them)):
        assert harmonics.judged(round(seconds * FS), fs=FS, shaft_hz=SHAFT) == expected, seconds
    # Half of 200 Hz is below 4x of 25 Hz with its slip, and half of 40 Hz below 1x.
    assert harmonics.judged(400, fs=200.0, shaft_hz=SHAFT) == (0.5, 1.0, 2.0, 3.0)
    for speed in (1e-9, 1e9):
        assert harmonics.judged(2000, fs=FS, shaft_hz=speed) == ()


def test_unbalance_that_grows_is_named_by_1x_of_its_axis_and_nothing_else() -> None:
    found = compared(machine(0, 48, WELL), machine(1, 9, {**WELL, 1.0: 0.9}))
    assert risen(found) == {("x", 1.0)}
    one = next(one for one in found.harmonics if one.rose)
    # 20 log10(0.9 / 0.3) = 9.54 dB.
    assert (one.rise, one.beyond) == (pytest.approx(9.54, abs=0.3), pytest.approx(9.54, abs=1.5))
    assert one.normal == pytest.approx(20 * np.log10(0.3), abs=0.3)
    first, meaning = harmonics.words(found)
    assert first.startswith("On the x axis 1x of the shaft (25.0 Hz) rose by 9.")
    assert "1x alone often goes with unbalance" in meaning
    assert "not a diagnosis" in meaning
    # However much it grows, its skirt is no line of its own.
    assert risen(compared(machine(0, 48, WELL, noise=0.01), machine(1, 9, {**WELL, 1.0: 30.0}, noise=0.01))) == {
        ("x", 1.0)
    }


@pytest.mark.parametrize(
    ("lines", "named", "meaning"),
    [
        ({**WELL, 2.0: 0.5}, {2.0}, "misalignment"),
        ({**WELL, 1.0: 0.9, 2.0: 0.5}, {1.0, 2.0}, "misalignment"),
        ({**WELL, 0.5: 0.3}, {0.5}, "looseness"),
        (dict.fromkeys((1.0, 2.0, 3.0, 4.0), 0.9), {1.0, 2.0, 3.0, 4.0}, "looseness"),
        ({**WELL, 5.0: 0.4}, {5.0}, "blades"),
    ],
)
def test_what_grows_is_named_with_what_it_goes_with(lines: dict[float, float], named: set[float], meaning: str) -> None:
    found = compared(machine(0, 48, WELL), machine(1, 9, lines))
    assert risen(found) == {("x", order) for order in named}
    assert meaning in harmonics.words(found)[len(named)]


@pytest.mark.parametrize("now", [machine(1, 9, WELL, noise=3.0), machine(1, 9, WELL, gain=10.0)])
def test_a_rise_of_everything_is_no_harmonic(now: NDArray) -> None:
    found = compared(machine(0, 48, WELL), now)
    assert risen(found) == set()
    none, besides = harmonics.words(found)
    assert none.startswith("No harmonic of the shaft (25 Hz; 0.5x, 1x, 2x, 3x, 4x, 5x) rose")
    assert "rose together with their surroundings" in besides
    assert "4x (x)" in besides


def test_nothing_is_said_beyond_that_where_nothing_changed() -> None:
    found = compared(machine(0, 48, WELL), machine(1, 9, WELL))
    assert len(harmonics.words(found)) == 1
    # A line that falls is no rise.
    assert risen(compared(machine(0, 48, {**WELL, 1.0: 0.9}), machine(1, 9, WELL))) == set()


@pytest.mark.parametrize(("n", "last", "seconds"), [(30, 1, 1.0), (48, 9, 1.0), (30, 1, 0.25), (96, 9, 0.25)])
def test_where_nothing_changed_naming_is_as_rare_as_it_says(n: int, last: int, seconds: float) -> None:
    named = 0
    for seed in range(100):
        # Load that wanders slowly is no change.
        steps = np.random.default_rng(seed).normal(size=n + last)
        wander = np.convolve(steps, 0.8 ** np.arange(40))[: n + last]
        values = machine(seed, n + last, WELL, seconds=seconds, gain=1 + 0.05 * wander)
        named += bool(risen(compared(values[:n], values[n:])))
    assert stats.binom.sf(named - 1, 100, CERTAIN) > 0.01, named


@settings(max_examples=10, deadline=None)
@given(factor=st.floats(1e-3, 1e3), offset=st.floats(-10, 10))
def test_a_sensor_s_gain_and_offset_change_nothing(factor: float, offset: float) -> None:
    normal, now = machine(0, 30, WELL), machine(1, 3, {**WELL, 1.0: 0.6})
    plain, scaled = compared(normal, now), compared(factor * normal + offset, factor * now + offset)
    for one, other in zip(plain.harmonics, scaled.harmonics, strict=True):
        assert other.rise == pytest.approx(one.rise, abs=1e-6)
        assert other.p_value == pytest.approx(one.p_value, rel=1e-4)
        assert other.now - one.now == pytest.approx(20 * np.log10(factor), abs=1e-6)


def test_the_chance_of_a_single_snapshot_is_student_s_by_hand() -> None:
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    usual, rise, p_value = harmonics._risen(values[:, None, None], np.array([[[12.0]]]))
    assert (usual[0, 0], rise[0, 0]) == (4.5, 7.5)
    # Spread of 1 to 8: the square root of 6; one more drawn from eight: times the square root of 9/8.
    assert p_value[0, 0] == pytest.approx(stats.t.sf(7.5 / np.sqrt(6 * 9 / 8), 7))
    # A normal period that wanders as far in stretches as what is judged makes that no rise, however many there are.
    slow = np.repeat(np.tile([0.0, 5.0], 8), 9)[:, None, None]
    assert harmonics._risen(slow, np.full((9, 1, 1), 5.0))[2][0, 0] > 0.1


def test_chances_are_adjusted_by_holm() -> None:
    adjusted = harmonics._holm(np.array([[0.01, 0.04], [0.03, 0.5]]))
    np.testing.assert_allclose(adjusted, [[0.04, 0.09], [0.09, 0.5]])


def test_snapshots_too_short_are_no_all_clear() -> None:
    found = compared(machine(0, 30, WELL, seconds=0.12), machine(1, 9, {1.0: 9.0}, seconds=0.12))
    (only,) = harmonics.words(found)
    assert only.startswith("Snapshots of 3.0 turns do not tell the harmonics of the shaft (25 Hz) apart")
    found = compared(machine(0, 30, WELL, seconds=0.4), machine(1, 9, {**WELL, 1.0: 3.0}, seconds=0.4))
    assert risen(found) == {("x", 1.0)}
    assert "do not tell 0.5x apart" in harmonics.words(found)[-1]


@pytest.fixture(scope="module")
def unbalanced() -> Recording:
    """Sixty snapshots; from the 48th on 1x of one axis is four times as high."""
    values = np.concatenate([machine(0, 48, WELL), machine(1, 12, {**WELL, 1.0: 1.2})])
    return make("pump7", values, np.arange(60.0), names=["x", "y"], fs=FS)


@pytest.fixture(scope="module")
def fitted(unbalanced: Recording) -> MachineMonitor:
    return MachineMonitor(shaft_hz=SHAFT, steps=5, dim=16, depth=1, heads=2).fit(unbalanced, normal_share=0.75)


def test_an_explanation_names_1x_without_a_bearing_and_so_does_a_stored_monitor(
    fitted: MachineMonitor, unbalanced: Recording, tmp_path: Path
) -> None:
    told = fitted.explain(unbalanced)
    assert told.shaft is not None
    assert risen(told.shaft) == {("x", 1.0)}
    assert any("1x of the shaft (25.0 Hz) rose by 12." in sentence for sentence in told.words)  # 20 log10 4
    stored = MachineMonitor.load(fitted.save(tmp_path / "m"))
    assert stored.explain(unbalanced).words == told.words
    quiet = stored.explain(unbalanced, row=40)
    assert any(sentence.startswith("No harmonic of the shaft (25 Hz;") for sentence in quiet.words)
    other = stored.set_params(shaft_hz=24.0).explain(unbalanced)
    assert other.shaft is None
    assert any("known at 25 Hz, not at 24 Hz: fit with --shaft-hz 24" in sentence for sentence in other.words)
    assert not any("shaft" in sentence for sentence in stored.set_params(shaft_hz=None).explain(unbalanced).words)


def test_a_monitor_of_before_there_was_this_loads_and_says_what_it_lacks(
    fitted: MachineMonitor, unbalanced: Recording, tmp_path: Path
) -> None:
    tensors, manifest = checkpoints.load(fitted.save(tmp_path / "new"), kind=KIND)
    del manifest["fitted"]["harmonics_"]
    tensors = {name: values for name, values in tensors.items() if not name.startswith("harmonics.")}
    checkpoints.save(tmp_path / "old", kind=KIND, tensors=tensors, manifest=manifest)
    old = MachineMonitor.load(tmp_path / "old")
    pd.testing.assert_frame_equal(old.score(unbalanced), fitted.score(unbalanced))
    told = old.explain(unbalanced)
    assert told.shaft is None
    assert "What is normal at the harmonics of the shaft is not known: fit with --shaft-hz 25." in told.words


@pytest.mark.parametrize("speed", [0.0, -25.0, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused(unbalanced: Recording, speed: float) -> None:
    with pytest.raises(DataError, match="revolutions a second above 0, got"):
        MachineMonitor(shaft_hz=speed).fit(unbalanced, normal_share=0.75)


def test_a_trend_has_no_harmonics() -> None:
    values = np.random.default_rng(0).normal(size=(120, 2))
    recording = make("t", values, np.arange(120.0), names=["rms", "peak"])
    monitor = MachineMonitor(shaft_hz=SHAFT, steps=5, dim=16, depth=1, heads=2).fit(recording, normal_share=0.9)
    assert monitor.harmonics_ is None
    assert not any("shaft" in sentence for sentence in monitor.explain(recording).words)


def test_a_case_of_the_monitoring_job_tells_it(fitted: MachineMonitor, unbalanced: Recording, tmp_path: Path) -> None:
    fitted.save(tmp_path / "models/pump7")
    path = tmp_path / "job.toml"
    path.write_text(
        'models = "models"\nevery_seconds = 0.05\n\n'
        '[[folders]]\npath = "incoming"\nasset = "pump7"\nsettled_seconds = 0\n'
    )
    put(unbalanced, slice(None), tmp_path / "incoming", "all")
    job.monitor(path, once=True)
    (alarm,) = [event for event in events(path) if event["kind"] == "alarm"]
    assert any("1x of the shaft (25.0 Hz) rose by" in sentence for sentence in alarm["words"])  # type: ignore[attr-defined]


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_commands_say_it_in_json_as_a_table_and_on_the_page(
    unbalanced: Recording, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(unbalanced, slice(None), in_tmp / "plant", "pump7")
    first = ["fit", "plant", "--normal-share", "0.75", "--steps", "5", "--out", "first"]
    # An encoder that is given was taught nothing by a speed, which is told for the explanations.
    again = ["fit", "plant", "--normal-share", "0.75", "--encoder", "first/encoder", "--shaft-hz", "25", "--out", "m"]
    for command in (first, again, ["explain", "plant", "--model", "m", "--out", "why", "--json"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["sensors", *command])
        assert ended.value.code == 0, command
    said = json.loads(capsys.readouterr().out)["machines"]["pump7"]
    assert [(one["axis"], one["order"]) for one in said["harmonics"] if one["rose"]] == [("x", 1.0)]
    table = pd.read_csv("why/harmonics-pump7.csv")
    assert len(table) == 12
    assert table.loc[table["rose"], "rise"].item() == pytest.approx(12.04, abs=0.4)
    page = Path("why/report.html").read_text(encoding="utf-8")
    assert "1x alone often goes with unbalance" in page
    assert "Spectrum at the harmonics of the shaft" in page
