#!/usr/bin/env python3
"""CTranslate2. --model: the folder that prepare_ctranslate2.py wrote. Not every CPU has every variant."""
import measurement  # first: it sets what runtimes read when they are imported

import json
import os

import ctranslate2

COMPUTE_TYPES = {"f32": "float32", "bf16": "bfloat16", "int8": "int8"}


class CTranslate2(measurement.Peer):
    name = "ctranslate2"
    variants = tuple(COMPUTE_TYPES)

    def versions(self):
        return {"ctranslate2": ctranslate2.__version__}

    def load(self, arguments):
        with open(os.path.join(arguments.model, "vocabulary.json"), encoding="utf-8") as file:
            self.vocabulary = json.load(file)
        self.generator = ctranslate2.Generator(arguments.model, device="cpu", inter_threads=1,
                                               compute_type=COMPUTE_TYPES[arguments.variant],
                                               intra_threads=arguments.threads)

    def generate(self, batch, new):
        tokens = [[self.vocabulary[token] for token in row] for row in batch]
        results = self.generator.generate_batch(tokens, beam_size=1, max_length=new, min_length=new, end_token=[],
                                                include_prompt_in_result=False, max_batch_size=0)
        return [result.sequences_ids[0] for result in results]


measurement.main(CTranslate2())
