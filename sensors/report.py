"""The page that a maintenance engineer reads: what the score did, when an alarm came and why, what plain rules say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.report import (
    ALARM,
    OTHERS,
    OURS,
    Report,
    Section,
    Verdict,
    losses,
    new_figure,
    plot_curves,
    watch_figure,
)
from unlabeled.sensors import _found_page, _spectra
from unlabeled.sensors.alarms import Episode, episodes
from unlabeled.sensors.backtest import Result
from unlabeled.sensors.baselines import SIGMAS, ThreeSigma
from unlabeled.sensors.bearings import HARMONICS
from unlabeled.sensors.explain import Explanation
from unlabeled.sensors.harmonics import CERTAIN, LEAST, SLIP, Comparison
from unlabeled.sensors.level import LEVEL
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.regimes import NEW_REGIME
from unlabeled.sensors.savings import Costs, Savings
from unlabeled.sensors.stream import UNJUDGED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_ROWS = 25
LIMITS = (
    "The monitor says that a machine is no longer as it was in its declared normal period, not what is broken nor how "
    "long it will last.",
    "A normal period that already holds a fault, or a run-in that is not over, makes everything that follows "
    "unreliable: false alarms after a run-in, silence about the fault.",
    "A new way of working (other speed, load or mounting) looks like a fault where nothing tells of it. With operating "
    "conditions it is a new regime, and can be learnt (unlabeled sensors learn); else fit again on a normal period "
    "of it.",
    "Lead times of rig tests, in which bearings are overloaded to fail within hours or days, do not carry over to "
    "machines that wear over years.",
)


@dataclass(frozen=True)
class Machine:
    """All that the page shows of one machine.

    Attributes:
        recording, monitor, table: the run, who judged it, and the scores.
        baselines: plain rules' values; empty where the normal period is not part of the data.
        results: of a backtest, ours first.
        explanation: of the moment of the alarm, or of the end.
        normal_rows: rows of the declared normal period in this data (0: not part of it).
        explained: which moment is explained, in words.
    """

    recording: Recording
    monitor: MachineMonitor
    table: pd.DataFrame
    baselines: Sequence[ThreeSigma] = ()
    results: Sequence[Result] = field(default_factory=list)
    explanation: Explanation | None = None
    normal_rows: int = 0
    explained: str = ""

    @property
    def judged_by_another(self) -> bool:
        """The model was fitted on a machine of another name."""
        return self.monitor.asset_ != self.recording.asset


def build(
    *,
    title: str,
    subtitle: str,
    verdict: Verdict,
    facts: Mapping[str, Any],
    machines: Sequence[Machine],
    costs: Costs | None = None,
    savings: Sequence[Savings] = (),
    skipped: Sequence[tuple[str, str]] = (),
    synthetic: bool = False,
    run_id: str | None = None,
) -> Report:
    """The whole page.

    Args:
        costs, savings: of a backtest, where costs were stated.
        skipped: machines that were left out, and why.
    """
    report = Report(title, subtitle, verdict, facts, synthetic=synthetic, run_id=run_id)
    if any(machine.results for machine in machines):
        _comparison(report.section("Ours beside plain rules"), machines)
    if costs is not None:
        _saved(report.section("A simulation: what alarms would have saved"), costs, savings)
    for machine in machines:
        _machine(report.section(machine.recording.asset), machine)
    _unjudged(report.section("Snapshots that could not be judged"), machines, skipped)
    _making(report.section("How it was made"), machines)
    limits = report.section("What this cannot tell you")
    for line in LIMITS:
        limits.text(line)
    return report


def _saved(section: Section, costs: Costs, savings: Sequence[Savings]) -> None:
    section.text(
        f"By the costs that were stated: an unannounced failure stops a machine for {costs.outage_h:g} h, a planned "
        f"repair for {costs.planned_h:g} h, an hour costs {costs.per_hour:,g}, a repair can be planned "
        f"{costs.notice_h:g} h ahead, and a false alarm costs an inspection of {costs.inspection:,g}. An alarm "
        "of the first half of a run counts as false here. What people would have noticed anyway is not taken off."
    )
    section.table(
        ["method", "failures in time", "false alarms", "hours of downtime saved", "money saved"],
        [[s.method, f"{s.in_time} of {s.failures}", s.false_alarms, s.hours, f"{s.money:,.0f}"] for s in savings],
        ours=(0,),
    )


def timeline(machine: Machine) -> "Figure":
    """Smoothed score and threshold above, the plain rules' distances below."""
    recording, table = machine.recording, machine.table
    x, unit = _time_axis(recording)
    rows = 2 if machine.baselines else 1
    figure, axes = new_figure(height=2.2 + 1.5 * rows, rows=rows, sharex=True, squeeze=False)
    top = axes[0, 0]
    judged = table["smoothed"].notna().to_numpy()
    top.plot(x[judged], table["smoothed"].to_numpy()[judged], color=OURS, lw=1.2, label="ours, smoothed")
    top.axhline(machine.monitor.threshold_, color=ALARM, lw=1, ls="--", label="threshold")
    _wide_scale(top, max(5.0, 2 * machine.monitor.threshold_))
    top.set_ylabel("departure from normal")
    if machine.baselines:
        bottom = axes[1, 0]
        for colour, baseline in zip(OTHERS, _shown(machine.baselines), strict=False):
            bottom.plot(x, baseline.z, color=colour, lw=0.8, label=baseline.name)
        bottom.axhline(SIGMAS, color=ALARM, lw=1, ls="--")
        _wide_scale(bottom, 6.0)
        bottom.set_ylabel("plain rules (sigma)")
        _legend_above(bottom)
    for axis in axes[:, 0]:
        _shade(axis, machine, x)
    _legend_above(top)
    axes[-1, 0].set_xlabel(unit)
    return figure


