"""llama.cpp's own HTTP server out of the `xllamacpp` wheel, with the flags of `llama-server` that the tests use.

That wheel is built for any x86-64 processor with AVX2; the programs `llama-server` that others publish need more.
"""

import argparse
import signal

import xllamacpp

POOLING = {"mean": xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN}

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--alias", required=True)
parser.add_argument("--parallel", type=int, required=True)
parser.add_argument("--ctx-size", type=int, required=True)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--jinja", action="store_true")
parser.add_argument("--embeddings", action="store_true")
parser.add_argument("--pooling", choices=POOLING)
given = parser.parse_args()

parameters = xllamacpp.CommonParams()
parameters.hostnames = [given.host]
parameters.port = given.port
parameters.model.path = given.model
parameters.model_alias = {given.alias}
parameters.n_parallel = given.parallel
parameters.n_ctx = given.ctx_size
parameters.cpuparams.n_threads = given.threads
parameters.use_jinja = given.jinja
parameters.embedding = given.embeddings
parameters.endpoint_props = True
if given.pooling:
    parameters.pooling_type = POOLING[given.pooling]

server = xllamacpp.Server(parameters)
signal.pause()
