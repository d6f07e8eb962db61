"""The one table of names: what architectures call the parts of a layer. A new architecture is at most one row here.

A name is the last component of a module's path, or its last two where one is too common ("output.dense").
"""

from dataclasses import dataclass

ATTENTION = {
    "q": ("q", "q_proj", "query", "query_proj", "q_lin", "q_linear", "q_attn", "wq", "Wq", "to_q", "q_b_proj"),
    "k": ("k", "k_proj", "key", "key_proj", "k_lin", "k_linear", "wk", "Wk", "to_k"),
    "v": ("v", "v_proj", "value", "value_proj", "v_lin", "v_linear", "wv", "Wv", "to_v"),
    "o": (
        "o",
        "o_proj",
        "out_proj",
        "out_lin",
        "dense",
        "proj",
        "projection_layer",
        "c_proj",
        "Wo",
        "wo",
        "to_out",
        "out",
    ),
}

# Where the attention's output projection is not its own child: the path beside it.
OUTPUT_BESIDE = ("output.dense",)

# A component of the path that says: these keys and values come from the other stack.
CROSS = ("crossattention", "cross_attention", "cross_attn", "encoder_attn", "EncDecAttention", "encoder_attention")


@dataclass(frozen=True)
class Fusion:
    """How a fused projection lays out its roles: `order` within each group; `groups` None means one per key head."""

    order: tuple[str, ...]
    groups: int | None = 1


CONTIGUOUS = Fusion(("q", "k", "v"))
PER_KEY_HEAD = Fusion(("q", "k", "v"), None)

# A class name before the dot where an architecture uses a familiar name in its own way.
FUSED_ATTENTION = {
    "c_attn": CONTIGUOUS,
    "qkv": CONTIGUOUS,
    "qkv_proj": CONTIGUOUS,
    "Wqkv": CONTIGUOUS,
    "query_key_value": PER_KEY_HEAD,
    "GPTBigCodeAttention.c_attn": PER_KEY_HEAD,
    "MiniMaxLightningAttention.qkv_proj": PER_KEY_HEAD,
    "DisentangledSelfAttention.in_proj": PER_KEY_HEAD,
    "CodeGenAttention.qkv_proj": Fusion(("q", "v", "k"), 4),
}

# "gate" is the branch that passes the activation, "up" the other one, or the only one.
FEED_FORWARD = {
    "gate_proj": "gate", "wi_0": "gate", "w1": "gate",
    "up_proj": "up", "wi": "up", "wi_1": "up", "w3": "up", "fc1": "up", "c_fc": "up", "fc_in": "up", "lin1": "up",
    "linear1": "up", "dense_h_to_4h": "up", "intermediate.dense": "up", "intermediate_dense": "up", "ffn": "up",
    "down_proj": "down", "wo": "down", "w2": "down", "fc2": "down", "c_proj": "down", "fc_out": "down", "lin2": "down",
    "linear2": "down", "dense_4h_to_h": "down", "output.dense": "down", "output_dense": "down", "ffn_output": "down",
    "output_linear": "down", "Wo": "down",
}  # fmt: skip
GATE_AND_UP = Fusion(("gate", "up"))
FUSED_FEED_FORWARD = {"gate_up_proj": GATE_AND_UP, "Wi": GATE_AND_UP, "input_linear": GATE_AND_UP}

# Three-dimensional parameters of a module that holds all experts at once.
EXPERTS = {"gate_up_proj": ("gate", "up"), "gate_proj": ("gate",), "up_proj": ("up",), "down_proj": ("down",)}

# Linears that choose experts: part of no role, and not of "all-linear".
ROUTERS = ("gate", "router", "shared_expert_gate", "wg", "classifier")

# Which sub-layer a norm that is a layer's own child belongs to.
NORM_OF = {
    "attention": ("input_layernorm", "ln_1", "layernorm_before", "attn_norm", "ln_attn", "norm1", "norm_1",
                  "layer_norm1", "rms_norm1", "self_attn_layer_norm", "sa_layer_norm", "attention_norm",
                  "attention_layernorm", "pre_self_attn_layernorm", "operator_norm", "temporal_pre_norm", "layer_norm",
                  "post_self_attn_layernorm"),
    "cross": ("encoder_attn_layer_norm", "cross_attention_layer_norm", "cross_attn_layer_norm", "ln_cross_attn",
              "pre_cross_attn_layernorm", "post_cross_attn_layernorm"),
    "ffn": ("post_attention_layernorm", "pre_feedforward_layernorm", "ln_2", "layernorm_after", "mlp_norm", "ln_mlp",
            "norm2", "norm_2", "layer_norm2", "rms_norm2", "final_layer_norm", "output_layer_norm", "ff_layer_norm",
            "full_layer_layer_norm", "ffn_norm", "feedforward_layernorm", "channel_pre_norm",
            "post_feedforward_layernorm", "post_mlp_layernorm", "LayerNorm", "ln"),
}  # fmt: skip
# Norms without a telling name, owned by the sub-layer they stand in.
PLAIN_NORMS = ("LayerNorm", "layer_norm", "norm", "ln", "self_attn_layer_norm")

# Before the sub-layer, whatever else the stack looks like; the others follow the stack (see `sublayers.before`).
NORM_BEFORE = (
    "input_layernorm", "layernorm_before", "layernorm_after", "attn_norm", "mlp_norm", "ln_attn", "ln_mlp",
    "post_attention_layernorm", "pre_feedforward_layernorm", "ffn_norm", "attention_norm", "attention_layernorm",
    "feedforward_layernorm", "pre_self_attn_layernorm", "pre_cross_attn_layernorm", "operator_norm",
    "temporal_pre_norm", "channel_pre_norm",
)  # fmt: skip
# After the residual was added.
NORM_AFTER_RESIDUAL = ("sa_layer_norm", "output_layer_norm", "full_layer_layer_norm", "output.LayerNorm")
# On the sub-layer's output: before the residual is added where the stack norms first, else after.
NORM_ON_OUTPUT = ("post_feedforward_layernorm", "post_self_attn_layernorm", "post_cross_attn_layernorm",
                  "post_mlp_layernorm")  # fmt: skip
# Beside one of these `post_attention_layernorm` is on the attention's output (Gemma 2 and 3, OLMo 2); elsewhere it is
# the norm before the feed-forward.
FEED_FORWARD_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
# Configuration fields that say whether an architecture with both forms norms before its sub-layers.
NORM_FIRST_FIELDS = ("do_layer_norm_before", "do_stable_layer_norm", "normalize_before")

EMBEDDINGS = ("embed_tokens", "word_embeddings", "word_embedding", "tok_embeddings", "tokens_embed", "token_embedding",
              "wte", "embed_in", "shared")  # fmt: skip
HEAD_WIDTHS = ("head_dim", "attention_head_size", "head_size", "key_value_proj_dim")
HEAD_COUNTS = ("num_attention_heads", "num_heads", "n_heads", "n_head")
