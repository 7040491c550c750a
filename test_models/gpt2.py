"""llama.cpp's `gpt2` architecture, for training and for GGUF.

Learned positions, LayerNorm, fused query, key and value, GELU in its tanh form, biases
everywhere, the output tied to the embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Shape:
    """Hyperparameters; the names are those of the GGUF keys."""

    n_vocab: int = 2048
    n_ctx: int = 256
    n_embd: int = 256
    n_layer: int = 4
    n_ff: int = 1024
    n_head: int = 8
    norm_eps: float = 1e-5


def tensors(shape: Shape) -> dict[str, tuple[tuple[int, ...], float]]:
    """Sizes of the tensors by GGUF name, in the file's order, matrices as [n_out, n_in].

    Beside each size is what it starts from: a matrix's standard deviation, a vector's value.
    """
    embd, residual = shape.n_embd, 0.04 / (2 * shape.n_layer) ** 0.5
    out = {"token_embd.weight": ((shape.n_vocab, embd), 0.02),
           "position_embd.weight": ((shape.n_ctx, embd), 0.02)}

    def linear(name: str, n_out: int, n_in: int, std: float) -> dict:
        return {f"{name}.weight": ((n_out, n_in), std), f"{name}.bias": ((n_out,), 0.0)}

    def norm(name: str) -> dict:
        return {f"{name}.weight": ((embd,), 1.0), f"{name}.bias": ((embd,), 0.0)}

    for i in range(shape.n_layer):
        out |= norm(f"blk.{i}.attn_norm")
        out |= linear(f"blk.{i}.attn_qkv", 3 * embd, embd, 0.04)
        out |= linear(f"blk.{i}.attn_output", embd, embd, residual)
        out |= norm(f"blk.{i}.ffn_norm")
        out |= linear(f"blk.{i}.ffn_up", shape.n_ff, embd, 0.04)
        out |= linear(f"blk.{i}.ffn_down", embd, shape.n_ff, residual)
    return out | norm("output_norm")


def logits(params, shape: Shape, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[batch, n_ctx, n_vocab] of tokens, [batch, n_ctx]; mask, [batch, n_ctx, n_ctx], says which
    positions each one attends to, and so how far it is from the start of its document."""
    head = shape.n_embd // shape.n_head

    def linear(x, name):
        return F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x.float(), (shape.n_embd,), params[f"{name}.weight"],
                            params[f"{name}.bias"], shape.norm_eps)

    x = F.embedding(tokens, params["token_embd.weight"])
    x = x + F.embedding(mask.sum(-1) - 1, params["position_embd.weight"])
    for i in range(shape.n_layer):
        qkv = linear(norm(x, f"blk.{i}.attn_norm"), f"blk.{i}.attn_qkv")
        q, k, v = (part.unflatten(-1, (-1, head)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        x = x + linear(a.transpose(1, 2).flatten(2), f"blk.{i}.attn_output")
        up = linear(norm(x, f"blk.{i}.ffn_norm"), f"blk.{i}.ffn_up")
        x = x + linear(F.gelu(up, approximate="tanh"), f"blk.{i}.ffn_down")
    return F.linear(norm(x, "output_norm"), params["token_embd.weight"])


def write_keys(w, shape: Shape) -> None:
    """Gives a GGUFWriter the architecture's own keys."""
    w.add_context_length(shape.n_ctx)
    w.add_embedding_length(shape.n_embd)
    w.add_block_count(shape.n_layer)
    w.add_feed_forward_length(shape.n_ff)
    w.add_head_count(shape.n_head)
    w.add_layer_norm_eps(shape.norm_eps)
