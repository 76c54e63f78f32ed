"""Trains the Shakespeare language model on CPU and keeps the best weights.

    python train.py path/to/tinyshakespeare.txt --work DIR
    python export.py path/to/tinyshakespeare.txt --work DIR

Every random choice comes from SEED; see ../README.md on how far that makes a run repeatable.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import corpus
import network

SEED = 1623
STEPS = 600
# The first steps read short windows, which cost less; the rest teach the whole context.
# Both kinds of batch hold 2,048 tokens.
SHORT_WINDOW, SHORT_STEPS = 256, 400
TOKENS_PER_STEP = 2048
MUON_RATE = 5e-3
ADAM_RATE = 4e-3
WARM_UP = 30
DROPOUT = 0.0  # a few passes over the data do not overfit yet
WEIGHT_DECAY = 0.1
EVALUATE_EVERY = 100
SHAPE = network.Shape()


def optimiser(steps: int) -> optax.GradientTransformation:
    """Muon for the blocks' matrices, Adam for the embedding and the norms.

    With so few steps Muon is worth its cost; `consistent_rms` gives its updates Adam's size.
    """
    muon_rate = optax.warmup_cosine_decay_schedule(0.0, MUON_RATE, WARM_UP, steps, MUON_RATE / 50)
    adam_rate = optax.warmup_cosine_decay_schedule(0.0, ADAM_RATE, WARM_UP, steps, ADAM_RATE / 50)

    def dimensions(weights: dict) -> dict:
        # Optax also asks with masked leaves, which have no `ndim`.
        is_block = lambda name, value: getattr(value, "ndim", 0) == 2 and name != "embedding"
        matrix = optax.contrib.MuonDimensionNumbers()
        return {name: matrix if is_block(name, value) else None for name, value in weights.items()}

    muon = optax.contrib.muon(
        muon_rate,
        weight_decay=WEIGHT_DECAY,
        adam_b2=0.98,
        adam_learning_rate=adam_rate,
        muon_weight_dimension_numbers=dimensions,
        consistent_rms=0.2,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


def make_step(update):
    @jax.jit
    def step(weights, state, windows, key):
        def loss(w):
            return network.token_losses(w, windows, SHAPE, DROPOUT, key).mean()

        value, gradient = jax.value_and_grad(loss)(weights)
        change, state = update(gradient, state, weights)
        return optax.apply_updates(weights, change), state, value

    return step


score_windows = jax.jit(lambda weights, windows: network.token_losses(weights, windows, SHAPE))


def held_out(weights: dict, tokenizer, text: str) -> tuple[float, int]:
    """Total nats over the whole of `text`, and its number of tokens."""
    ids = corpus.encode(tokenizer, text)
    windows = corpus.evaluation_windows(ids, SHAPE.context)
    total, batch = 0.0, 4
    for start in range(0, len(windows), batch):
        rows = windows[start : start + batch]
        filled = np.concatenate([rows, np.full((batch - len(rows), rows.shape[1]), corpus.PAD_ID, np.int32)])
        losses = np.asarray(score_windows(weights, filled), dtype=np.float64)
        total += losses[filled[:, 1:] != corpus.PAD_ID].sum()
    return total, len(ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where checkpoints go")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    # Threefry, the default generator, costs a fifth of the step on CPU.
    jax.config.update("jax_default_prng_impl", "rbg")

    train, validation, _ = corpus.split(arguments.corpus)
    tokenizer = corpus.train_tokenizer(train)
    tokenizer.save(str(arguments.work / "tokenizer.json"))
    short = corpus.Windows(tokenizer, train, SHORT_WINDOW, SEED)
    whole = corpus.Windows(tokenizer, train, SHAPE.context, SEED + 1)
    weights = network.initial(SHAPE, SEED)
    size = sum(value.size for value in weights.values())
    print(f"{size:,} parameters, {len(whole.plain):,} training tokens", flush=True)

    optimise = optimiser(arguments.steps)
    state, step = optimise.init(weights), make_step(optimise.update)
    key, best, started, losses = jax.random.key(SEED), float("inf"), time.time(), []
    for number in range(1, arguments.steps + 1):
        windows = short if number <= SHORT_STEPS * arguments.steps // STEPS else whole
        batch = jnp.asarray(windows.batch(TOKENS_PER_STEP // windows.length))
        weights, state, loss = step(weights, state, batch, jax.random.fold_in(key, number))
        losses.append(float(loss))
        if number <= 10 or number % 20 == 0:
            print(f"step {number} train {np.mean(losses[-20:]):.4f} seconds {time.time() - started:.0f}", flush=True)
        if number % EVALUATE_EVERY and number != arguments.steps:
            continue
        nats, tokens = held_out(weights, tokenizer, validation)
        print(f"step {number} validation {nats / tokens:.4f} per token {nats / len(validation.encode()):.4f} per byte", flush=True)
        if nats / tokens < best:
            best = nats / tokens
            np.savez(arguments.work / "best.npz", **{name: np.asarray(value) for name, value in weights.items()})
            record = {"step": number, "steps": arguments.steps, "validation_nats_per_token": best}
            (arguments.work / "best.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
