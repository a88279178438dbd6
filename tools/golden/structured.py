#!/usr/bin/env python3
"""Draw schemas and regular expressions for structured outputs, and extract JSON Schema's public tests.

    structured.py OUT_DIR SUITE     SUITE: the folder `json` of the source package of the Python package `jsonschema`

No model answers here: the tests check what is generated against these very schemas and expressions.
"""
import json
import random
import shutil
import sys
from pathlib import Path

SEED = 29
SCHEMAS, REGEXES = 170, 80
DRAFTS = {"draft7": "http://json-schema.org/draft-07/schema#", "draft2020-12": "https://json-schema.org/draft/2020-12/schema"}
# References to other documents, and formats, which are annotations unless a validator is told otherwise.
LEFT_OUT = {"refRemote.json", "format.json", "content.json", "vocabulary.json"}
WORDS = ["red", "green", "sea", "the old man", "one two", "x", "ship", "Ärger", "naïve", "日本", "a\"b", "back\\slash", "new\nline", "🙂"]
NAMES = ["name", "age", "colour", "size", "id", "tags", "first name", "ok", "größe", "x-y"]


def number(draw: random.Random, integer: bool) -> dict:
    low = draw.randint(-1000, 1000)
    high = low + draw.choice([0, 1, 9, 40, 5000])
    schema = {"type": "integer" if integer else "number"}
    if not integer and high - low < 2:
        high += 3
    match draw.randrange(4):
        case 0:
            schema |= {"minimum": low, "maximum": high}
        case 1:
            schema |= {"exclusiveMinimum": low - 1, "exclusiveMaximum": high + 1}
        case 2:
            step = draw.choice([2, 3, 5, 10]) if integer else draw.choice([0.5, 0.25, 0.1])
            schema |= {"multipleOf": step, "minimum": 0, "maximum": 1000}
        case 3:
            schema |= {"minimum": low, "maximum": high, "title": "a number"}
    return schema


def string(draw: random.Random) -> dict:
    match draw.randrange(5):
        case 0:
            least = draw.randint(0, 4)
            return {"type": "string", "minLength": least, "maxLength": least + draw.randint(0, 8)}
        case 1:
            return {"enum": draw.sample(WORDS, draw.randint(1, 4))}
        case 2:
            return {"type": "string", "pattern": draw.choice(
                ["^[A-Z][a-z]{1,6}$", "^[0-9]{3}-[0-9]{2}$", "^(yes|no)$", "^\\d{1,4}$", "^[^a-z\\s]{2,5}$", "^x?y{2}z?$"])}
        case 3:
            return {"type": "string", "format": draw.choice(["date", "ipv4", "uuid", "time", "date-time"])}
        case _:
            return {"const": draw.choice(WORDS)}


def array(draw: random.Random, depth: int) -> dict:
    if draw.random() < 0.3:
        first = [schema(draw, depth - 1) for _ in range(draw.randint(1, 3))]
        return {"type": "array", "prefixItems": first, "items": False, "minItems": draw.randint(0, len(first))}
    least = draw.randint(0, 2)
    return {"type": "array", "items": schema(draw, depth - 1), "minItems": least, "maxItems": least + draw.randint(0, 2)}


def objekt(draw: random.Random, depth: int) -> dict:
    names = draw.sample(NAMES, draw.randint(1, 4))
    required = [name for name in names if draw.random() < 0.6]
    fields = {"type": "object", "properties": {name: schema(draw, depth - 1) for name in names}, "required": required,
              "additionalProperties": False}
    if draw.random() < 0.15:
        fields |= {"patternProperties": {"^z[0-9]$": {"type": "boolean"}}, "maxProperties": len(required) + 2}
        fields["properties"] = {name: fields["properties"][name] for name in required}
    return fields


