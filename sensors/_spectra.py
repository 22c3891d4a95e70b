"""Spectra on the page: levels in bands, the lines of the shaft, what repeats itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unlabeled.core.report import ALARM, OTHERS, OURS, new_figure
from unlabeled.sensors import features
from unlabeled.sensors.bearings import HARMONICS, PARTS, Repeats
from unlabeled.sensors.explain import Explanation
from unlabeled.sensors.harmonics import Comparison
from unlabeled.sensors.monitor import MachineMonitor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bands(told: Explanation, monitor: MachineMonitor) -> "Figure":
    """Level over frequency, normal and at the explained moment, one plot an axis."""
    assert told.spectrum is not None
    assert told.normal_spectrum is not None
    assert monitor.fs_ is not None
    count = len(told.spectrum)
    figure, axes = new_figure(height=2.8, columns=count, sharey=True, squeeze=False)
    frequency = (np.arange(features.BANDS) + 0.5) / features.BANDS * monitor.fs_ / 2000
    for i in range(count):
        axis = axes[0, i]
        axis.plot(frequency, told.normal_spectrum[i], color=OTHERS[1], label="normal")
        axis.plot(frequency, told.spectrum[i], color=OURS, label="now")
        axis.set(xlabel="frequency (kHz)", title=monitor.names_[i])
    axes[0, 0].set_ylabel("dB against the mean level")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper right", frameon=False, fontsize=8, ncols=2
    )
    return figure


def shaft(found: Comparison) -> "Figure":
    """Spectrum up to the highest harmonic, normal and now, one plot an axis; thin lines are the shaft's orders."""
    names = list(dict.fromkeys(one.axis for one in found.harmonics))
    figure, axes = new_figure(height=2.8, columns=len(names), sharey=True, squeeze=False)
    for i, name in enumerate(names):
        axis = axes[0, i]
        for one in found.harmonics:
            if one.axis == name:
                at = one.order * found.shaft_hz
                axis.axvline(at, color=ALARM if one.rose else "0.6", lw=0.8, ls="--", zorder=0)
                axis.text(at, 1.0, f"{one.order:g}x", transform=axis.get_xaxis_transform(), fontsize=7, ha="center")
        axis.plot(found.hz, found.normal[i], color=OTHERS[1], lw=0.9, label="normal")
        axis.plot(found.hz, found.now[i], color=OURS, lw=0.9, label="now")
        axis.set_xlabel("frequency (Hz)")
        axis.set_title(name, pad=12)
    axes[0, 0].set_ylabel("dB against one of the unit")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper right", frameon=False, fontsize=8, ncols=2
    )
    return figure


def envelopes(repeats: Sequence[Repeats]) -> "Figure":
    """What repeats itself, one plot an axis, with the rates of the bearing marked."""
    figure, axes = new_figure(height=2.8, columns=len(repeats), sharey=True, squeeze=False)
    for axis, one in zip(axes[0], repeats, strict=True):
        fastest = max(found.hz for found in one.evidence) if one.evidence else one.spectrum.hz[-1]
        shown = (one.spectrum.hz > 0) & (one.spectrum.hz <= 1.1 * HARMONICS * fastest)
        axis.plot(one.spectrum.hz[shown], 10 * np.log10(one.spectrum.power[shown] + 1e-12), color=OURS, lw=0.9)
        for found in sorted(one.evidence, key=lambda found: list(PARTS).index(found.name)):
            colour = (*OTHERS, "grey")[list(PARTS).index(found.name)]
            for harmonic in range(1, HARMONICS + 1):
                axis.axvline(
                    harmonic * found.hz, color=colour, lw=0.8, ls="--", label=found.name if harmonic == 1 else None
                )
        axis.set(xlabel="repetitions a second", title=one.axis)
    axes[0, 0].set_ylabel("dB over where nothing repeats")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper right", frameon=False, fontsize=8, ncols=4
    )
    return figure
