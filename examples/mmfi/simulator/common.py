"""Types and constants that all parts of the simulator share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

LIGHT = 299_792_458.0
"""Speed of light, metres per second."""

FLOOR = 0.86
"""y of the floor in camera coordinates, metres: the known real frame has its ankles at y = .78."""
