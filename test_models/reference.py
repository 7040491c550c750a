"""llama.cpp, through llama-cpp-python's C bindings, with all settings fixed.

One thread, a context of 256, an F16 KV cache unless another is asked for, no flash attention where
it can be done without, no device but the CPU: the settings that the project's own engine is compared
under.
"""

import ctypes
import os
from pathlib import Path

import llama_cpp as ll
import numpy as np

N_CTX = 256
SETTINGS = {"n_ctx": N_CTX, "n_batch": N_CTX, "n_ubatch": N_CTX, "n_threads": 1,
            "type_k": "F16", "type_v": "F16", "flash_attn": False, "n_gpu_layers": 0,
            "prompt": "one batch", "generated": "one token a batch",
            "parse_special": False, "sampling": "greedy"}


@ll.llama_log_callback
def _quiet(level, text, _data):
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        print(text.decode("utf-8", "replace"), end="", flush=True)


ll.llama_log_set(_quiet, ctypes.c_void_p(0))


def quantise(source: Path, out: Path, ftype: int, pure: bool = False,
             again: bool = False) -> None:
    """llama.cpp's own quantiser, with its choice of types; one type for all if `pure`. `again`
    takes a source that is quantised already."""
    params = ll.llama_model_quantize_default_params()
    params.ftype = ftype
    params.pure = pure
    params.allow_requantize = again
    params.nthread = 1
    code = ll.llama_model_quantize(os.fsencode(source), os.fsencode(out), params)
    if code != 0:
        raise SystemExit(f"llama_model_quantize: {code}")


# The types of a KV cache. Values in Q8_0 llama.cpp only has with flash attention.
KV_TYPES = {"f16": (ll.GGML_TYPE_F16, ll.LLAMA_FLASH_ATTN_TYPE_DISABLED),
            "f32": (ll.GGML_TYPE_F32, ll.LLAMA_FLASH_ATTN_TYPE_DISABLED),
            "q8_0": (ll.GGML_TYPE_Q8_0, ll.LLAMA_FLASH_ATTN_TYPE_ENABLED)}


class Reference:
    """One model in one context. `repack` lets llama.cpp repack weights for the CPU;
    `vocab_only` leaves the network out; `kv_type` is the type of keys and values; `flash` turns
    flash attention on or off, where that is not for the type of the values to say."""

    def __init__(self, path: Path, repack: bool = True, vocab_only: bool = False,
                 kv_type: str = "f16", flash: bool | None = None):
        ll.llama_backend_init()
        mp = ll.llama_model_default_params()
        mp.n_gpu_layers = 0
        mp.use_extra_bufts = repack
        mp.vocab_only = vocab_only
        self.model = ll.llama_model_load_from_file(os.fsencode(path), mp)
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {path}")
        self.vocab = ll.llama_model_get_vocab(self.model)
        self.n_vocab = ll.llama_vocab_n_tokens(self.vocab)
        self.bos, self.eos = ll.llama_vocab_bos(self.vocab), ll.llama_vocab_eos(self.vocab)
        self.add_bos = ll.llama_vocab_get_add_bos(self.vocab)
        self.ctx = None
        if vocab_only:
            return
        cp = ll.llama_context_default_params()
        cp.n_ctx = cp.n_batch = cp.n_ubatch = N_CTX
        cp.n_threads = cp.n_threads_batch = 1
        cp.type_k, cp.flash_attn_type = KV_TYPES[kv_type]
        cp.type_v = cp.type_k
        if flash is not None:
            cp.flash_attn_type = (ll.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash
                                  else ll.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        cp.swa_full = True
        self.ctx = ll.llama_init_from_model(self.model, cp)
        if not self.ctx:
            raise SystemExit(f"llama.cpp has no context in {kv_type} for {path}")

    def close(self) -> None:
        """Gives up the context and the model."""
        if self.ctx:
            ll.llama_free(self.ctx)
        ll.llama_model_free(self.model)

    def tokenize(self, text: str, add_special: bool = True,
                 parse_special: bool = False) -> list[int]:
        """Token ids; special tokens in the text are text unless they shall be parsed."""
        raw = text.encode("utf-8")
        ids = (ll.llama_token * (len(raw) + 8))()
        n = ll.llama_tokenize(self.vocab, raw, len(raw), ids, len(ids), add_special,
                             parse_special)
        return list(ids[:n])

    def detokenize(self, ids: list[int]) -> bytes:
        """The bytes of the tokens, joined piece by piece; control tokens give nothing."""
        text = b""
        for token in ids:
            piece = ctypes.create_string_buffer(256)
            n = ll.llama_token_to_piece(self.vocab, token, piece, len(piece), 0, False)
            text += piece.raw[:n]
        return text

    def clear(self) -> None:
        """Empties the KV cache."""
        ll.llama_memory_clear(ll.llama_get_memory(self.ctx), True)

    def shift(self, n_keep: int, n_past: int) -> int:
        """Drops half of what lies behind the first `n_keep` of `n_past` positions, as
        `llama-completion --context-shift` does; returns how many positions are left."""
        memory, n_discard = ll.llama_get_memory(self.ctx), (n_past - n_keep) // 2
        if not ll.llama_memory_can_shift(memory):
            raise SystemExit("llama.cpp cannot shift the positions of this model")
        ll.llama_memory_seq_rm(memory, 0, n_keep, n_keep + n_discard)
        ll.llama_memory_seq_add(memory, 0, n_keep + n_discard, n_past, -n_discard)
        return n_past - n_discard

    def decode(self, ids: list[int], position: int, all_logits: bool = False) -> np.ndarray:
        """Runs one batch; logits of its last token, or of each: [n, n_vocab]."""
        batch = ll.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i] = token
            batch.pos[i] = position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = all_logits or i == len(ids) - 1
        code = ll.llama_decode(self.ctx, batch)
        ll.llama_batch_free(batch)
        if code != 0:
            raise SystemExit(f"llama_decode: {code}")
        rows = range(len(ids)) if all_logits else [len(ids) - 1]
        return np.stack([np.ctypeslib.as_array(ll.llama_get_logits_ith(self.ctx, i),
                                               (self.n_vocab,)).copy() for i in rows])
