"""3D human pose from a real mmWave radar: who carries the prediction, and does holding back help?

`python -m examples.mars` trains each modality alone, all three jointly, and all three with AWC.
"""
