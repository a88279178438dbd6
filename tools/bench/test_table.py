"""python -m unittest discover tools/bench"""
import json
import unittest

import table

MACHINE = {"peer": "machine", "cpu": "A CPU", "instructions": ["avx2"], "cores": 2, "system": "Linux 6", "date": "2000-01-01",
           "commit": "abc", "size": "small", "threads": 2, "rounds": 2, "reps": 1, "command": "the command"}


def result(peer, variant="f32", weights="f32", decode=50.0, cold=0.5, **more):
    return {"peer": peer, "variant": variant, "weights": weights, "decode_tps": decode, "cold_s": cold,
            "prefill_tps": {"512": 10 * decode}, "others_pct": 0.4, "versions": {peer: "1.0"}, **more}


def cells(text, name):
    """The cells of the rows with this runtime."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row[2:] for row in rows if row[1] == name]


class Median(unittest.TestCase):
    def test_figures_that_are_missing_do_not_count(self):
        self.assertEqual(table.median([3, None, 1, 2]), 2)
        self.assertEqual(table.median([1, 4]), 2.5)
        self.assertIsNone(table.median([None]))

    def test_a_figure_may_be_missing_anywhere_on_its_path(self):
        for broken in ({}, {"prefill_tps": None}, {"prefill_tps": {}}):
            self.assertIsNone(table.figure(broken, ("prefill_tps", "32")))
        self.assertEqual(table.figure({"prefill_tps": {"32": 7}}, ("prefill_tps", "32")), 7)


class Table(unittest.TestCase):
    def test_rows_are_medians_over_rounds(self):
        text = table.table([result("gpt2", decode=rate) for rate in (10, 60, 50)])
        self.assertEqual(cells(text, "gpt2")[0][0], "**50.0**")

    def test_above_1_is_better_for_rates_and_for_times(self):
        text = table.table([result("gpt2", decode=60, cold=0.2), result("a", decode=50, cold=0.5),
                            result("b", decode=40, cold=0.4)])
        ratio = cells(text, "*ratio*")[0]
        self.assertEqual((ratio[0], ratio[7]), ("*1.20*", "*2.00*"))

    def test_the_best_of_a_format_is_bold_whoever_it_is(self):
        text = table.table([result("gpt2", decode=60, cold=0.6), result("a", decode=50, cold=0.5)])
        self.assertEqual((cells(text, "gpt2")[0][0], cells(text, "gpt2")[0][7]), ("**60.0**", "0.60"))
        self.assertEqual((cells(text, "a f32")[0][0], cells(text, "a f32")[0][7]), ("50.0", "**0.50**"))

    def test_formats_are_compared_with_themselves_only(self):
        text = table.table([result("gpt2", decode=60), result("a", decode=30),
                            result("gpt2", "int8", "8-bit", decode=100), result("a", "q", "8-bit", decode=200)])
        self.assertEqual([ratio[0] for ratio in cells(text, "*ratio*")], ["*2.00*", "*0.50*"])

    def test_ours_comes_first_and_alone_has_no_ratio(self):
        self.assertEqual(cells(table.table([result("gpt2")]), "*ratio*"), [])
        text = table.table([result("a"), result("gpt2")])
        self.assertLess(text.index("| gpt2 "), text.index("| a f32 "))

    def test_what_was_not_measured_is_a_dash(self):
        self.assertEqual(cells(table.table([result("a")]), "a f32")[0][1], "–")


class Section(unittest.TestCase):
    def test_without_results_it_says_so(self):
        for results in ([], [MACHINE], [MACHINE, {"peer": "a", "variant": "f32", "weights": "f32", "error": "no"}]):
            self.assertEqual(table.section(results), "Not measured yet.")

    def test_it_names_machine_bandwidth_versions_failures_and_the_command(self):
        limits = [{"peer": "limits", "read_gbs": {"500": speed}} for speed in (30.0, 40.0, 31.0)]
        failed = {"peer": "b", "variant": "bf16", "weights": "16-bit", "error": "secret /path"}
        text = table.section([MACHINE, *limits, result("gpt2", decode=50), result("gpt2", decode=55), failed])
        for expected in ("A CPU (2 cores; AVX2)", "2000-01-01", "31 GB/s (30 to 40)", "gpt2 1.0 (abc)", "b bf16",
                         "\n    the command"):
            self.assertIn(expected, text)
        self.assertIn("by 10 % at most", " ".join(text.split()))
        self.assertNotIn("secret", text)

    def test_a_variant_that_failed_once_is_measured_all_the_same(self):
        text = table.section([MACHINE, result("a"), {"peer": "a", "variant": "f32", "weights": "f32", "error": "busy"}])
        self.assertNotIn("did not run", text)

    def test_it_says_whether_the_tokens_agree(self):
        def text(tokens):
            return " ".join(table.section([MACHINE, result("gpt2", tokens=[1, 2]), result("a", tokens=tokens)]).split())
        self.assertIn("these give the same first eight tokens: gpt2, a.", text([1, 2]))
        self.assertIn("the first eight tokens differ: gpt2 [1, 2]; a [1, 3].", text([1, 3]))

    def test_results_of_earlier_runs_do_not_count(self):
        lines = [MACHINE, result("a"), {**MACHINE, "date": "2001-01-01"}, result("b")]
        last = table.last_run("\n".join(json.dumps(line) for line in lines) + "\n")
        self.assertEqual([line["peer"] for line in last], ["machine", "b"])
        self.assertEqual(table.last_run(""), [])
        with self.assertRaises(SystemExit):
            table.last_run(json.dumps(result("a")))


class Readme(unittest.TestCase):
    DOCUMENT = f"before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n"

    def test_only_the_text_between_the_markers_changes(self):
        self.assertEqual(table.replaced(self.DOCUMENT, "new"), self.DOCUMENT.replace("old", "new"))

    def test_writing_the_same_twice_changes_nothing(self):
        once = table.replaced(self.DOCUMENT, "new")
        self.assertEqual(table.replaced(once, "new"), once)

    def test_a_document_without_its_markers_is_refused(self):
        for document in ("", table.BEGIN, table.END, table.END + table.BEGIN, 2 * self.DOCUMENT):
            with self.assertRaises(SystemExit, msg=document):
                table.replaced(document, "new")


if __name__ == "__main__":
    unittest.main()
