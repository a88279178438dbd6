#!/usr/bin/env python3
"""Checkpoint folder -> OpenVINO models with f32, int8 and int4 weights: stateful, logits for the last position only.

    prepare_openvino.py CHECKPOINT OUT_DIR
"""
import argparse
from pathlib import Path

import nncf
import openvino as ov
from openvino import opset13 as op
from optimum.intel import OVModelForCausalLM

COMPRESSION = {
    "f32": None,
    "int8": {"mode": nncf.CompressWeightsMode.INT8_SYM},
    "int4": {"mode": nncf.CompressWeightsMode.INT4_SYM, "group_size": 64, "ratio": 1.0, "all_layers": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    exported = arguments.out / "exported"
    OVModelForCausalLM.from_pretrained(arguments.checkpoint, export=True, compile=False,
                                       load_in_8bit=False).save_pretrained(exported)
    for name, compression in COMPRESSION.items():
        model = ov.Core().read_model(exported / "openvino_model.xml")
        keep_last_position(model)
        if compression:
            model = nncf.compress_weights(model, **compression)
        ov.save_model(model, arguments.out / f"{name}.xml", compress_to_fp16=False)
        print(name, (arguments.out / f"{name}.bin").stat().st_size)


def keep_last_position(model: ov.Model) -> None:
    """Inserts a slice before the head, so that a prompt computes one row of logits, as with the other peers."""
    for output in model.outputs:
        if "logits" not in output.get_names():
            continue
        head = output.get_node().input_value(0).get_node()
        while head.get_type_name() != "MatMul":
            head = head.input_value(0).get_node()
        start, stop, step, axis = (op.constant([number]) for number in (-1, 2**31 - 1, 1, 1))
        head.input(0).replace_source_output(op.slice(head.input_value(0), start, stop, step, axis).output(0))
    model.validate_nodes_and_infer_types()


if __name__ == "__main__":
    main()
