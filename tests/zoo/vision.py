"""Convolutional networks as repositories on image classification and diffusion write them."""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from zoo.specimen import Planted, Specimen, filled, scaled


def pictures(n, size, channels=3, classes=10):
    """Return standardized images, each a smooth pattern of its class and noise, and their labels."""
    labels = torch.arange(n) % classes
    patterns = F.interpolate(torch.randn(classes, channels, 4, 4), (size, size), mode="bilinear")
    x = patterns[labels] + 0.5 * torch.randn(n, channels, size, size)
    return (x - x.mean()) / x.std(), labels


def several(*plants):
    """Return what plants all of these."""
    return lambda model: [plant(model) for plant in plants]


def cut(name):
    """Return what detaches the outputs of a module."""
    return lambda model: model.get_submodule(name).register_forward_hook(lambda m, i, o: o.detach())


# A plain VGG.
cfgs = {"A": [16, 16, "M", 32, 32, "M", 48, 48, 48]}


class VGG(nn.Module):
    def __init__(self, features, num_classes=10, init_weights=True):
        super().__init__()
        self.features = features
        self.classifier = nn.Sequential(nn.Linear(48 * 16, 64), nn.ReLU(True), nn.Linear(64, num_classes))
        if init_weights:
            self._initialize_weights()

    def forward(self, x):
        x = self.features(x)
        return self.classifier(torch.flatten(x, 1))

    def _initialize_weights(self):
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                nn.init.constant_(m.bias, 0)
            elif isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0, 0.05)
                nn.init.constant_(m.bias, 0)


def make_layers(cfg):
    layers, in_channels = [], 3
    for v in cfg:
        if v == "M":
            layers += [nn.MaxPool2d(2, 2)]
        else:
            layers += [nn.Conv2d(in_channels, v, 3, padding=1), nn.ReLU(inplace=True)]
            in_channels = v
    return nn.Sequential(*layers)


def build_vgg():
    return VGG(make_layers(cfgs["A"])), *pictures(24, 16), None


# A ResNet for CIFAR with shortcuts of option A, whose branches end in a zero.
class LambdaLayer(nn.Module):
    def __init__(self, lambd):
        super().__init__()
        self.lambd = lambd

    def forward(self, x):
        return self.lambd(x)


class BasicBlock(nn.Module):
    def __init__(self, in_planes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            pad = (planes - in_planes) // 2
            self.shortcut = LambdaLayer(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad)))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    def __init__(self, num_blocks, num_classes=10):
        super().__init__()
        self.in_planes = 16
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._make_layer(16, num_blocks[0], 1)
        self.layer2 = self._make_layer(32, num_blocks[1], 2)
        self.layer3 = self._make_layer(64, num_blocks[2], 2)
        self.linear = nn.Linear(64, num_classes)
        self.apply(self._weights_init)
        for m in self.modules():
            if isinstance(m, BasicBlock):
                nn.init.zeros_(m.bn2.weight)

    @staticmethod
    def _weights_init(m):
        if isinstance(m, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)

    def _make_layer(self, planes, num_blocks, stride):
        layers = []
        for s in [stride] + [1] * (num_blocks - 1):
            layers.append(BasicBlock(self.in_planes, planes, s))
            self.in_planes = planes
        return nn.Sequential(*layers)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


def build_resnet():
    return ResNet([2, 2, 2]), *pictures(24, 16), None


# A residual network without norms, after Fixup.
class FixupBlock(nn.Module):
    def __init__(self, inplanes, planes, stride=1):
        super().__init__()
        self.bias1a, self.bias1b, self.bias2a, self.bias2b = (nn.Parameter(torch.zeros(1)) for _ in range(4))
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.scale = nn.Parameter(torch.ones(1))
        self.downsample = nn.AvgPool2d(1, stride=stride) if stride > 1 else None

    def forward(self, x):
        identity = x
        out = torch.relu(self.conv1(x + self.bias1a) + self.bias1b)
        out = self.conv2(out + self.bias2a) * self.scale + self.bias2b
        if self.downsample is not None:
            identity = self.downsample(x + self.bias1a)
            identity = torch.cat((identity, torch.zeros_like(identity)), 1)
        out += identity
        return torch.relu(out)


