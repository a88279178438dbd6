"""python -m unittest discover tools/demo-model"""
import copy
import tempfile
import unittest
from pathlib import Path

import numpy as np

import pieces
import prepare
import prose
import sources
import token_file
from batches import Mixer
from token_file import END_OF_TEXT, TRAINING, Part


def part(source, lengths, kind=TRAINING):
    """A part whose documents have these lengths; no token comes twice but for the one that begins a document."""
    tokens, first = [], 0
    for length in lengths:
        tokens += [END_OF_TEXT, *range(first, first + length - 1)]
        first += length
    return Part(kind, source, np.array(tokens, np.uint16))


class Folder(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)


class Pieces(Folder):
    FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 1000}

    def split(self, name, files=FILES):
        return pieces.split(self.folder, name, files, largest=100_000)

    def test_what_was_split_is_joined(self):
        written = self.split("model-060")
        self.assertGreater(len(written), 2)
        self.assertTrue(all(piece.stat().st_size <= 100_000 for piece in written))
        self.assertEqual(pieces.join(self.folder), self.FILES)

    def test_a_new_result_takes_the_place_of_the_old(self):
        old = self.split("model-060")
        new = self.split("model-100", {"config.json": b"new"})
        self.assertFalse(any(piece.exists() for piece in old))
        self.assertEqual(sorted(self.folder.iterdir()), sorted([*new, self.folder / pieces.HASH_FILE]))
        self.assertEqual(pieces.join(self.folder), {"config.json": b"new"})

    def test_killed_before_the_new_hash_is_there_the_old_result_is_whole(self):
        self.split("model-060")
        (self.folder / "model-100.tar.000").write_bytes(b"the first piece of another")
        self.assertEqual(pieces.join(self.folder), self.FILES)

    def test_killed_before_the_old_pieces_are_gone_the_new_result_is_whole(self):
        old = [(piece, piece.read_bytes()) for piece in self.split("model-060")]
        self.split("model-100", {"config.json": b"new"})
        for piece, data in old:
            piece.write_bytes(data)
        self.assertEqual(pieces.join(self.folder), {"config.json": b"new"})

    def test_damaged_missing_and_absent_pieces_are_errors(self):
        first, *_, last = self.split("model-060")
        data = first.read_bytes()
        first.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with self.assertRaisesRegex(SystemExit, "SHA-256"):
            pieces.join(self.folder)
        first.write_bytes(data)
        last.unlink()
        with self.assertRaisesRegex(SystemExit, "SHA-256"):
            pieces.join(self.folder)
        (self.folder / pieces.HASH_FILE).unlink()
        with self.assertRaisesRegex(SystemExit, "no result"):
            pieces.join(self.folder)


class TokenFile(Folder):
    def test_what_was_written_is_read(self):
        parts = [part("a", [5, 9], "heldout"), part("b", [300, 2])]
        path = self.folder / "tokens"
        token_file.write(path, parts, [token_file.pack(one.tokens) for one in parts])
        for held_out_only, expected in ((False, parts), (True, parts[:1])):
            read = token_file.read(path, held_out_only)
            self.assertEqual([one[:2] for one in read], [one[:2] for one in expected])
            for one, other in zip(read, expected):
                np.testing.assert_array_equal(one.tokens, other.tokens)

    def test_documents_begin_with_end_of_text(self):
        self.assertEqual([len(one) for one in token_file.documents(part("a", [5, 1, 9]).tokens)], [5, 1, 9])


class SizeLimit(unittest.TestCase):
    WHOLE = Part(TRAINING, "a", np.concatenate([
        np.append(END_OF_TEXT, np.random.default_rng(number).integers(0, 50_000, 99)) for number in range(200)
    ]).astype(np.uint16))

    def test_what_fits_stays_whole(self):
        part, packed = prepare.fit(self.WHOLE, 1 << 60)
        self.assertIs(part, self.WHOLE)
        self.assertEqual(packed, token_file.pack(self.WHOLE.tokens))

    def test_what_does_not_fit_loses_documents_until_it_does(self):
        part, packed = prepare.fit(self.WHOLE, 10_000)
        self.assertLessEqual(len(packed), 10_000)
        self.assertGreater(part.documents, 40)
        whole = {document.tobytes() for document in token_file.documents(self.WHOLE.tokens)}
        self.assertTrue({document.tobytes() for document in token_file.documents(part.tokens)} < whole)

    def test_with_next_to_no_room_it_is_left_out(self):
        self.assertIsNone(prepare.fit(self.WHOLE, 1000))


