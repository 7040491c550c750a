"""Trains the tiny llama model on the tokenised corpus.

The model is llama.cpp's `llama` architecture: RMSNorm, RoPE over adjacent
pairs, grouped-query attention, SwiGLU, an untied output. Documents are packed
into rows of 256 tokens under a block-diagonal causal mask, so each one is
learned exactly as it is met later: alone, from its first position on.

The schedule is warm-up, constant, linear decay, measured in wall-clock time:
the run ends when its minutes are used up, however many tokens that was.

The rows of a batch are shared out to single-threaded worker processes that meet
once a step: on a busy machine that loses far less than threads that meet in every
operation.
"""

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
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


def init_params(shape: Shape, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Initial weights by GGUF tensor name, matrices as [n_out, n_in]."""
    embd, kv = shape.n_embd, shape.n_embd // shape.n_head * shape.n_head_kv
    residual = 0.02 / (2 * shape.n_layer) ** 0.5

    def normal(rows: int, cols: int, std: float = 0.02) -> torch.Tensor:
        return torch.randn(rows, cols, generator=generator) * std

    params = {
        "token_embd.weight": normal(shape.n_vocab, embd),
        "output.weight": normal(shape.n_vocab, embd),
        "output_norm.weight": torch.ones(embd),
    }
    for i in range(shape.n_layer):
        params |= {
            f"blk.{i}.attn_norm.weight": torch.ones(embd),
            f"blk.{i}.attn_q.weight": normal(embd, embd, 0.04),
            f"blk.{i}.attn_k.weight": normal(kv, embd, 0.04),
            f"blk.{i}.attn_v.weight": normal(kv, embd, 0.04),
            f"blk.{i}.attn_output.weight": normal(embd, embd, residual * 2),
            f"blk.{i}.ffn_norm.weight": torch.ones(embd),
            f"blk.{i}.ffn_gate.weight": normal(shape.n_ff, embd, 0.04),
            f"blk.{i}.ffn_up.weight": normal(shape.n_ff, embd, 0.04),
            f"blk.{i}.ffn_down.weight": normal(embd, shape.n_ff, residual * 2),
        }
    return params


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


def loss_fn(params, shape: Shape, table, tokens, segments) -> torch.Tensor:
    """Mean loss in nats of the next token within each document.

    tokens and segments are [batch, n_ctx]; segment 0 is padding.
    """
    batch, n_ctx = tokens.shape
    head = shape.n_embd // shape.n_head
    same = segments[:, :, None] == segments[:, None, :]
    mask = (same & torch.ones(n_ctx, n_ctx, dtype=torch.bool).tril())[:, None]
    cos, sin = table

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
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
        x = x + F.linear(a.transpose(1, 2).flatten(2), p("attn_output"))
        h = norm(x, p("ffn_norm"))
        gate_up = F.linear(h, torch.cat((p("ffn_gate"), p("ffn_up"))))
        gate, up = gate_up.chunk(2, dim=-1)
        x = x + F.linear(F.silu(gate) * up, p("ffn_down"))

    use = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    targets = torch.where(use, tokens[:, 1:], -100)
    x = norm(x, params["output_norm.weight"])[:, :-1]
    logits = F.linear(x, params["output.weight"]).float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Weights:
    """All parameters in one shared buffer, and a buffer of gradients for each worker.

    Matrices come first, norms last, so that the optimizer sees two tensors.
    """

    def __init__(self, shape: Shape, seed: int, workers: int):
        named = init_params(shape, torch.Generator().manual_seed(seed))
        named = dict(sorted(named.items(), key=lambda item: -item[1].ndim))
        self.sizes = {name: p.shape for name, p in named.items()}
        self.n_decayed = sum(p.numel() for p in named.values() if p.ndim == 2)
        self.flat = torch.cat([p.detach().flatten() for p in named.values()]).share_memory_()
        self.grads = torch.zeros(workers, len(self.flat)).share_memory_()

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors of a buffer by name."""
        parts = flat.split([size.numel() for size in self.sizes.values()])
        return {name: part.view(size) for (name, size), part in zip(self.sizes.items(), parts)}

    def params(self, worker: int) -> dict[str, torch.Tensor]:
        """Parameters whose gradients go straight into the worker's buffer."""
        params = {name: p.detach().requires_grad_() for name, p in self.views(self.flat).items()}
        for name, grad in self.views(self.grads[worker]).items():
            params[name].grad = grad
        return params


def compute(worker: int, weights: Weights, shape: Shape, args, batches, barrier, losses) -> None:
    """One worker: for each batch, the gradient of its share of the rows.

    `batches` is shared: row indices of the batch, or -1 in front when all is done.
    """
    torch.set_num_threads(1)
    rows = Rows(args.data, "train")
    params, table = weights.params(worker), rope_table(shape)
    batch_loss = torch.compile(loss_fn) if args.compile else loss_fn
    while True:
        barrier.wait()
        if batches[0] < 0:
            return
        mine = batches[worker::args.workers]
        weights.grads[worker].zero_()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            loss = batch_loss(params, shape, table, *rows[mine])
        loss.backward()
        losses[worker] = loss.item()
        barrier.wait()


class Rows:
    """The packed rows of one split: tokens and segments, [rows, n_ctx]."""

    def __init__(self, path: Path, split: str):
        data = np.load(path)
        self.n_vocab = int(data["n_vocab"])
        self.tokens, self.segments = data[f"{split}_tokens"], data[f"{split}_segments"]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index) -> tuple[torch.Tensor, torch.Tensor]:
        return (torch.from_numpy(self.tokens[index].astype(np.int64)),
                torch.from_numpy(self.segments[index].astype(np.int64)))


