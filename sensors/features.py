"""Waveforms to time-frequency pictures and physical indicators.

Shape suffixes: s sample, a axis, f frequency band, t time column, i indicator.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WINDOW = 128  # samples under one short-time spectrum
BANDS, COLUMNS = 64, 8  # of the picture
COARSE = 8  # bands among the physical indicators
_HANN = np.hanning(WINDOW + 1)[:-1]
_FLOOR = 1e-12


def picture(signal_sa: NDArray) -> Floats:
    """Log power over relative frequency and time, (axes, BANDS, COLUMNS), in decibels.

    Row ``f`` covers the share ``f / BANDS`` to ``(f + 1) / BANDS`` of half the sampling rate, so that machines
    sampled at different rates give pictures of one shape. Power of a Hann-windowed short-time Fourier transform,
    averaged within each time column; longer snapshots have more windows in a column, not more columns. The mean of
    the snapshot is taken out first. Power is per sample, so white noise of one variance gives one level at any
    length. :func:`shape_and_level` takes the level out.
    """
    x = np.asarray(signal_sa, dtype=np.float64)
    x = x - x.mean(axis=0)
    samples = len(x)
    each = max(1, samples // (COLUMNS * WINDOW // 2))
    starts = np.linspace(0, samples - WINDOW, COLUMNS * each).astype(np.int64)
    frames = x[starts[:, None] + np.arange(WINDOW)] * _HANN[None, :, None]
    power = np.abs(np.fft.rfft(frames, axis=1)[:, 1:]) ** 2 / (_HANN**2).sum()
    power = power.reshape(COLUMNS, each, BANDS, -1).mean(axis=1)
    return 10 * np.log10(power.transpose(2, 1, 0) + _FLOOR)


def shape_and_level(picture_aft: Floats) -> tuple[Floats, Floats]:
    """The picture with each axis's mean level taken out, and these levels (axes,), decibels.

    Gain and, to a fair part, load move all bands together: the shape does not change with them.
    """
    level = picture_aft.mean(axis=(1, 2))
    return picture_aft - level[:, None, None], level


def rms(x_sa: NDArray) -> Floats:
    """Root mean square of each axis."""
    return np.sqrt(np.mean(np.square(np.asarray(x_sa, dtype=np.float64)), axis=0))


def excess_kurtosis(x_sa: NDArray) -> Floats:
    """Fourth standardised moment minus 3 of each axis; 0 for a Gaussian."""
    x = np.asarray(x_sa, dtype=np.float64)
    square = np.square(x - x.mean(axis=0))
    return np.mean(np.square(square), axis=0) / np.mean(square, axis=0) ** 2 - 3


def peak(x_sa: NDArray) -> Floats:
    """Largest absolute value of each axis."""
    return np.abs(np.asarray(x_sa, dtype=np.float64)).max(axis=0)


def crest(x_sa: NDArray) -> Floats:
    """Peak over RMS of each axis."""
    return peak(x_sa) / rms(x_sa)


def indicators(signal_sa: NDArray, shape_aft: Floats) -> Floats:
    """Physical indicators of a snapshot, axis by axis: level and peak in decibels, impulsiveness on a compressed
    scale (the inverse hyperbolic sine: kurtosis spans decades), and ``COARSE`` bands against the mean level, in
    decibels."""
    power = (10 ** (shape_aft / 10)).mean(axis=2)
    coarse = power.reshape(len(power), COARSE, -1).mean(axis=2)
    columns = [
        20 * np.log10(rms(signal_sa) + _FLOOR),
        20 * np.log10(peak(signal_sa) + _FLOOR),
        20 * np.log10(crest(signal_sa)),
        np.arcsinh(excess_kurtosis(signal_sa)),
        *(10 * np.log10(coarse.T + _FLOOR)),
    ]
    return np.stack(columns, axis=1).reshape(-1)


def indicator_names(axes: tuple[str, ...], fs: float) -> tuple[str, ...]:
    """Names in the order of :func:`indicators`; bands in hertz."""
    edge = fs / 2 / COARSE / 1000
    bands = [f"{i * edge:.1f}-{(i + 1) * edge:.1f} kHz band (dB over mean)" for i in range(COARSE)]
    names = ["RMS (dB)", "peak (dB)", "crest factor (dB)", "kurtosis (arcsinh)", *bands]
    return tuple(f"{axis} {name}" for axis in axes for name in names)
