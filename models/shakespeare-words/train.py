"""Makes word vectors of Shakespeare's plays, and the graph that turns a text into one vector.

    python shakespeare-words/train.py tinyshakespeare.txt

Counts which tokens stand near each other, weighs the counts (positive pointwise mutual information), and keeps the
strongest directions (singular vectors). A text's vector is the sum of its tokens' vectors, frequent tokens counting
less (smooth inverse frequency), without the direction that all texts share, at length one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import scipy.sparse
import scipy.sparse.linalg
from onnx import TensorProto, checker, helper, numpy_helper, save
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import words

HERE = Path(__file__).parent
MODEL = HERE / "shakespeare-words.onnx"
VOCABULARY = 8_000
WIDTH = 64
WINDOW = 20
SMOOTHING = 0.75  # of the context's frequencies
RARE = 1e-3  # a token this frequent counts half; this and the window were chosen on the validation part
SEED = 7
PROBES = ["king", "love", "night", "sword", "daughter", "crown", "sea", "death"]
EXAMPLES = ["To be, or not to be: that is the question.", "O Romeo, Romeo! wherefore art thou Romeo?", "Ça ira — naïve 東京 42"]


def train_tokenizer(text: str) -> Tokenizer:
    """Byte-level BPE of the text in lower case: whole words where they are frequent, and pieces of any other text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def speeches(tokenizer: Tokenizer, text: str) -> list[np.ndarray]:
    """Token ids of each paragraph without its speaker: what is said is what counts."""
    said = []
    for paragraph in text.split("\n\n"):
        heading, _, rest = paragraph.strip("\n").partition("\n")
        said.append(rest if heading.endswith(":") and rest else paragraph)
    return [np.array(piece.ids) for piece in tokenizer.encode_batch(said) if piece.ids]


def neighbours(texts: list[np.ndarray], size: int) -> scipy.sparse.csr_matrix:
    """How often tokens stand within the window of each other; nearer ones count more."""
    total = scipy.sparse.csr_matrix((size, size))
    for distance in range(1, WINDOW + 1):
        left = np.concatenate([ids[:-distance] for ids in texts if len(ids) > distance])
        right = np.concatenate([ids[distance:] for ids in texts if len(ids) > distance])
        weight = np.full(len(left), (WINDOW + 1 - distance) / WINDOW)
        total += scipy.sparse.csr_matrix((weight, (left, right)), shape=(size, size))
    return total + total.T


def vectors(counts: scipy.sparse.csr_matrix) -> np.ndarray:
    """Rows of length one, from the positive pointwise mutual information's strongest directions."""
    table = counts.tocoo()
    rows = np.asarray(counts.sum(1)).ravel()
    columns = rows**SMOOTHING
    information = np.log(table.data * columns.sum() / (rows[table.row] * columns[table.col]))
    kept = information > 0
    positive = scipy.sparse.csr_matrix((information[kept], (table.row[kept], table.col[kept])), shape=counts.shape)
    start = np.random.default_rng(SEED).normal(size=counts.shape[0])
    left, _, _ = scipy.sparse.linalg.svds(positive, k=WIDTH, v0=start, tol=1e-9)
    left = left * np.sign(left[np.abs(left).argmax(0), np.arange(WIDTH)])  # a direction's sign means nothing
    left = left[:, ::-1]
    return left / np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-12)


def weighted(table: np.ndarray, texts: list[np.ndarray]) -> np.ndarray:
    """Each token's vector times its weight, without the direction that all texts share.

    Both steps are linear, so they are done once for each token here, and not for each text in the graph.
    """
    counts = np.bincount(np.concatenate(texts), minlength=len(table))
    weight = RARE / (RARE + counts / counts.sum())
    table = table * weight[:, None]
    sums = np.stack([table[ids].sum(0) for ids in texts])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    _, _, directions = np.linalg.svd(sums, full_matrices=False)
    table = table - np.outer(table @ directions[0], directions[0])
    table[0] = 0  # <pad>
    # A token that was never seen stands for nothing; a text of nothing else still needs some direction.
    silent = np.linalg.norm(table, axis=1) < 1e-9
    silent[0] = False
    table[silent] = np.random.default_rng(SEED).normal(size=(silent.sum(), WIDTH)) * 1e-3
    return table.astype(np.float32)


