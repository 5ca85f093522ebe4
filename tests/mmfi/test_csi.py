import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from examples.mmfi.csi import clean_csi

AMPLITUDES = hnp.arrays(
    np.float64,
    (2, 3, 4, 5),
    elements=st.floats(-100, 100) | st.sampled_from([np.nan, np.inf, -np.inf]),
)


def cleaned_frame_by_frame(frame):
    """The public toolbox's steps in plain loops, for frames in which every packet has a finite value."""
    frame = np.where(np.isinf(frame), np.nan, frame)
    for packet in range(frame.shape[2]):
        values = frame[:, :, packet]
        values[np.isnan(values)] = values[~np.isnan(values)].mean()
    return (frame - frame.min()) / (frame.max() - frame.min())


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 0.5))
def test_equals_the_steps_of_the_public_toolbox(seed, share):
    rng = np.random.default_rng(seed)
    amplitude = rng.normal(42, 5, size=(3, 114, 10))
    broken = rng.random(amplitude.shape) < share
    amplitude[broken] = rng.choice([np.nan, np.inf, -np.inf], size=broken.sum())
    np.testing.assert_allclose(clean_csi(amplitude), cleaned_frame_by_frame(amplitude), atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(AMPLITUDES)
def test_every_input_gives_finite_values_between_0_and_1(amplitude):
    cleaned = clean_csi(amplitude)
    assert cleaned.shape == amplitude.shape
    assert ((cleaned >= 0) & (cleaned <= 1)).all()


@settings(max_examples=50, deadline=None)
@given(AMPLITUDES)
def test_a_frame_does_not_depend_on_its_batch(amplitude):
    np.testing.assert_array_equal(clean_csi(amplitude)[0], clean_csi(amplitude[0]))


def test_the_input_is_not_changed():
    amplitude = np.array([[[1.0, np.nan], [3.0, np.inf]]])
    before = amplitude.copy()
    clean_csi(amplitude)
    np.testing.assert_array_equal(amplitude, before)


@pytest.mark.parametrize("value", [0.0, -7.5, np.nan, np.inf])
def test_a_constant_frame_becomes_zero(value):
    np.testing.assert_array_equal(clean_csi(np.full((3, 4, 2), value)), np.zeros((3, 4, 2)))


def test_an_unheard_packet_takes_the_mean_of_the_others():
    amplitude = np.zeros((1, 2, 3))
    amplitude[..., 1], amplitude[..., 2] = 4.0, np.nan
    np.testing.assert_allclose(clean_csi(amplitude)[0, 0], [0.0, 1.0, 0.5])
