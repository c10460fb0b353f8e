"""llama.cpp's HTTP server with a GGUF file, until the standard input ends.

    python -m tests.teachers.hosted.llama_server MODEL.gguf embedding|rerank|chat

The first line of the output is the address.
"""

from __future__ import annotations

import sys

import xllamacpp


def main() -> None:
    path, use = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.embedding = use != "chat"
    rank, mean = (
        xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK,
        xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN,
    )
    params.pooling_type = rank if use == "rerank" else mean
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_ctx = params.n_batch = params.n_ubatch = 2048 if use == "chat" else 512
    params.n_parallel = 1
    params.warmup = False
    params.port = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
