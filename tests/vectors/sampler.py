#!/usr/bin/env python3
"""Rialto's sampler a second time, from its definition alone, and the vectors that the Rust one is tested against.

    tests/vectors/sampler.py            prints the vectors
    tests/vectors/sampler.py --check    compares them with tests/vectors/sampler.json

Nothing but the standard library is used: keccak-256 and ChaCha20 are written out here. The logits of a case are
`((factor * i * i + 31 * i) mod 1021) / 64 - 8`, which a float holds exactly. A case is not given out where two sums are
so close that another library's logarithm could turn them round.
"""

import functools
import json
import math
import pathlib
import struct
import sys

FILE = pathlib.Path(__file__).with_suffix(".json")
POSITIONS = 12
CLEAR = 1e-9

MASK = (1 << 64) - 1


def keccak256(data):
    """keccak-256 as Ethereum uses it: rate 136 bytes, padding 0x01."""

    def turn(value, by):
        by %= 64
        return ((value << by) | (value >> (64 - by))) & MASK if by else value

    def permute(a):
        register = 1
        for _ in range(24):
            c = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
            for x in range(5):
                d = c[(x - 1) % 5] ^ turn(c[(x + 1) % 5], 1)
                for y in range(5):
                    a[x][y] ^= d
            x, y, current = 1, 0, a[1][0]
            for step in range(24):
                x, y = y, (2 * x + 3 * y) % 5
                current, a[x][y] = a[x][y], turn(current, (step + 1) * (step + 2) // 2)
            for y in range(5):
                row = [a[x][y] for x in range(5)]
                for x in range(5):
                    a[x][y] = row[x] ^ (~row[(x + 1) % 5] & MASK & row[(x + 2) % 5])
            for bit in range(7):
                if register & 1:
                    a[0][0] ^= 1 << ((1 << bit) - 1)
                register = (register << 1) ^ (0x171 if register & 0x80 else 0)

    rate = 136
    padded = bytearray(data) + bytearray(rate - len(data) % rate)
    padded[len(data)] ^= 0x01
    padded[-1] ^= 0x80
    state = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), rate):
        for lane, value in enumerate(struct.unpack("<17Q", padded[start : start + rate])):
            state[lane % 5][lane // 5] ^= value
        permute(state)
    return struct.pack("<4Q", *(state[lane % 5][lane // 5] for lane in range(4)))


@functools.lru_cache(maxsize=4096)
def chacha20(key, counter):
    """A block of ChaCha20 (RFC 8439) with a zero nonce: sixteen words."""

    def turn(value, by):
        return ((value << by) | (value >> (32 - by))) & 0xFFFFFFFF

    start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter, 0, 0, 0]
    state = list(start)
    columns = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
    diagonals = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for _ in range(10):
        for a, b, c, d in columns + diagonals:
            for left, right, moved, by in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]:
                state[left] = (state[left] + state[right]) & 0xFFFFFFFF
                state[moved] = turn(state[moved] ^ state[left], by)
    return [(word + first) & 0xFFFFFFFF for word, first in zip(state, start)]


@functools.lru_cache
def key_of(seed, position):
    return keccak256(b"rialto sampler v1" + struct.pack("<QQ", seed, position))


def gumbel(seed, position, token):
    word = chacha20(key_of(seed, position), token // 16)[token % 16]
    return -math.log(-math.log((word + 0.5) / 2**32))


def single(value):
    """The nearest number of single precision: that is what a request holds."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def likeliest(candidates):
    return sorted(candidates, key=lambda token: (-candidates[token], token))


def nucleus(candidates, part):
    top = max(candidates.values())
    weights = {token: math.exp(scaled - top) for token, scaled in candidates.items()}
    wanted, sum_, kept = part * sum(weights.values()), 0.0, {}
    for token in likeliest(candidates):
        kept[token] = candidates[token]
        sum_ += weights[token]
        if abs(sum_ - wanted) < CLEAR:
            raise ValueError("a nucleus ends too close to its part")
        if sum_ >= wanted:
            break
    return kept


def scale(logits, case, counts):
    """Logits after grammar, penalties and temperature, by token."""
    allowed = range(len(logits)) if case["allowed"] is None else case["allowed"]
    candidates = {}
    for token in allowed:
        logit = logits[token]
        if counts.get(token):
            logit -= single(case["frequency_penalty"]) * counts[token] + single(case["presence_penalty"])
        candidates[token] = logit / single(case["temperature"]) if case["temperature"] > 0 else logit
    return candidates


def sums(logits, case, counts, position):
    """The numbers of which the largest wins, by token."""
    kept = scale(logits, case, counts)
    if case["temperature"] == 0:
        return kept
    if case["top_k"]:
        kept = {token: kept[token] for token in likeliest(kept)[: case["top_k"]]}
    if case["top_p"] < 1:
        kept = nucleus(kept, single(case["top_p"]))
    if case["min_p"] > 0:
        floor = max(kept.values()) + math.log(single(case["min_p"]))
        if any(abs(scaled - floor) < CLEAR for scaled in kept.values()):
            raise ValueError("a token stands too close to the floor")
        kept = {token: scaled for token, scaled in kept.items() if scaled >= floor}
    return {token: scaled + gumbel(case["seed"], position, token) for token, scaled in kept.items()}


def run(case):
    logits = [((case["factor"] * i * i + 31 * i) % 1021) / 64 - 8 for i in range(case["count"])]
    counts, tokens, leads = {}, [], []
    for position in range(POSITIONS):
        found = sums(logits, case, counts, position)
        first, *rest = likeliest(found)
        lead = found[first] - found[rest[0]] if rest else None
        if case["temperature"] > 0 and lead is not None and lead < CLEAR:
            raise ValueError(f"two sums are too close: {case}")
        tokens.append(first)
        leads.append([rest[0], round(lead, 9)] if rest else None)
        counts[first] = counts.get(first, 0) + 1
    return {**case, "tokens": tokens, "second": leads}


def cases():
    plain = {"count": 300, "factor": 7, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    plain |= {"frequency_penalty": 0.0, "presence_penalty": 0.0, "seed": 1, "allowed": None}
    yield plain
    for seed in (0, 42, 2**32, 2**64 - 1):
        yield plain | {"seed": seed}
    for temperature in (0.0, 0.1, 0.7, 1.3, 2.0):
        yield plain | {"temperature": temperature, "factor": 11}
    for count in (1, 2, 16, 17, 65, 1000, 4099):
        yield plain | {"count": count, "factor": 5, "temperature": 1.9}
    for top_k in (1, 5, 40, 299, 1000):
        yield plain | {"top_k": top_k, "temperature": 2.0}
    for top_p in (0.05, 0.5, 0.9, 0.99):
        yield plain | {"top_p": top_p, "temperature": 2.0, "count": 900}
    for min_p in (0.03, 0.3):
        yield plain | {"min_p": min_p, "temperature": 1.7}
    for frequency, presence in ((0.5, 0.0), (0.0, 1.5), (0.7, -0.9), (-0.25, 0.25)):
        penalties = {"frequency_penalty": frequency, "presence_penalty": presence}
        yield plain | penalties
        yield plain | penalties | {"temperature": 0.0}
    yield plain | {"allowed": [3, 64, 65, 127, 250]}
    yield plain | {"allowed": [17], "temperature": 0.0}
    everything = {"temperature": 1.4, "top_k": 50, "top_p": 0.93, "min_p": 0.02, "frequency_penalty": 0.3}
    yield plain | everything | {"allowed": list(range(0, 300, 3)), "seed": 9}


def text():
    lines = ",\n ".join(json.dumps(run(case)) for case in cases())
    return f"[\n {lines}\n]\n"


if __name__ == "__main__":
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    # RFC 8439, A.1, vector 1.
    assert chacha20(bytes(32), 0)[0] == 0xADE0B876
    if sys.argv[1:] == ["--check"]:
        if FILE.read_text() != text():
            sys.exit(f"{FILE.name} is not what this script gives: write it anew with {sys.argv[0]} > {FILE}")
    else:
        print(text(), end="")
