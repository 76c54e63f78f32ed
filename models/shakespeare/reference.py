"""Reads a Llama GGUF and runs it in plain numpy: the yardstick for every other runtime.

Weights are dequantised to float32 and nothing else is rounded, so a runtime that quantises its
activations too (llama.cpp does) differs in the third digit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize


class Llama:
    """A Llama-architecture model out of a GGUF file, with tied or separate output matrix."""

    def __init__(self, path: Path):
        reader = GGUFReader(path)
        field = lambda name: reader.fields[f"llama.{name}"].contents()
        self.layers = field("block_count")
        self.heads = field("attention.head_count")
        self.kv_heads = field("attention.head_count_kv")
        self.context = field("context_length")
        self.epsilon = field("attention.layer_norm_rms_epsilon")
        self.rope_base = field("rope.freq_base")
        self.chat_template = reader.fields["tokenizer.chat_template"].contents()
        self.weights = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self.kinds = {t.name: t.tensor_type.name for t in reader.tensors}

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon)
        return x / scale * self.weights[f"{name}.weight"]

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """Rotary positions on [time, heads, head] in llama.cpp's order: pairs (2i, 2i + 1)."""
        time, _, head = x.shape
        angle = np.arange(time)[:, None] * self.rope_base ** (-np.arange(0, head, 2) / head)
        cos, sin = np.cos(angle).astype(np.float32)[:, None], np.sin(angle).astype(np.float32)[:, None]
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 1::2] * cos + x[..., 0::2] * sin
        return out

    def attention(self, x: np.ndarray, block: str) -> np.ndarray:
        time = len(x)
        q = self.rotate(self.linear(x, f"{block}.attn_q").reshape(time, self.heads, -1))
        k = self.rotate(self.linear(x, f"{block}.attn_k").reshape(time, self.kv_heads, -1))
        v = self.linear(x, f"{block}.attn_v").reshape(time, self.kv_heads, -1)
        k, v = (np.repeat(t, self.heads // self.kv_heads, axis=1) for t in (k, v))
        scores = q.swapaxes(0, 1) @ k.transpose(1, 2, 0) / float(np.sqrt(q.shape[-1]))
        scores += np.triu(np.full((time, time), -np.inf, dtype=np.float32), 1)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        mixed = (share @ v.swapaxes(0, 1)).swapaxes(0, 1).reshape(time, -1)
        return self.linear(mixed.astype(np.float32), f"{block}.attn_output")

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """[time] ids to [time, vocabulary]."""
        x = self.weights["token_embd.weight"][ids]
        for n in range(self.layers):
            block = f"blk.{n}"
            x = x + self.attention(self.norm(x, f"{block}.attn_norm"), block)
            normed = self.norm(x, f"{block}.ffn_norm")
            gate = self.linear(normed, f"{block}.ffn_gate")
            inner = gate / (1 + np.exp(-gate)) * self.linear(normed, f"{block}.ffn_up")
            x = x + self.linear(inner, f"{block}.ffn_down")
        output = self.weights.get("output.weight", self.weights["token_embd.weight"])
        return self.norm(x, "output_norm") @ output.T

    def held_out(self, windows: np.ndarray, skip: int) -> float:
        """Total nats over [windows, length + 1] ids; targets equal to `skip` are not scored."""
        total = 0.0
        for row in windows:
            scores = self.logits(row[:-1]).astype(np.float64)
            top = scores.max(-1)
            normal = top + np.log(np.exp(scores - top[:, None]).sum(-1))
            losses = normal - scores[np.arange(len(row) - 1), row[1:]]
            total += losses[row[1:] != skip].sum()
        return float(total)

    def sample(self, ids: list[int], count: int, temperature: float, seed: int, stop: int) -> list[int]:
        """Up to `count` further ids; `temperature` 0 takes the likeliest; ends before `stop`."""
        random, ids, start = np.random.default_rng(seed), list(ids), len(ids)
        for _ in range(count):
            scores = self.logits(np.array(ids[-self.context :]))[-1].astype(np.float64)
            if temperature == 0:
                chosen = int(scores.argmax())
            else:
                share = np.exp((scores - scores.max()) / temperature)
                chosen = int(random.choice(len(share), p=share / share.sum()))
            if chosen == stop:
                break
            ids.append(chosen)
        return ids[start:]
