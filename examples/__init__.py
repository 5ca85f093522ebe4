"""Runnable examples: `quickstart` (seconds), `mars` (a real radar recording, minutes)."""
