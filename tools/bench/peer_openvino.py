#!/usr/bin/env python3
"""OpenVINO's CPU plugin. --model: the folder that prepare_openvino.py wrote.

Variants: the weights, f32, int8 or int4; with bf16, the plugin computes and keeps its cache in bf16.
"""
import measurement  # first: it sets what runtimes read when they are imported

import os

import numpy as np
import openvino as ov


class OpenVino(measurement.Peer):
    name = "openvino"
    variants = ("f32", "bf16", "int8", "int8-bf16", "int4", "int4-bf16")

    def versions(self):
        return {"openvino": ov.__version__.split("-")[0]}

    def load(self, arguments):
        bf16 = arguments.variant.endswith("bf16")
        weights = "f32" if arguments.variant == "bf16" else arguments.variant.removesuffix("-bf16")
        settings = {"INFERENCE_NUM_THREADS": arguments.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
                    "KV_CACHE_PRECISION": "bf16" if bf16 else "f32"}
        model = ov.Core().compile_model(os.path.join(arguments.model, weights + ".xml"), "CPU", settings)
        self.request = model.create_infer_request()
        self.inputs = {node.get_any_name() for node in self.request.model_inputs}

    def run(self, ids, done):
        rows, length = ids.shape
        positions = np.broadcast_to(np.arange(done, done + length, dtype=np.int64), (rows, length))
        feed = {"input_ids": ids, "attention_mask": np.ones((rows, done + length), np.int64),
                "position_ids": positions.copy(), "beam_idx": np.arange(rows, dtype=np.int32)}
        self.request.infer({name: value for name, value in feed.items() if name in self.inputs}, share_inputs=True)
        return self.request.get_tensor("logits").data[:, -1].argmax(-1)[:, None]

    def generate(self, batch, new):
        self.request.reset_state()
        ids = np.array(batch, np.int64)
        length = ids.shape[1]
        out = [self.run(ids, 0)]
        while len(out) < new:
            out.append(self.run(out[-1].astype(np.int64), length + len(out) - 1))
        return np.concatenate(out, 1).tolist()


measurement.main(OpenVino())
