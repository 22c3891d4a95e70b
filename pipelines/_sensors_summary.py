"""What the vibration jobs say about their results: comparisons, one sentence, figures, what to explain."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unlabeled.core.errors import DataError
from unlabeled.pipelines.jobs import Comparison
from unlabeled.sensors import report as pages
from unlabeled.sensors.alarms import HOURS_PER_MONTH
from unlabeled.sensors.backtest import Replay, Result
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.savings import Costs, Savings, savings
from unlabeled.sensors.stream import UNJUDGED


def hours_of(text: str | None, recording: Recording) -> float | None:
    """Hours after the recording's first snapshot (:meth:`Recording.hours_at`), where a moment is given."""
    return None if text is None else recording.hours_at(text)


def explained(machine: pages.Machine, *, from_row: int, results: Sequence[Result] = ()) -> pages.Machine:
    """Adds the explanation of the last alarm, a little after its start, or of the highest score if there was none."""
    table = machine.table
    alarms = [e for e in pages.alarm_episodes(table) if e.stop > from_row]
    smoothed = table["smoothed"].to_numpy()
    smoothed = np.where(np.arange(len(table)) >= from_row, smoothed, np.nan)
    if not np.isfinite(smoothed).any():
        return machine
    if alarms:
        # A little into the alarm there is more to see than at its first moment.
        start = alarms[-1].start
        at = min(start + machine.monitor.rule.smooth, alarms[-1].stop - 1)
        when = machine.recording.when
        what = f"a little into the last alarm (which began at {when(start)}): {when(at)}"
        if at == start:
            what = f"the start of the last alarm, {when(at)}"
    else:
        at = int(np.nanargmax(smoothed))
        what = f"no alarm; the highest score, {machine.recording.when(at)}"
    try:
        explanation = machine.monitor.explain(machine.recording, row=at)
    except DataError:
        return machine
    return pages.Machine(
        machine.recording, machine.monitor, table, baselines=machine.baselines, results=results,
        explanation=explanation, normal_rows=machine.normal_rows, explained=what,
    )  # fmt: skip


def machine(replayed: Replay) -> pages.Machine:
    rows = replayed.monitor.period_.stop
    base = pages.Machine(
        replayed.recording, replayed.monitor, replayed.table, baselines=replayed.baselines, normal_rows=rows,
        results=replayed.results,
    )  # fmt: skip
    return explained(base, from_row=rows, results=replayed.results)


def comparisons(results: Sequence[Sequence[Result]]) -> list[Comparison]:
    """Mean lead over the machines that failed and false alarms a month over all, ours beside each plain rule."""
    shared = [m for m in _methods(results[0]) if all(m in _methods(r) for r in results)]
    by = {m: [next(x for x in r if x.method == m) for r in results] for m in ["ours", *shared]}
    comparisons = []
    failing = [result.asset for result in by["ours"] if result.failed]
    if failing:
        leads = {m: float(np.mean([x.lead_h for x in found if x.failed])) for m, found in by.items()}
        comparisons.append(_compared("lead time (h)", leads))
        announced = {m: float(sum(x.lead_h > 0 for x in found if x.failed)) for m, found in by.items()}
        comparisons.append(_compared(f"failures announced, of {len(failing)}", announced))
    months = sum(x.monitored_h for x in by["ours"]) / HOURS_PER_MONTH
    wrong = {m: sum(x.false_alarms for x in found) / months for m, found in by.items()}
    comparisons.append(_compared("false alarms a machine-month", wrong, higher_is_better=False))
    return comparisons


def _methods(results: Sequence[Result]) -> list[str]:
    return [r.method for r in results if r.method != "ours"]


def saved(results: Sequence[Sequence[Result]], costs: Costs) -> list[Savings]:
    """Of ours and of every plain rule that all machines have, ours first."""
    shared = [m for m in _methods(results[0]) if all(m in _methods(r) for r in results)]
    return [savings([next(x for x in r if x.method == m) for r in results], costs) for m in ["ours", *shared]]


def saved_in_words(found: Sequence[Savings]) -> list[str]:
    if not found:
        return []
    ours, best = found[0], max(found[1:], key=lambda one: one.money, default=None)
    beside = "" if best is None else f" The best plain rule, {best.method}: {best.hours:,.0f} h and {best.money:,.0f}."
    return [
        f"Simulation: {ours.in_time} of {ours.failures} failure(s) in time for a planned repair, {ours.hours:,.0f} h "
        f"of downtime and {ours.money:,.0f} saved after {ours.false_alarms} false alarm(s), by stated costs.{beside}"
    ]


