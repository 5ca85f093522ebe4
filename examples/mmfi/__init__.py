"""3D human pose from RGB, LiDAR, mmWave and WiFi: the MM-Fi experiment (`python -m examples.mmfi`)."""
