"""Checks the committed weights: hashes, sizes, and that they score what their cards say.

    python check.py

Needs the first group of requirements.txt and nothing else: no JAX, no scikit-learn, no network.
Exits with 1 and a line for everything that is wrong.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
from blake3 import blake3
from tokenizers import Tokenizer

import manifests

HERE = Path(__file__).parent
sys.path += [str(HERE / name) for name in ("breast-cancer", "shakespeare", "shakespeare-words")]

import corpus  # noqa: E402
import reference  # noqa: E402
import scores  # noqa: E402
import words  # noqa: E402

SCORE_TOLERANCE = 1e-5  # the same arithmetic, on another machine
KEYS = {"schema", "publisher_name", "name", "tag", "task", "description", "quantisation", "licence",
        "royalty_bps", "context_length", "format", "chat_template_hash", "tokenizer_hash", "artifacts"}

wrong: list[str] = []


def expect(held: bool, what: str) -> None:
    if not held:
        wrong.append(what)


def close(found: object, recorded: object, what: str) -> None:
    """Every number of `recorded` is found again; other keys of `found` do not matter."""
    if isinstance(recorded, dict):
        for key, value in recorded.items():
            close(found[key], value, f"{what}: {key}")
    elif isinstance(recorded, list):
        for n, (a, b) in enumerate(zip(found, recorded, strict=True)):
            close(a, b, f"{what}[{n}]")
    else:
        expect(abs(found - recorded) <= SCORE_TOLERANCE * max(1, abs(recorded)), f"{what}: {found}, recorded {recorded}")


def check_card(folder: Path, claims: list[str]) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    for claim in claims:
        expect(claim in card, f"{folder.name}/README.md does not say {claim}")


def check_manifest(path: Path) -> dict:
    manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = set(manifest) - KEYS - {"inputs", "outputs"}
    expect(KEYS <= set(manifest) and not unknown, f"{path}: keys are not those of schema 1")
    for artifact in manifest["artifacts"]:
        data = (path.parent / artifact["path"]).read_bytes()
        expect(len(data) == artifact["size"], f"{artifact['path']}: size {len(data)}")
        expect(blake3(data).hexdigest() == artifact["blake3"], f"{artifact['path']}: BLAKE3 differs")
    for key, name in (("chat_template_hash", "chat-template.jinja"), ("tokenizer_hash", "tokenizer.json")):
        if manifest[key]:
            found = manifests.keccak256((path.parent / name).read_bytes())
            expect(found == manifest[key], f"{path}: {key} differs")
    return manifest


def check_breast_cancer() -> None:
    folder = HERE / "breast-cancer"
    manifest = check_manifest(folder / "manifest.toml")
    session = onnxruntime.InferenceSession(folder / "breast-cancer.onnx", providers=["CPUExecutionProvider"])
    for declared, real in ((manifest["inputs"], session.get_inputs()), (manifest["outputs"], session.get_outputs())):
        expect([t["name"] for t in declared] == [t.name for t in real], "breast-cancer: tensor names differ")
        shapes = [[n if isinstance(n, int) else -1 for n in t.shape] for t in real]
        expect([t["shape"] for t in declared] == shapes, f"breast-cancer: shapes are {shapes}")

    table = np.loadtxt(folder / "held-out.csv", delimiter=",", skiprows=1)
    rows, targets = table[:, :-1].astype(np.float32), table[:, -1].astype(int)
    recorded = json.loads((folder / "scores.json").read_text())
    probabilities = session.run(["probabilities"], {"input": rows})[0][:, 1]
    crossed = recorded.pop("cross_validated")  # needs training, so it is not checked here
    close(scores.score(targets, probabilities), recorded, "breast-cancer")

    example = json.loads((folder / "example.json").read_text())
    given = example["request"]["inputs"][0]
    values = np.array(given["data"], dtype=np.float32).reshape(given["shape"])
    for want, got in zip(example["expected_outputs"], session.run(["label", "probabilities"], {"input": values}), strict=True):
        expect(list(got.shape) == want["shape"], f"example.json: {want['name']} has shape {got.shape}")
        expect(np.array_equal(got.reshape(-1), np.array(want["data"], dtype=got.dtype)), f"example.json: {want['name']} differs")

    interval = lambda s, key: f"{s[key]:.3f} [{s[key + '_95'][0]:.3f}, {s[key + '_95'][1]:.3f}]"
    claims = [interval(s, key) for s in (recorded, crossed) for key in ("accuracy", "auc", "brier")]
    check_card(folder, claims + [f"{recorded['calibration_error']:.3f}", f"{crossed['calibration_error']:.3f}"])


def check_shakespeare() -> None:
    folder = HERE / "shakespeare"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = (folder / "held-out.txt").read_text(encoding="utf-8")
    ids = corpus.encode(tokenizer, text)
    recorded = json.loads((folder / "scores.json").read_text())
    expect(tokenizer.decode(ids) == text, "shakespeare: the tokenizer does not give the text back")
    expect(len(ids) == recorded["tokens"], f"shakespeare: {len(ids)} tokens")
    claims = []
    for tag in ("q8_0", "q4_0"):
        manifest = check_manifest(folder / f"manifest-{tag}.toml")
        model = reference.Llama(folder / manifest["artifacts"][0]["path"])
        expect(model.context == manifest["context_length"], f"shakespeare {tag}: context is {model.context}")
        expect(manifests.keccak256(model.chat_template.encode()) == manifest["chat_template_hash"],
               f"shakespeare {tag}: the chat template inside the GGUF is another")
        per_token = model.held_out(corpus.evaluation_windows(ids, model.context), corpus.PAD_ID) / len(ids)
        close(per_token, recorded[tag]["nats_per_token"], f"shakespeare {tag}: nats per token")
    for scored in (recorded[name] for name in ("f32", "q8_0", "q4_0")):
        claims.append(
            f"{scored['nats_per_token']:.4f} | {scored['perplexity_per_token']:.2f} | "
            f"{scored['bits_per_byte']:.4f} | {scored['perplexity_per_byte']:.4f}"
        )
    check_card(folder, claims)


def check_shakespeare_words() -> None:
    folder = HERE / "shakespeare-words"
    check_manifest(folder / "manifest.toml")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(folder / "shakespeare-words.onnx", providers=["CPUExecutionProvider"])

    def embed(texts: list[str]) -> np.ndarray:
        rows = [np.array([tokenizer.encode(text).ids], np.int64) for text in texts]
        return np.concatenate([session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0] for ids in rows])

    recorded = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    queries, targets = words.halves((HERE / "shakespeare" / "held-out.txt").read_text(encoding="utf-8"))
    scored = {key: value for key, value in recorded.items() if key not in ("bag_of_words", "chance", "nearest")}
    close(words.score(embed(queries), embed(targets)), scored, "shakespeare-words")
    close(words.chance(len(queries)), recorded["chance"], "shakespeare-words: chance")
    example = json.loads((folder / "example.json").read_text(encoding="utf-8"))
    close([len(tokenizer.encode(text).ids) for text in example["input"]], example["tokens"], "shakespeare-words: tokens")
    close(embed(example["input"]).tolist(), example["expected"], "shakespeare-words: example.json")

    both = lambda s: " | ".join(f"{s[key]:.3f} [{s[key + '_95'][0]:.3f}, {s[key + '_95'][1]:.3f}]" for key in ("first", "reciprocal_rank"))
    claims = [both(recorded), both(recorded["bag_of_words"])]
    claims.append(f"{recorded['chance']['first']:.3f} | {recorded['chance']['reciprocal_rank']:.3f}")
    claims += [f"| {word} | {', '.join(found)} |" for word, found in recorded["nearest"].items() if word not in ("love", "death")]
    check_card(folder, claims)


if __name__ == "__main__":
    check_breast_cancer()
    check_shakespeare()
    check_shakespeare_words()
    for line in wrong:
        print(line)
    print("models: " + (f"{len(wrong)} wrong" if wrong else "hashes, sizes and scores are as written"))
    sys.exit(1 if wrong else 0)
