"""StyleGAN3's training presets as data. No torch here.

Rows: the public StyleGAN3 command line. It has no defaults for the batch size and the R1 weight; those here are the
values that its authors publish as starting points for a batch of 32.
"""
import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleGAN3Preset:
    """One row. What is not listed has the default of the networks' classes."""

    conv_kernel: int  # of the generator's layers
    use_radial_filters: bool  # downsampling filters that treat all directions alike
    widening: int  # factor of the generator's channels; the discriminator's are not widened
    blur_init_sigma: float  # blur of what the discriminator sees at first, pixels
    ref_gpus: int = 8  # number of GPUs that batch_gpu is worked out for
    kimg: int = 25000  # training length
    batch: int = 32  # total batch size
    mbstd_group: int | None = 4  # group size of the minibatch standard deviation
    channel_base: int = 32768
    channel_max: int = 512
    g_lr: float = 0.0025
    d_lr: float = 0.002
    map_depth: int = 2  # mapping layers
    ema_rampup: float | None = 0.05  # cap of the average's half-life, as a fraction of the images seen


PRESETS: dict[str, StyleGAN3Preset] = {
    "stylegan3-t": StyleGAN3Preset(conv_kernel=3, use_radial_filters=False, widening=1, blur_init_sigma=0),
    "stylegan3-r": StyleGAN3Preset(conv_kernel=1, use_radial_filters=True, widening=2, blur_init_sigma=10),
}


def gamma(resolution: int) -> float:
    """The published R1 weight for images of resolution x resolution pixels: 2 at 256, and with the square of that."""
    return 2 * (resolution / 256) ** 2


def magnitude_ema_beta(batch: int) -> float:
    """The decay per step of the layers' input magnitudes, for a half-life of 20,000 images."""
    return 0.5 ** (batch / 20000)


def ema_kimg(batch: int) -> float:
    """The half-life of the generator's moving average, thousands of images."""
    return batch * 10 / 32


def blur_fade_kimg(batch: int) -> float:
    """Over how many thousands of images the blur goes away."""
    return batch * 200 / 32
