"""Writes a llama-architecture GGUF of random weights, for benches: how fast an engine is does not depend on what the weights say.

    python model.py OUT.gguf [--layers 12] [--width 768] [--kind q8_0]

The tokenizer is the one of the shipped Shakespeare model, so that any text can be a prompt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np

SHIPPED = Path(__file__).parents[2] / "models/shakespeare/shakespeare-q8_0.gguf"
KINDS = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}


def text_fields(writer: gguf.GGUFWriter) -> int:
    """Copies the tokenizer; gives the size of the vocabulary."""
    reader = gguf.GGUFReader(SHIPPED)
    tokens = []
    for name, field in reader.fields.items():
        if not name.startswith("tokenizer.") or name == "tokenizer.chat_template":
            continue
        kind = field.types[0]
        value = field.contents()
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, value)
            if name.endswith(".tokens"):
                tokens = value
        else:
            writer.add_key_value(name, value, kind)
    return len(tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--kind", choices=KINDS, default="q8_0")
    arguments = parser.parse_args()
    width, feed, heads = arguments.width, arguments.width * 8 // 3 // 256 * 256, arguments.width // 64
    random = np.random.default_rng(1609)
    writer = gguf.GGUFWriter(arguments.out, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(arguments.layers)
    writer.add_feed_forward_length(feed)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    vocabulary = text_fields(writer)
    writer.add_vocab_size(vocabulary)

    def matrix(name: str, rows: int, columns: int) -> None:
        data = random.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns)
        kind = KINDS[arguments.kind]
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(width, dtype=np.float32))

    matrix("token_embd.weight", vocabulary, width)
    matrix("output.weight", vocabulary, width)
    ones("output_norm.weight")
    for layer in range(arguments.layers):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        ones(block + "ffn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{block}{part}.weight", width, width)
        matrix(block + "ffn_gate.weight", feed, width)
        matrix(block + "ffn_up.weight", feed, width)
        matrix(block + "ffn_down.weight", width, feed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
