"""python -m unittest discover tools/demo-model"""
import contextlib
import io
import json
import signal
import tempfile
import unittest
import unittest.mock
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import losses
import model as gpt2
import pieces
import schedule
import token_file
import train
from batches import Mixer
from token_file import END_OF_TEXT, TRAINING, VOCABULARY, Part

SHAPE = gpt2.Shape(n_embd=32, n_layer=2, n_head=2, n_positions=32)
TINY = ["--n-embd", "32", "--n-layer", "2", "--n-head", "2", "--n-positions", "32", "--tokens-per-step", "128",
        "--tokens-at-once", "64", "--chunk", "32", "--threads", "1", "--log-every", "2", "--no-compile"]


def some_parts():
    """A few documents of few different tokens, so that a tiny model learns something soon."""
    generator = np.random.default_rng(0)

    def tokens(documents):
        found = [np.append(END_OF_TEXT, generator.integers(0, 50, 60)) for _ in range(documents)]
        return np.concatenate(found).astype(np.uint16)
    return [Part("heldout", "childrens_ccby", tokens(10)), Part("heldout", "usgov_cc0", tokens(5)),
            Part("heldout_modern", "modern_open", tokens(10)), Part(TRAINING, "tinystories_cdla", tokens(40)),
            Part(TRAINING, "modern_open", tokens(40))]


class Schedule(unittest.TestCase):
    def test_the_limit_that_is_nearest_counts(self):
        limits = schedule.Limits(tokens=100, wall_s=10)
        self.assertEqual([limits.progress(50, 99, 2), limits.progress(50, 0, 8), limits.progress(10**6, 0, 0)],
                         [0.5, 0.8, 1.0])

    def test_the_learning_rate_rises_holds_and_falls_to_zero(self):
        rates = [schedule.learning_rate(2.0, *at) for at in ((0, 0.0), (10**4, 0.3), (10**4, 0.7), (10**4, 1.0))]
        np.testing.assert_allclose(rates, [2.0 / schedule.WARMUP_STEPS, 2.0, 1.0, 0.0])

    def test_the_average_weighs_steps_by_a_power_of_their_number(self):
        average = 0.0
        for step in range(1, 101):  # the values are 1 at step 90 and 0 elsewhere: what remains is the weight of step 90
            average += schedule.ema_weight(step) * ((step == 90) - average)
        weights = [step**schedule.EMA_POWER for step in range(1, 101)]
        self.assertAlmostEqual(average, weights[89] / sum(weights), delta=0.2 * average)


