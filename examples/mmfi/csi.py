"""Cleaning of WiFi channel state information."""

from __future__ import annotations

import numpy as np

from examples.mmfi.arrays import Array


def clean_csi(amplitude: Array) -> Array:
    """Fill what is not finite and scale every frame to [0, 1].

    As the public toolbox does: inf becomes nan, nan becomes the mean of its packet (over antennas and
    subcarriers), and the frame is scaled by its minimum and maximum. Where that gives nan, this does not: a
    packet without a finite value takes the mean of the frame's packets, and a constant frame becomes 0.

    Args:
        amplitude: `[..., antennas, subcarriers, packets]`.

    Returns:
        The cleaned amplitude, same shape, a new array.
    """
    amplitude = amplitude.astype(np.float64)
    finite = np.isfinite(amplitude)
    if not finite.all():
        known = np.where(finite, amplitude, 0.0)
        count = finite.sum(axis=(-3, -2), keepdims=True)
        packet = known.sum(axis=(-3, -2), keepdims=True) / np.maximum(count, 1)
        heard = count > 0
        frame = packet.sum(axis=-1, keepdims=True, where=heard) / np.maximum(heard.sum(-1, keepdims=True), 1)
        amplitude = np.where(finite, amplitude, np.where(heard, packet, frame))
    low = amplitude.min(axis=(-3, -2, -1), keepdims=True)
    span = amplitude.max(axis=(-3, -2, -1), keepdims=True) - low
    scaled: Array = (amplitude - low) / np.where(span > 0, span, 1.0)
    return scaled
