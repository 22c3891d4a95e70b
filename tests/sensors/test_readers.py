"""Files in every accepted shape, and every bad one refused or listed by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.sensors import MachineMonitor, read, simulate

RNG = np.random.default_rng(0)
DATES = pd.date_range("2024-03-01", periods=6, freq="h")


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def acc(n: int = 6, samples: int = 600, axes: int = 2) -> np.ndarray:
    return RNG.normal(size=(n, samples, axes))


def test_npz_with_two_axes_and_seconds(tmp_path: Path) -> None:
    x = acc()
    (one,) = read(npz(tmp_path / "pump.npz", acc=x, fs=1000, t_s=np.arange(6) * 1800.0, failure_t_s=9000.0))
    assert (one.asset, one.kind, one.fs, one.names) == ("pump", "waveform", 1000.0, ("horizontal", "vertical"))
    np.testing.assert_allclose(one.hours, np.arange(6) / 2)
    np.testing.assert_allclose(one.values, x.astype(np.float32))
    assert one.failure_h == pytest.approx(2.5)


def test_npz_with_one_axis_and_dates(tmp_path: Path) -> None:
    (one,) = read(npz(tmp_path / "fan.npz", x=acc()[..., 0], fs=1000, timestamps=DATES.to_numpy().astype(str)))
    assert one.values.shape == (6, 600, 1)
    assert one.when(2) == "2024-03-01 02:00:00"


def test_a_continuous_record_is_cut_into_tenths_of_a_second(tmp_path: Path) -> None:
    record = RNG.normal(size=25_000)
    (one,) = read(npz(tmp_path / "rig.npz", de=record, fe=record, fs=10_000))
    assert one.values.shape == (25, 1000, 2)
    assert one.names == ("de", "fe")
    assert "cut into 25 snapshots" in one.notes[0]


def test_a_slow_record_is_cut_into_pieces_that_make_a_spectrum(tmp_path: Path) -> None:
    (one,) = read(npz(tmp_path / "rig.npz", x=np.arange(2 * 512 + 9.0), fs=1024))
    assert one.values.shape == (2, 512, 1)
    np.testing.assert_array_equal(one.values.reshape(-1), np.arange(1024.0))
    np.testing.assert_allclose(one.hours * 3600, [0.0, 0.5])
    assert "snapshots of 0.5 s" in one.notes[0]


def test_the_sampling_rate_is_never_guessed(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", acc=acc(), t_s=np.arange(6.0))
    with pytest.raises(DataError, match=r"a\.npz does not say its sampling rate: give it with --fs"):
        read(path)
    assert read(path, fs=1000)[0].fs == 1000
    both = npz(tmp_path / "b.npz", acc=acc(), t_s=np.arange(6.0), fs=2000)
    with pytest.raises(DataError, match="says 2000 Hz, --fs says 1000 Hz"):
        read(both, fs=1000)


def test_times_are_needed_or_given(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", acc=acc(), fs=1000)
    with pytest.raises(DataError, match="add t_s or timestamps, or give --every"):
        read(path)
    np.testing.assert_allclose(read(path, every=7200)[0].hours, np.arange(6) * 2)


def test_unsorted_repeated_and_missing_times_are_put_right_and_listed(tmp_path: Path) -> None:
    t = np.array([0.0, 2, 1, 2, np.nan, 3]) * 3600
    (one,) = read(npz(tmp_path / "a.npz", acc=acc(), fs=1000, t_s=t))
    np.testing.assert_array_equal(one.index, [0, 2, 1, 5])
    np.testing.assert_allclose(one.hours, [0, 1, 2, 3])
    assert {(s.row, s.reason) for s in one.skipped} == {(4, "no timestamp"), (3, "timestamp seen before")}
    assert {note for note in one.notes if "left out" in note} >= {
        "1 row(s) left out: no timestamp",
        "1 row(s) left out: a timestamp seen before",
    }
    assert any("steps back 1 time" in note for note in one.notes)
    with pytest.raises(DataError, match="not one of 6 rows has a timestamp"):
        read(npz(tmp_path / "b.npz", acc=acc(), fs=1000, t_s=np.full(6, np.nan)))


def test_differently_sampled_snapshots_are_marked(tmp_path: Path) -> None:
    rates = np.array([1000.0, 1000, 500, 1000, 1000, 1000])
    (one,) = read(npz(tmp_path / "a.npz", acc=acc(), fs=rates, t_s=np.arange(6.0)))
    assert one.flaws[2] == "sampled at 500 Hz instead of 1000 Hz"
    assert (one.flaws != "").sum() == 1


def test_parquet_with_lists_marks_other_lengths(tmp_path: Path) -> None:
    lists = [list(RNG.normal(size=600 if i != 3 else 580)) for i in range(6)]
    table = pd.DataFrame({"timestamp": DATES, "vibration": lists, "fs": 1000.0})
    table.to_parquet(tmp_path / "a.parquet")
    (one,) = read(tmp_path / "a.parquet")
    assert one.values.shape == (6, 600, 1)
    assert one.flaws[3] == "580 samples instead of 600"
    table.drop(columns="fs").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="--fs"):
        read(tmp_path / "b.parquet")


def test_parquet_with_one_sample_a_row(tmp_path: Path) -> None:
    x = acc(n=3)
    table = pd.DataFrame(
        {
            "snapshot": np.repeat(np.arange(3), 600),
            "sample": np.tile(np.arange(600), 3),
            "t_s": np.repeat(np.arange(3) * 3600.0, 600),
            "fs": 1000.0,
            "h": x[..., 0].reshape(-1),
            "v": x[..., 1].reshape(-1),
        }
    )
    table.sample(frac=1, random_state=0).to_parquet(tmp_path / "a.parquet")
    (one,) = read(tmp_path / "a.parquet")
    assert one.names == ("h", "v")
    np.testing.assert_allclose(one.values, x.astype(np.float32))


def test_trends_by_asset_column_by_prefix_and_alone(tmp_path: Path) -> None:
    wide = pd.DataFrame({"time": DATES, "running": True, "note": "ok"})
    for machine in ("B1", "B2"):
        for name in ("rms", "kurt"):
            wide[f"{machine}_{name}"] = RNG.normal(size=6)
    wide.to_csv(tmp_path / "wide.csv", index=False)
    first, second = read(tmp_path / "wide.csv")
    assert (first.asset, second.asset, first.names) == ("B1", "B2", ("rms", "kurt"))
    assert any("prefixes B1, B2" in note for note in first.notes)
    assert any("left out: note" in note for note in first.notes)

    long = pd.DataFrame({"t_s": [0.0, 1, 0, 1], "asset": ["p", "p", "q", "q"], "temp": [1.0, 2, 3, 4]})
    long.to_csv(tmp_path / "long.csv", index=False)
    assert [(r.asset, len(r)) for r in read(tmp_path / "long.csv")] == [("p", 2), ("q", 2)]

    # Directions are no machines.
    wide = wide.rename(columns={"B1_rms": "h_rms", "B1_kurt": "h_kurt", "B2_rms": "v_rms", "B2_kurt": "v_kurt"})
    wide.to_csv(tmp_path / "axes.csv", index=False)
    assert [r.names for r in read(tmp_path / "axes.csv")] == [("h_rms", "h_kurt", "v_rms", "v_kurt")]


def test_a_word_among_numbers_is_a_missing_cell_and_drops_no_column(tmp_path: Path) -> None:
    cells = [f"{20 + i / 10}" for i in range(400)]
    cells[7], cells[9] = "err", ""
    times = np.arange(400) * 600.0
    table = pd.DataFrame({"t_s": times, "rms": RNG.normal(size=400), "temp": cells, "note": ["3", *["ok"] * 399]})
    table.to_csv(tmp_path / "a.csv", index=False)
    (one,) = read(tmp_path / "a.csv")
    assert one.names == ("rms", "temp")
    assert np.flatnonzero(np.isnan(one.values[:, 1])).tolist() == [7, 9]
    assert "column temp: 1 cell(s) that are no number (such as 'err') are missing" in one.notes
    assert "columns without numbers left out: note" in one.notes


def test_truths_with_gaps_are_no_indicator(tmp_path: Path) -> None:
    table = pd.DataFrame({"t_s": np.arange(4.0), "rms": RNG.normal(size=4), "door": [True, False, True, None]})
    table.to_csv(tmp_path / "a.csv", index=False)
    assert read(tmp_path / "a.csv")[0].names == ("rms",)


def test_a_column_says_when_the_machine_stood(tmp_path: Path) -> None:
    table = pd.DataFrame({"time": DATES, "rms": RNG.normal(size=6), "on": [True, True, True, True, False, False]})
    table.to_parquet(tmp_path / "a.parquet")
    (one,) = read(tmp_path / "a.parquet", running_column="on")
    assert one.end_row() == 4
    assert one.names == ("rms",)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("rms\n1\n2\n", "no time column"),
        ("time,rms\n", "holds no rows"),
        ("time,rms\nyesterday-ish,1\n", "row 0: 'yesterday-ish' is neither"),
        ("time,rms\n2024-01-01,high\n", "no numeric column"),
    ],
)
def test_bad_tables_are_refused_by_name(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(DataError, match=match) as error:
        read(tmp_path / "bad.csv")
    assert "bad.csv" in str(error.value)


def test_bad_npz_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"a\.npz is no npz archive of plain arrays"):
        read(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"no signal array; name it one of acc"):
        read(npz(tmp_path / "b.npz", y=acc(), fs=1000))
    with pytest.raises(DataError, match="more axes than samples"):
        read(npz(tmp_path / "c.npz", acc=acc().transpose(0, 2, 1), fs=1000, t_s=np.arange(6.0)))
    with pytest.raises(DataError, match="100 samples a snapshot are too few"):
        read(npz(tmp_path / "d.npz", acc=acc(samples=100), fs=1000, t_s=np.arange(6.0)))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off here"])
def test_a_file_that_cannot_be_read_is_left_out_on_demand(tmp_path: Path, content: bytes) -> None:
    good = npz(tmp_path / "a.npz", acc=acc(), fs=1000, t_s=np.arange(6.0))
    (tmp_path / "garbage.npz").write_bytes(content)
    left_out: list[tuple[str, str]] = []
    assert [r.asset for r in read(tmp_path / "garbage.npz", good, left_out=left_out)] == ["a"]
    ((name, why),) = left_out
    assert name == "garbage.npz"
    assert "is no npz archive" in why
    with pytest.raises(DataError, match="is no npz archive"):
        read(tmp_path / "garbage.npz", good)
    with pytest.raises(DataError, match="is no npz archive"):
        read(tmp_path / "garbage.npz", left_out=left_out)
    with pytest.raises(DataError, match=r"no machine b in the input; it has a \(garbage\.npz could not be read\)"):
        read(tmp_path, assets=["b"], left_out=left_out)


def test_missing_empty_and_unknown_inputs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.npz")
    with pytest.raises(DataError, match="holds no"):
        read(tmp_path)
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(DataError, match="unknown kind"):
        read(tmp_path / "a.xlsx")


def test_a_simulated_machine_is_read_back(tmp_path: Path) -> None:
    machine = simulate.bearing("m1", seed=0, plan=simulate.Plan(days=2))
    (one,) = read(simulate.write(machine, tmp_path))
    assert (one.asset, one.names, one.fs) == ("m1", machine.names, machine.fs)
    assert one.failure_h == pytest.approx(machine.failure_h)
    np.testing.assert_allclose(one.values, machine.values, atol=2e-3)
    with pytest.raises(DataError, match="no machine m2 in the input; it has m1"):
        read(tmp_path, assets=["m2"])


def cut(path: Path, count: int) -> Path:
    """The same file with so many snapshots or rows, as it was before the others were added."""
    shorter = path.parent / str(count) / path.name
    shorter.parent.mkdir(exist_ok=True)
    if path.suffix == ".npz":
        with np.load(path) as stored:
            arrays = {name: stored[name] if stored[name].ndim == 0 else stored[name][:count] for name in stored.files}
        return npz(shorter, **arrays)
    if path.suffix == ".csv":
        shorter.write_text("".join(path.read_text().splitlines(keepends=True)[: count + 1]))
    else:
        pd.read_parquet(path).head(count).to_parquet(shorter)
    return shorter


def same_beginning(path: Path, *counts: int, **how: Any) -> None:
    """Whatever is cut off the end of a file, what is left is read as it was."""
    whole = {one.asset: one for one in read(path, **how)}
    for count in counts:
        for part in read(cut(path, count), **how):
            all_of_it, n = whole[part.asset], len(part)
            assert n > 0
            assert (part.names, part.fs, part.unit) == (all_of_it.names, all_of_it.fs, all_of_it.unit)
            for name in ("values", "hours", "flaws", "running", "index"):
                np.testing.assert_array_equal(getattr(part, name), getattr(all_of_it, name)[:n])
            for name in ("clock", "conditions"):
                found, expected = getattr(part, name), getattr(all_of_it, name)
                assert (found is None) == (expected is None)
                if found is not None:
                    np.testing.assert_array_equal(found, expected[:n])


def test_what_the_end_of_a_table_holds_changes_nothing_of_its_beginning(tmp_path: Path) -> None:
    n = 900
    cells = [repr(float(20 + i / 7)) if i % 10 else "" for i in range(n)]
    cells[300:] = ["err"] * 600  # for good: two thirds of the column
    late = ["" if i < 400 else repr(i / 3) for i in range(n)]
    running = ["True" if i % 5 else "False" for i in range(n)]
    running[700] = "?"
    machine = ["1" if i % 2 else "2" for i in range(n)]
    machine[800] = ""
    table = pd.DataFrame({
        "time": pd.date_range("2024-03-01", periods=n, freq="h").astype(str), "rms": RNG.normal(size=n), "temp": cells,
        "late": late, "running": running, "machine": machine, "unit": ["mm/s"] * n,
        "speed": [*map(repr, RNG.normal(size=600).tolist()), *["-"] * 300],
    })  # fmt: skip
    table.to_csv(tmp_path / "a.csv", index=False)
    same_beginning(tmp_path / "a.csv", 2, 30, 299, 301, 500, 750, 850)
    same_beginning(tmp_path / "a.csv", 30, 500, 750, operating=["speed"])
    first, second = read(tmp_path / "a.csv")
    assert (first.asset, second.asset, first.names) == ("2", "1", ("rms", "temp", "late", "speed"))
    assert not first.running[0]
    assert first.running[1]
    assert np.isnan(first.values[150:, 1]).all()
    table.assign(rms=RNG.normal(size=n)).to_parquet(tmp_path / "b.parquet")
    same_beginning(tmp_path / "b.parquet", 2, 30, 301, 500, 750)


def test_a_unit_is_told_by_the_beginning_and_another_one_later_is_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"t_s": np.arange(60.0), "rms": RNG.normal(size=60), "unit": ["g"] * 50 + ["?"] * 10})
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"values are in \? and in g"):  # once two machines, g and ?
        read(tmp_path / "a.csv")


def test_an_empty_column_is_a_channel_of_missing_cells_in_every_kind_of_file(tmp_path: Path) -> None:
    table = pd.DataFrame({"t_s": np.arange(30.0), "rms": RNG.normal(size=30), "later": [None] * 30})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_parquet(tmp_path / "b.parquet")
    for one in read(tmp_path / "a.csv", tmp_path / "b.parquet"):
        assert one.names == ("rms", "later")
        assert np.isnan(one.values[:, 1]).all()


def test_the_first_snapshot_says_how_a_machine_is_sampled(tmp_path: Path) -> None:
    rates = np.array([1000.0] * 4 + [2000.0] * 16)  # most are sampled otherwise, from some day on
    path = npz(tmp_path / "a.npz", acc=acc(n=20), fs=rates, t_s=np.arange(20.0))
    same_beginning(path, 1, 3, 4, 5, 12)
    (one,) = read(path)
    assert one.fs == 1000
    assert np.flatnonzero(one.flaws != "").tolist() == list(range(4, 20))
    assert one.flaws[4] == "sampled at 2000 Hz instead of 1000 Hz"
    # In order of time: a file may have its newest snapshot first.
    backwards = npz(tmp_path / "b.npz", acc=acc(n=20), fs=rates[::-1], t_s=np.arange(20.0)[::-1])
    assert read(backwards)[0].fs == 1000


def test_the_first_snapshot_that_makes_a_spectrum_says_how_long_they_are(tmp_path: Path) -> None:
    lengths = [0, 100, 600, 600, *[700] * 8]
    lists = [list(RNG.normal(size=n)) for n in lengths]
    table = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=12, freq="h"), "x": lists, "fs": 1000.0})
    table.to_parquet(tmp_path / "a.parquet")
    same_beginning(tmp_path / "a.parquet", 3, 4, 5, 8)
    (one,) = read(tmp_path / "a.parquet")
    assert one.values.shape == (12, 600, 1)
    assert [str(flaw) for flaw in one.flaws[:5]] == [
        "0 samples instead of 600", "100 samples instead of 600", "", "", "700 samples instead of 600",
    ]  # fmt: skip


def test_days_and_months_are_told_apart_over_all_machines_of_a_file(tmp_path: Path) -> None:
    days = pd.date_range("2024-02-01", periods=20, freq="D")
    table = pd.DataFrame({"time": days.strftime("%d/%m/%Y"), "rms": 1.0, "machine": ["a"] * 10 + ["b"] * 10})
    table.to_csv(tmp_path / "a.csv", index=False)
    first, second = read(tmp_path / "a.csv")
    for one, expected in ((first, days[:10]), (second, days[10:])):
        assert one.clock is not None
        np.testing.assert_array_equal(one.clock, expected.to_numpy())
        assert "the dates were read day first, the only way to read '13/02/2024'" in one.notes
    # Waveforms in one go as well.
    lists = [list(RNG.normal(size=600)) for _ in range(20)]
    table.assign(rms=pd.Series(lists), fs=1000.0).to_parquet(tmp_path / "b.parquet")
    for one, expected in zip(read(tmp_path / "b.parquet"), (days[:10], days[10:]), strict=True):
        assert one.clock is not None
        np.testing.assert_array_equal(one.clock, expected.to_numpy())


def test_which_comes_first_in_dates_can_be_said(tmp_path: Path) -> None:
    """A file a day has no row that tells, for twelve days of each month."""
    table = pd.DataFrame({"time": ["05/02/2024 06:00", "05/02/2024 07:00"], "rms": [1.0, 2.0]})
    table.to_csv(tmp_path / "a.csv", index=False)
    lists = [list(RNG.normal(size=600)) for _ in range(2)]
    table.assign(rms=pd.Series(lists), fs=1000.0).to_parquet(tmp_path / "b.parquet")
    np.savez(tmp_path / "c.npz", acc=acc(2), fs=1000, timestamps=table["time"].to_numpy(dtype=str))
    for name in ("a.csv", "b.parquet", "c.npz"):
        with pytest.raises(DataError, match="say --dates day-first or month-first"):
            read(tmp_path / name)
        for said, day in (("day-first", "2024-02-05T06"), ("month-first", "2024-05-02T06")):
            (one,) = read(tmp_path / name, dates=said)  # type: ignore[arg-type]
            assert one.clock is not None
            assert one.clock[0] == np.datetime64(day)


def test_seconds_since_1970_have_dates_and_a_failure_on_the_same_scale(tmp_path: Path) -> None:
    (one,) = read(
        npz(tmp_path / "a.npz", acc=acc(), fs=1000, t_s=1.7e9 + 3600 * np.arange(6), failure_t_s=1.7e9 + 9000)
    )
    np.testing.assert_allclose(one.hours, np.arange(6))
    assert (one.when(0), one.failure_h) == ("2023-11-14 22:13:20", pytest.approx(2.5))
    table = pd.DataFrame({"time": 1_700_000_000_000 + 600_000 * np.arange(6), "rms": 1.0})
    table.to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(DataError, match=r"b\.csv, row 0: a time of 1700000000000 can only be milliseconds"):
        read(tmp_path / "b.csv")


@pytest.mark.parametrize("learns", [MachineMonitor.fit, lambda monitor, one: monitor.pretrain([one])])
def test_a_setting_that_never_moves_is_named_where_nothing_can_be_judged(tmp_path: Path, learns: Any) -> None:
    table = pd.DataFrame({"t_s": np.arange(800) * 600.0, "rms": RNG.normal(size=800), "setpoint": 1480.0})
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="never moves or is empty out of the table, or name it with --operating") as no:
        learns(MachineMonitor(steps=2), read(tmp_path / "a.csv")[0])
    assert "(177 x flat-lined (setpoint has not moved for 24 rows); 15 x too early" in str(no.value)
    (one,) = read(tmp_path / "a.csv", operating=["setpoint"])
    learns(MachineMonitor(steps=2, dim=32, depth=1), one)
