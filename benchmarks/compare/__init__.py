"""A comparison of plain training, subsets of the modalities, and every method, on several data sets."""
