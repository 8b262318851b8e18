"""What a training run will take, measured before it starts."""