def _compared(metric: str, values: dict[str, float], *, higher_is_better: bool = True) -> Comparison:
    others = {name: value for name, value in values.items() if name != "ours"}
    return Comparison(metric=metric, ours=values["ours"], baselines=others, higher_is_better=higher_is_better)


def verdict(
    replays: Sequence[Replay], comparisons: Sequence[Comparison], skipped: Sequence[tuple[str, str]]
) -> tuple[str, Any]:
    ours = [r.results[0] for r in replays]
    failing = [r for r in ours if r.failed]
    found = sum(r.lead_h > 0 for r in failing)
    wrong = sum(r.false_alarms for r in ours)
    finder, ahead = comparisons[1].gain() if failing else ("", 0.0)
    beaten = f", {finder} announced {found - ahead:.0f}" if ahead < 0 else ""
    text = f"{found} of {len(failing)} failure(s) announced{beaten}; {wrong} false alarm(s) on {len(ours)} machine(s)."
    tone = "flat"
    if failing:
        rule, lead = comparisons[0].gain()
        rows = [x for r in replays for x in r.results if x.method == rule]
        they_found, they_wrong = sum(x.lead_h > 0 for x in rows if x.failed), sum(x.false_alarms for x in rows)
        better = "earlier than" if lead > 0 else "LATER than" if lead < 0 else "as early as"
        text += (
            f" Mean lead {np.mean([r.lead_h for r in failing]):.2f} h, {abs(lead):.2f} h {better} {rule}, the earliest "
            f"plain rule, which announced {they_found} with {they_wrong} false alarm(s)."
        )
        if min(found, they_found) < len(failing):
            text += " A missed failure counts as a lead of 0 h."
        signs = np.sign([lead, min(found - they_found, ahead), they_wrong - wrong])
        gained, lost = signs.max() > 0, signs.min() < 0
        tone = "good" if gained and not lost else "bad" if lost and not gained else "flat"
        if ahead < 0:
            text += f" {finder} heard {-ahead:.0f} failure(s) more than the monitor."
        if tone == "bad":
            text += f" {rule} did better here."
        text += _assumed(replays)
    if skipped:
        text += f" {len(skipped)} machine(s) or file(s) left out (see the report)."
    return text, tone


def _assumed(replays: Sequence[Replay]) -> str:
    """That machines count as failed because nobody said otherwise; one machine alone was replayed for its failure."""
    taken = sum(r.results[0].failed and r.recording.failure_h is None for r in replays)
    if len(replays) < 2 or not taken:
        return ""
    return (
        f" {taken} machine(s) came without a time of failure: each is taken to have failed at its end; name those that "
        "did not with --healthy."
    )


def facts(replays: Sequence[Replay]) -> dict[str, Any]:
    ours = [r.results[0] for r in replays]
    failing = [r for r in ours if r.failed]
    return {
        "machines": len(ours),
        "failures announced": f"{sum(r.lead_h > 0 for r in failing)} of {len(failing)}",
        "false alarms": sum(r.false_alarms for r in ours),
        "cannot judge": sum(int(r.table["state"].isin(UNJUDGED).sum()) for r in replays),
    }


def borrowed(machines: Sequence[pages.Machine]) -> str:
    """Which machines another one's model judged."""
    pairs = [f"{m.recording.asset} by the model of {m.monitor.asset_}" for m in machines if m.judged_by_another]
    return f" Judged by another machine's model: {', '.join(pairs)}." if pairs else ""


def begun(machines: Sequence[pages.Machine]) -> str:
    """Which machines are judged by their fleet's prior."""
    found = [f"{m.recording.asset} by {m.monitor.begun_}" for m in machines if m.monitor.begun_ is not None]
    return f" No normal of their own yet: {', '.join(found)}; fit them anew as soon as they have one." if found else ""


def score_facts(machines: Sequence[pages.Machine]) -> dict[str, Any]:
    return {
        "machines": len(machines),
        "snapshots": sum(len(m.table) for m in machines),
        "cannot judge": sum(int(m.table["state"].isin(UNJUDGED).sum()) for m in machines),
        "alarms": sum(len(pages.alarm_episodes(m.table)) for m in machines),
        "in alarm by a plain rule": sum(any(on[-1] for on in pages.plain_alarms(m).values()) for m in machines),
    }


def whys(skipped: Sequence[tuple[str, str]]) -> str:
    """Why machines or files were left out."""
    return "; ".join(why for _, why in skipped)
