#!/usr/bin/env python3
"""How far llama.cpp's quantized GPT-2 models are from its own f32 one.

The text is cut into windows of --window tokens that do not overlap. Every
window is run from an empty cache by the f32 model and by each quantized
variant, and the two predictions at every position but a window's last are
compared, as `gpt2 score --reference-dtype` does:

    kl          mean over the positions of KL(f32 || variant), in nats
    perplexity  exp of the mean negative log likelihood of the next token
    top1        share of the positions at which both rank the same token first

One JSON line a variant goes to standard output:

    {"variant", "bits_per_weight", "kl", "kl_stderr", "kl_max", "perplexity",
     "perplexity_f32", "top1", "tokens", "positions", "window", "types", "text",
     "version"}

`version` is that of llama-cpp-python, and `kl_max` the largest divergence of a
position. `bits_per_weight` counts the matrices that a decoding step reads: every linear
layer and the tied embedding, without biases, norms and position embeddings.
`types` says how many of these weights each storage type holds. `kl_stderr` is
the standard error over the positions, taken as independent.

The folder GGUF holds F32.gguf and one file a variant (VARIANT.gguf), as
prepare_gguf.py of the benchmark kit writes them. The token ids come from the
checkpoint's tokenizer.json, so the tokenizer stored in the GGUF files is not
used. A text file may be packed with zstd (.zst).

    llamacpp_divergence.py GGUF tokenizer.json text.txt --tokens 40960

Needs gguf, llama-cpp-python, numpy, tokenizers, and zstandard for .zst.
Memory beside the models: one logit matrix of window x vocabulary in f32 for
each of them, and four more for the comparison.
"""

import argparse
import ctypes
import json
import os
import sys

import gguf
import llama_cpp as L
import numpy as np
from tokenizers import Tokenizer

# llama.cpp keeps the pointer: the callback has to outlive every call.
_SILENT = L.llama_log_callback(lambda level, text, user: None)


class Model:
    """A GGUF model with a context for one window."""

    def __init__(self, path, window, threads, kv):
        params = L.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = L.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        params = L.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = window
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = {"f32": L.GGML_TYPE_F32, "f16": L.GGML_TYPE_F16}[kv]
        if hasattr(params, "flash_attn_type"):
            params.flash_attn_type = 0
        self.ctx = L.llama_init_from_model(self.model, params)
        if not self.ctx:
            raise SystemExit(f"{path}: llama.cpp cannot make a context of {window} tokens")
        self.vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.model))
        self.batch = L.llama_batch_init(window, 0, 1)

    def logits(self, ids):
        """The logits after every token of `ids`, run from an empty cache.

        The array is llama.cpp's own buffer: valid until the next call.
        """
        L.llama_memory_clear(L.llama_get_memory(self.ctx), True)
        batch = self.batch
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = int(token), i, True
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
        if L.llama_decode(self.ctx, batch) != 0:
            raise SystemExit("llama_decode failed")
        return np.ctypeslib.as_array(L.llama_get_logits(self.ctx), (len(ids), self.vocab))


def log_softmax(logits):
    out = logits - logits.max(axis=1, keepdims=True)
    out -= np.log(np.exp(out).sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return out


class Sums:
    """What is summed up over the windows for one variant."""

    def __init__(self):
        self.kl = []
        self.same = 0
        self.loss = 0.0

    def add(self, base, probabilities, top, other, targets):
        difference = base - other
        difference *= probabilities
        self.kl.append(difference.sum(axis=1, dtype=np.float64))
        self.same += int((other.argmax(axis=1) == top).sum())
        self.loss -= float(other[np.arange(len(targets)), targets].sum(dtype=np.float64))


def storage(path):
    """Bits per weight of the matrices, and the number of weights by type."""
    bits = weights = 0
    types = {}
    for t in gguf.GGUFReader(path).tensors:
        if len(t.shape) < 2 or t.name == "position_embd.weight":
            continue
        bits += 8 * int(t.n_bytes)
        weights += int(t.n_elements)
        types[t.tensor_type.name] = types.get(t.tensor_type.name, 0) + int(t.n_elements)
    return bits / weights, types


def read_text(path):
    with open(path, "rb") as f:
        if not path.endswith(".zst"):
            return f.read().decode("utf-8")
        import zstandard
        return zstandard.ZstdDecompressor().stream_reader(f).read().decode("utf-8")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("gguf", metavar="GGUF", help="folder with F32.gguf and VARIANT.gguf")
    ap.add_argument("tokenizer", help="the checkpoint's tokenizer.json")
    ap.add_argument("text", help="UTF-8 text file, or .zst of one")
    ap.add_argument("--tokens", type=int, default=8192,
                    help="use so many tokens from the text's start, cut to whole windows (default: %(default)s)")
    ap.add_argument("--variants", default="Q8_0,Q4_K_M,Q4_0", help="comma-separated (default: %(default)s)")
    ap.add_argument("--window", type=int, default=512, help="tokens in a window (default: %(default)s)")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--kv", choices=["f32", "f16"], default="f32",
                    help="type of the key-value cache, of both models (default: %(default)s)")
    ap.add_argument("--save-f32", metavar="NPY",
                    help="also write the f32 logits of the first window, to check another implementation")
    a = ap.parse_args()

    L.llama_log_set(_SILENT, ctypes.c_void_p(0))
    L.llama_backend_init()
    ids = np.array(Tokenizer.from_file(a.tokenizer).encode(read_text(a.text)).ids[:a.tokens])
    count = len(ids) // a.window
    if count == 0:
        raise SystemExit(f"{a.text}: fewer than {a.window} tokens")
    names = a.variants.split(",")
    path = {v: os.path.join(a.gguf, v + ".gguf") for v in ["F32"] + names}
    base = Model(path["F32"], a.window, a.threads, a.kv)
    models = {v: Model(path[v], a.window, a.threads, a.kv) for v in names}
    sums = {v: Sums() for v in names}
    loss, scored = 0.0, 0
    for w in range(count):
        window = ids[w * a.window:(w + 1) * a.window]
        targets = window[1:]
        reference = base.logits(window)
        if w == 0 and a.save_f32:
            np.save(a.save_f32, reference)
        reference = log_softmax(reference[:-1])
        probabilities, top = np.exp(reference), reference.argmax(axis=1)
        loss -= float(reference[np.arange(len(targets)), targets].sum(dtype=np.float64))
        scored += len(targets)
        for v in names:
            sums[v].add(reference, probabilities, top, log_softmax(models[v].logits(window)[:-1]), targets)
        print(f"\r{w + 1} of {count} windows", end="", file=sys.stderr)
    print(file=sys.stderr)
    for v in names:
        bits, types = storage(path[v])
        kl = np.concatenate(sums[v].kl)
        print(json.dumps({
            "variant": v, "bits_per_weight": round(bits, 4),
            "kl": float(f"{kl.mean():.4g}"), "kl_stderr": float(f"{kl.std() / len(kl) ** 0.5:.2g}"),
            "kl_max": float(f"{kl.max():.3g}"), "perplexity": round(float(np.exp(sums[v].loss / scored)), 4),
            "perplexity_f32": round(float(np.exp(loss / scored)), 4),
            "top1": round(sums[v].same / len(kl), 5), "tokens": count * a.window,
            "positions": len(kl), "window": a.window, "types": types, "text": os.path.basename(a.text),
            "version": L.__version__}), flush=True)


if __name__ == "__main__":
    main()