class Losses(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.hidden = torch.randn(10, 8, requires_grad=True)
        self.wte = torch.randn(VOCABULARY, 8, requires_grad=True)
        self.targets = torch.randint(0, VOCABULARY, (10,))

    def test_chunks_give_the_loss_and_gradients_of_the_whole(self):
        expected = 0.5 * F.cross_entropy(self.hidden @ self.wte.T, self.targets)
        gradients = torch.autograd.grad(expected, (self.hidden, self.wte))
        found = losses.full_backward(self.hidden, self.targets, self.wte, 3, 0.5)
        torch.testing.assert_close(found, expected.detach())
        torch.testing.assert_close((self.hidden.grad, self.wte.grad), gradients)

    def test_the_sampled_loss_is_near_the_exact_one(self):
        negatives = losses.Negatives(torch.arange(VOCABULARY))
        exact = F.cross_entropy(self.hidden @ self.wte.T * 0.3, self.targets).item()
        found = [losses.sampled(self.hidden * 0.3, self.targets, self.wte, negatives, step).item() for step in range(8)]
        self.assertAlmostEqual(np.mean(found), exact, delta=0.1)

    def test_held_out_losses_are_means_over_all_tokens_by_source(self):
        model = gpt2.Gpt2(SHAPE).eval()
        parts = [(part.source, part.tokens) for part in some_parts() if part.kind == "heldout"]
        found = losses.held_out(model, parts, 32, rows=3)
        tokens = torch.from_numpy(np.concatenate([part for _, part in parts]).astype(np.int64))
        sums = []
        for start in range(0, len(tokens) - 32, 32):
            logits = model(tokens[None, start:start + 32])[0] @ model.wte.weight[:VOCABULARY].T
            sums.append(F.cross_entropy(logits, tokens[start + 1:start + 33], reduction="sum").item())
        self.assertAlmostEqual(found["all"], sum(sums) / (32 * len(sums)), delta=0.01)
        sizes = dict((source, len(part)) for source, part in parts)
        mean = sum(found[source] * size for source, size in sizes.items()) / sum(sizes.values())
        self.assertAlmostEqual(found["all"], mean, places=3)


class Checkpoint(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.model = gpt2.Gpt2(SHAPE).eval()
        for name, data in gpt2.checkpoint_files(self.model, self.model.state_dict(), {"step": "1"}).items():
            (self.folder / name).write_bytes(data)
        self.tokens = torch.randint(0, VOCABULARY, (1, 20), generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def test_transformers_computes_the_same_logits(self):
        from transformers import GPT2LMHeadModel
        theirs, report = GPT2LMHeadModel.from_pretrained(self.folder, dtype=torch.float32, output_loading_info=True)
        self.assertFalse(any(report.values()), report)
        ours = gpt2.load(self.folder).eval()
        torch.testing.assert_close(ours(self.tokens) @ ours.wte.weight[:VOCABULARY].T,
                                   theirs.eval()(self.tokens).logits, atol=1e-5, rtol=1e-5)

    def test_the_safetensors_library_reads_the_same_values(self):
        from safetensors.torch import load_file
        path = self.folder / "model.safetensors"
        theirs, ours = load_file(path), gpt2.read_safetensors(path)
        self.assertEqual(theirs.keys(), ours.keys())
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor.float(), rtol=0, atol=0)

    def test_the_parameters_are_counted_without_the_padding(self):
        tensors = gpt2.read_safetensors(self.folder / "model.safetensors")
        self.assertEqual(self.model.parameters_exported(), sum(tensor.numel() for tensor in tensors.values()))


class FallingBack(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.run_folder = Path(temporary.name)
        self.plan = train.PLANS["gpu"]._replace(tokens_per_step=128, tokens_at_once=128, chunk=1024, compile=False)

    def training(self, plan):
        training = train.Training(SHAPE, plan, Mixer(some_parts(), "cpu"), schedule.Limits(tokens=1000),
                                  self.run_folder, "cpu", 1)
        training.model.train()
        return training

    def settle(self, training):
        with contextlib.redirect_stdout(io.StringIO()):
            training.settle()
        lines = (self.run_folder / "log.jsonl").read_text().splitlines()
        return [entry["error"] for entry in map(json.loads, lines) if entry["event"] == "fell back"]

    def test_trying_changes_nothing(self):
        training = self.training(self.plan)
        before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
        self.assertEqual(self.settle(training), [])
        for name, tensor in training.model.state_dict().items():
            self.assertTrue(torch.equal(tensor, before[name]), name)
        self.assertEqual((training.state["tokens"], training.mixer.state["drawn"]), (0, 0))

    def test_out_of_memory_halves_the_batch_and_the_step_keeps_its_tokens(self):
        training = self.training(self.plan)
        forward = training.model.forward

        def small_memory(tokens):
            if tokens.numel() > 32:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(tokens)
        training.model.forward = small_memory
        self.assertEqual(len(self.settle(training)), 2)
        self.assertEqual(training.plan.tokens_at_once, 32)
        training.backward(0.5)
        self.assertEqual(training.state["tokens"], 128)

    def test_what_cannot_be_compiled_runs_uncompiled(self):
        training = self.training(self.plan)

        def broken(*_, **__):
            raise RuntimeError("no compiler")
        training.plan, training.chunk = training.plan._replace(compile=True), broken
        self.assertEqual(self.settle(training), ["RuntimeError: no compiler"])
        self.assertFalse(training.plan.compile)

    def test_a_compilation_that_takes_too_long_is_given_up(self):
        with self.assertRaises(TimeoutError), train.time_limit(1):
            while True:
                pass

    def test_without_muon_adamw_serves(self):
        training = self.training(self.plan)

        def broken(*_, **__):
            raise RuntimeError("no bf16")
        training.optimizers[0].step = broken
        self.assertEqual(self.settle(training), ["RuntimeError: no bf16"])
        self.assertEqual([type(each) for each in training.optimizers], [torch.optim.AdamW])

    def test_a_library_that_has_no_muon_trains_with_adamw(self):
        with unittest.mock.patch.object(torch.optim, "Muon"):
            del torch.optim.Muon
            training = self.training(self.plan)
        self.assertEqual((training.plan.optimizer, self.settle(training)), ("adamw", []))

    def test_an_error_that_nothing_helps_against_is_raised(self):
        training = self.training(self.plan._replace(optimizer="adamw"))
        with self.assertRaisesRegex(RuntimeError, "broken"):
            training.fall_back(RuntimeError("broken"))


class NotANumber(unittest.TestCase):
    def test_after_a_loss_that_is_not_finite_the_training_goes_back_and_ends_well(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            plan = train.PLANS["gpu"]._replace(tokens_per_step=64, tokens_at_once=64, compile=False, log_every=2,
                                               optimizer="adamw", bf16=False)
            training = train.Training(SHAPE, plan, Mixer(some_parts(), "cpu"), schedule.Limits(tokens=64 * 20),
                                      Path(folder), "cpu", 1)
            update = training.update

            def spoil_step_7(lr):
                update(lr)
                if training.mixer.state["drawn"] == 7:
                    with torch.no_grad():
                        training.model.wte.weight.fill_(float("nan"))
            training.update = spoil_step_7
            train.train(training, {}, None, checkpoints=True, max_steps=1000)
            saved = torch.load(Path(folder) / "checkpoint.pt")
        self.assertEqual(saved["state"]["tokens"], 64 * 20)
        self.assertEqual(saved["state"]["lr_scale"], 0.7)
        for name in ("model", "average"):
            self.assertTrue(all(tensor.isfinite().all() for tensor in saved[name].values()), name)


class Runs(unittest.TestCase):
    """The program itself, from a file of tokens to a model."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = Path(cls.temporary.name)
        parts = some_parts()
        token_file.write(cls.folder / "tokens", parts, [token_file.pack(part.tokens) for part in parts])

    def train(self, run, *options):
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        with contextlib.redirect_stdout(io.StringIO()):
            train.main([str(self.folder / "tokens"), str(self.folder / run), *TINY, *options])
        lines = (self.folder / run / "log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def test_a_gpu_run_leaves_a_model_in_pieces_and_its_losses(self):
        log = self.train("gpu", "--plan", "gpu", "--tokens", "8000", "--optimizer", "adamw")
        files = pieces.join(self.folder / "gpu")
        self.assertEqual(set(files), {"config.json", "generation_config.json", "model.safetensors", "training.json"})
        self.assertLess(log[-2]["all"], 9.0)  # from 10.8
        self.assertEqual([line["text"] for line in log if "text" in line], ["heldout", "heldout_modern"])
        self.assertGreaterEqual(sum(line.get("event") == "exported" for line in log), 6)
        self.assertLessEqual(len(list((self.folder / "gpu").iterdir())), 3)

    def test_a_resumed_run_ends_where_one_that_was_not_stopped_does(self):
        options = "--plan", "cpu", "--tokens", "2560", "--short-window", "16"
        self.train("whole", *options)
        self.train("parts", *options, "--max-steps", "7")
        self.train("parts", *options, "--resume")
        whole, parts = (torch.load(self.folder / run / "checkpoint.pt") for run in ("whole", "parts"))
        self.assertEqual(whole["state"]["step"], 20)
        for name in ("model", "average"):
            for key, tensor in whole[name].items():
                self.assertTrue(torch.equal(tensor, parts[name][key]), (name, key))


if __name__ == "__main__":
    unittest.main()
