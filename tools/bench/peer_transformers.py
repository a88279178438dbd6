#!/usr/bin/env python3
"""Hugging Face transformers on torch, eager. --model: a checkpoint folder.

Variants: f32, bf16, and int8-dyn, torch's dynamic quantization of the linear layers.
"""
import measurement  # first: it sets what runtimes read when they are imported

import torch
import transformers
from transformers.pytorch_utils import Conv1D


class Transformers(measurement.Peer):
    name = "transformers"
    variants = ("f32", "bf16", "int8-dyn")

    def versions(self):
        return {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}

    def load(self, arguments):
        torch.set_num_threads(arguments.threads)
        transformers.logging.set_verbosity_error()
        dtype = torch.bfloat16 if arguments.variant == "bf16" else torch.float32
        self.model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).eval()
        if arguments.variant == "int8-dyn":
            self.model = quantized(self.model)

    @torch.inference_mode()
    def generate(self, batch, new):
        cache = transformers.DynamicCache()
        tokens, out = torch.tensor(batch), []
        while len(out) < new:
            logits = self.model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            tokens = logits[:, -1].argmax(-1, keepdim=True)
            out.append(tokens)
        return torch.cat(out, 1).tolist()


def quantized(model):
    """Replaces the layers that torch does not know as linear, unties the head, and quantizes all of them."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):
                linear = torch.nn.Linear(child.weight.shape[0], child.weight.shape[1])
                linear.weight = torch.nn.Parameter(child.weight.t().contiguous())
                linear.bias = child.bias
                setattr(module, name, linear)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


measurement.main(Transformers())
