"""StyleGAN2-ADA: networks, losses, data and the training loop."""
