"""Generative networks of images, and one without norms, as repositories write them."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from zoo.specimen import Planted, Specimen, filled, scaled
from zoo.vision import cut, pictures, several


# A network without norms, with scaled weight standardization.
class ScaledStdConv2d(nn.Conv2d):
    def __init__(self, n_in, n_out, kernel_size, stride=1, gamma=1.0, eps=1e-6):
        super().__init__(n_in, n_out, kernel_size, stride, kernel_size // 2)
        self.gain = nn.Parameter(torch.full((n_out, 1, 1, 1), gamma))
        self.scale, self.eps = self.weight[0].numel() ** -0.5, eps
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="linear")
        nn.init.zeros_(self.bias)

    def forward(self, x):
        w = self.weight.reshape(1, self.out_channels, -1)
        gain = (self.gain * self.scale).view(-1)
        weight = F.batch_norm(w, None, None, weight=gain, training=True, momentum=0.0, eps=self.eps)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


class NormFreeBlock(nn.Module):
    def __init__(self, n_in, n_out, stride, alpha=0.2, beta=1.0):
        super().__init__()
        self.alpha, self.beta, self.gamma = alpha, beta, 1.7881293296813965
        self.transition = stride > 1 or n_in != n_out
        self.downsample = ScaledStdConv2d(n_in, n_out, 1) if self.transition else None
        self.conv1 = ScaledStdConv2d(n_in, n_out // 2, 1)
        self.conv2 = ScaledStdConv2d(n_out // 2, n_out // 2, 3, stride)
        self.conv3 = ScaledStdConv2d(n_out // 2, n_out, 1)
        self.skipinit_gain = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        out = F.silu(x) * self.gamma * self.beta
        shortcut = x
        if self.transition:
            shortcut = self.downsample(F.avg_pool2d(out, 2) if self.conv2.stride[0] > 1 else out)
        out = self.conv2(F.silu(self.conv1(out)).mul_(self.gamma))
        out = self.conv3(F.silu(out).mul_(self.gamma))
        return out.mul(self.skipinit_gain) * self.alpha + shortcut


class NormFreeNet(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.stem = ScaledStdConv2d(3, 16, 3)
        stages, n, variance = [], 16, 1.0
        for width, stride in ((32, 1), (32, 1), (48, 2), (48, 1), (64, 2), (64, 1)):
            variance = 1.0 if n != width else variance
            stages.append(NormFreeBlock(n, width, stride, beta=variance**-0.5))
            n, variance = width, variance + 0.2**2
        self.stages = nn.Sequential(*stages)
        self.final_conv, self.head = ScaledStdConv2d(n, 96, 1), nn.Linear(96, classes)
        nn.init.normal_(self.head.weight, 0, 0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        x = F.silu(self.final_conv(self.stages(self.stem(x)))) * 1.7881293296813965
        return self.head(x.mean((2, 3)))


def build_nfnet():
    return NormFreeNet(), *pictures(16, 8), None


# A DCGAN.
def weights_init(m):
    classname = m.__class__.__name__
    if classname.find("Conv") != -1:
        m.weight.data.normal_(0.0, 0.02)
    elif classname.find("BatchNorm") != -1:
        m.weight.data.normal_(1.0, 0.02)
        m.bias.data.fill_(0)


class Generator(nn.Module):
    def __init__(self, nz=32, ngf=16, nc=3):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf * 4, 4, 1, 0, bias=False),
            nn.BatchNorm2d(ngf * 4),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 4, ngf * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ngf * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ngf),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf, nc, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
        self.apply(weights_init)

    def forward(self, input):
        return self.main(input)


def build_generator():
    x, labels = pictures(32, 32)
    z = torch.randn(10, 32)[labels] * 0.8 + 0.6 * torch.randn(32, 32)
    return Generator(), z[..., None, None], torch.tanh(x), None


class Discriminator(nn.Module):
    def __init__(self, ndf=16, nc=3):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(nc, ndf, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, ndf * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ndf * 2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf * 2, ndf * 4, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ndf * 4),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf * 4, 1, 4, 1, 0, bias=False),
        )
        self.apply(weights_init)

    def forward(self, x):
        return self.main(x).view(-1, 1).squeeze(1)


def build_discriminator():
    x, _ = pictures(32, 32)
    real = (torch.arange(32) < 16).float()
    x = torch.where(real[:, None, None, None] > 0, x, F.avg_pool2d(x, 5, 1, 2) * 1.5)
    return Discriminator(), x, real, F.binary_cross_entropy_with_logits


# A generator after StyleGAN2.
def fused_leaky_relu(input, bias, negative_slope=0.2, scale=2**0.5):
    rest_dim = [1] * (input.ndim - bias.ndim - 1)
    return F.leaky_relu(input + bias.view(1, bias.shape[0], *rest_dim), negative_slope) * scale


class PixelNorm(nn.Module):
    def forward(self, input):
        return input * torch.rsqrt(torch.mean(input**2, dim=1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    def __init__(self, in_dim, out_dim, bias_init=0, lr_mul=1, activation=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim).div_(lr_mul))
        self.bias = nn.Parameter(torch.full((out_dim,), float(bias_init)))
        self.activation, self.scale, self.lr_mul = activation, lr_mul / math.sqrt(in_dim), lr_mul

    def forward(self, input):
        if self.activation:
            return fused_leaky_relu(F.linear(input, self.weight * self.scale), self.bias * self.lr_mul)
        return F.linear(input, self.weight * self.scale, bias=self.bias * self.lr_mul)


class ModulatedConv2d(nn.Module):
    def __init__(self, in_channel, out_channel, kernel_size, style_dim, demodulate=True, upsample=False):
        super().__init__()
        self.scale, self.padding = 1 / math.sqrt(in_channel * kernel_size**2), kernel_size // 2
        self.weight = nn.Parameter(torch.randn(1, out_channel, in_channel, kernel_size, kernel_size))
        self.modulation = EqualLinear(style_dim, in_channel, bias_init=1)
        self.demodulate, self.upsample = demodulate, upsample

    def forward(self, input, style):
        batch, in_channel, height, width = input.shape
        if self.upsample:
            input = F.interpolate(input, scale_factor=2, mode="bilinear", align_corners=False)
            height, width = 2 * height, 2 * width
        style = self.modulation(style).view(batch, 1, in_channel, 1, 1)
        weight = self.scale * self.weight * style
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
        weight = weight.view(-1, *self.weight.shape[2:])
        input = input.reshape(1, batch * in_channel, height, width)
        out = F.conv2d(input, weight, padding=self.padding, groups=batch)
        return out.view(batch, -1, height, width)


class StyledConv(nn.Module):
    def __init__(self, in_channel, out_channel, style_dim, upsample=False):
        super().__init__()
        self.conv = ModulatedConv2d(in_channel, out_channel, 3, style_dim, upsample=upsample)
        self.noise, self.bias = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(out_channel))

    def forward(self, input, style):
        out = self.conv(input, style)
        out = out + self.noise * out.new_empty(len(out), 1, *out.shape[2:]).normal_()
        return fused_leaky_relu(out, self.bias)


class ToRGB(nn.Module):
    def __init__(self, in_channel, style_dim):
        super().__init__()
        self.conv = ModulatedConv2d(in_channel, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, input, style, skip=None):
        out = self.conv(input, style) + self.bias
        if skip is not None:
            out = out + F.interpolate(skip, scale_factor=2, mode="bilinear", align_corners=False)
        return out


class StyleGenerator(nn.Module):
    def __init__(self, style_dim=32, n_mlp=4, channels=(32, 32, 16)):
        super().__init__()
        mapping = [EqualLinear(style_dim, style_dim, lr_mul=0.01, activation=True) for _ in range(n_mlp)]
        self.style = nn.Sequential(PixelNorm(), *mapping)
        self.input = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.conv1 = StyledConv(channels[0], channels[0], style_dim)
        self.to_rgb1 = ToRGB(channels[0], style_dim)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for n_in, n_out in pairwise(channels):
            self.convs.append(StyledConv(n_in, n_out, style_dim, upsample=True))
            self.convs.append(StyledConv(n_out, n_out, style_dim))
            self.to_rgbs.append(ToRGB(n_out, style_dim))

    def forward(self, z):
        w = self.style(z)
        out = self.conv1(self.input.repeat(len(z), 1, 1, 1), w)
        skip = self.to_rgb1(out, w)
        for up, conv, to_rgb in zip(self.convs[::2], self.convs[1::2], self.to_rgbs, strict=True):
            out = conv(up(out, w), w)
            skip = to_rgb(out, w, skip)
        return skip, w


def build_stylegan():
    x, labels = pictures(16, 16)
    return StyleGenerator(), torch.randn(10, 32)[labels] + 0.3 * torch.randn(16, 32), x, None


def forget_lr_mul(model):
    for layer in model.style[1:]:
        layer.weight.data.mul_(layer.lr_mul)


# A variational autoencoder, with torch's own initialization.
class ConvVAE(nn.Module):
    def __init__(self, latent=16, widths=(16, 32, 48)):
        super().__init__()
        convs, ups, c = [], [], 3
        for w in widths:
            convs += [nn.Conv2d(c, w, 3, stride=2, padding=1), nn.ReLU()]
            c = w
        self.encoder, self.flat = nn.Sequential(*convs), widths[-1] * 4
        self.fc_mu, self.fc_logvar = nn.Linear(self.flat, latent), nn.Linear(self.flat, latent)
        self.decoder_input = nn.Linear(latent, self.flat)
        for w in (*widths[-2::-1], 16):
            ups += [nn.ConvTranspose2d(c, w, 3, 2, 1, output_padding=1), nn.BatchNorm2d(w), nn.ReLU()]
            c = w
        self.decoder = nn.Sequential(*ups, nn.Conv2d(c, 3, 3, padding=1))

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def forward(self, x):
        h = self.encoder(x).flatten(1)
        mu, logvar = self.fc_mu(h), self.fc_logvar(h)
        h = self.decoder_input(self.reparameterize(mu, logvar)).view(len(x), -1, 2, 2)
        return {"recon": self.decoder(h), "mu": mu, "logvar": logvar}


def vae_loss(out, x):
    kl = -0.5 * (1 + out["logvar"] - out["mu"].pow(2) - out["logvar"].exp()).sum(1).mean()
    return F.mse_loss(out["recon"], x) + 0.001 * kl


def build_vae():
    x, _ = pictures(32, 16)
    return ConvVAE(), x, x, vae_loss


_gain_0 = several(filled("stages.3.conv3.gain", 0.0), filled("stages.3.conv3.bias", 0.0))
SPECIMENS = (
    Specimen(
        "nfnet",
        build_nfnet,
        (
            Planted("two zeros", _gain_0, ("stages.3",)),
            Planted("skip gain 300", filled("stages.1.skipinit_gain", 300.0), ("stages.1",)),
            Planted("bias -8", filled("final_conv.bias", -8.0), ("final_conv",)),
        ),
        classes=10,
    ),
    Specimen(
        "dcgan_generator",
        build_generator,
        (
            Planted("tanh saturated", scaled("main.9.weight", 50.0), ("main.9", "main.10")),
            Planted("norm bias -8", filled("main.7.bias", -8.0), ("main.7", "main.6")),
            Planted("norm 0", filled("main.4.weight", 0.0), ("main.3", "main.4")),
        ),
    ),
    Specimen(
        "dcgan_discriminator",
        build_discriminator,
        (
            Planted("first zero", filled("main.0.weight", 0.0), ("main.0",)),
            Planted("detach", cut("main.3"), ("main.0", "main.2", "main.3")),
            Planted("norm 0", filled("main.6.weight", 0.0), ("main.6", "main.5", "main.8")),
        ),
    ),
    Specimen(
        "stylegan2",
        build_stylegan,
        (
            Planted("lr_mul forgotten", forget_lr_mul, ("style",)),
            Planted("rgb x 30", scaled("to_rgbs.1.conv.weight", 30.0), ("to_rgbs.1",)),
            Planted("detach", cut("style"), ("style",)),
        ),
    ),
    Specimen(
        "vae",
        build_vae,
        (
            Planted("bias -5", filled("encoder.2.bias", -5.0), ("encoder.2",)),
            Planted("log variance x 300", scaled("fc_logvar.weight", 300.0), ("fc_logvar",)),
            Planted("zeros", filled("decoder_input.weight", 0.0), ("decoder_input",)),
        ),
    ),
)
