#!/usr/bin/env python3
"""onnxruntime. --model: the folder that prepare_onnx.py wrote, which says what the variants are."""
import measurement  # first: it sets what runtimes read when they are imported

import os

import numpy as np
import onnxruntime as ort


class OnnxRuntime(measurement.Peer):
    name = "onnxruntime"
    variants = ("f32", "int8-dyn", "w8", "w4")

    def versions(self):
        return {"onnxruntime": ort.__version__}

    def load(self, arguments):
        options = ort.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = os.path.join(arguments.model, arguments.variant + ".onnx")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        past = [node for node in self.session.get_inputs() if node.name.startswith("past.")]
        self.names = [node.name.removeprefix("past.") for node in past]
        self.heads, self.head_size = past[0].shape[1], past[0].shape[3]
        self.shape, self.cache = None, None

    def run(self, ids, done):
        rows, length = ids.shape
        positions = np.broadcast_to(np.arange(done, done + length, dtype=np.int64), (rows, length))
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("position_ids", positions.copy())
        binding.bind_cpu_input("seqlens_k", np.full(rows, done + length - 1, np.int32))
        binding.bind_cpu_input("total_len", np.array([done + length], np.int32))
        for name in self.names:
            binding.bind_ortvalue_input("past." + name, self.cache[name])
            binding.bind_ortvalue_output("present." + name, self.cache[name])
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[-1].numpy()[:, -1].argmax(-1)[:, None]

    def generate(self, batch, new):
        ids = np.array(batch, np.int64)
        rows, length = ids.shape
        shape = rows, self.heads, 192 if length + new <= 192 else 1024, self.head_size
        if shape != self.shape:
            self.shape = shape
            self.cache = {name: ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for name in self.names}
        out = [self.run(ids, 0)]
        while len(out) < new:
            out.append(self.run(out[-1].astype(np.int64), length + len(out) - 1))
        return np.concatenate(out, 1).tolist()


measurement.main(OnnxRuntime())