class Prose(unittest.TestCase):
    STORY = "The fox and the crow\n\n" + " ".join(["A crow sat in a tree with a piece of cheese."] * 20)

    def test_prose_is_kept_as_it_is(self):
        self.assertEqual(prose.clean(self.STORY), self.STORY)

    def test_paragraphs_that_are_no_prose_are_left_out(self):
        for bad in ("Let x_1 = 3 and run `train`.", "1862, 1863 and 1864: 17, 18, 19.", "See https://example.org.",
                    "This paragraph is longer than a heading may be, and it was cut off in the middle of what it was to",
                    "SMITH, JOHN PAUL. THE STORY OF IRON, as told by the Museum. Washington: The Iron Worker, Summer.",
                    "- a\n" * 12):
            self.assertEqual(prose.clean(self.STORY + "\n\n" + bad), self.STORY, bad)

    def test_a_heading_with_nothing_under_it_is_left_out(self):
        self.assertEqual(prose.clean(self.STORY + "\n\nFurther reading"), self.STORY)

    def test_documents_in_old_or_broken_english_are_left_out(self):
        for bad in ("Thou hast spoken, and thy servant hath heard thee. ", "He wuz goin' home wi' the dog, ain't he. ",
                    "Where did he live? Who was his friend? ", "L'été est là, où que tu sois, ça va très bien. "):
            self.assertIsNone(prose.clean("A title\n\n" + bad * 20), bad)
        self.assertIsNone(prose.clean("A title\n\nToo short."))


class Sources(unittest.TestCase):
    def test_nothing_held_out_is_trained_on(self):
        self.assertFalse(set(sources.WEIGHTS) & set(sources.HELD_OUT))

    def test_old_books_are_in_the_first_phases_only(self):
        for name in ("standardebooks_pd", "classics_pd"):
            self.assertEqual(sources.WEIGHTS[name][1:], (0, 0))
        for name in ("children_classics_pd", "fairytaleqa_pd"):
            self.assertEqual(sources.WEIGHTS[name][2], 0)

    def test_phases_end_where_the_table_says(self):
        self.assertEqual([sources.phase(at) for at in (0.0, 0.49, 0.5, 0.66, 0.67, 1.0)], [0, 0, 1, 1, 2, 2])

    def test_a_source_seen_often_weighs_less(self):
        names = ["modern_open", "tinystories_cdla"]
        few, many = (sources.shares(names, 0.9, [1.0, epochs])[1] for epochs in (sources.FULL_WEIGHT_EPOCHS, 40))
        self.assertAlmostEqual(few, 22 / 46)
        self.assertLess(many, few / 2)
        self.assertAlmostEqual(sum(sources.shares(names, 0.9, [1.0, 40])), 1.0)


class Batches(unittest.TestCase):
    PARTS = [part("modern_open", [40] * 30), part("tinystories_cdla", [7] * 100), part("other", [50], "heldout")]

    def test_targets_are_the_next_tokens(self):
        inputs, targets = Mixer(self.PARTS, "cpu").batch(16, 4, 0.9)
        self.assertEqual(inputs.shape, (4, 16))
        self.assertTrue((inputs[:, 1:] == targets[:, :-1]).all())

    def test_an_epoch_has_every_window_once(self):
        mixer = Mixer(self.PARTS[:1], "cpu")
        windows = (1200 - 16 - 1) // 16
        starts = [mixer.start(0, 16) for _ in range(windows)]
        self.assertEqual(np.diff(sorted(starts)).tolist(), [16] * (windows - 1))
        self.assertNotEqual(starts, sorted(starts))

    def test_resuming_goes_on_with_the_same_windows(self):
        one, other = Mixer(self.PARTS, "cpu"), Mixer(self.PARTS, "cpu")
        for _ in range(20):
            one.batch(16, 4, 0.9)
        other.state = copy.deepcopy(one.state)
        for _ in range(20):
            self.assertTrue((one.batch(16, 4, 0.9)[0] == other.batch(16, 4, 0.9)[0]).all())

    def test_the_shares_are_those_of_the_table(self):
        mixer = Mixer(self.PARTS, "cpu")
        for _ in range(40):
            mixer.batch(16, 4, 0.9)
        self.assertAlmostEqual(mixer.state["tokens"][0] / sum(mixer.state["tokens"]), 24 / 46, delta=0.12)


if __name__ == "__main__":
    unittest.main()
