"""StyleGAN3: its rules of reading files, its options, presets and loss."""
