"""Tiny random models of many architectures, whose parameters are often called otherwise than their stored tensors."""

from __future__ import annotations

from typing import Any

import transformers as tf

LM = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
ENCODER = {key: value for key, value in LM.items() if key != "num_key_value_heads"} | {"max_position_embeddings": 40}
EYE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
CLIP_EYE = {"model_type": "clip_vision_model", **EYE}
LLAMA = {"model_type": "llama", **LM}
ROPE = {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
QWEN_EYE = {"depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "patch_size": 14}
QWEN25_EYE = {
    "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14,
    "fullatt_block_indexes": [1],
}  # fmt: skip
IDS = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
EARS = {
    "conv_dim": (8, 8), "conv_kernel": (3, 3), "conv_stride": (2, 2), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
WHISPER = {
    "vocab_size": 64, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8,
    "max_source_positions": 20, "max_target_positions": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip
SMALL = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}

# Kind of model, class of the model, and settings of its configuration.
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("text", "LlamaForCausalLM", LM),
    "gpt2": ("text", "GPT2LMHeadModel", {**SMALL, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}),
    "gpt_neox": ("text", "GPTNeoXForCausalLM", ENCODER),
    "opt": ("text", "OPTForCausalLM", {**ENCODER, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": ("text", "BloomForCausalLM", {**SMALL, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("text", "FalconForCausalLM", ENCODER),
    "phi": ("text", "PhiForCausalLM", LM),
    "t5": (
        "text",
        "T5ForConditionalGeneration",
        {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    ),
    "bart": (
        "text",
        "BartForConditionalGeneration",
        {k: v for k, v in WHISPER.items() if "max_" not in k and "mel" not in k} | {"max_position_embeddings": 40},
    ),
    "bert": ("text", "BertForSequenceClassification", ENCODER),
    "roberta": ("text", "RobertaForMaskedLM", ENCODER),
    "deberta_v2": ("text", "DebertaV2ForSequenceClassification", ENCODER),
    "mamba": ("state space", "MambaForCausalLM", {**SMALL, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2}),
    "vit": ("vision", "ViTForImageClassification", EYE),
    "dinov2": ("vision", "Dinov2ForImageClassification", {**EYE, "use_swiglu_ffn": True}),
    "clip": ("vision", "CLIPModel", {"text_config": ENCODER, "vision_config": EYE, "projection_dim": 8}),
    "siglip": ("vision", "SiglipModel", {"text_config": {**ENCODER, "projection_size": 16}, "vision_config": EYE}),
    "swin": (
        "vision",
        "SwinForImageClassification",
        {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    ),
    "convnext": (
        "vision",
        "ConvNextForImageClassification",
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    ),
    "whisper": ("audio", "WhisperForConditionalGeneration", WHISPER),
    "wav2vec2": (
        "audio",
        "Wav2Vec2ForCTC",
        {**{k: v for k, v in ENCODER.items() if k != "max_position_embeddings"}, **EARS},
    ),
    "gemma3": (
        "vision-language",
        "Gemma3ForConditionalGeneration",
        {
            "text_config": {**LM, "head_dim": 8},
            "vision_config": EYE,
            "mm_tokens_per_image": 4,
            "image_token_index": 63,
            "boi_token_index": 62,
            "eoi_token_index": 61,
        },
    ),
    "llava": (
        "vision-language",
        "LlavaForConditionalGeneration",
        {"text_config": LLAMA, "vision_config": CLIP_EYE, "image_token_index": 63},
    ),
    "llava_next": (
        "vision-language",
        "LlavaNextForConditionalGeneration",
        {"text_config": LLAMA, "vision_config": CLIP_EYE, "image_token_index": 63},
    ),
    "mistral3": (
        "vision-language",
        "Mistral3ForConditionalGeneration",
        {
            "text_config": {"model_type": "mistral", **LM, "head_dim": 8},
            "vision_config": {"model_type": "pixtral", **EYE},
            "image_token_index": 63,
        },
    ),
    "paligemma": (
        "vision-language",
        "PaliGemmaForConditionalGeneration",
        {
            "text_config": {"model_type": "gemma", **LM, "head_dim": 8},
            "vision_config": {"model_type": "siglip_vision_model", **EYE},
            "projection_dim": 32,
            "image_token_index": 63,
        },
    ),
    "qwen2_vl": (
        "vision-language",
        "Qwen2VLForConditionalGeneration",
        {"text_config": {**LM, **ROPE}, "vision_config": QWEN_EYE, **IDS},
    ),
    "qwen2_5_vl": (
        "vision-language",
        "Qwen2_5_VLForConditionalGeneration",
        {"text_config": {**LM, **ROPE}, "vision_config": QWEN25_EYE, **IDS},
    ),
    "mixtral": ("mixture of experts", "MixtralForCausalLM", {**LM, "head_dim": 8, "num_local_experts": 4}),
    "qwen2_moe": (
        "mixture of experts",
        "Qwen2MoeForCausalLM",
        {
            **LM,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
        },
    ),
    "qwen3_moe": (
        "mixture of experts",
        "Qwen3MoeForCausalLM",
        {**LM, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    ),
}


def model_of(name: str) -> Any:
    """A random model of an architecture."""
    _, class_name, settings = ARCHITECTURES[name]
    kind: Any = getattr(tf, class_name)
    return kind(kind.config_class(**settings))
