"""How every runtime is measured: the same arguments, the same work, one line of JSON.

A peer subclasses `Peer` and hands itself to `main`. All figures come from its `generate`, which is greedy and
never stops; times are medians over `--reps`, after a run that is not counted.

    load_s           `load` alone: imports not counted, the file in the page cache
    decode_tps       128 tokens after a prompt of 32: 128 / (time of 129 new tokens - time of 1)
    prefill_tps[L]   L / time of one new token after L
    batch_tps[B]     B * 64 / time of 64 new tokens for each of B prompts of 32, prompts included
    cold_s           from the start of the process to the first token after 32: interpreter, imports and loading
                     included, the file in the page cache
    rss_b1_mib       most memory that was resident up to the end of decoding
    rss_peak_mib     most memory that was resident at all
    tokens           the first eight greedy tokens: every f32 peer gives the same

`prompt` gives the same tokens as the generator in `gpt2 bench` and in `peer_rten`.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time


def requested_threads() -> str:
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--threads", default="2")
    return early.parse_known_args()[0].threads


# Runtimes read these when they are imported, so peers import this module first.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = requested_threads()
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

VOCABULARY = 50257
PROMPT = 32
DECODED = 128
BATCH_NEW = 64


def prompt(length: int, seed: int) -> list[int]:
    """Tokens from a linear congruential generator, end-of-text not among them."""
    state, tokens = seed * 2654435761 % 2**32, []
    for _ in range(length):
        state = (1664525 * state + 1013904223) % 2**32
        tokens.append((state >> 8) % (VOCABULARY - 1))
    return tokens


def parser(variants: tuple[str, ...], description: str | None) -> argparse.ArgumentParser:
    """The arguments that every peer takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder that the peer's prepare script wrote, or a checkpoint")
    parser.add_argument("--variant", default=variants[0], choices=variants)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-lens", type=numbers, default=[32, 512, 1000], metavar="L,L", help="'' for none")
    parser.add_argument("--batches", type=numbers, default=[8, 32], metavar="B,B", help="'' for none")
    parser.add_argument("--reps", type=int, default=3, help="times that everything is measured")
    parser.add_argument("--cold", type=int, default=3, help="cold starts to measure")
    return parser


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def cold_start(command: list[str], first_line: str, count: int) -> float | None:
    """Median seconds from the start of a command to its first line that begins with `first_line`."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            if any(line.startswith(first_line) for line in process.stdout):
                seconds.append(time.perf_counter() - begin)
    return round(statistics.median(seconds), 3) if seconds else None


class Peer:
    """A runtime: what `main` needs to know of it."""
    name: str
    variants: tuple[str, ...]

    def versions(self) -> dict[str, str]:
        raise NotImplementedError

    def about(self) -> str | None:
        """What else is worth recording, such as how the runtime was built."""
        return None

    def load(self, arguments: argparse.Namespace) -> None:
        raise NotImplementedError

    def generate(self, batch: list[list[int]], new: int) -> list[list[int]]:
        """`new` tokens for each of some prompts of one length."""
        raise NotImplementedError


def main(peer: Peer) -> None:
    """Measures a peer as the command line asks and prints the figures."""
    arguments_parser = parser(peer.variants, sys.modules["__main__"].__doc__)
    arguments_parser.add_argument("--first-token", action="store_true", help=argparse.SUPPRESS)
    arguments = arguments_parser.parse_args()
    if arguments.first_token:
        peer.load(arguments)
        print(json.dumps({"first": peer.generate([prompt(PROMPT, 1)], 1)[0]}), flush=True)
        os._exit(0)  # how long it takes to tear down is not part of a cold start

    result = {"peer": peer.name, "variant": arguments.variant, "threads": arguments.threads}
    begin = time.perf_counter()
    peer.load(arguments)
    result["load_s"] = round(time.perf_counter() - begin, 3)
    result["versions"] = peer.versions()
    if about := peer.about():
        result["about"] = about

    def seconds(batch: list[list[int]], new: int) -> float:
        begin = time.perf_counter()
        tokens = peer.generate(batch, new)
        end = time.perf_counter()
        result.setdefault("tokens", tokens[0][:8])  # those of the first run
        return end - begin

    def median(batch: list[list[int]], new: int) -> float:
        return statistics.median(seconds(batch, new) for _ in range(arguments.reps))

    single = [prompt(PROMPT, 1)]
    seconds(single, 8)
    first = median(single, 1)
    rates = [DECODED / (seconds(single, DECODED + 1) - first) for _ in range(arguments.reps)]
    result["decode_tps"] = round(statistics.median(rates), 2)
    result["rss_b1_mib"] = resident_mib()
    result["prefill_tps"] = {}
    for length in arguments.prompt_lens:
        batch = [prompt(length, 7)]
        seconds(batch, 1)
        result["prefill_tps"][length] = round(length / median(batch, 1), 1)
    result["batch_tps"] = {}
    for size in arguments.batches:
        batch = [prompt(PROMPT, 11 + index) for index in range(size)]
        seconds(batch, 2)
        result["batch_tps"][size] = round(size * BATCH_NEW / median(batch, BATCH_NEW), 1)
    result["rss_peak_mib"] = resident_mib()
    result["cold_s"] = cold_start([sys.executable, *sys.argv, "--first-token"], '{"first"', arguments.cold)
    print(json.dumps(result), flush=True)


def resident_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
