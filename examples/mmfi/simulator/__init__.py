"""A simulator of MM-Fi: bodies in motion, sensors by physics, files in the layout of the real data.

Nothing made here is a measurement. `simulate_clip` gives one clip's arrays in memory, `simulate_tree` writes
many to disk; `Settings` holds the seed and every physical parameter.
"""

from examples.mmfi.simulator.clip import Clip, Settings, simulate_clip
from examples.mmfi.simulator.tree import simulate_tree

__all__ = ["Clip", "Settings", "simulate_clip", "simulate_tree"]
