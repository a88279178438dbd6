#!/usr/bin/env python3
"""Measure gpt2 next to other runtimes on this machine: the one command behind the README's performance table.

    performance.py --work DIR [--readme README.md]

DIR gets, each only if it is not there yet: a checkpoint with random weights, the release build of `gpt2`, the program
that measures what the memory gives, a virtual environment for each peer with the packages of `requirements`, and the
models converted for it. Then every runtime is measured in turn, for some rounds, and the results are appended to
DIR/results.jsonl. `--python-...`, `--model-...` and `--program-...` name what is there already, elsewhere.

Needs Linux on x86-64 with AVX2, make, a C and a C++ compiler, a Rust toolchain, and access to PyPI and the crate registry.
"""
import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import table
from run_all import run_rounds

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


@dataclass(frozen=True)
class Peer:
    """A runtime in Python, named as in `peer_NAME.py` and `requirements/NAME.txt`."""
    label: str  # what it calls itself
    prepare: str | None  # the script that converts the checkpoint, unless it reads that itself
    variants: dict[str, tuple[str, ...]]  # for each format of weights
    environment: tuple[tuple[str, str], ...] = ()  # variables to install its packages with


PEERS = {
    "llamacpp": Peer("llama.cpp", "prepare_gguf.py",
                     {"f32": ("F32",), "16-bit": ("BF16",), "8-bit": ("Q8_0",), "4-bit": ("Q4_0", "Q4_K_M")},
                     (("CMAKE_ARGS", "-DGGML_NATIVE=ON"),)),
    "onnxruntime": Peer("onnxruntime", "prepare_onnx.py",
                        {"f32": ("f32",), "8-bit": ("int8-dyn", "w8"), "4-bit": ("w4",)}),
    "openvino": Peer("openvino", "prepare_openvino.py",
                     {"f32": ("f32",), "16-bit": ("bf16",), "8-bit": ("int8-bf16",), "4-bit": ("int4-bf16",)}),
    "ctranslate2": Peer("ctranslate2", "prepare_ctranslate2.py",
                        {"f32": ("f32",), "16-bit": ("bf16",), "8-bit": ("int8",)}),
    "transformers": Peer("transformers", None, {"f32": ("f32",), "16-bit": ("bf16",), "8-bit": ("int8-dyn",)}),
}
# Programs in Rust. rten reads what onnxruntime's script wrote.
GPT2 = {"f32": ("f32",), "16-bit": ("bf16",), "8-bit": ("int8",), "4-bit": ("int4",)}
RTEN = {"f32": ("plain",), "8-bit": ("plain-int8",), "4-bit": ("plain-w4",)}
ALL_PEERS = (*PEERS, "rten")
PROGRAMS = ("gpt2", "rten", "limits")


def main() -> None:
    arguments = parse()
    workplace = Workplace(arguments)
    plan = workplace.plan()
    results = arguments.work / "results.jsonl"
    with open(results, "a", encoding="utf-8") as file:
        file.write(json.dumps(machine(arguments)) + "\n")
    run_rounds(plan, results, arguments.rounds)
    section = table.section(table.last_run(results.read_text(encoding="utf-8")))
    if arguments.readme:
        table.rewrite(arguments.readme, section)
    else:
        print(section)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is built and measured")
    parser.add_argument("--peers", type=words(ALL_PEERS), default=list(ALL_PEERS), metavar="NAME,NAME",
                        help=f"default: {','.join(ALL_PEERS)}")
    parser.add_argument("--formats", type=words(table.FORMATS), default=list(table.FORMATS), metavar="FORMAT,FORMAT",
                        help=f"default: {','.join(table.FORMATS)}")
    parser.add_argument("--skip", type=lambda text: text.split(","), default=[], metavar="VARIANT,VARIANT",
                        help="variants of peers to leave out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reps", type=int, default=2, help="measurements in each round")
    parser.add_argument("--size", choices=table.PARAMETERS, default="small", help="of the checkpoint")
    parser.add_argument("--readme", type=Path, help="write the table there instead of on the terminal")
    reuse = parser.add_argument_group("what is there already")
    reuse.add_argument("--checkpoint", type=Path, metavar="DIR")
    for name in PROGRAMS:
        reuse.add_argument(f"--program-{name}", type=Path, metavar="PATH")
    for name, peer in PEERS.items():
        reuse.add_argument(f"--python-{name}", type=Path, metavar="PATH", help="one that has its packages")
        if peer.prepare:
            reuse.add_argument(f"--model-{name}", type=Path, metavar="DIR", help=f"what {peer.prepare} wrote")
    arguments = parser.parse_args()
    arguments.work = arguments.work.absolute()
    return arguments


def words(allowed):
    def parse_words(text: str) -> list[str]:
        chosen = [word for word in text.split(",") if word]
        for word in chosen:
            if word not in allowed:
                raise argparse.ArgumentTypeError(f"`{word}` is none of {', '.join(allowed)}")
        return chosen
    return parse_words


