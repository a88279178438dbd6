"""python -m unittest discover tools/quantization"""
import argparse
import unittest
from pathlib import Path
from unittest import mock

import compare

ARGUMENTS = argparse.Namespace(tokens=512, window=512, program=Path("gpt2"))


def result(row, text="a", **more):
    figures = {"format": row, "text": text, "bits": 8.5, "kl": 1.5e-4, "kl_stderr": 2e-6, "kl_max": 2e-3, "same": 0.99,
               "perplexity": 20.5, "perplexity_f32": 20.0, "positions": 511, **more}
    return figures if row in compare.OURS else {**figures, "version": "1.2"}


def section(results, texts=("a",)):
    with mock.patch.object(compare, "output", return_value="gpt2 0.1.0\n"):
        return compare.section(results, list(texts), ARGUMENTS)


class Section(unittest.TestCase):
    def test_every_text_has_a_table_with_a_row_for_each_format(self):
        text = section([result(row, name) for name in "ab" for row in compare.ROWS], "ab")
        rows = [line for line in text.splitlines() if line.startswith("| ") and "KL" not in line]
        self.assertEqual(len(rows), 2 * len(compare.ROWS))
        self.assertEqual(rows[1], "| int8 | 8.50 | 1.50e-04 ± 2e-06 | 2.0e-03 | 99.00 % | 20.50 |")
        self.assertTrue(rows[2].startswith("| llama.cpp Q8_0 |"))
        self.assertIn("llama-cpp-python 1.2,", " ".join(text.split()))

    def test_what_is_missing_or_not_the_same_work_is_refused(self):
        rows = compare.ROWS
        for wrong, message in (
            ([result(row) for row in rows[1:]], "no result of 512 tokens for bf16 on a"),
            ([*(result(row) for row in rows[:-1]), result(rows[-1], positions=400)], "less than 512 tokens"),
            ([*(result(row) for row in rows[:2]), *(result(row, perplexity_f32=21.0) for row in rows[2:])], "in f32 is"),
        ):
            with self.assertRaisesRegex(SystemExit, message):
                section(wrong)


class Document(unittest.TestCase):
    def test_what_is_between_the_markers_is_replaced(self):
        document = f"before {compare.BEGIN} old {compare.END} after"
        self.assertEqual(compare.replaced(document, "new"), f"before {compare.BEGIN}\nnew\n{compare.END} after")
        for broken in ("none", f"{compare.END} {compare.BEGIN}", 2 * document):
            with self.assertRaises(SystemExit):
                compare.replaced(broken, "new")


class Arguments(unittest.TestCase):
    def test_a_text_has_a_name_and_a_path(self):
        self.assertEqual(compare.named_path("a=b=c"), ("a", Path("b=c")))
        for broken in ("a", "=b", "a="):
            with self.assertRaises(argparse.ArgumentTypeError):
                compare.named_path(broken)


if __name__ == "__main__":
    unittest.main()
