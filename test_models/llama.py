"""llama.cpp's `llama` architecture, for training and for GGUF.

RMSNorm, RoPE over adjacent pairs, grouped-query attention, SwiGLU, an untied output.
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
    n_layer: int = 6
    n_ff: int = 1536
    n_head: int = 8
    n_head_kv: int = 4
    norm_eps: float = 1e-5
    rope_base: float = 10000.0


def tensors(shape: Shape) -> dict[str, tuple[tuple[int, ...], float]]:
    """Sizes of the tensors by GGUF name, in the file's order, matrices as [n_out, n_in].

    Beside each size is what it starts from: a matrix's standard deviation, a vector's value.
    """
    embd, kv = shape.n_embd, shape.n_embd // shape.n_head * shape.n_head_kv
    residual = 0.04 / (2 * shape.n_layer) ** 0.5
    out = {"token_embd.weight": ((shape.n_vocab, embd), 0.02)}
    for i in range(shape.n_layer):
        out |= {
            f"blk.{i}.attn_norm.weight": ((embd,), 1.0),
            f"blk.{i}.attn_q.weight": ((embd, embd), 0.04),
            f"blk.{i}.attn_k.weight": ((kv, embd), 0.04),
            f"blk.{i}.attn_v.weight": ((kv, embd), 0.04),
            f"blk.{i}.attn_output.weight": ((embd, embd), residual),
            f"blk.{i}.ffn_norm.weight": ((embd,), 1.0),
            f"blk.{i}.ffn_gate.weight": ((shape.n_ff, embd), 0.04),
            f"blk.{i}.ffn_up.weight": ((shape.n_ff, embd), 0.04),
            f"blk.{i}.ffn_down.weight": ((embd, shape.n_ff), residual),
        }
    return out | {"output_norm.weight": ((embd,), 1.0),
                  "output.weight": ((shape.n_vocab, embd), 0.02)}


def rope_table(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, [n_ctx, head_size / 2]."""
    head = shape.n_embd // shape.n_head
    freq = shape.rope_base ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    angle = torch.outer(torch.arange(shape.n_ctx, dtype=torch.float64), freq)
    return angle.cos().float(), angle.sin().float()


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates the pairs (x[2i], x[2i+1]) of x, [batch, n_ctx, heads, head_size]."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def logits(params, shape: Shape, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[batch, n_ctx, n_vocab] of tokens, [batch, n_ctx]; mask, [batch, n_ctx, n_ctx], says which
    positions each one attends to. Positions count from the row's start: RoPE sees only
    differences."""
    head = shape.n_embd // shape.n_head
    cos, sin = rope_table(shape)

    def norm(x, weight):
        return F.rms_norm(x.float(), (shape.n_embd,), weight, shape.norm_eps)

    x = F.embedding(tokens, params["token_embd.weight"])
    for i in range(shape.n_layer):
        def p(name):
            return params[f"blk.{i}.{name}.weight"]

        h = norm(x, p("attn_norm"))
        qkv = F.linear(h, torch.cat((p("attn_q"), p("attn_k"), p("attn_v"))))
        q, k, v = qkv.unflatten(-1, (-1, head)).split(
            (shape.n_head, shape.n_head_kv, shape.n_head_kv), dim=2)
        k = rope(k, cos, sin).repeat_interleave(shape.n_head // shape.n_head_kv, dim=2)
        v = v.repeat_interleave(shape.n_head // shape.n_head_kv, dim=2)
        q = rope(q, cos, sin)
        a = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask[:, None])
        x = x + F.linear(a.transpose(1, 2).flatten(2), p("attn_output"))
        h = norm(x, p("ffn_norm"))
        gate_up = F.linear(h, torch.cat((p("ffn_gate"), p("ffn_up"))))
        gate, up = gate_up.chunk(2, dim=-1)
        x = x + F.linear(F.silu(gate) * up, p("ffn_down"))
    return F.linear(norm(x, params["output_norm.weight"]), params["output.weight"])


def write_keys(w, shape: Shape) -> None:
    """Gives a GGUFWriter the architecture's own keys."""
    w.add_vocab_size(shape.n_vocab)
    w.add_context_length(shape.n_ctx)
    w.add_embedding_length(shape.n_embd)
    w.add_block_count(shape.n_layer)
    w.add_feed_forward_length(shape.n_ff)
    w.add_head_count(shape.n_head)
    w.add_head_count_kv(shape.n_head_kv)
    w.add_layer_norm_rms_eps(shape.norm_eps)
    w.add_rope_freq_base(shape.rope_base)
    w.add_rope_dimension_count(shape.n_embd // shape.n_head)
