#!/usr/bin/env python3
"""Checkpoint folder -> ONNX models with a cache, logits for the last position only.

    prepare_onnx.py CHECKPOINT OUT_DIR

For onnxruntime, with its fused operators (GroupQueryAttention over a shared cache that is allocated once, FastGelu,
SkipLayerNormalization):
    f32                     products in f32
    int8-dyn                onnxruntime's dynamic quantization: 8-bit weights and activations
    w8, w4                  MatMulNBits: 8- or 4-bit weights in blocks of 32, 8-bit arithmetic
For runtimes that lack those, in standard operators (but for MatMulNBits):
    plain, plain-int8, plain-w4
"""
import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, matmul_nbits_quantizer, quantize_dynamic
from safetensors.numpy import load_file

MICROSOFT = "com.microsoft"
VARIANTS = {"f32": ("int8-dyn", "w8", "w4"), "plain": ("plain-int8", "plain-w4")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((arguments.checkpoint / "config.json").read_text())
    # For runtimes that cannot read symbolic shapes.
    (out / "heads.txt").write_text(f"{config['n_head']} {config['n_embd'] // config['n_head']}\n")
    for base, variants in VARIANTS.items():
        weights = load_file(arguments.checkpoint / "model.safetensors")
        onnx.save(Graph(config, plain=base == "plain").build(weights), out / f"{base}.onnx")
        for variant in variants:
            quantize(out / f"{base}.onnx", out / f"{variant}.onnx")
            print(variant, (out / f"{variant}.onnx").stat().st_size)


def quantize(base: Path, path: Path) -> None:
    if "int8" in path.stem:
        quantize_dynamic(base, path, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul"],
                         extra_options={"DefaultTensorType": TensorProto.FLOAT, "MatMulConstBOnly": True})
    else:
        quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(
            onnx.load(base), bits=int(path.stem[-1]), block_size=32, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))