class Workplace:
    """The folder of `--work`: finds things there, or makes them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.work = arguments, arguments.work
        self.work.mkdir(parents=True, exist_ok=True)

    def plan(self) -> list[dict]:
        """What one round runs: all runtimes in one format, the next format, and so on."""
        arguments = self.arguments
        common = ["--threads", str(arguments.threads), "--reps", str(arguments.reps)]
        limits = {"peer": "limits", "command": [str(self.program("limits")), str(arguments.threads), "line"]}
        runtimes = [("gpt2", GPT2, [sys.executable, str(HERE / "peer_gpt2.py"), "--program", str(self.program("gpt2")),
                                    "--model", str(self.checkpoint())])]
        for name in arguments.peers:
            if name == "rten":
                command = [str(self.program("rten")), "--model", str(self.model("onnxruntime"))]
                runtimes.append((name, RTEN, command))
            else:
                peer = PEERS[name]
                command = [str(self.python(name)), str(HERE / f"peer_{name}.py"), "--model", str(self.model(name))]
                runtimes.append((peer.label, peer.variants, command))
        plan = []
        for weights in arguments.formats:
            plan.append(limits)
            for label, variants, command in runtimes:
                plan += [{"peer": label, "variant": variant, "weights": weights,
                          "command": [*command, "--variant", variant, *common]}
                         for variant in variants.get(weights, ()) if label == "gpt2" or variant not in arguments.skip]
        return [*plan, limits]

    def checkpoint(self) -> Path:
        given = self.arguments.checkpoint
        return given or self.made(f"checkpoint-{self.arguments.size}", lambda out: call(
            self.python("checkpoint"), HERE / "make_checkpoint.py", out, "--size", self.arguments.size))

    def model(self, name: str) -> Path:
        given, script = getattr(self.arguments, f"model_{name}", None), PEERS[name].prepare
        if given or not script:
            return given or self.checkpoint()
        return self.made(f"{name}-{self.arguments.size}",
                         lambda out: call(self.python(name), HERE / script, self.checkpoint(), out))

    def made(self, name: str, make) -> Path:
        """A folder that `make` writes, under its name only when it is complete."""
        folder, partial = self.work / name, self.work / f"{name}.partial"
        if not folder.exists():
            shutil.rmtree(partial, ignore_errors=True)
            make(partial)
            partial.rename(folder)
        return folder

    def python(self, name: str) -> Path:
        """A Python with the packages of a peer."""
        if given := getattr(self.arguments, f"python_{name}", None):
            return given
        folder = self.work / "environments" / name
        python, wanted, installed = folder / "bin" / "python", HERE / "requirements" / f"{name}.txt", folder / "installed"
        if not installed.exists() or installed.read_text() != wanted.read_text():
            call(sys.executable, "-m", "venv", "--clear", folder)
            variables = dict(PEERS[name].environment) if name in PEERS else {}
            call(python, "-m", "pip", "install", "--requirement", wanted, **variables)
            shutil.copyfile(wanted, installed)
        return python

    def program(self, name: str) -> Path:
        if given := getattr(self.arguments, f"program_{name}"):
            return given.absolute()
        if name == "limits":
            call("make", "--silent", "-C", HERE, f"TARGET={self.work / name}")
            return self.work / name
        package, variables = REPOSITORY, {}
        if name == "rten":
            # The other peers choose instructions when they start, or are built for this machine too.
            name, package, variables = "peer_rten", HERE / "peer_rten", {"RUSTFLAGS": "-C target-cpu=native"}
        target = self.work / "target" / name
        call("cargo", "build", "--release", "--locked", "--manifest-path", package / "Cargo.toml", "--target-dir",
             target, **variables)
        return target / "release" / name


def call(*command: str | Path, **variables: str) -> None:
    text = [str(word) for word in command]
    print("$", *text, flush=True)
    if subprocess.run(text, env={**os.environ, **variables}).returncode != 0:
        raise SystemExit(f"error: `{' '.join(text)}` failed")


def machine(arguments: argparse.Namespace) -> dict:
    """The line that opens a run in the results."""
    info = Path("/proc/cpuinfo").read_text()
    fields = dict(line.split("\t: ", 1) for line in info.splitlines() if "\t: " in line)
    fields = {name.strip(): value for name, value in fields.items()}
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    return {
        "peer": "machine",
        "cpu": fields["model name"],
        "instructions": [flag for flag in wanted if flag in fields["flags"].split()],
        "cores": os.cpu_count(),
        "system": platform.system(),
        "date": datetime.date.today().isoformat(),
        "commit": commit(arguments),
        "size": arguments.size,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "reps": arguments.reps,
        "command": command_line(arguments),
    }


def commit(arguments: argparse.Namespace) -> str | None:
    """What `gpt2` was built from, if it was built here."""
    if arguments.program_gpt2:
        return None
    git = subprocess.run(["git", "-C", REPOSITORY, "describe", "--always", "--dirty", "--exclude=*"],
                         capture_output=True, text=True)
    return git.stdout.strip() or None


def command_line(arguments: argparse.Namespace) -> str:
    """What makes the same table elsewhere: without folders of this machine."""
    chosen = [f"--threads {arguments.threads} --rounds {arguments.rounds} --reps {arguments.reps}"]
    if arguments.peers != list(ALL_PEERS):
        chosen.append(f"--peers {','.join(arguments.peers)}")
    if arguments.formats != list(table.FORMATS):
        chosen.append(f"--formats {','.join(arguments.formats)}")
    if arguments.skip:
        chosen.append(f"--skip {','.join(arguments.skip)}")
    if arguments.size != "small":
        chosen.append(f"--size {arguments.size}")
    return " ".join(["python tools/bench/performance.py --work DIR", *chosen, "--readme README.md"])


if __name__ == "__main__":
    main()
