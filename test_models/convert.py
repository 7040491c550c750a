"""Converts a checkpoint to GGUF: F16 by the gguf package, then Q4_0 by llama.cpp.

llama.cpp's own quantiser makes the second file, so that its choice of types is
llama.cpp's: vectors and positions F32, matrices Q4_0, the output's matrix Q6_K.
"""

import argparse
import hashlib
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import torch

from reference import quantise
from tokenizer import KINDS
from train import MODELS

DESCRIPTION = ("A small trained test model: simple English stories and plain facts. "
               "Trained from scratch on generated text by the scripts beside it.")
EXACT = ["position_embd.weight"]  # F32 in every file, as llama.cpp's converter has it


def write_f16(checkpoint: Path, out: Path) -> None:
    """Writes the matrices as F16, positions and vectors as F32, with the tokenizer."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    model = MODELS[state["arch"]]
    shape, params = model.Shape(**state["shape"]), state["params"]
    kind = KINDS[state["arch"]]

    w = gguf.GGUFWriter(out, state["arch"])
    w.add_name(f"Anchorite {checkpoint.stem}")
    w.add_description(DESCRIPTION)
    w.add_author("The Anchorite developers")
    w.add_license("MIT OR Apache-2.0")
    w.add_languages(["en"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    model.write_keys(w, shape)
    kind(checkpoint.with_suffix(kind.SUFFIX)).write_keys(w)

    for name in model.tensors(shape):
        p = params[name].detach().float().numpy()
        exact = p.ndim == 1 or name in EXACT
        w.add_tensor(name, p if exact else p.astype(np.float16))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def check(path: Path) -> None:
    """Fails unless every tensor has the type that the engine's tests expect."""
    tensors = gguf.GGUFReader(path).tensors
    last = "output.weight" if any(t.name == "output.weight" for t in tensors) \
        else "token_embd.weight"
    for t in tensors:
        got = t.tensor_type.name
        want = ("F32" if len(t.shape) == 1 or t.name in EXACT
                else "Q6_K" if t.name == last else "Q4_0")
        if got != want:
            raise SystemExit(f"{t.name} is {got}, not {want}")


def main() -> None:
    """Writes the F16 file beside the checkpoint, the Q4_0 file and its checksum to --out."""
    here = Path(__file__).parent
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("checkpoint", type=Path, help="from train.py, named as the model will be, "
                     "beside its tokenizer")
    arg.add_argument("--out", type=Path, default=here, help="folder for the Q4_0 file")
    args = arg.parse_args()

    f16 = args.checkpoint.with_name(f"{args.checkpoint.stem}-f16.gguf")
    out = args.out / f"{args.checkpoint.stem}.gguf"
    write_f16(args.checkpoint, f16)
    quantise(f16, out, llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0)
    check(out)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    out.with_suffix(".gguf.sha256").write_text(f"{digest}  {out.name}\n")
    print(f"{out.name}: {out.stat().st_size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
