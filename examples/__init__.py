"""Runnable examples: `quickstart` (seconds), `mars` (a real radar recording, minutes), `mmfi` (the paper's data)."""
