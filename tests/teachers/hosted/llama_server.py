"""llama.cpp's HTTP server with a GGUF file, until the standard input ends.

    python -m tests.teachers.hosted.llama_server MODEL.gguf embedding|rerank|chat

The first line of the output is the address.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def llama_server(model: Path, use: str) -> Iterator[str]:
    """The address of a server that runs in another process."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.teachers.hosted.llama_server", str(model), use],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    try:
        yield f"{server.stdout.readline().strip()}/v1"
    finally:
        server.stdin.close()
        server.wait(30)


def main() -> None:
    import xllamacpp

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
