"""Writes a continuation or an answer with the numpy reference; slow, but the same everywhere.

    python sample.py shakespeare-q8_0.gguf --text "ROMEO:" --seed 1
    python sample.py shakespeare-q8_0.gguf --chat "What news?" --system "You are JULIET." --seed 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenizers import Tokenizer

import corpus
import reference

HERE = Path(__file__).parent


def chat_prompt(words: str, system: str | None) -> str:
    """What the chat template makes of one user message and an optional system message."""
    messages = ([("system", system)] if system else []) + [("user", words)]
    told = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    return told + "<|im_start|>assistant\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--text", help="text to continue")
    kind.add_argument("--chat", help="user message to answer")
    parser.add_argument("--system", help="system message, such as: You are JULIET.")
    parser.add_argument("--count", type=int, default=120, help="tokens at most")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    prompt = arguments.text if arguments.text else chat_prompt(arguments.chat, arguments.system)
    ids = [corpus.BOS_ID, *corpus.encode(tokenizer, prompt)]
    model = reference.Llama(arguments.model)
    written = model.sample(ids, arguments.count, arguments.temperature, arguments.seed, corpus.END_ID)
    print((arguments.text or "") + tokenizer.decode(written))


if __name__ == "__main__":
    main()