class Graph:
    """GPT-2 as an ONNX graph. Methods that add operators return the names of their results."""

    def __init__(self, config: dict, plain: bool) -> None:
        self.config, self.plain = config, plain
        self.heads, self.head_size = config["n_head"], config["n_embd"] // config["n_head"]
        self.nodes, self.constants = [], []

    def constant(self, name: str, value: np.ndarray) -> None:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))

    def add(self, operator: str, inputs: list[str], outputs: str | list[str], domain: str = "", **attributes) -> str:
        outputs = [outputs] if isinstance(outputs, str) else outputs
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, name=name, **attributes))
        return outputs[0]

    def build(self, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
        for name, value in weights.items():
            if not name.endswith((".attn.bias", ".attn.masked_bias")):
                self.constant(name.removeprefix("transformer."), value)
        wte = weights.get("wte.weight", weights.get("transformer.wte.weight"))
        self.constant("head", wte.T)
        self.constant("axis", np.array([1], np.int64))
        self.constant("last", np.array([-1], np.int64))
        self.constant("end", np.array([2**31], np.int64))
        self.constant("to_heads", np.array([0, 0, self.heads, self.head_size], np.int64))
        self.constant("from_heads", np.array([0, 0, self.config["n_embd"]], np.int64))
        self.constant("scale", np.array(self.head_size**-0.5, np.float32))

        token = self.add("Gather", ["wte.weight", "input_ids"], "token")
        position = self.add("Gather", ["wpe.weight", "position_ids"], "position")
        x = self.add("Add", [token, position], "x0")
        y = self.add("LayerNormalization", [x, "h.0.ln_1.weight", "h.0.ln_1.bias"], "x0.ln",
                     epsilon=self.config["layer_norm_epsilon"], axis=-1)
        layers = self.config["n_layer"]
        for layer in range(layers):
            y, x = self.block(layer, y, x, f"h.{layer + 1}.ln_1" if layer + 1 < layers else "ln_f")
        y = self.add("Slice", [y, "last", "end", "axis"], "last_row")
        self.add("MatMul", [y, "head"], "logits")
        return self.model()

    def block(self, layer: int, y: str, x: str, next_norm: str) -> tuple[str, str]:
        """From the normalized state y and the state x to those of the next block."""
        block = f"h.{layer}."
        t = self.add("MatMul", [y, block + "attn.c_attn.weight"], block + "qkv.product")
        t = self.add("Add", [t, block + "attn.c_attn.bias"], block + "qkv")
        self.add("Split", [t], [block + "q", block + "k", block + "v"], axis=-1, num_outputs=3)
        attention = self.plain_attention if self.plain else self.fused_attention
        t = self.add("MatMul", [attention(layer, block), block + "attn.c_proj.weight"], block + "attn.product")
        y, x = self.add_and_norm(block + "x1", t, x, block + "attn.c_proj.bias", block + "ln_2")
        t = self.add("MatMul", [y, block + "mlp.c_fc.weight"], block + "fc.product")
        if self.plain:
            t = self.add("Add", [t, block + "mlp.c_fc.bias"], block + "fc")
            t = self.add("Gelu", [t], block + "gelu", approximate="tanh")
        else:
            t = self.add("FastGelu", [t, block + "mlp.c_fc.bias"], block + "gelu", domain=MICROSOFT)
        t = self.add("MatMul", [t, block + "mlp.c_proj.weight"], block + "mlp.product")
        return self.add_and_norm(block + "x2", t, x, block + "mlp.c_proj.bias", next_norm)

    def fused_attention(self, layer: int, block: str) -> str:
        inputs = [block + "q", block + "k", block + "v", f"past.{layer}.k", f"past.{layer}.v",
                  "seqlens_k", "total_len"]
        outputs = [block + "attention", f"present.{layer}.k", f"present.{layer}.v"]
        return self.add("GroupQueryAttention", inputs, outputs, domain=MICROSOFT, num_heads=self.heads,
                        kv_num_heads=self.heads)

    def plain_attention(self, layer: int, block: str) -> str:
        for name in "qkv":
            self.add("Reshape", [block + name, "to_heads"], block + name + ".split")
            self.add("Transpose", [block + name + ".split"], block + name + ".heads", perm=[0, 2, 1, 3])
        for name in "kv":
            self.add("Concat", [f"past.{layer}.{name}", block + name + ".heads"], f"present.{layer}.{name}", axis=2)
        keys = self.add("Transpose", [f"present.{layer}.k"], block + "k.transposed", perm=[0, 1, 3, 2])
        t = self.add("MatMul", [block + "q.heads", keys], block + "scores")
        t = self.add("Mul", [t, "scale"], block + "scores.scaled")
        t = self.add("Add", [t, "mask"], block + "scores.masked")
        t = self.add("Softmax", [t], block + "probabilities", axis=-1)
        t = self.add("MatMul", [t, f"present.{layer}.v"], block + "mixed")
        t = self.add("Transpose", [t], block + "mixed.rows", perm=[0, 2, 1, 3])
        return self.add("Reshape", [t, "from_heads"], block + "attention")

    def add_and_norm(self, name: str, t: str, x: str, bias: str, norm: str) -> tuple[str, str]:
        """t + bias + x, normalized and as it is."""
        parameters, epsilon = [norm + ".weight", norm + ".bias"], self.config["layer_norm_epsilon"]
        if self.plain:
            t = self.add("Add", [t, bias], name + ".biased")
            x = self.add("Add", [t, x], name)
            return self.add("LayerNormalization", [x, *parameters], name + ".ln", epsilon=epsilon, axis=-1), x
        y = self.add("SkipLayerNormalization", [t, x, *parameters, bias], [name + ".ln", "", "", name],
                     domain=MICROSOFT, epsilon=epsilon)
        return y, name

    def model(self) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        inputs = [value("input_ids", TensorProto.INT64, ["B", "S"]),
                  value("position_ids", TensorProto.INT64, ["B", "S"])]
        if self.plain:
            inputs += [value("mask", TensorProto.FLOAT, [1, 1, "S", "T"])]
        else:
            inputs += [value("seqlens_k", TensorProto.INT32, ["B"]), value("total_len", TensorProto.INT32, [1])]
        outputs = [value("logits", TensorProto.FLOAT, ["B", 1, self.config["vocab_size"]])]
        for layer in range(self.config["n_layer"]):
            for name in "kv":
                inputs += [value(f"past.{layer}.{name}", TensorProto.FLOAT, ["B", self.heads, "P", self.head_size])]
                outputs += [value(f"present.{layer}.{name}", TensorProto.FLOAT,
                                  ["B", self.heads, "T" if self.plain else "P", self.head_size])]
        graph = helper.make_graph(self.nodes, "gpt2", inputs, outputs, self.constants)
        versions = [helper.make_opsetid("", 20 if self.plain else 18), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=versions, ir_version=10)


if __name__ == "__main__":
    main()
