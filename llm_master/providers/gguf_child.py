"""The program of llama.cpp's server in a process of its own. It imports nothing of this library, so that it starts at once.

It reads one line of JSON from standard input, loads the model, and says on standard output where it listens, or why not. It
ends when its standard input does, which is also when its parent has died, however that came about.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def serve() -> None:
    """Read what is wanted, serve it, and end with the parent."""
    # The library writes to standard output as well, and an answer must not get lost in it.
    answer = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    wanted = json.loads(sys.stdin.buffer.readline())
    # The parent may have found the package by a path that it has set itself.
    sys.path[:] = wanted.pop("sys_path")
    try:
        server = start(wanted)
        told = {"address": server.listening_address}
    except AttributeError as exc:
        server = None
        told = {"error": f"this release of xllamacpp does not fit ({exc}): pip install --upgrade 'llm_master[local]'"}
    except Exception as exc:  # whatever it is, the parent tells it
        server = None
        told = {"error": f"{type(exc).__name__}: {exc}"}
    try:
        print(json.dumps(told), file=answer, flush=True)
        if server is not None:
            sys.stdin.buffer.read()
    finally:
        # Its threads hold nothing that must be saved.
        os._exit(0 if server is not None else 1)


def start(wanted: dict[str, Any]) -> Any:
    """llama.cpp's server, once it has loaded the model and listens."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = wanted["path"]
    params.model_alias = {wanted["name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = wanted["port"]
    params.api_keys = [wanted["key"]]
    params.verbosity = wanted["verbosity"]
    params.use_jinja = True
    params.ui = False
    params.n_parallel = wanted["n_parallel"]
    # The slots share what llama.cpp calls the context.
    params.n_ctx = wanted["n_ctx"] * wanted["n_parallel"]
    if wanted["n_threads"] is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = wanted["n_threads"]
    if wanted["n_gpu_layers"] is not None:
        params.n_gpu_layers = wanted["n_gpu_layers"]
    if wanted["chat_template"] is not None:
        params.chat_template = wanted["chat_template"]
    if wanted["embeds"]:
        params.embedding = True
        # A text is embedded in one piece.
        params.n_batch = params.n_ubatch = params.n_ctx
        if wanted["pooling"] is not None:
            kinds = xllamacpp.llama_pooling_type
            params.pooling_type = getattr(kinds, f"LLAMA_POOLING_TYPE_{wanted['pooling'].upper()}")
    return xllamacpp.Server(params)


if __name__ == "__main__":
    serve()
