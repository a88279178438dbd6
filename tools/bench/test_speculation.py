"""python -m unittest discover tools/bench"""
import contextlib
import io
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import speculation

# Stands in for `gpt2`: its tokens are those of the environment, and it takes half the time where it guesses.
PROGRAM = f"""#!{sys.executable}
import json, os, sys
guesses = "--speculate" in sys.argv or "--assistant" in sys.argv
record = {{"tokens": json.loads(os.environ["GUESSED" if guesses else "PLAIN"]), "prompt": sys.argv[-1],
          "timing": {{"decode_s": 1.0 if guesses else 2.0}}}}
if guesses:
    record["speculation"] = {{"passes": 2, "drafted": 3, "accepted": 1, "drafted_by_position": [2, 1, 0],
                             "accepted_by_position": [1, 0, 0]}}
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print(json.dumps(record))
"""


def run(*flags, plain=(5, 6, 7, 8), guessed=None, lines=None):
    """What a run prints, the lines it writes, and how it called the program."""
    with tempfile.TemporaryDirectory() as folder:
        program, out, calls, prompts = (Path(folder, name) for name in ("gpt2", "out", "calls", "prompts"))
        program.write_text(PROGRAM)
        program.chmod(0o700)
        if lines is not None:
            prompts.write_text(lines)
            flags = (*flags, "--prompts", str(prompts))
        guessed = plain if guessed is None else guessed
        environment = {"PLAIN": json.dumps(plain), "GUESSED": json.dumps(guessed), "CALLS": str(calls)}
        call = ["speculation.py", "--program", str(program), "--model", "x", "--rounds", "2", "--json", str(out), *flags]
        text = io.StringIO()
        with mock.patch.dict(os.environ, environment), mock.patch.object(sys, "argv", call), contextlib.redirect_stdout(text):
            speculation.main()
        return text.getvalue(), *([json.loads(line) for line in file.read_text().splitlines()] for file in (out, calls))


class Difference(unittest.TestCase):
    def test_it_is_the_first_place(self):
        for a, b, place in (([1, 2], [1, 2], None), ([1, 2, 3], [1, 4, 5], 1), ([1, 2], [1, 2, 3], 2), ([], [1], 0),
                            ([], [], None)):
            self.assertEqual(speculation.difference(a, b), place)
            self.assertEqual(speculation.difference(b, a), place)

    def test_a_text_that_differs_or_ends_early_ends_the_run(self):
        for guessed, place in (([9, 6, 7, 8], 0), ([5, 6, 9, 8], 2), ([5, 6, 7], 3)):
            with self.assertRaises(SystemExit) as raised:
                run("--ways", "self", guessed=guessed, lines="A fox\n")
            self.assertEqual(str(raised.exception), f"self differs from plain decoding at token {place} behind 'A fox', seed 0")


class Figures(unittest.TestCase):
    def test_rates_ratios_and_shares(self):
        text, (plain, guessed), _ = run("--ways", "prompt-lookup", "--settings", "greedy", lines="One\nTwo\nThree\n")
        self.assertEqual((plain["way"], plain["tokens_per_second"], plain["ratio"]), ("plain", 2.0, 1.0))
        self.assertEqual((guessed["way"], guessed["tokens_per_second"], guessed["ratio"]), ("prompt-lookup", 4.0, 2.0))
        self.assertEqual((guessed["tokens_per_round"], guessed["ratio_range"]), (12, [2.0, 2.0]))
        # Two rounds of three prompts.
        self.assertEqual((guessed["passes"], guessed["drafted"], guessed["accepted"]), (12, 18, 6))
        self.assertEqual((guessed["drafted_by_position"], guessed["accepted_by_position"]), ([12, 6, 0], [6, 0, 0]))
        self.assertIn("0.33 of guesses right, 1.50 tokens a pass; by position: 0.50 0.00\n", text)


class Prompts(unittest.TestCase):
    def test_lines_of_a_file_are_prompts_and_blank_ones_are_not(self):
        _, lines, calls = run("--ways", "self", "--settings", "greedy", lines="One\n\n- a list\nThree\n")
        self.assertEqual([call[-2:] for call in calls[::2]], [["--", prompt] for prompt in ("One", "- a list", "Three")] * 2)
        self.assertEqual({line["texts"] for line in lines}, {"file"})

    def test_a_round_may_be_limited(self):
        _, _, calls = run("--prompts-per-round", "2", "--ways", "self", "--settings", "greedy")
        prompts = [call[-1] for call in calls[::2]]
        self.assertEqual(prompts, speculation.ORDINARY[:2] * 2 + speculation.REPEATING[:2] * 2)

    def test_a_file_without_prompts_is_refused(self):
        with self.assertRaises(SystemExit) as raised:
            run(lines="\n")
        self.assertIn("no prompts to measure", str(raised.exception))

    def test_an_unknown_name_is_refused_before_anything_is_measured(self):
        for option, known in (("--settings", "greedy"), ("--ways", "self"), ("--texts", "ordinary")):
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as said:
                run(option, known + ",nothing")
            self.assertIn(f"argument {option}: found `nothing`, expected some of", said.getvalue())


class Ways(unittest.TestCase):
    def test_all_take_turns_prompt_by_prompt(self):
        _, _, calls = run("--assistant", "small", "--settings", "greedy", lines="One\nTwo\n")
        turns = [next((" ".join(call[i:i + 2]) for i, flag in enumerate(call) if flag in ("--speculate", "--assistant")), "plain")
                 for call in calls]
        self.assertEqual(turns, ["plain", "--speculate self", "--speculate prompt-lookup", "--assistant small"] * 4)


if __name__ == "__main__":
    unittest.main()
