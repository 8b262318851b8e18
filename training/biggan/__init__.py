"""The BigGAN family: options, presets, loss, public checkpoint files. Its networks are `training.networks_biggan`."""