def bars(machine: Machine, most: int = 12) -> "Figure":
    """Distance of the indicators from normal, those that weigh most in the score."""
    assert machine.explanation is not None
    changes = machine.explanation.changes.head(most).iloc[::-1]
    figure, axis = new_figure(height=0.8 + 0.28 * len(changes))
    axis.barh(changes["indicator"].tolist(), changes["z"].to_numpy(), color=OURS)
    axis.axvline(0, color="black", lw=0.6)
    axis.set_xlabel("distance from the normal mean (normal spreads)")
    return figure


def alarm_episodes(table: pd.DataFrame) -> list[Episode]:
    """Stretches of rows in alarm."""
    return episodes(table["alarm"].to_numpy(dtype=bool))


def _comparison(section: Section, machines: Sequence[Machine]) -> None:
    columns = ["machine", "method", "lead (h)", "false alarms", "false alarms a month", "latched lead (h)",
               "5-in-a-row lead (h)", "exceedance stretches before"]  # fmt: skip
    rows: list[list[Any]] = []
    own = []
    for machine in machines:
        for result in machine.results:
            if result.method == "ours":
                own.append(len(rows))
            lead = ("%.2f, from the first half of the run" if result.early else "%.2f") % result.lead_h
            rows.append(
                [result.asset + ("" if result.failed else " (stayed well)"), result.method,
                 lead if result.failed else "-", result.false_alarms, round(result.false_per_month, 2),
                 result.latched_h, result.sustained_h, result.exceedances]
            )  # fmt: skip
    section.text(
        "All methods have the same declared normal period, and alarms follow the same smoothing, persistence and "
        "hysteresis. Lead counts from the start of the alarm that holds until the end; an alarm that clears again is "
        "false, and so is every alarm of a machine that stayed well. The last three columns are the plain rules "
        "without any of that, read with hindsight."
    )
    if any(result.failed for machine in machines for result in machine.results):
        section.text(
            "A machine without '(stayed well)' beside its name is taken to have failed at the end of its record, or at "
            "the time of failure that was given: name those that did not fail with --healthy. A failure that was "
            "missed counts as a lead of 0 h."
        )
    section.table(columns, rows, ours=own)


def _machine(section: Section, machine: Machine) -> None:
    table = machine.table
    alarms = alarm_episodes(table)
    if machine.judged_by_another:
        section.text(
            f"Judged by the model of {machine.monitor.asset_}: departures are from what is normal there. If this is "
            "another machine, fit a model of its own."
        )
    if alarms:
        shown = [
            [machine.recording.when(e.start), "still on" if e.stop == len(table) else machine.recording.when(e.stop),
             float(np.nanmax(table["smoothed"].to_numpy()[e.start : e.stop], initial=0))]
            for e in alarms[:SHOWN_ROWS]
        ]  # fmt: skip
        section.table(["alarm from", "until", "highest smoothed score"], shown)
    else:
        section.text("No alarm.")
    section.figure(timeline(machine), _caption(machine))
    _found_page.show(section, machine.monitor, table)
    if machine.baselines and not machine.results:
        _beside(section, machine, ours=len(alarms))
    if machine.explanation is not None:
        explanation(section, machine)


