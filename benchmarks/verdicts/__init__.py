"""How often verdicts are right on simulated sets with a known answer, and what comes of following them."""