def schema(draw: random.Random, depth: int) -> dict:
    """A schema of which every text is short, but for the fractions of a number."""
    kinds = ["integer", "number", "string", "string", "boolean", "null"]
    if depth > 0:
        kinds += ["array", "object", "object", "object", "anyOf", "allOf", "oneOf"]
    match draw.choice(kinds):
        case "integer":
            return number(draw, integer=True)
        case "number":
            return number(draw, integer=False)
        case "string":
            return string(draw)
        case "boolean":
            return {"type": "boolean"}
        case "null":
            return {"type": "null"}
        case "array":
            return array(draw, depth)
        case "object":
            return objekt(draw, depth)
        case "anyOf":
            return {"anyOf": [schema(draw, depth - 1) for _ in range(draw.randint(2, 3))]}
        case "oneOf":
            return {"oneOf": [number(draw, integer=True), {"type": "string", "maxLength": 5}, {"type": "null"}]}
        case "allOf":
            low = draw.randint(0, 50)
            return {"allOf": [{"type": "integer", "minimum": low}, {"maximum": low + draw.randint(0, 99)}]}
    raise AssertionError


def root(draw: random.Random) -> dict:
    drawn = schema(draw, 3)
    if draw.random() < 0.25:
        item = schema(draw, 1)
        return {"$defs": {"item": item}, "type": "object", "properties": {"first": {"$ref": "#/$defs/item"}, "rest": drawn},
                "required": ["first", "rest"], "additionalProperties": False}
    if draw.random() < 0.1:
        # A tree, whose texts need not end soon.
        node = {"type": "object", "properties": {"value": drawn, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["value", "next"], "additionalProperties": False}
        return {"$defs": {"node": node}, "$ref": "#/$defs/node"}
    return drawn


def regex(draw: random.Random, depth: int) -> str:
    """An expression in the syntax that Rust and Python share."""
    atoms = ["a", "the", " ", "sea", r"\d", r"\w", "[a-f]", "[^a-z\\n]", r"\.", r"\{", "é", "[à-ü]", "日", "[\\x20-\\x7e]", r"\n", "(?i:ok)",
             r"[^\s]", "🙂", "[0-9A-F]", "/", '"']
    if depth == 0:
        return draw.choice(atoms)
    inner = lambda: regex(draw, depth - 1)
    match draw.randrange(6):
        case 0 | 1:
            return "".join(inner() for _ in range(draw.randint(2, 4)))
        case 2:
            return "(?:" + "|".join(inner() for _ in range(draw.randint(2, 4))) + ")"
        case 3:
            low = draw.randint(0, 3)
            return f"(?:{inner()}){{{low},{low + draw.randint(0, 3)}}}"
        case 4:
            return f"(?:{inner()}){draw.choice('?*+')}"
        case _:
            return f"({inner()})"


def suite(folder: Path) -> list[dict]:
    groups = []
    for draft, uri in DRAFTS.items():
        for path in sorted((folder / "tests" / draft).glob("*.json")):
            if path.name in LEFT_OUT:
                continue
            for group in json.loads(path.read_text(encoding="utf-8")):
                described = group["schema"]
                if isinstance(described, dict) and "$schema" not in described:
                    described = {"$schema": uri} | described
                groups.append({"about": f"{draft}/{path.stem}: {group['description']}", "schema": described,
                               "tests": [[test["data"], test["valid"]] for test in group["tests"]]})
    return groups


def main() -> None:
    out, folder = Path(sys.argv[1]), Path(sys.argv[2])
    out = out / "structured"
    out.mkdir(parents=True, exist_ok=True)
    draw = random.Random(SEED)
    cases = {
        "seed": SEED,
        "schemas": [root(draw) for _ in range(SCHEMAS)],
        "regexes": [regex(draw, 1 + index % 3) for index in range(REGEXES)],
    }
    lines = ",\n".join(f' "{name}": ' + (json.dumps(value) if name == "seed" else "[\n  " + ",\n  ".join(
        json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in value) + "\n ]") for name, value in cases.items())
    (out / "drawn.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    groups = [json.dumps(group, ensure_ascii=True, separators=(",", ":")) for group in suite(folder)]
    (out / "suite.json").write_text("[\n" + ",\n".join(groups) + "\n]\n", encoding="utf-8")
    shutil.copyfile(folder / "LICENSE", out / "LICENSE-JSON-Schema-Test-Suite")


if __name__ == "__main__":
    main()