def save(path: Path, state: dict) -> None:
    """Writes a checkpoint so that a reader never sees half of one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def main() -> None:
    """Trains until the time is used up; resumes from the checkpoint if there is one."""
    build = Path(__file__).parent / "build"
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("--data", type=Path, default=build / "rows.npz", help="from tokenizer.py")
    arg.add_argument("--checkpoint", type=Path, default=build / "tiny.pt")
    arg.add_argument("--minutes", type=float, default=65, help="wall-clock budget, all of it")
    arg.add_argument("--decay", type=float, default=0.25, help="last part of it that decays")
    arg.add_argument("--batch", type=int, default=8, help="rows of 256 tokens a step")
    arg.add_argument("--lr", type=float, default=2e-3)
    arg.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    arg.add_argument("--compile", action="store_true", help="fuse with torch.compile (needs g++)")
    arg.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    arg.add_argument("--seed", type=int, default=20)
    args = arg.parse_args()

    rows, valid = Rows(args.data, "train"), Rows(args.data, "valid")
    filled = (rows.segments > 0).sum(1)
    shape = Shape(n_vocab=rows.n_vocab)
    weights = Weights(shape, args.seed, args.workers)
    decayed, norms = weights.flat[:weights.n_decayed], weights.flat[weights.n_decayed:]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1},
                                   {"params": norms, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.98), eps=1e-8, fused=True)
    step, tokens, spent = 0, 0, 0.0
    if args.checkpoint.exists():
        old = torch.load(args.checkpoint, weights_only=True)
        for name, p in weights.views(weights.flat).items():
            p.copy_(old["params"][name])
        optimizer.load_state_dict(old["optimizer"])
        step, tokens, spent = old["step"], old["tokens"], old["seconds"]
    print(json.dumps({"parameters": len(weights.flat), "rows": len(rows),
                      "torch": torch.__version__, **{k: str(v) for k, v in vars(args).items()}}),
          flush=True)

    spawn = torch.multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(args.workers + 1)
    batches = torch.zeros(args.batch, dtype=torch.int64).share_memory_()
    losses = torch.zeros(args.workers).share_memory_()
    torch.set_num_threads(1)
    workers = [spawn.Process(target=compute, daemon=True, args=(
        i, weights, shape, args, batches, barrier, losses)) for i in range(args.workers)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the workers too
    for worker in workers:
        worker.start()

    begin, base, last_save, last_log = time.monotonic(), spent, spent, spent
    budget, recent = args.minutes * 60, []
    while spent < budget:
        # The rows of a step depend on the seed and the step alone, so that a
        # resumed run sees what an unbroken one would have seen.
        epoch, at = divmod(step * args.batch, len(rows) - len(rows) % args.batch)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(
            args.seed + 1 + epoch))[at:at + args.batch]
        batches.copy_(order)
        barrier.wait()  # the workers start
        barrier.wait()  # and have finished
        grad = weights.grads.mean(0)
        grad *= min(1.0, 1.0 / (grad.norm().item() + 1e-6))
        decayed.grad, norms.grad = grad[:weights.n_decayed], grad[weights.n_decayed:]
        rate = min(1.0, (step + 1) / 100, (budget - spent) / (budget * args.decay) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * rate
        optimizer.step()
        recent.append(losses.mean().item())
        step += 1
        tokens += int(filled[order].sum())
        spent = base + time.monotonic() - begin
        if spent - last_log > 20 or spent >= budget:
            last_log = spent
            print(f"step {step} tokens {tokens} seconds {spent:.0f} lr {args.lr * rate:.2e} "
                  f"loss {np.mean(recent):.4f}", flush=True)
            recent.clear()
        if spent - last_save > 180 or spent >= budget:
            last_save = spent
            params = weights.views(weights.flat)
            with torch.no_grad():
                parts = [loss_fn(params, shape, rope_table(shape), *valid[i::64]).item()
                         for i in range(8)]
            print(f"step {step} held-out loss {np.mean(parts):.4f}", flush=True)
            save(args.checkpoint, {
                "shape": asdict(shape), "params": {k: p.clone() for k, p in params.items()},
                "optimizer": optimizer.state_dict(), "step": step, "tokens": tokens,
                "seconds": spent})
    batches.fill_(-1)
    barrier.wait()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