class FixupResNet(nn.Module):
    def __init__(self, layers=(3, 3, 3), num_classes=10):
        super().__init__()
        self.num_layers, width, inplanes = sum(layers), 16, 16
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bias1 = nn.Parameter(torch.zeros(1))
        blocks = []
        for stage, n in enumerate(layers):
            for i in range(n):
                blocks.append(FixupBlock(inplanes, width << stage, 2 if stage and not i else 1))
                inplanes = width << stage
        self.blocks = nn.ModuleList(blocks)
        self.bias2 = nn.Parameter(torch.zeros(1))
        self.fc = nn.Linear(inplanes, num_classes)
        for m in self.modules():
            if isinstance(m, FixupBlock):
                fan = m.conv1.weight.shape[0] * math.prod(m.conv1.weight.shape[2:])
                nn.init.normal_(m.conv1.weight, mean=0, std=math.sqrt(2 / fan) * self.num_layers**-0.5)
                nn.init.constant_(m.conv2.weight, 0)
        nn.init.constant_(self.fc.weight, 0)
        nn.init.constant_(self.fc.bias, 0)

    def forward(self, x):
        x = torch.relu(self.conv1(x) + self.bias1)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)) + self.bias2)


def build_fixup():
    return FixupResNet(), *pictures(24, 16), None


@torch.no_grad()
def forget_fixup(model):
    for block in model.blocks:
        block.conv1.weight.mul_(model.num_layers**0.5)
        block.conv2.weight.normal_(0, 2 * math.sqrt(2 / block.conv2.weight[0].numel()))