def explanation(section: Section, machine: Machine) -> None:
    """What is away from normal at the moment that is explained, in words, plots and numbers."""
    told = machine.explanation
    assert told is not None
    section.text(f"Explained: {machine.explained}.")
    for sentence in told.words:
        section.text(sentence)
    if told.spectrum is not None:
        section.figure(
            _spectra.bands(told, machine.monitor),
            "Levels in 64 bands: the normal period's mean, and the explained moment.",
        )
    if told.shaft is not None and told.shaft.harmonics:
        _harmonics(section, told.shaft)
    if told.repeats:
        section.figure(
            _spectra.envelopes(told.repeats),
            "Squared envelope spectrum after pre-whitening, and the bearing's rates up to their "
            f"{HARMONICS}rd harmonic.",
        )
    section.figure(bars(machine), "Which indicators moved, in spreads of the normal period.")
    section.table(["part of the score", "usual spreads"], [[k, v] for k, v in told.parts.items()])


def _harmonics(section: Section, found: Comparison) -> None:
    section.figure(
        _spectra.shaft(found),
        "Spectrum at the harmonics of the shaft (dashed): the normal period's mean, and the explained moment's. Red: "
        "what rose.",
    )
    section.table(
        ["axis", "harmonic", "Hz", "normal (dB)", "now (dB)", "rise (dB)", "beyond its surroundings (dB)",
         "normal spreads", "p"],
        [
            [one.axis, f"{one.order:g}x", f"{one.order * found.shaft_hz:.1f}",
             *(f"{x:.1f}" for x in (one.normal, one.now, one.rise, one.beyond, one.spreads)), f"{one.p_value:.1g}"]
            for one in found.harmonics
        ],
        ours=[i for i, one in enumerate(found.harmonics) if one.rose],
        note=f"Amplitudes in decibels against one of the signal's unit, the highest within {SLIP:.0%} of each. "
        f"Set off: by {LEAST:g} dB or more, level and level over its surroundings, p below {CERTAIN:g} (Holm's, over "
        "all rows).",
    )  # fmt: skip


def plain_alarms(machine: Machine) -> dict[str, NDArray[np.bool_]]:
    """Alarm states of the plain rules by name, under the monitor's own smoothing, persistence and hysteresis."""
    return {f"{b.name} 3-sigma": b.alarm(machine.monitor.rule) for b in machine.baselines}


def _beside(section: Section, machine: Machine, *, ours: int) -> None:
    """Where nothing is known about failures: who is in alarm."""

    def row(name: str, on: NDArray[np.bool_], alarms: int) -> list[Any]:
        return [name, "in alarm" if on[-1] else "quiet", alarms, f"{100 * on.mean():.1f} %"]

    rows = [row("ours", machine.table["alarm"].to_numpy(dtype=bool), ours)]
    rows += [row(name, on, len(episodes(on))) for name, on in plain_alarms(machine).items()]
    section.table(
        ["method", "at the end", "alarms", "share of the time"],
        rows,
        ours=(0,),
        note="The plain rules (mean + 3 standard deviations of the normal period) under the same smoothing, "
        "persistence and hysteresis. Which of them is right, only the machine's history can tell.",
    )


def _caption(machine: Machine) -> str:
    text = "Score over time with its threshold; stretches in alarm are shaded red."
    if machine.normal_rows:
        text += " Grey: the declared normal period, its darker last third set the threshold."
    if machine.recording.failure_h is not None:
        text += " Black line: failure."
    if machine.baselines:
        text += " Below: plain rules on the same data, alarm at 3 sigma."
    return text


def _unjudged(section: Section, machines: Sequence[Machine], skipped: Sequence[tuple[str, str]]) -> None:
    rows: list[list[Any]] = []
    counts: dict[tuple[str, str], int] = {}
    for machine in machines:
        asset = machine.recording.asset
        for skip in machine.recording.skipped:
            rows.append([asset, skip.row, skip.time, skip.reason])
            counts[asset, skip.reason] = counts.get((asset, skip.reason), 0) + 1
        bad = np.flatnonzero(machine.table["state"].isin(UNJUDGED).to_numpy())
        for i in bad:
            reason = str(machine.table["reason"].iloc[i])
            rows.append([asset, int(machine.recording.index[i]), machine.recording.when(int(i)), reason])
            kind = NEW_REGIME if reason.startswith(NEW_REGIME) else reason.split(" (")[0]
            counts[asset, kind] = counts.get((asset, kind), 0) + 1
    if skipped:
        section.table(["left out as a whole", "reason"], [[name, reason] for name, reason in skipped])
    if not rows:
        section.text("Of the others, every snapshot was judged." if skipped else "None: every snapshot was judged.")
        return
    section.text("These are neither alarm nor all-clear. The whole list is in cannot_judge.csv.")
    section.table(["machine", "reason", "snapshots"], [[a, r, n] for (a, r), n in counts.items()])
    note = f"first {SHOWN_ROWS} of {len(rows)}" if len(rows) > SHOWN_ROWS else ""
    section.table(["machine", "row", "time", "reason"], rows[:SHOWN_ROWS], note=note)


