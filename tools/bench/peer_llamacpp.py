#!/usr/bin/env python3
"""llama.cpp, through the C interface of llama-cpp-python. --model: the folder that prepare_gguf.py wrote."""
import measurement  # first: it sets what runtimes read when they are imported

import ctypes
import os

import llama_cpp as llama
import numpy as np

SILENT = llama.llama_log_callback(lambda level, text, user: None)
CONTEXT = 1024
MOST_TOKENS = 2048  # in one call


class LlamaCpp(measurement.Peer):
    name = "llama.cpp"
    variants = ("F32", "BF16", "Q8_0", "Q4_0", "Q4_K_M")

    def versions(self):
        return {"llama-cpp-python": llama.__version__}

    def about(self):
        return llama.llama_print_system_info().decode()

    def load(self, arguments):
        llama.llama_log_set(SILENT, ctypes.c_void_p(0))
        llama.llama_backend_init()
        parameters = llama.llama_model_default_params()
        parameters.n_gpu_layers = 0
        path = os.path.join(arguments.model, arguments.variant + ".gguf")
        self.model = llama.llama_model_load_from_file(path.encode(), parameters)
        assert self.model, f"could not load {path}"
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.threads = arguments.threads
        self.batch = llama.llama_batch_init(MOST_TOKENS, 0, 1)
        self.context = None
        self.new_context(1, CONTEXT)

    def new_context(self, sequences, positions):
        if self.context:
            llama.llama_free(self.context)
        parameters = llama.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = positions, sequences
        parameters.n_batch, parameters.n_ubatch = MOST_TOKENS, 512
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.kv_unified = sequences == 1
        self.context = llama.llama_init_from_model(self.model, parameters)
        assert self.context, "no context"
        self.shape = sequences, positions

    def run(self, items):
        """items: (token, position, sequence, whether its logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(items)
        for i, (token, position, sequence, wanted) in enumerate(items):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = sequence
        assert llama.llama_decode(self.context, batch) == 0, "llama_decode failed"

    def argmax(self, item):
        logits = llama.llama_get_logits_ith(self.context, item)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def generate(self, batch, new):
        length, rows = len(batch[0]), len(batch)
        shape = rows, CONTEXT if rows == 1 else rows * 128
        if shape != self.shape:
            self.new_context(*shape)
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        self.run([(token, position, row, position == length - 1)
                  for row, tokens in enumerate(batch) for position, token in enumerate(tokens)])
        out = [[self.argmax(row * length + length - 1)] for row in range(rows)]
        for position in range(length, length + new - 1):
            self.run([(tokens[-1], position, row, True) for row, tokens in enumerate(out)])
            for row in range(rows):
                out[row].append(self.argmax(row))
        return out


measurement.main(LlamaCpp())