# A DenseNet.
class _DenseLayer(nn.Module):
    def __init__(self, n_in, growth, bn_size):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(n_in), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(n_in, bn_size * growth, kernel_size=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(bn_size * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bn_size * growth, growth, kernel_size=3, padding=1, bias=False)

    def forward(self, *prev):
        bottleneck = self.conv1(self.relu1(self.norm1(torch.cat(prev, 1))))
        return self.conv2(self.relu2(self.norm2(bottleneck)))


class _DenseBlock(nn.ModuleDict):
    def __init__(self, num_layers, n_in, growth):
        super().__init__()
        for i in range(num_layers):
            self.add_module(f"denselayer{i + 1}", _DenseLayer(n_in + i * growth, growth, 2))

    def forward(self, init_features):
        features = [init_features]
        for layer in self.values():
            features.append(layer(*features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    def __init__(self, growth=8, block_config=(4, 4), n=16):
        super().__init__()
        self.features = nn.Sequential(OrderedDict([("conv0", nn.Conv2d(3, n, 3, 1, 1, bias=False))]))
        for i, num_layers in enumerate(block_config, 1):
            self.features.add_module(f"denseblock{i}", _DenseBlock(num_layers, n, growth))
            n += num_layers * growth
            if i != len(block_config):
                parts = nn.BatchNorm2d(n), nn.ReLU(True), nn.Conv2d(n, n // 2, 1, bias=False), nn.AvgPool2d(2)
                self.features.add_module(f"transition{i}", nn.Sequential(*parts))
                n //= 2
        self.features.add_module("norm_final", nn.BatchNorm2d(n))
        self.classifier = nn.Linear(n, 10)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight)
            elif isinstance(m, nn.Linear):
                nn.init.constant_(m.bias, 0)

    def forward(self, x):
        out = F.relu(self.features(x), inplace=True)
        return self.classifier(F.adaptive_avg_pool2d(out, 1).flatten(1))


def build_densenet():
    return DenseNet(), *pictures(24, 16), None


# A MobileNetV3.
def hard_sigmoid(x):
    return F.relu6(x + 3.0) / 6.0


def _make_divisible(v, divisor=8):
    return max(divisor, int(v + divisor / 2) // divisor * divisor)


class SELayer(nn.Module):
    def __init__(self, channel, reduction=4):
        super().__init__()
        self.reduce = nn.Conv2d(channel, _make_divisible(channel // reduction), 1)
        self.expand = nn.Conv2d(_make_divisible(channel // reduction), channel, 1)

    def forward(self, x):
        y = x.mean((2, 3), keepdim=True)
        return x * hard_sigmoid(self.expand(F.relu(self.reduce(y))))


class InvertedResidual(nn.Module):
    def __init__(self, inp, hidden, oup, k, stride, use_se, use_hs):
        super().__init__()
        self.identity, self.use_hs = stride == 1 and inp == oup, use_hs
        self.pw, self.bn1 = nn.Conv2d(inp, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.dw = nn.Conv2d(hidden, hidden, k, stride, (k - 1) // 2, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.se = SELayer(hidden) if use_se else nn.Identity()
        self.pwl, self.bn3 = nn.Conv2d(hidden, oup, 1, bias=False), nn.BatchNorm2d(oup)

    def act(self, x):
        return x * hard_sigmoid(x) if self.use_hs else F.relu(x)

    def forward(self, x):
        y = self.act(self.bn1(self.pw(x)))
        y = self.bn3(self.pwl(self.act(self.se(self.bn2(self.dw(y))))))
        return x + y if self.identity else y


class MobileNetV3(nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inp, self.blocks = 16, nn.ModuleList()
        for k, exp, c, se, hs, s in settings:
            self.blocks.append(InvertedResidual(inp, exp, c, k, s, se, hs))
            inp = c
        self.conv = nn.Sequential(nn.Conv2d(inp, 64, 1, bias=False), nn.BatchNorm2d(64))
        self.classifier = nn.Sequential(nn.Linear(64, 96), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(96, 10))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                n = m.kernel_size[0] * m.kernel_size[1] * m.out_channels
                m.weight.data.normal_(0, math.sqrt(2.0 / n))
                if m.bias is not None:
                    m.bias.data.zero_()
            elif isinstance(m, nn.Linear):
                m.weight.data.normal_(0, 0.1)
                m.bias.data.zero_()

    def forward(self, x):
        x = self.bn(self.stem(x))
        x = x * hard_sigmoid(x)
        for block in self.blocks:
            x = block(x)
        x = self.conv(x)
        return self.classifier((x * hard_sigmoid(x)).mean([2, 3]))


def build_mobilenet():
    settings = [[3, 32, 16, 1, 0, 1], [3, 48, 24, 0, 0, 2], [3, 64, 24, 0, 0, 1]]
    settings += [[5, 64, 32, 1, 1, 2], [5, 96, 32, 1, 1, 1]]
    return MobileNetV3(settings), *pictures(24, 16), None


_stuck_resnet = several(filled("layer2.1.conv2.weight", 0.0), filled("layer2.1.bn2.weight", 0.0))
SPECIMENS = (
    Specimen(
        "vgg",
        build_vgg,
        (
            Planted("bias -5", filled("features.7.bias", -5.0), ("features.7",)),
            Planted("x 0.01", scaled("features.5.weight", 0.01), ("features.5",)),
            Planted("constant", filled("features.10.weight", 0.05), ("features.10",)),
        ),
        classes=10,
    ),
    Specimen(
        "resnet_cifar",
        build_resnet,
        (
            Planted("detach", cut("layer1"), ("conv1", "layer1")),
            Planted("two zeros", _stuck_resnet, ("layer2.1",)),
            Planted("norm bias -5", filled("bn1.bias", -5.0), ("bn1", "conv1")),
        ),
        classes=10,
    ),
    Specimen(
        "fixup",
        build_fixup,
        (
            Planted("Fixup forgotten", forget_fixup, ("blocks",)),
            Planted("two zeros", filled("blocks.4.conv1.weight", 0.0), ("blocks.4",)),
            Planted("dead stem", filled("bias1", -5.0), ("conv1",)),
        ),
        classes=10,
    ),
    Specimen(
        "densenet",
        build_densenet,
        (
            Planted("dead", filled("features.norm_final.bias", -5.0), ("features.norm_final",)),
            Planted("detach", cut("features.transition1"), ("features.denseblock1", "features.conv0")),
            Planted("zero", filled("features.transition1.2.weight", 0.0), ("features.transition1.2",)),
        ),
        classes=10,
    ),
    Specimen(
        "mobilenet_v3",
        build_mobilenet,
        (
            Planted("dead gate", filled("blocks.3.se.expand.bias", -20.0), ("blocks.3",)),
            Planted("detach", cut("blocks.1"), ("stem", "blocks.0", "blocks.1")),
            Planted("constant", filled("classifier.0.weight", 0.1), ("classifier.0",)),
        ),
        classes=10,
    ),
)
