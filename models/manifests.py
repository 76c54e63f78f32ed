"""Writes the manifests that go with the weights: hashes and sizes of what is in these folders.

    python manifests.py

Run it after training. `check.py` reads the manifests back and checks every hash.
"""

from __future__ import annotations

import json
from pathlib import Path

from blake3 import blake3
from Crypto.Hash import keccak

HERE = Path(__file__).parent
LICENCE = "MIT OR Apache-2.0"


def keccak256(data: bytes) -> str:
    return keccak.new(digest_bits=256, data=data).hexdigest()


def toml(value: str | int | list) -> str:
    """TOML of a string, an integer or a list of integers: JSON's spelling serves for all three."""
    return json.dumps(value, ensure_ascii=False)


def table(heading: str, fields: dict) -> str:
    lines = [heading] if heading else []
    return "\n".join([*lines, *(f"{key} = {toml(value)}" for key, value in fields.items())]) + "\n"


def artifact(path: Path) -> dict:
    data = path.read_bytes()
    return {"path": path.name, "blake3": blake3(data).hexdigest(), "size": len(data)}


def write(target: Path, fields: dict, files: list[Path], inputs: list[dict], outputs: list[dict]) -> None:
    parts = [table("", {"schema": 1, "publisher_name": "rialto", **fields})]
    parts += [table("[[artifacts]]", artifact(file)) for file in files]
    parts += [table("[[inputs]]", tensor) for tensor in inputs]
    parts += [table("[[outputs]]", tensor) for tensor in outputs]
    target.write_text("\n".join(parts), encoding="utf-8")
    print(target.relative_to(HERE))


def tensor(name: str, datatype: str, shape: list[int]) -> dict:
    return {"name": name, "datatype": datatype, "shape": shape}


def breast_cancer() -> None:
    folder = HERE / "breast-cancer"
    fields = {
        "name": "breast-cancer",
        "tag": "f32",
        "task": "predict",
        "description": "Gradient boosted trees: benign or malignant from 30 cell measurements (Wisconsin); not a medical device",
        "quantisation": "F32",
        "licence": LICENCE,
        "royalty_bps": 500,
        "context_length": 0,
        "format": "onnx",
        "chat_template_hash": "",
        "tokenizer_hash": "",
    }
    inputs = [tensor("input", "FP32", [-1, 30])]
    outputs = [tensor("label", "INT64", [-1]), tensor("probabilities", "FP32", [-1, 2])]
    write(folder / "manifest.toml", fields, [folder / "breast-cancer.onnx"], inputs, outputs)


def shakespeare_words() -> None:
    folder = HERE / "shakespeare-words"
    fields = {
        "name": "shakespeare-words",
        "tag": "f32",
        "task": "embedding",
        "description": "Word vectors of Shakespeare's plays: turns a text into 64 numbers that say what it is about",
        "quantisation": "F32",
        "licence": LICENCE,
        "royalty_bps": 500,
        "context_length": 512,
        "format": "onnx",
        "chat_template_hash": "",
        "tokenizer_hash": keccak256((folder / "tokenizer.json").read_bytes()),
    }
    write(folder / "manifest.toml", fields, [folder / "shakespeare-words.onnx", folder / "tokenizer.json"], [], [])


def shakespeare(tag: str) -> None:
    folder = HERE / "shakespeare"
    weights = folder / f"shakespeare-{tag}.gguf"
    if not weights.exists():
        return
    fields = {
        "name": "shakespeare",
        "tag": tag,
        "task": "chat",
        "description": "A 3 million parameter Llama that writes and answers in the manner of Shakespeare's plays",
        "quantisation": tag.upper(),
        "licence": LICENCE,
        "royalty_bps": 500,
        "context_length": 512,
        "format": "gguf",
        "chat_template_hash": keccak256((folder / "chat-template.jinja").read_bytes()),
        "tokenizer_hash": keccak256((folder / "tokenizer.json").read_bytes()),
    }
    write(folder / f"manifest-{tag}.toml", fields, [weights], [], [])


if __name__ == "__main__":
    breast_cancer()
    shakespeare_words()
    shakespeare("q8_0")
    shakespeare("q4_0")
