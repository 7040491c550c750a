"""Converts a checkpoint to GGUF: F16 by the gguf package, then Q4_0 by llama.cpp.

llama.cpp's own quantiser makes the second file, so that its choice of types is
llama.cpp's: norms F32, matrices Q4_0, `output.weight` Q6_K.
"""

import argparse
import hashlib
import os
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import sentencepiece as spm
import torch

DESCRIPTION = ("A small trained test model: simple English stories and plain facts. "
               "Trained from scratch on generated text by the scripts beside it.")


def write_f16(checkpoint: Path, tokenizer: Path, out: Path) -> None:
    """Writes all matrices as F16 and the norms as F32, with the tokenizer."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    shape, params = state["shape"], state["params"]
    sp = spm.SentencePieceProcessor(model_file=str(tokenizer))

    w = gguf.GGUFWriter(out, "llama")
    w.add_name("Anchorite tiny")
    w.add_description(DESCRIPTION)
    w.add_author("The Anchorite developers")
    w.add_license("MIT OR Apache-2.0")
    w.add_languages(["en"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_vocab_size(shape["n_vocab"])
    w.add_context_length(shape["n_ctx"])
    w.add_embedding_length(shape["n_embd"])
    w.add_block_count(shape["n_layer"])
    w.add_feed_forward_length(shape["n_ff"])
    w.add_head_count(shape["n_head"])
    w.add_head_count_kv(shape["n_head_kv"])
    w.add_layer_norm_rms_eps(shape["norm_eps"])
    w.add_rope_freq_base(shape["rope_base"])
    w.add_rope_dimension_count(shape["n_embd"] // shape["n_head"])

    types = []
    for i in range(sp.vocab_size()):
        types.append(gguf.TokenType.UNKNOWN if sp.is_unknown(i)
                     else gguf.TokenType.CONTROL if sp.is_control(i)
                     else gguf.TokenType.BYTE if sp.is_byte(i)
                     else gguf.TokenType.NORMAL)
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list([sp.id_to_piece(i).encode("utf-8") for i in range(sp.vocab_size())])
    w.add_token_scores([sp.get_score(i) for i in range(sp.vocab_size())])
    w.add_token_types(types)
    w.add_bos_token_id(sp.bos_id())
    w.add_eos_token_id(sp.eos_id())
    w.add_unk_token_id(sp.unk_id())
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_add_space_prefix(True)

    order = ["token_embd", *(f"blk.{i}.{n}" for i in range(shape["n_layer"]) for n in (
        "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output",
        "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")), "output_norm", "output"]
    for name in order:
        p = params[f"{name}.weight"].detach().float().numpy()
        w.add_tensor(f"{name}.weight", p if p.ndim == 1 else p.astype(np.float16))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def quantise(source: Path, out: Path) -> None:
    """Makes the Q4_0 file."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    params.nthread = 1
    code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(out), params)
    if code != 0:
        raise SystemExit(f"llama_model_quantize: {code}")


def check(path: Path) -> None:
    """Fails unless every tensor has the type that the engine's tests expect."""
    for t in gguf.GGUFReader(path).tensors:
        kind = t.tensor_type.name
        want = "F32" if len(t.shape) == 1 else "Q6_K" if t.name == "output.weight" else "Q4_0"
        if kind != want:
            raise SystemExit(f"{t.name} is {kind}, not {want}")


def main() -> None:
    """Writes the F16 file into the build folder, the Q4_0 file and its checksum to --out."""
    here = Path(__file__).parent
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("--checkpoint", type=Path, default=here / "build" / "tiny.pt")
    arg.add_argument("--tokenizer", type=Path, default=here / "build" / "tokenizer.model")
    arg.add_argument("--f16", type=Path, default=here / "build" / "tiny-f16.gguf")
    arg.add_argument("--out", type=Path, default=here / "tiny.gguf")
    args = arg.parse_args()

    write_f16(args.checkpoint, args.tokenizer, args.f16)
    quantise(args.f16, args.out)
    check(args.out)
    digest = hashlib.sha256(args.out.read_bytes()).hexdigest()
    args.out.with_suffix(".gguf.sha256").write_text(f"{digest}  {args.out.name}\n")
    print(f"{args.out.name}: {args.out.stat().st_size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
