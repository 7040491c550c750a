"""Trains a tiny model on the tokenised corpus.

Documents are packed into rows of 256 tokens under a block-diagonal causal mask,
so each one is learned exactly as it is met later: alone, from its first position on.

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
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import gpt2
import llama

MODELS = {"llama": llama, "gpt2": gpt2}


def init_params(model, shape, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Initial weights by GGUF tensor name, matrices as [n_out, n_in]."""
    return {name: torch.randn(size, generator=generator) * start if len(size) == 2
            else torch.full(size, start) for name, (size, start) in model.tensors(shape).items()}


def loss_fn(model, params, shape, tokens, segments) -> torch.Tensor:
    """Mean loss in nats of the next token within each document.

    tokens and segments are [batch, n_ctx]; segment 0 is padding.
    """
    n_ctx = tokens.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    mask = same & torch.ones(n_ctx, n_ctx, dtype=torch.bool).tril()
    use = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    targets = torch.where(use, tokens[:, 1:], -100)
    logits = model.logits(params, shape, tokens, mask)[:, :-1].float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Weights:
    """All parameters in one shared buffer, and a buffer of gradients for each worker.

    Matrices come first, vectors last, so that the optimizer sees two tensors.
    """

    def __init__(self, model, shape, seed: int, workers: int):
        named = init_params(model, shape, torch.Generator().manual_seed(seed))
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


def compute(worker: int, weights: Weights, shape, args, batches, barrier, losses) -> None:
    """One worker: for each batch, the gradient of its share of the rows.

    `batches` is shared: row indices of the batch, or -1 in front when all is done.
    """
    torch.set_num_threads(1)
    rows = Rows(args.data, "train")
    params, model = weights.params(worker), MODELS[args.arch]
    batch_loss = torch.compile(loss_fn) if args.compile else loss_fn
    while True:
        barrier.wait()
        if batches[0] < 0:
            return
        mine = batches[worker::args.workers]
        weights.grads[worker].zero_()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            loss = batch_loss(model, params, shape, *rows[mine])
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
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("arch", choices=MODELS)
    arg.add_argument("--data", type=Path, required=True, help="from tokenizer.py")
    arg.add_argument("--checkpoint", type=Path, required=True)
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
    model = MODELS[args.arch]
    shape = model.Shape(n_vocab=rows.n_vocab)
    weights = Weights(model, shape, args.seed, args.workers)
    decayed, vectors = weights.flat[:weights.n_decayed], weights.flat[weights.n_decayed:]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1},
                                   {"params": vectors, "weight_decay": 0.0}],
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
        decayed.grad, vectors.grad = grad[:weights.n_decayed], grad[weights.n_decayed:]
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
                parts = [loss_fn(model, params, shape, *valid[i::64]).item()
                         for i in range(8)]
            print(f"step {step} held-out loss {np.mean(parts):.4f}", flush=True)
            save(args.checkpoint, {
                "arch": args.arch, "shape": asdict(shape),
                "params": {k: p.clone() for k, p in params.items()},
                "optimizer": optimizer.state_dict(), "step": step, "tokens": tokens,
                "seconds": spent})
    batches.fill_(-1)
    barrier.wait()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
