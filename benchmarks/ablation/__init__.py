"""What does the work when an encoder is held back: whom, how, how hard, how long, and towards what."""
