"""Forward functions of an editing tool, which know a network by its attributes alone."""
import math

import torch

from torch_utils.ops import bias_act, conv2d_resample, upfirdn2d


def _modulated(x, weight, styles, demodulate, **resample):
    """One sample after the other, from the formula."""
    images = []
    for sample, style in zip(x, styles):
        w = weight * style[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum(dim=[1, 2, 3], keepdim=True) + 1e-8).sqrt()
        images.append(conv2d_resample.conv2d_resample(sample[None], w, **resample)[0])
    return torch.stack(images)


def synthesis_layer(self, x, w, noise_mode="const", gain=1, **_):
    """SynthesisLayer."""
    x = _modulated(x, self.weight, self.affine(w), True, f=self.resample_filter, up=self.up, padding=self.padding,
                   flip_weight=self.up == 1)  # fmt: skip
    assert noise_mode == "const"
    if self.use_noise:
        x = x + self.noise_const * self.noise_strength
    clamp = None if self.conv_clamp is None else self.conv_clamp * gain
    return bias_act.bias_act(x, self.bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


def to_rgb_layer(self, x, w, **_):
    """ToRGBLayer."""
    x = _modulated(x, self.weight, self.affine(w) * self.weight_gain, False)
    return bias_act.bias_act(x, self.bias, clamp=self.conv_clamp)


def synthesis_block(self, x, img, ws, **kwargs):
    """SynthesisBlock."""
    w = iter(ws.unbind(dim=1))
    if self.in_channels == 0:
        x = self.conv1(self.const[None].repeat(len(ws), 1, 1, 1), next(w), **kwargs)
    elif self.architecture == "resnet":
        y = self.skip(x, gain=math.sqrt(0.5))
        x = y + self.conv1(self.conv0(x, next(w), **kwargs), next(w), gain=math.sqrt(0.5), **kwargs)
    else:
        x = self.conv1(self.conv0(x, next(w), **kwargs), next(w), **kwargs)
    if img is not None:
        img = upfirdn2d.upsample2d(img, self.resample_filter)
    if self.is_last or self.architecture == "skip":
        y = self.torgb(x, next(w))
        img = y if img is None else img + y
    return x, img


def synthesis_network(self, ws, **kwargs):
    """SynthesisNetwork."""
    x = img = None
    first = 0
    for res in self.block_resolutions:
        block = getattr(self, f"b{res}")
        x, img = block(x, img, ws[:, first : first + block.num_conv + block.num_torgb], **kwargs)
        first += block.num_conv
    return img


FUNCTIONS = {
    "SynthesisLayer": synthesis_layer,
    "ToRGBLayer": to_rgb_layer,
    "SynthesisBlock": synthesis_block,
    "SynthesisNetwork": synthesis_network,
}
