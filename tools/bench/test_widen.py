"""python -m unittest discover tools/bench; needs NumPy"""
import json
import struct
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import widen
from make_checkpoint import Tensor, write_safetensors

CONFIG = {"n_embd": 8, "n_head": 2, "n_layer": 2, "vocab_size": 11, "n_positions": 6}
TOKENS = [3, 10, 0, 7, 7, 1]


def drawn(config, seed=0):
    """Weights that leave nothing out: no bias is zero, no layer norm is plain."""
    draw = np.random.default_rng(seed)
    out = {name: draw.standard_normal(shape).astype(np.float32) / 2 for name, shape in widen.shapes(config).items()}
    for name, value in out.items():
        if "ln_" in name and name.endswith(".weight"):
            value += 1
    return out


def write(path, weights):
    write_safetensors(path, [Tensor(name, value.shape, lambda value=value: value) for name, value in weights.items()])


def logits(config, weights, tokens):
    """GPT-2's forward pass in double precision: (T, V)."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    heads, size = config["n_head"], config["n_embd"] // config["n_head"]

    def linear(x, name):
        return x @ w[name + ".weight"] + w[name + ".bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w[name + ".weight"] + w[name + ".bias"]

    x = w["wte.weight"][tokens] + w["wpe.weight"][:len(tokens)]
    hidden = np.triu(np.full((len(tokens),) * 2, -np.inf), 1)
    for layer in range(config["n_layer"]):
        block = f"h.{layer}."
        q, k, v = (part.reshape(len(tokens), heads, size).swapaxes(0, 1)  # (H, T, D)
                   for part in np.split(linear(norm(x, block + "ln_1"), block + "attn.c_attn"), 3, axis=-1))
        scores = np.exp(q @ k.swapaxes(1, 2) / size**0.5 + hidden)
        seen = scores / scores.sum(-1, keepdims=True) @ v
        x = x + linear(seen.swapaxes(0, 1).reshape(x.shape), block + "attn.c_proj")
        up = linear(norm(x, block + "ln_2"), block + "mlp.c_fc")
        up = up / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (up + 0.044715 * up**3)))
        x = x + linear(up, block + "mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


class Widened(unittest.TestCase):
    def test_the_logits_are_those_of_the_model(self):
        weights = drawn(CONFIG)
        expected = logits(CONFIG, weights, TOKENS)
        for factor, layers in ((1, 2), (1, 5), (2, 2), (3, 4)):
            wide = dict(CONFIG, n_embd=8 * factor, n_head=2 * factor, n_layer=layers)
            found = logits(wide, widen.widened(weights, CONFIG["n_layer"], layers, factor), TOKENS)
            # Divided by 3, weights are rounded to 24 bits: a ten-millionth each.
            self.assertLess(np.abs(found - expected).max() / np.abs(expected).max(), 1e-4, (factor, layers))

    def test_the_tensors_are_those_of_the_wide_model(self):
        made = widen.widened(drawn(CONFIG), 2, 5, 3)
        wide = dict(CONFIG, n_embd=24, n_head=6, n_layer=5)
        self.assertEqual({name: value.shape for name, value in made.items()}, widen.shapes(wide))
        self.assertEqual({value.dtype for value in made.values()}, {np.dtype(np.float32)})

    def test_blocks_that_add_nothing_are_ordinary_but_for_what_they_add(self):
        made = widen.widened(drawn(CONFIG), 2, 4, 3)
        zero = {name for name, value in made.items() if not value.any()}
        self.assertEqual(zero, {f"h.{layer}.{name}.{kind}" for layer in (2, 3) for name in ("attn.c_proj", "mlp.c_proj")
                                for kind in ("weight", "bias")})


class Written(unittest.TestCase):
    def test_the_checkpoint_holds_together(self):
        """Also where a size is written out that is usually left to be derived."""
        for more in ({}, {"n_inner": None}, {"n_inner": 32}):
            with tempfile.TemporaryDirectory() as folder:
                model, wide = Path(folder, "model"), Path(folder, "wide")
                model.mkdir()
                (model / "config.json").write_text(json.dumps({**CONFIG, **more}))
                (model / "tokenizer.json").write_text("{}")
                write(model / "model.safetensors", drawn(CONFIG))
                with mock.patch.object(sys, "argv", ["widen.py", str(wide), "--model", str(model), "--layers", "4"]):
                    widen.main()
                self.assertEqual({path.name for path in wide.iterdir()}, {"config.json", "model.safetensors", "tokenizer.json"})
                config = json.loads((wide / "config.json").read_text())
                weights = widen.read_safetensors(wide / "model.safetensors")
            self.assertEqual([config[name] for name in ("n_embd", "n_head", "n_layer")], [24, 6, 4])
            # Refuses what does not fit.
            widen.refuse(config, weights, 4, 1)

    def test_a_model_is_not_overwritten_by_itself(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(SystemExit) as raised:
            with mock.patch.object(sys, "argv", ["widen.py", folder, "--model", folder + "/."]):
                widen.main()
        self.assertIn("is the model itself", str(raised.exception))


class Refused(unittest.TestCase):
    def refused(self, words, config=None, weights=None, layers=2, factor=3):
        with self.assertRaises(SystemExit) as raised:
            widen.refuse({**CONFIG, **(config or {})}, {**drawn(CONFIG), **(weights or {})}, layers, factor)
        self.assertIn(words, str(raised.exception))

    def test_what_fits_is_not(self):
        weights = drawn(CONFIG)
        for config in ({}, {"n_inner": None}, {"n_inner": 32}, {"tie_word_embeddings": True}):
            widen.refuse({**CONFIG, **config}, {**weights, "lm_head.weight": weights["wte.weight"].copy()}, 2, 3)

    def test_heads_that_are_not_tied(self):
        self.refused("`lm_head.weight`, is not tied", config={"tie_word_embeddings": False})
        self.refused("`lm_head.weight`, is not tied", weights={"lm_head.weight": drawn(CONFIG, 1)["wte.weight"]})

    def test_sizes_that_do_not_fit(self):
        self.refused("`n_inner` is 24, expected 4 times `n_embd`: 32", config={"n_inner": 24})
        self.refused("`--layers` is 1, expected at least the model's 2", layers=1)
        self.refused("`--factor` is 0", factor=0)
        self.refused("`h.1.mlp.c_fc.weight` has shape (8, 31), expected (8, 32)",
                     weights={"h.1.mlp.c_fc.weight": np.zeros((8, 31), np.float32)})
        self.refused("the model has no `h.2.ln_1.weight`, expected one of shape (8,)", config={"n_layer": 3}, layers=3)


class Read(unittest.TestCase):
    def test_numbers_of_all_formats_are_read_as_they_are(self):
        values = np.array([0, 1, -2.5, 0.09375], np.float32)  # Representable in all of them.
        raw = {"F32": values.tobytes(), "F16": values.astype("<f2").tobytes(),
               "BF16": (values.view("<u4") >> 16).astype("<u2").tobytes()}
        for dtype, data in raw.items():
            header = f'{{"transformer.wte.weight":{{"dtype":"{dtype}","shape":[2,2],"data_offsets":[0,{len(data)}]}}}}'.encode()
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.safetensors"
                path.write_bytes(struct.pack("<Q", len(header)) + header + data)
                read = widen.read_safetensors(path)
            self.assertEqual(list(read), ["wte.weight"])
            np.testing.assert_array_equal(read["wte.weight"], values.reshape(2, 2), dtype)

    def test_what_is_written_is_read(self):
        weights = drawn(CONFIG)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            write(path, weights)
            read = widen.read_safetensors(path)
        self.assertEqual(set(read), set(weights))
        for name, value in weights.items():
            np.testing.assert_array_equal(read[name], value, name)


if __name__ == "__main__":
    unittest.main()