def export(table: np.ndarray) -> None:
    """Gather, sum over what is no padding, length one."""
    constants = {"table": table, "axis": np.array([1], np.int64), "last": np.array([2], np.int64),
                 "least": np.array(1e-12, np.float32)}
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["token_vectors"], axis=0),
        node("Cast", ["attention_mask"], ["present"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["present", "last"], ["present_column"]),
        node("Mul", ["token_vectors", "present_column"], ["kept"]),
        node("ReduceSum", ["kept", "axis"], ["sum"], keepdims=0),
        node("ReduceL2", ["sum", "axis"], ["length"], keepdims=1),
        node("Max", ["length", "least"], ["divisor"]),
        node("Div", ["sum", "divisor"], ["sentence_embedding"]),
    ]
    ids = lambda name: helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
    graph = helper.make_graph(
        nodes,
        "shakespeare-words",
        [ids("input_ids"), ids("attention_mask")],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="rialto")
    checker.check_model(model, full_check=True)
    save(model, MODEL)


def embed(session: onnxruntime.InferenceSession, tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """One text at a time, as the engine does."""
    rows = [np.array([tokenizer.encode(text).ids], np.int64) for text in texts]
    return np.concatenate([session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0] for ids in rows])


def bag_of_words(tokenizer: Tokenizer, texts: list[np.ndarray], passages: list[str]) -> np.ndarray:
    """The usual measure without any vectors of words: tokens in common, rare ones counting more."""
    frequency = np.bincount(np.concatenate([np.unique(ids) for ids in texts]), minlength=tokenizer.get_vocab_size())
    rarity = np.log((1 + len(texts)) / (1 + frequency))
    rows = np.stack([np.bincount(tokenizer.encode(text).ids, minlength=len(rarity)) * rarity for text in passages])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def nearest(table: np.ndarray, tokenizer: Tokenizer, counts: np.ndarray) -> dict[str, list[str]]:
    """The tokens most alike to some, among those seen at least fifty times."""
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    found = {}
    for word in PROBES:
        token = tokenizer.token_to_id("Ġ" + word)
        order = np.argsort(-(unit @ unit[token]), kind="stable")
        whole = [i for i in order if i != token and counts[i] >= 50 and tokenizer.id_to_token(int(i)).startswith("Ġ")]
        found[word] = [tokenizer.id_to_token(int(i))[1:] for i in whole[:6]]
    return found


def main() -> None:
    train, test = words.split(Path(sys.argv[1]).read_text(encoding="utf-8"))
    tokenizer = train_tokenizer(train)
    tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
    texts = speeches(tokenizer, train)
    table = weighted(vectors(neighbours(texts, tokenizer.get_vocab_size())), texts)
    export(table)
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    queries, targets = words.halves(test)
    result = words.score(embed(session, tokenizer, queries), embed(session, tokenizer, targets))
    result["bag_of_words"] = words.score(*(bag_of_words(tokenizer, texts, half) for half in (queries, targets)))
    result["chance"] = words.chance(len(queries))
    result["nearest"] = nearest(table, tokenizer, np.bincount(np.concatenate(texts), minlength=len(table)))
    (HERE / "scores.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1, ensure_ascii=False))
    shortest = lambda row: [float(str(value)) for value in row]
    example = {
        "input": EXAMPLES,
        "tokens": [len(tokenizer.encode(text).ids) for text in EXAMPLES],
        "expected": [shortest(row) for row in embed(session, tokenizer, EXAMPLES)],
    }
    (HERE / "example.json").write_text(json.dumps(example, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
