"""Small models of `timm`, one of each kind, with random weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from zoo.batches import CLASSES, Entries, Entry, digits
from zoo.libraries import timm

models = timm.models
TOKENS = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4}
MIXED = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "num_blocks": 4}
DEPTHS, WIDTHS = (1, 1, 2, 1), (16, 32, 48, 64)
STAGES = {"depths": DEPTHS, "dims": WIDTHS}
WINDOWS = {"img_size": 32, "patch_size": 2, "embed_dim": 16, "depths": (1, 2, 2), "num_heads": (2, 2, 4)}
WINDOWS |= {"window_size": 4}
PYRAMID = {"embed_dims": WIDTHS, "depths": DEPTHS, "num_heads": (1, 2, 3, 4)}
NARROW = {"channels": (16, 32, 64, 128)}

# The size of the images, and what makes a model of this name small.
MODELS: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet18": (64, NARROW),
    "resnet26": (64, NARROW),
    "seresnet18": (64, NARROW),
    "wide_resnet50_2": (64, NARROW | {"layers": DEPTHS}),
    "res2net50_14w_8s": (64, NARROW | {"layers": DEPTHS}),
    "resnest14d": (64, NARROW),
    "resnetv2_18": (64, NARROW),
    "densenet121": (64, {"growth_rate": 12, "block_config": (2, 2, 2, 2)}),
    "dla34": (64, {"channels": (16, 32, 32, 48, 48, 64)}),
    "efficientnet_b0": (32, {}),
    "tf_efficientnetv2_b0": (32, {}),
    "mobilenetv2_035": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "mnasnet_small": (64, {}),
    "ghostnet_050": (64, {}),
    "lcnet_050": (64, {}),
    "regnetx_002": (64, {}),
    "regnety_002": (64, {}),
    "repvgg_a0": (32, {}),
    "inception_next_atto": (64, {}),
    "convnext_atto": (64, STAGES),
    "convnextv2_atto": (64, STAGES),
    "edgenext_xx_small": (64, {}),
    "vit_tiny_patch16_224": (32, TOKENS),
    "deit_tiny_distilled_patch16_224": (32, TOKENS),
    "deit3_small_patch16_224": (32, TOKENS),
    "beit_base_patch16_224": (32, TOKENS),
    "eva02_tiny_patch14_224": (32, TOKENS),
    "cait_xxs24_224": (32, TOKENS),
    "xcit_nano_12_p16_224": (32, TOKENS),
    "swin_tiny_patch4_window7_224": (32, WINDOWS),
    "swinv2_tiny_window8_256": (32, WINDOWS),
    "pvt_v2_b0": (64, PYRAMID),
    "twins_pcpvt_small": (64, PYRAMID | {"img_size": 64}),
    "davit_tiny": (64, PYRAMID),
    "mobilevit_xxs": (64, {"output_stride": 16}),
    "levit_128s": (64, {"img_size": 64}),
    "pit_ti_224": (64, {"img_size": 64}),
}
FREE = {"depths": DEPTHS, "channels": (32, 64, 96, 128), "stem_chs": 32, "group_size": 16, "attn_layer": "se"}
FREE |= {"attn_kwargs": {"rd_ratio": 0.5}}
VGG = {"cfg": [16, "M", 32, "M", 64, 64, "M", 64, 64, "M", 64, 64, "M"], "mlp_ratio": 0.05}
GATED = {
    "block_layer": models.mlp_mixer.SpatialGatingBlock,
    "mlp_layer": models.mlp_mixer.GatedMlp,
    "mlp_ratio": 6,
}
PLAIN = {"block_layer": models.mlp_mixer.ResBlock, "norm_layer": models.mlp_mixer.Affine, "mlp_ratio": 4}
CROSSED = {"patch_size": (4, 8), "embed_dim": (32, 64), "depth": ((1, 2, 1),), "num_heads": (2, 4)}
INNER = {"inner_dim": 16, "num_heads_inner": 4, "num_heads_outer": 4, "embed_dim": 64, "depth": 4}

HALVES = {"embed_dim": (32, 32, 64, 64), "depths": DEPTHS, "stem_width": 16}
EIGHTS = {"embed_dims": (32, 32, 64, 64), "serial_depths": (1, 1, 1, 2), "patch_size": 4, "img_size": 32}
POOLED = {"norm_layers": timm.layers.GroupNorm1, "downsample_norm": None, "layer_scale_init_values": 1e-5}
OUTLOOK = {"layers": [1, 1, 1, 1], "embed_dims": [32, 64, 64, 64], "num_heads": [2, 4, 4, 4]}

# Those whose functions fix their sizes: the class, with what the function gives it.
CLASSES_OF: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "vgg11": (models.vgg.VGG, VGG),
    "vgg11_bn": (models.vgg.VGG, VGG | {"norm_layer": nn.BatchNorm2d}),
    "nfnet": (
        models.nfnet.NormFreeNet,
        {"cfg": models.nfnet.NfCfg(**FREE, extra_conv=True, gamma_in_act=True)},
    ),
    "dm_nfnet": (
        models.nfnet.NormFreeNet,
        {"cfg": models.nfnet.NfCfg(**FREE, act_layer="gelu", skipinit=True)},
    ),
    "resnetv2_bit": (
        models.resnetv2.ResNetV2,
        {"layers": DEPTHS, "channels": (128, 128, 256, 256), "stem_type": "fixed"},
    ),
    "mixer": (models.mlp_mixer.MlpMixer, MIXED),
    "gmlp": (models.mlp_mixer.MlpMixer, MIXED | GATED),
    "resmlp": (models.mlp_mixer.MlpMixer, MIXED | PLAIN),
    "crossvit": (models.crossvit.CrossVit, CROSSED | {"img_size": 32}),
    "coatnet": (models.maxxvit.MaxxVit, {"cfg": models.maxxvit.MaxxVitCfg(**HALVES), "img_size": 64}),
    "maxvit": (
        models.maxxvit.MaxxVit,
        {
            "cfg": models.maxxvit.MaxxVitCfg(**HALVES | {"depths": (1, 1, 1, 1)}, block_type=("M",) * 4),
            "img_size": 64,
        },
    ),
    "coat": (models.coat.CoaT, EIGHTS),
    "poolformer_tiny": (models.metaformer.MetaFormer, STAGES | POOLED),
    "metaformer_tiny": (models.metaformer.MetaFormer, STAGES),
    "focalnet_tiny": (models.focalnet.FocalNet, {"embed_dim": 16, "depths": DEPTHS}),
    "fastvit": (models.fastvit.FastVit, {"embed_dims": (16, 32, 64, 128), "layers": DEPTHS}),
    "volo": (models.volo.VOLO, OUTLOOK | {"img_size": 64}),
    "convmixer": (models.convmixer.ConvMixer, {"dim": 64, "depth": 4, "kernel_size": 5, "patch_size": 4}),
    "tnt": (models.tnt.TNT, INNER | {"img_size": 32, "patch_size": 8}),
}


def entries() -> Entries:
    """Yield all models."""
    for name, (size, settings) in MODELS.items():
        build = partial(timm.create_model, name, pretrained=False, num_classes=CLASSES, **settings)
        yield Entry("timm", name, build, partial(digits, size))
    for name, (constructor, settings) in CLASSES_OF.items():
        build, size = partial(constructor, num_classes=CLASSES, **settings), settings.get("img_size", 64)
        yield Entry("timm", name, build, partial(digits, size))
