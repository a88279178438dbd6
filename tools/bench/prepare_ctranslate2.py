#!/usr/bin/env python3
"""Checkpoint folder -> CTranslate2 model folder in f32; the compute type is chosen when it is loaded.

    prepare_ctranslate2.py CHECKPOINT OUT_DIR
"""
import argparse

from ctranslate2.converters import TransformersConverter

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("checkpoint")
parser.add_argument("out")
arguments = parser.parse_args()
TransformersConverter(arguments.checkpoint).convert(arguments.out, quantization="float32", force=True)
