"""The network, in JAX: Llama's block (RMSNorm, rotary positions, grouped queries, SwiGLU).

Weights are kept as [input, output] and multiply from the right. Input and output embedding are
one matrix. The rotary pairs are (i, i + half), as in Hugging Face's Llama; `export.py` reorders
the rows of Q and K for llama.cpp, whose pairs are (2i, 2i + 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Shape:
    vocabulary: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 512
    context: int = 512
    rope_base: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def head(self) -> int:
        return self.width // self.heads


def initial(shape: Shape, seed: int) -> dict[str, jax.Array]:
    """Fresh weights; projections into the residual stream start smaller."""
    random = np.random.default_rng(seed)
    deep = 0.02 / np.sqrt(2 * shape.layers)

    def normal(rows: int, columns: int, scale: float = 0.02) -> jax.Array:
        return jnp.asarray(random.normal(0, scale, (rows, columns)), jnp.float32)

    kv = shape.kv_heads * shape.head
    weights = {"embedding": normal(shape.vocabulary, shape.width), "norm": jnp.ones(shape.width)}
    for n in range(shape.layers):
        weights |= {
            f"{n}.attention_norm": jnp.ones(shape.width),
            f"{n}.q": normal(shape.width, shape.width),
            f"{n}.k": normal(shape.width, kv),
            f"{n}.v": normal(shape.width, kv),
            f"{n}.o": normal(shape.width, shape.width, deep),
            f"{n}.feed_norm": jnp.ones(shape.width),
            f"{n}.gate": normal(shape.width, shape.feed_forward),
            f"{n}.up": normal(shape.width, shape.feed_forward),
            f"{n}.down": normal(shape.feed_forward, shape.width, deep),
        }
    return weights


def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon) * scale


def rotate(x: jax.Array, shape: Shape) -> jax.Array:
    """Rotary positions on [batch, time, heads, head]."""
    half = shape.head // 2
    angle = np.arange(x.shape[1])[:, None] * shape.rope_base ** (-np.arange(half) / half)
    cos, sin = jnp.asarray(np.cos(angle), x.dtype)[:, None], jnp.asarray(np.sin(angle), x.dtype)[:, None]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def drop(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def attention(weights: dict, n: int, x: jax.Array, shape: Shape) -> jax.Array:
    batch, time, _ = x.shape
    group = shape.heads // shape.kv_heads
    q = rotate((x @ weights[f"{n}.q"]).reshape(batch, time, shape.heads, shape.head), shape)
    k = rotate((x @ weights[f"{n}.k"]).reshape(batch, time, shape.kv_heads, shape.head), shape)
    v = (x @ weights[f"{n}.v"]).reshape(batch, time, shape.kv_heads, shape.head)
    q = q.reshape(batch, time, shape.kv_heads, group, shape.head)
    scores = jnp.einsum("btkgh,bskh->bkgts", q, k) / np.sqrt(shape.head)
    scores = jnp.where(np.tril(np.ones((time, time), bool)), scores, -1e30)
    mixed = jnp.einsum("bkgts,bskh->btkgh", jax.nn.softmax(scores, -1), v)
    return mixed.reshape(batch, time, shape.width) @ weights[f"{n}.o"]


def logits(weights: dict, ids: jax.Array, shape: Shape, dropout: float = 0.0, key=None) -> jax.Array:
    """[batch, time] ids to [batch, time, vocabulary]; dropout only when a key is given."""
    keys = [None] * (2 * shape.layers + 1) if key is None else jax.random.split(key, 2 * shape.layers + 1)
    x = drop(weights["embedding"][ids], dropout, keys[-1])
    for n in range(shape.layers):
        normed = rms_norm(x, weights[f"{n}.attention_norm"], shape.epsilon)
        x = x + drop(attention(weights, n, normed, shape), dropout, keys[2 * n])
        normed = rms_norm(x, weights[f"{n}.feed_norm"], shape.epsilon)
        inner = jax.nn.silu(normed @ weights[f"{n}.gate"]) * (normed @ weights[f"{n}.up"])
        x = x + drop(inner @ weights[f"{n}.down"], dropout, keys[2 * n + 1])
    return rms_norm(x, weights["norm"], shape.epsilon) @ weights["embedding"].T


def token_losses(weights: dict, windows: jax.Array, shape: Shape, dropout: float = 0.0, key=None) -> jax.Array:
    """Nats for each id after the first, [batch, time]."""
    scores = logits(weights, windows[:, :-1], shape, dropout, key)
    target = jnp.take_along_axis(scores, windows[:, 1:, None], -1)[..., 0]
    return jax.nn.logsumexp(scores, -1) - target
