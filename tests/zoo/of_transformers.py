"""Small models of `transformers`, one of each kind, from configurations alone: nothing is downloaded."""

from functools import partial
from typing import Any

import torch
from torch import nn

from zoo.batches import (
    CLASSES,
    LENGTH,
    MASK,
    VOCABULARY,
    Batch,
    Entries,
    Entry,
    digits,
    hidden_token,
    logit_loss,
    next_token,
    own_loss,
    tokens,
    tones,
    translation,
)
from zoo.libraries import transformers

WIDTH, LAYERS, HEADS = 64, 4, 4
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
SIZES |= {"intermediate_size": 2 * WIDTH}
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "mask_token_id": MASK,
    **SIZES,
}
TEXT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
GROUPED = {"num_key_value_heads": 2, "head_dim": WIDTH // HEADS}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": WIDTH}
SEQ2SEQ = {"d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "decoder_attention_heads": HEADS}
SEQ2SEQ |= {"encoder_attention_heads": HEADS, "encoder_ffn_dim": 2 * WIDTH, "decoder_ffn_dim": 2 * WIDTH}
T5 = {"d_model": WIDTH, "d_kv": 16, "d_ff": 2 * WIDTH, "num_layers": 2, "num_heads": HEADS}
# These two refuse names that others take.
XLNET = {"vocab_size": VOCABULARY, "d_model": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "d_inner": 2 * WIDTH}
FUNNEL = {"vocab_size": VOCABULARY, "block_sizes": [2, 2], "d_model": WIDTH, "n_head": HEADS, "d_head": 16}
FUNNEL |= {"d_inner": 2 * WIDTH}
IMAGE: dict[str, Any] = {"image_size": 32, "patch_size": 8, "num_labels": CLASSES, **SIZES}
STAGES = {"num_labels": CLASSES, "depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 48, 64]}
SWIN = {"num_labels": CLASSES, "image_size": 32, "patch_size": 2, "embed_dim": 16, "window_size": 4}
SWIN |= {"depths": [1, 2, 2], "num_heads": [2, 2, 4]}
PYRAMID = STAGES | {"num_encoder_blocks": 4, "num_attention_heads": [1, 2, 2, 4]}
CONVS = {"conv_dim": [32, 32, 32], "conv_stride": [5, 4, 2], "conv_kernel": [10, 8, 4]}
SOUND = SIZES | CONVS | {"num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_labels": CLASSES}
SOUND |= {"num_conv_pos_embedding_groups": 4, "classifier_proj_size": WIDTH, "mask_time_prob": 0.0}

# Decoders that guess the next token: what each needs beside TEXT.
DECODERS: dict[str, dict] = {
    "gpt2": {},
    "openai-gpt": {},
    "gpt_neo": {"num_layers": LAYERS, "attention_types": [[["global", "local"], 2]]},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 8},
    "gpt_bigcode": {},
    "codegen": {"rotary_dim": 8},
    "bloom": {},
    "mpt": {},
    "opt": {"word_embed_proj_dim": WIDTH, "ffn_dim": 2 * WIDTH},
    "xglm": {"d_model": WIDTH, "num_layers": LAYERS, "attention_heads": HEADS, "ffn_dim": 2 * WIDTH},
    "ctrl": {"dff": 2 * WIDTH},
    "biogpt": {},
    "falcon": {},
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "gemma": GROUPED,
    "gemma2": GROUPED,
    "gemma3_text": GROUPED,
    "phi": {},
    "phi3": GROUPED,
    "stablelm": GROUPED,
    "starcoder2": GROUPED,
    "cohere": GROUPED,
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "granite": GROUPED,
    "glm": GROUPED,
    "nemotron": GROUPED,
    "smollm3": GROUPED,
    "persimmon": {},
    "mixtral": GROUPED | EXPERTS,
    "qwen2_moe": GROUPED | EXPERTS | {"shared_expert_intermediate_size": WIDTH},
    "olmoe": GROUPED | EXPERTS,
    "gpt_oss": GROUPED | EXPERTS,
    "mamba": {"state_size": 8, "expand": 2},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
    "rwkv": {"attention_hidden_size": WIDTH, "context_length": 64, "num_hidden_layers": 2},
    "recurrent_gemma": GROUPED | {"lru_width": WIDTH, "num_hidden_layers": 3, "attention_window_size": 16},
    "lfm2": GROUPED,
    "xlnet": XLNET,
}
# Encoders that guess hidden tokens.
ENCODERS: dict[str, dict] = {
    "bert": {},
    "roberta": {"max_position_embeddings": 80},
    "electra": {"embedding_size": 32},
    "albert": {"embedding_size": 32},
    "distilbert": {"hidden_dim": 2 * WIDTH},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "mpnet": {"max_position_embeddings": 80},
    "fnet": {},
    "convbert": {"embedding_size": WIDTH},
    "modernbert": {},
    "squeezebert": {"embedding_size": WIDTH},
    "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    "roformer": {"embedding_size": WIDTH},
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "nystromformer": {"segment_means_seq_len": LENGTH, "num_landmarks": LENGTH},
    "funnel": FUNNEL,
    "esm": {"max_position_embeddings": 80, "token_dropout": False},
}
TRANSLATORS: dict[str, dict] = {
    "t5": T5,
    "mt5": T5,
    "switch_transformers": T5 | {"num_experts": 4, "num_sparse_encoder_layers": 1},
    "bart": SEQ2SEQ,
    "mbart": SEQ2SEQ,
    "pegasus": SEQ2SEQ,
    "marian": SEQ2SEQ,
    "blenderbot": SEQ2SEQ,
    "led": SEQ2SEQ | {"attention_window": 8},
}
# Classifiers of images: the size of the images, and their configuration.
VISION: dict[str, tuple[int, dict]] = {
    "vit": (32, IMAGE),
    "deit": (32, IMAGE | {"architectures": ["DeiTForImageClassification"]}),
    "beit": (32, IMAGE),
    "dinov2": (32, IMAGE),
    "siglip": (32, {"num_labels": CLASSES, "vision_config": IMAGE}),
    "hiera": (64, {"num_labels": CLASSES, "image_size": [64, 64], "embed_dim": 16}),
    "swin": (32, SWIN),
    "swinv2": (32, SWIN),
    "focalnet": (32, SWIN | {"focal_levels": [1, 1, 1], "focal_windows": [3, 3, 3]}),
    "convnext": (64, STAGES),
    "convnextv2": (64, STAGES),
    "resnet": (64, STAGES | {"embedding_size": 16, "layer_type": "basic"}),
    "regnet": (64, STAGES | {"embedding_size": 16, "groups_width": 8}),
    "bit": (64, STAGES | {"embedding_size": 16, "num_groups": 8}),
    "mobilenet_v2": (64, {"num_labels": CLASSES, "depth_multiplier": 0.35}),
    "poolformer": (64, STAGES),
    "pvt": (64, PYRAMID | {"image_size": 64}),
    "segformer": (64, PYRAMID),
    "cvt": (
        64,
        {"num_labels": CLASSES, "embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
    ),
}
SOUNDS: dict[str, dict] = {"wav2vec2": {}, "hubert": {}, "wavlm": {}, "sew": {"squeeze_factor": 2}}


def build(auto: str, kind: str, settings: dict) -> nn.Module:
    """Build the model of a kind by one of the library's classes for a task."""
    return getattr(transformers, auto).from_config(transformers.AutoConfig.for_model(kind, **settings))


def entry(auto: str, kind: str, settings: dict, batch: Any) -> Entry:
    return Entry("transformers", kind, partial(build, auto, kind, settings), batch)


def entries() -> Entries:
    """Yield all models."""
    for kind, own in DECODERS.items():
        yield entry("AutoModelForCausalLM", kind, own if own is XLNET else TEXT | own, next_token)
    for kind, own in ENCODERS.items():
        yield entry("AutoModelForMaskedLM", kind, own if own is FUNNEL else TEXT | own, hidden_token)
    for kind, own in TRANSLATORS.items():
        yield entry("AutoModelForSeq2SeqLM", kind, TEXT | own, translation)
    for kind, (size, settings) in VISION.items():
        batch = partial(digits, size, "pixel_values", logit_loss)
        yield entry("AutoModelForImageClassification", kind, settings, batch)
    for kind, own in SOUNDS.items():
        yield entry("AutoModelForAudioClassification", kind, SOUND | own, tones)
    yield from several_senses()


def several_senses() -> Entries:
    """Yield models whose inputs or outputs are of more than one kind."""
    towers = {"text_config": TEXT, "vision_config": IMAGE, "projection_dim": 32}
    yield entry("AutoModel", "clip", towers, captions)
    spectrum = {"num_mel_bins": 16, "max_source_positions": 32, "max_target_positions": 64}
    yield entry("AutoModelForSpeechSeq2Seq", "whisper", TEXT | SEQ2SEQ | spectrum, spoken)
    patches = {"num_mel_bins": 32, "max_length": 64, "num_labels": CLASSES, **SIZES}
    yield entry("AutoModelForAudioClassification", "audio-spectrogram-transformer", patches, spectrogram)
    backbone = transformers.AutoConfig.for_model("resnet", **STAGES, embedding_size=16, layer_type="basic")
    found = {"backbone_config": backbone, "num_queries": 6, "num_labels": CLASSES, **SEQ2SEQ}
    yield entry("AutoModelForObjectDetection", "detr", found, boxes)
    yield entry("AutoModelForObjectDetection", "yolos", IMAGE | {"image_size": [32, 32]}, small_boxes)


def captions() -> Batch:
    """Return images, and texts to match with them."""
    inputs = digits(32).inputs
    return Batch({"pixel_values": inputs, "input_ids": tokens()[:, :-1], "return_loss": True}, None, own_loss)


def spectrogram(frames: int = 64, bands: int = 32) -> Batch:
    """Return the logarithms of power in bands of frequency, standardized, for each note."""
    waves = tones(frames * 2 * bands)
    cut = waves.inputs["input_values"].unfold(1, 2 * bands, 2 * bands)
    logs = torch.fft.rfft(cut).abs().square()[..., :bands].add(1e-3).log()
    return Batch({"input_values": (logs - logs.mean()) / logs.std()}, waves.targets, logit_loss)


def spoken() -> Batch:
    """Return spectrograms, and a text to write about them."""
    lines, logs = tokens(), spectrogram(64, 16).inputs["input_values"].transpose(1, 2)
    return Batch({"input_features": logs, "decoder_input_ids": lines[:, :-1]}, lines[:, 1:], logit_loss)


def boxes(size: int = 64) -> Batch:
    """Return images, each with one box around the whole digit."""
    images = digits(size)
    box = torch.tensor([[0.5, 0.5, 0.9, 0.9]])
    labels = [{"class_labels": label[None], "boxes": box} for label in images.targets]
    return Batch({"pixel_values": images.inputs, "labels": labels}, None, own_loss)


small_boxes = partial(boxes, 32)
