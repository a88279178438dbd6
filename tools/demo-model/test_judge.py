"""python -m unittest discover tools/demo-model"""
import unittest

import judge


def tokens(text):
    return judge.words(text)


class Loops(unittest.TestCase):
    def test_a_phrase_three_times_in_succession_is_a_loop(self):
        for text, covered in (("and so he went home and so he went home and so he went home and", 16),
                              ("it is very very very very very very very very good", 8),
                              ("the king of the king of the king of the king", 11)):
            self.assertEqual(judge.longest_loop(tokens(text)), covered, text)

    def test_twice_or_short_or_apart_is_none(self):
        for text in ("and so he went home and so he went home and slept", "no no no no, said the man",
                     "he went home, she went home, they went home at last", ""):
            self.assertEqual(judge.longest_loop(tokens(text)), 0, text)

    def test_repeated_phrases_are_found_wherever_they_are(self):
        six = "it was a dark and stormy night, and then it was a dark and stormy morning"
        four = "a good man to be, he said, a good man to know, and a good man to have"
        found = [judge.has_repeated_phrase(tokens(text)) for text in (six, four, four[:40])]
        self.assertEqual(found, [True, True, False])


class Figures(unittest.TestCase):
    def test_sentences_are_the_complete_ones(self):
        text = 'The dog ran home. "Where is it?" she asked. Title\n\nIt was late! And then he'
        self.assertEqual(judge.sentences(text), ["The dog ran home.", '"Where is it?" she asked.', "It was late!"])

    def test_distinct_is_the_share_of_different_ngrams(self):
        self.assertEqual(judge.distinct([["a", "b"], ["a", "b"]], 2), 0.5)

    def test_shares_are_of_all_samples(self):
        loop = " and so on" * 12
        samples = [judge.Sample("One", 1, loop), judge.Sample("One", 2, " day the cat went out to find a mouse.")]
        figures = judge.judge(samples)
        self.assertEqual([figures[name] for name in ("with a loop", "that are one repeated phrase",
                                                     "with a repeated phrase", "samples")], [0.5, 0.5, 0.5, 2])


if __name__ == "__main__":
    unittest.main()
