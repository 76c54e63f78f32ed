"""The corpus: its split, its tokenizer, and the windows that training reads.

The text is split by position into train (90 %), validation (5 %, decides when to stop) and
test (5 %, only ever reported). The tokenizer sees the train part alone.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCABULARY = 2048
BOS, TURN, END, PAD = "<s>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIALS = [BOS, TURN, END, PAD]  # ids 0, 1, 2, 3
BOS_ID, TURN_ID, END_ID, PAD_ID = range(4)

# A speech of the play: a heading line that ends in a colon, then its lines.
HEADING = re.compile(r"^[A-Z][^\n:]{0,40}:$")

# ChatML, because every runtime knows it, with tools as Hermes and Qwen write them. The leading <s>
# is added by the tokenizer (`add_bos_token`), so it must not stand here too. Words about tools are
# few: the context is 512 tokens. Every block takes the white space before it away by itself, so it
# renders the same whether or not a runtime trims blocks.
CHAT_TEMPLATE = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] + '\n\n' }}
    {%- endif %}
    {{- '<tools>\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
        {{- '\n' }}
    {%- endfor %}
    {{- '</tools>\nTo call:\n<tool_call>\n{"name": NAME, "arguments": OBJECT}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message['role'] == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1]['role'] != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' + message['content'] + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1]['role'] != 'tool' %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- elif not (tools and loop.first and message['role'] == 'system') %}
        {{- '<|im_start|>' + message['role'] + '\n' + (message['content'] or '') }}
        {%- for asked in message['tool_calls'] or [] %}
            {%- set function = asked['function'] or asked %}
            {%- if message['content'] or not loop.first %}
                {{- '\n' }}
            {%- endif %}
            {{- '<tool_call>\n{"name": "' + function['name'] + '", "arguments": ' }}
            {%- if function['arguments'] is string %}
                {{- function['arguments'] }}
            {%- else %}
                {{- function['arguments'] | tojson }}
            {%- endif %}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}""".lstrip()


def split(path: Path) -> tuple[str, str, str]:
    """Train, validation and test text, cut at speech boundaries near 90 % and 95 %."""
    text = path.read_text(encoding="utf-8")
    first = text.index("\n\n", len(text) * 90 // 100) + 2
    second = text.index("\n\n", len(text) * 95 // 100) + 2
    return text[:first], text[first:second], text[second:]


def train_tokenizer(text: str) -> Tokenizer:
    """Byte-level BPE with GPT-2's pre-tokenizer (llama.cpp's `gpt-2`): any UTF-8 tokenises.

    Like llama.cpp with `add_bos_token`, it puts `<s>` in front unless told otherwise.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of `text`, without a leading `<s>`."""
    return tokenizer.encode(text, add_special_tokens=False).ids


def speeches(text: str) -> list[tuple[str, str]]:
    """(speaker, words) of every speech, in order; other paragraphs are left out."""
    found = []
    for paragraph in text.split("\n\n"):
        heading, _, words = paragraph.strip("\n").partition("\n")
        if HEADING.match(heading) and words:
            found.append((heading[:-1], words))
    return found


class Windows:
    """Draws training windows of `length` + 1 ids, half plain text and half conversations.

    A plain window is `<s>` and then the play from a random paragraph on. A conversation window
    holds short ChatML conversations in which neighbouring speeches are user and assistant; half
    of them open with the system message `You are SPEAKER.`
    """

    def __init__(self, tokenizer: Tokenizer, text: str, length: int, seed: int):
        self.length = length
        self.random = np.random.default_rng(seed)
        paragraphs = text.split("\n\n")
        pieces = tokenizer.encode_batch([p + "\n\n" for p in paragraphs], add_special_tokens=False)
        self.plain = np.array([i for piece in pieces for i in piece.ids], dtype=np.int32)
        self.starts = np.cumsum([0] + [len(piece.ids) for piece in pieces[:-1]])
        self.starts = self.starts[self.starts + length < len(self.plain)]
        self.role = {name: encode(tokenizer, name + "\n") for name in ("system", "user", "assistant")}
        self.newline = encode(tokenizer, "\n")
        spoken = speeches(text)
        self.words = [encode(tokenizer, words) for _, words in spoken]
        self.system = [encode(tokenizer, f"You are {speaker}.") for speaker, _ in spoken]

    def message(self, role: str, words: list[int]) -> list[int]:
        return [TURN_ID, *self.role[role], *words, END_ID, *self.newline]

    def conversation(self, first: int, pairs: int, system: bool) -> list[int]:
        """`pairs` exchanges of the speeches from `first` on."""
        ids = [BOS_ID]
        if system:
            ids += self.message("system", self.system[first + 1])
        for speech in range(first, first + 2 * pairs, 2):
            ids += self.message("user", self.words[speech])
            ids += self.message("assistant", self.words[speech + 1])
        return ids

    def draw_plain(self) -> np.ndarray:
        start = int(self.random.choice(self.starts))
        return np.concatenate(([BOS_ID], self.plain[start : start + self.length]))

    def draw_conversations(self) -> np.ndarray:
        ids: list[int] = []
        while len(ids) <= self.length:
            pairs = int(self.random.integers(1, 5))
            first = int(self.random.integers(0, len(self.words) - 2 * pairs))
            ids += self.conversation(first, pairs, bool(self.random.integers(2)))
        return np.array(ids[: self.length + 1])

    def batch(self, size: int) -> np.ndarray:
        """[size, length + 1] int32."""
        rows = [self.draw_plain() if n % 2 else self.draw_conversations() for n in range(size)]
        return np.stack(rows).astype(np.int32)


def evaluation_windows(ids: list[int], length: int) -> np.ndarray:
    """The whole of `ids` in windows of `<s>` + `length` ids, each id predicted exactly once.

    The last window is filled up with `<|pad|>`, which is not scored. [windows, length + 1].
    """
    padded = np.full(-(-len(ids) // length) * length, PAD_ID, dtype=np.int32)
    padded[: len(ids)] = ids
    rows = padded.reshape(-1, length)
    return np.concatenate([np.full((len(rows), 1), BOS_ID, dtype=np.int32), rows], axis=1)
