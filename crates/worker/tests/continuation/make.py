"""Writes `spaced.gguf`: a vocabulary that puts a space before a text, as SentencePiece's do; random weights.

    python make.py

Needs the packages `gguf` and `numpy`.
"""

from pathlib import Path

import gguf
import numpy as np

WIDTH, FEED, HEADS, SPACE = 32, 32, 2, "\N{LOWER ONE EIGHTH BLOCK}"


def vocabulary() -> list[tuple[str, float, gguf.TokenType]]:
    tokens = [("<unk>", 0.0, gguf.TokenType.UNKNOWN)]
    tokens += [(text, 0.0, gguf.TokenType.CONTROL) for text in ("<s>", "</s>")]
    tokens += [(f"<0x{byte:02X}>", 0.0, gguf.TokenType.BYTE) for byte in range(256)]
    words = ["to", "be", "or", "not", SPACE + "to", SPACE + "be", SPACE + "or", SPACE + "not", SPACE]
    words += [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    words += [SPACE + letter for letter in "tbon"] + ["no"]
    return tokens + [(word, -float(rank), gguf.TokenType.NORMAL) for rank, word in enumerate(words)]


def main() -> None:
    random = np.random.default_rng(1601)
    writer = gguf.GGUFWriter(Path(__file__).parent / "spaced.gguf", "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    tokens = vocabulary()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)

    def matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(name, (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float16))

    matrix("token_embd.weight", len(tokens), WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for part in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{part}.weight", np.ones(WIDTH, np.float32))
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        matrix(f"blk.0.{part}.weight", WIDTH, WIDTH)
    for part in ("ffn_gate", "ffn_up"):
        matrix(f"blk.0.{part}.weight", FEED, WIDTH)
    matrix("blk.0.ffn_down.weight", WIDTH, FEED)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
