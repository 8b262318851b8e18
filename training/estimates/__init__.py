"""Time, memory and disk space of a training run, measured before it starts."""
