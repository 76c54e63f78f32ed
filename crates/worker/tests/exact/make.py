"""Writes `qwen2.gguf`: a second architecture for the test of exact mode, with random weights.

    python make.py

Biases on queries, keys and values, another kind of rotary positions, and weights in Q5_0 and in half precision: what
the shipped Llama does not have. The tokenizer is the shipped model's. Needs the packages `gguf` and `numpy`.
"""

from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).parent
SHIPPED = HERE.parents[3] / "models/shakespeare/shakespeare-q8_0.gguf"
WIDTH, FEED, HEADS, KV_HEADS, LAYERS = 256, 512, 4, 2, 2
HEAD = WIDTH // HEADS


def copy_tokenizer(writer: gguf.GGUFWriter) -> int:
    count = 0
    for name, field in gguf.GGUFReader(SHIPPED).fields.items():
        if not name.startswith("tokenizer.") or name == "tokenizer.chat_template":
            continue
        value = field.contents()
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, value)
            count = len(value) if name.endswith(".tokens") else count
        else:
            writer.add_key_value(name, value, field.types[0])
    return count


def main() -> None:
    random = np.random.default_rng(1600)
    writer = gguf.GGUFWriter(HERE / "qwen2.gguf", "qwen2")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    vocabulary = copy_tokenizer(writer)
    writer.add_vocab_size(vocabulary)

    def matrix(name: str, rows: int, columns: int, kind=gguf.GGMLQuantizationType.Q4_0) -> None:
        data = random.standard_normal((rows, columns), dtype=np.float32) * (2.0 / np.sqrt(columns))
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)

    def vector(name: str, length: int, around: float) -> None:
        writer.add_tensor(name, (around + 0.1 * random.standard_normal(length)).astype(np.float32))

    matrix("token_embd.weight", vocabulary, WIDTH, gguf.GGMLQuantizationType.Q8_0)
    vector("output_norm.weight", WIDTH, 1.0)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight", WIDTH, 1.0)
        vector(block + "ffn_norm.weight", WIDTH, 1.0)
        for part, rows in (("q", WIDTH), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD)):
            matrix(f"{block}attn_{part}.weight", rows, WIDTH)
            vector(f"{block}attn_{part}.bias", rows, 0.0)
        matrix(block + "attn_output.weight", WIDTH, WIDTH)
        matrix(block + "ffn_gate.weight", FEED, WIDTH, gguf.GGMLQuantizationType.Q5_0)
        # Half precision as it is: this product is one of those that exact mode computes in another way.
        down = (random.standard_normal((WIDTH, FEED)) * (2.0 / np.sqrt(FEED))).astype(np.float16)
        writer.add_tensor(block + "ffn_down.weight", down)
        matrix(block + "ffn_up.weight", FEED, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
