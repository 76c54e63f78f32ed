"""llama.cpp's own Python library on one workload, as a contestant of `benches/src/bin/engines.rs`.

    python llama.py MODEL.gguf --threads N

Reads one JSON request a line from standard input, {"prompt": TEXT, "tokens": N}, and answers each with one line:
{"prompt_tokens", "tokens", "first": seconds to the first token, "all": seconds to the last}.
"""

import argparse
import json
import sys
import time

from llama_cpp import Llama


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    model = Llama(
        arguments.model,
        n_ctx=0,
        n_threads=arguments.threads,
        n_threads_batch=arguments.threads,
        n_batch=512,
        flash_attn=True,
        verbose=False,
    )
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        prompt = model.tokenize(request["prompt"].encode())
        model.reset()
        model._ctx.kv_cache_clear() if hasattr(model._ctx, "kv_cache_clear") else None
        started = time.perf_counter()
        first, count = None, 0
        for _ in model.generate(prompt, top_k=0, top_p=1.0, min_p=0.0, temp=1.0, repeat_penalty=1.0, reset=True):
            count += 1
            if first is None:
                first = time.perf_counter() - started
            if count >= request["tokens"]:
                break
        spent = time.perf_counter() - started
        print(json.dumps({"prompt_tokens": len(prompt), "tokens": count, "first": first, "all": spent}), flush=True)


if __name__ == "__main__":
    main()