def _making(section: Section, machines: Sequence[Machine]) -> None:
    if not machines:
        return
    monitor = machines[0].monitor
    curves = monitor.history_.curves
    section.figure(
        plot_curves(losses(without_twins(curves))), f"Loss of the encoder's pretraining ({monitor.task_in_words})."
    )
    watch_figure(section, curves)
    section.table(
        ["machine", "read", "encoder learnt from", "normal rows (last third calibrates)", "threshold"],
        [
            [m.recording.asset, "; ".join(m.recording.notes) or "as it stands", ", ".join(m.monitor.fleet_),
             m.monitor.begun_ or m.monitor.period_.stop, m.monitor.threshold_]
            for m in machines
        ],
    )  # fmt: skip
    rule, own = monitor.rule, [name for name in monitor.part_names if name != LEVEL]
    section.text(
        f"Score: mean of {', '.join(own)}, each in usual spreads of the calibration part"
        f"{'; beyond mean + 3 sigma of the overall level, that if it is farther' if monitor.level_ else ''}. Alarm: "
        f"the median of the last {rule.smooth} scores is above the threshold in {rule.needed} of {rule.of} snapshots; "
        f"it ends after {rule.clear_after} snapshots below {rule.clear_below:g} of the threshold. "
        f"{_drifting(monitor)}{_why(monitor)}"
    )


def _drifting(monitor: MachineMonitor) -> str:
    if not monitor.drift:
        return ""
    return (
        f"What each indicator has slowly moved by (over {monitor.drift_over} snapshots) is taken out first, up to "
        f"{monitor.drift:g} spreads. "
    )


def _why(monitor: MachineMonitor) -> str:
    """Where the threshold comes from."""
    found = monitor.tail_
    if found is None:
        return f"The threshold: mean + {monitor.sigmas:g} standard deviations of the calibration scores."
    return (
        f"The threshold: a budget of {monitor.false_alarms:g} false alarms a machine-month, by the tail of the "
        f"{found.peaks} independent peaks in {found.hours:.3g} h of calibration, "
        f"{'as far as they go' if monitor.threshold_ <= found.highest else 'extrapolated beyond the highest of them'}. "
        "It holds as long as a well machine goes on as it was then: the same conditions, no drift."
    )


def without_twins(curves: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, Sequence[tuple[int, float]]]:
    """The curves less those that are the loss itself under its part's name: one part is all there is of it."""
    loss = [tuple(point) for point in curves.get("loss", ())]
    return {n: points for n, points in curves.items() if n == "loss" or [tuple(point) for point in points] != loss}


def _wide_scale(axis: Any, linear_to: float) -> None:
    """Linear up to ``linear_to``, logarithmic beyond, with plain numbers as ticks; linear where nothing is beyond."""
    from matplotlib.ticker import StrMethodFormatter, SymmetricalLogLocator

    low, high = axis.get_ylim()
    if max(-low, high) <= linear_to:
        return
    axis.set_yscale("symlog", linthresh=linear_to)
    axis.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear_to, subs=(1.0, 3.0)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_ylim(bottom=axis.dataLim.y0 - 0.5)  # a margin in shares of the whole range would be a third of the plot


def _legend_above(axis: Any) -> None:
    """Where it hides no data."""
    axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=5)


def _shade(axis: Any, machine: Machine, x: NDArray) -> None:
    period = machine.monitor.period_
    last = len(x) - 1
    if machine.normal_rows:
        axis.axvspan(x[0], x[min(period.calibration, last)], color="0.93", lw=0, zorder=0)
        axis.axvspan(x[min(period.calibration, last)], x[min(period.stop, last)], color="0.85", lw=0, zorder=0)
    for e in alarm_episodes(machine.table):
        axis.axvspan(x[e.start], x[min(e.stop, last)], color=ALARM, alpha=0.15, lw=0, zorder=0)
    if machine.recording.failure_h is not None:
        end = machine.recording.failure_h
        axis.axvline(x[int(np.searchsorted(machine.recording.hours, end).clip(0, last))], color="black", lw=1.5)


def _time_axis(recording: Recording) -> tuple[NDArray, str]:
    if recording.clock is not None:
        return recording.clock.astype("datetime64[s]"), "date"
    if recording.hours[-1] > 72:
        return recording.hours / 24, "days"
    return recording.hours, "hours"


def _shown(baselines: Sequence[ThreeSigma]) -> list[ThreeSigma]:
    """RMS and kurtosis where there are any, the first few otherwise."""
    usual = [b for b in baselines if "rms" in b.name.lower() or "kurt" in b.name.lower()]
    return (usual or list(baselines))[: len(OTHERS)]
