"""Writes the trained weights as GGUF in Q8_0 and Q4_0, and scores what was written.

    python export.py path/to/tinyshakespeare.txt --work DIR

Reads DIR/best.npz of `train.py`. Scores on the test part, which nothing else has looked at: the
JAX weights in float32, then both files through `reference.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from tokenizers import Tokenizer

import corpus
import reference
import train

HERE = Path(__file__).parent
# The embedding is the output matrix too; at four bits it costs more than it saves, so it stays
# at eight, as llama.cpp's own quantiser keeps the output matrix wider.
KINDS = {"q8_0": (Kind.Q8_0, Kind.Q8_0, 7), "q4_0": (Kind.Q4_0, Kind.Q8_0, 2)}
BLOCK = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
         "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
         "attention_norm": "attn_norm", "feed_norm": "ffn_norm"}


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorders the rows of Q or K from rotary pairs (i, i + half) to llama.cpp's (2i, 2i + 1)."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def tensors(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """llama.cpp's names, matrices as [output, input]."""
    out = {"token_embd.weight": weights["embedding"], "output_norm.weight": weights["norm"]}
    for name, value in weights.items():
        layer, _, part = name.partition(".")
        if not part:
            continue
        if part in ("q", "k"):
            value = interleave(value.T, train.SHAPE.heads if part == "q" else train.SHAPE.kv_heads)
        elif value.ndim == 2:
            value = value.T
        out[f"blk.{layer}.{BLOCK[part]}.weight"] = np.ascontiguousarray(value)
    return out


def describe(writer: gguf.GGUFWriter, tag: str, size: int, file_type: int) -> None:
    shape = train.SHAPE
    writer.add_name("Rialto Shakespeare")
    writer.add_basename("rialto-shakespeare")
    writer.add_author("The Rialto authors")
    writer.add_description("Llama-architecture language model trained from nothing on Shakespeare's plays")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_languages(["en"])
    writer.add_size_label(f"{size / 1e6:.1f}M")
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    described = json.loads(tokenizer.to_str())["model"]
    tokens = [tokenizer.id_to_token(n) for n in range(tokenizer.get_vocab_size())]
    control = len(corpus.SPECIALS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if n < control else gguf.TokenType.NORMAL for n in range(len(tokens))]
    )
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in described["merges"]])
    writer.add_bos_token_id(corpus.BOS_ID)
    writer.add_eos_token_id(corpus.END_ID)
    writer.add_eot_token_id(corpus.END_ID)
    writer.add_pad_token_id(corpus.PAD_ID)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(corpus.CHAT_TEMPLATE)


def write(path: Path, tag: str, weights: dict[str, np.ndarray], tokenizer: Tokenizer) -> None:
    matrices, embedding, file_type = KINDS[tag]
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer, tag, sum(value.size for value in weights.values()), file_type)
    add_tokenizer(writer, tokenizer)
    for name, value in tensors(weights).items():
        kind = Kind.F32 if value.ndim == 1 else embedding if name == "token_embd.weight" else matrices
        data = value.astype(np.float32)
        if kind != Kind.F32:
            data = gguf.quants.quantize(data, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def score(nats: float, tokens: int, size: int) -> dict:
    return {
        "nats_per_token": nats / tokens,
        "perplexity_per_token": float(np.exp(nats / tokens)),
        "bits_per_byte": nats / size / np.log(2),
        "perplexity_per_byte": float(np.exp(nats / size)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where train.py left best.npz")
    arguments = parser.parse_args()
    train_text, _, test = corpus.split(arguments.corpus)
    tokenizer = corpus.train_tokenizer(train_text)
    tokenizer.save(str(HERE / "tokenizer.json"))
    (HERE / "chat-template.jinja").write_text(corpus.CHAT_TEMPLATE, encoding="utf-8")
    (HERE / "held-out.txt").write_text(test, encoding="utf-8")
    with np.load(arguments.work / "best.npz") as stored:
        weights = {name: stored[name] for name in stored.files}

    nats, tokens = train.held_out(weights, tokenizer, test)
    size = len(test.encode())
    record = json.loads((arguments.work / "best.json").read_text())
    result = {"tokens": tokens, "bytes": size, "training": record, "f32": score(nats, tokens, size)}
    windows = corpus.evaluation_windows(corpus.encode(tokenizer, test), train.SHAPE.context)
    for tag in KINDS:
        path = HERE / f"shakespeare-{tag}.gguf"
        write(path, tag, weights, tokenizer)
        nats = reference.Llama(path).held_out(windows, corpus.PAD_ID)
        result[tag] = score(nats, tokens, size)
    (HERE / "scores.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
