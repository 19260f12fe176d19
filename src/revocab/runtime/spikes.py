"""Spikes of a training curve: steps that stand out of the running median by far more than the curve's own noise."""

import warnings
from collections.abc import Sequence

import numpy as np

MAD_TO_SIGMA = 1.4826  # the median absolute deviation of normal noise times this is its standard deviation
FEWEST_VALUES = 5  # with fewer there is no noise to compare with


def spikes(
    values: Sequence[float | None], *, window: int = 21, sigmas: float = 6.0, relative: float = 0.1
) -> list[int]:
    """Indices of the spikes of a loss or gradient-norm curve, ascending.

    A value is a spike if it lies above the median of the `window` values centred on it by more than `sigmas` robust
    standard deviations of those values, and by more than the share `relative` of that median; and if it also lies
    above the median of the half window before it by that share, so that the steep fall at the start of a curve is
    none; in such a fall the curve's own slope counts as noise, so only large spikes show there. Whatever is not finite
    (None included) is a spike. A jump that lasts is no spike: it shows in the last loss.
    """
    y = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    y[~np.isfinite(y)] = np.nan
    broken = np.isnan(y)
    if len(y) < FEWEST_VALUES:
        return np.flatnonzero(broken).tolist()
    half = window // 2
    padded = np.concatenate([np.full(half, np.nan), y, np.full(half, np.nan)])
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)  # (steps, window), nan beyond the ends
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # windows without a finite value give nan, which compares false
        median = np.nanmedian(around, axis=1)
        before = np.nanmedian(around[:, :half], axis=1)
        sigma = MAD_TO_SIGMA * np.nanmedian(np.abs(around - median[:, None]), axis=1)
    size = np.maximum(sigmas * sigma, relative * np.abs(median))
    stands_out = (y - median > size) & (y - before > relative * np.abs(before))
    return np.flatnonzero(broken | stands_out).tolist()
