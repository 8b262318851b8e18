"""Networks of two dense layers."""
import torch

from torch_utils import persistence


@persistence.persistent_class
class ToyLinear(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn([outputs, inputs]) / inputs**0.5)
        self.bias = torch.nn.Parameter(torch.zeros([outputs]))

    def forward(self, x):
        return x @ self.weight.t() + self.bias


@persistence.persistent_class
class ToyGenerator(torch.nn.Module):
    def __init__(self, c_dim, img_resolution, img_channels, z_dim=4, width=8):
        super().__init__()
        self.z_dim, self.c_dim, self.img_resolution, self.img_channels = z_dim, c_dim, img_resolution, img_channels
        self.register_buffer("mean_z", torch.zeros([z_dim]))
        self.hidden = ToyLinear(z_dim + c_dim, width)
        self.out = ToyLinear(width, img_channels * img_resolution**2)

    def forward(self, z, c, **_kwargs):
        if self.training:
            self.mean_z.lerp_(z.detach().mean(dim=0), 0.5)
        img = self.out(self.hidden(torch.cat([z, c], dim=1)).relu()).tanh()
        return img.reshape(-1, self.img_channels, self.img_resolution, self.img_resolution)


@persistence.persistent_class
class ToyDiscriminator(torch.nn.Module):
    def __init__(self, c_dim, img_resolution, img_channels, width=8):
        super().__init__()
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.hidden = ToyLinear(img_channels * img_resolution**2 + c_dim, width)
        self.out = ToyLinear(width, 1)

    def forward(self, img, c, **_kwargs):
        return self.out(self.hidden(torch.cat([img.flatten(1), c], dim=1)).relu())
