"""llama.cpp's own HTTP server, with models that are written here: they take no download and a few milliseconds.

Neither model knows anything. ``write_random_model`` makes one with random weights: it babbles, always the same at
temperature 0. ``write_reciting_model`` makes one that answers everything with one known sentence and stops.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SENTENCE = "Hello from a tiny model: this sentence is always the same one."
SPECIAL = ("<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|call|>", "<|end|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<|call|>{{ c.id }} {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
    "{% if m.tool_call_id %} for {{ m.tool_call_id }}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT = 2048
"""Tokens of each slot."""
SLOTS = 4
START_BOUND = 60.0
"""Seconds after which a server that does not answer counts as broken."""


def installed() -> str | None:
    """``None``, or what is missing."""
    try:
        import gguf  # noqa: F401
        import numpy  # noqa: F401
        import xllamacpp  # noqa: F401
    except ImportError as exc:
        return f"llama.cpp's server is not installed: {exc}"
    return None


def byte_tokens() -> list[str]:
    """The 256 bytes as byte-level BPE writes them: printable ones as they are, the others from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def write_random_model(path: Path) -> None:
    import numpy as np

    width, inner, layers = 64, 128, 2
    random = np.random.default_rng(0)

    def matrix(*shape: int) -> Any:
        return (random.standard_normal(shape) * 0.3).astype(np.float32)

    words = byte_tokens()
    vocabulary = len(words) + len(SPECIAL)
    output = matrix(vocabulary, width)
    for token in range(vocabulary):
        if not 32 <= token < 127:  # it babbles in printable ASCII, and never stops by itself
            output[token] = 0
    _write(path, "random", words, matrix(vocabulary, width), output, lambda rows, columns: matrix(rows, columns), inner, layers)


def write_reciting_model(path: Path, sentence: str = SENTENCE) -> None:
    """Attention and feed-forward do nothing, so each token alone decides the next: its embedding is that one's output row."""
    import numpy as np

    width, inner = 512, 32
    letters = byte_tokens()
    words = sentence.split(" ")
    if len(set(words)) != len(words):
        raise ValueError("a word that comes twice would have two successors")
    spelt = ["".join(letters[byte] for byte in (word if place == 0 else f" {word}").encode()) for place, word in enumerate(words)]
    tokens = letters + spelt
    special = {name: len(tokens) + place for place, name in enumerate(SPECIAL)}
    embedding = np.random.default_rng(0).standard_normal((len(tokens) + len(SPECIAL), width)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    output = np.zeros_like(embedding)
    chain = [special["<|assistant|>"], *range(len(letters), len(tokens)), special["<|end|>"]]
    for token, successor in zip(chain, chain[1:], strict=False):
        output[successor] = 2 * embedding[token]
    _write(path, "reciting", tokens, embedding, output, lambda rows, columns: np.zeros((rows, columns), np.float32), inner, 1)


def _write(path: Path, name: str, words: list[str], embedding: Any, output: Any, weights: Any, inner: int, layers: int) -> None:
    import gguf
    import numpy as np

    width, heads = embedding.shape[1], 4
    tokens = [*words, *SPECIAL]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words) + [gguf.TokenType.CONTROL] * len(SPECIAL))
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(tokens.index("<|bos|>"))
    writer.add_eos_token_id(tokens.index("<|eos|>"))
    writer.add_eot_token_id(tokens.index("<|end|>"))
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(layers):
        block = f"blk.{layer}"
        writer.add_tensor(f"{block}.attn_norm.weight", np.ones(width, np.float32))
        writer.add_tensor(f"{block}.ffn_norm.weight", np.ones(width, np.float32))
        for part in ("q", "k", "v", "output"):
            writer.add_tensor(f"{block}.attn_{part}.weight", weights(width, width))
        writer.add_tensor(f"{block}.ffn_gate.weight", weights(inner, width))
        writer.add_tensor(f"{block}.ffn_up.weight", weights(inner, width))
        writer.add_tensor(f"{block}.ffn_down.weight", weights(width, inner))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaServer:
    """A running server. ``base_url`` is what ``LLAMACPP_API_BASE`` wants."""

    def __init__(self, model: Path, *, api_key: str | None = None, embeds: bool = False) -> None:
        self.api_key = api_key
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed in stop()
        arguments = [sys.executable, __file__, str(model), *(["--api-key", api_key] if api_key else []), *(["--embeds"] if embeds else [])]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
        assert self._process.stdout is not None
        try:
            said = b""
            while not said.startswith(b"listening "):  # the library logs to standard output too
                said = self._process.stdout.readline()
                if not said:
                    raise RuntimeError("it ended")
            self.url = said.split()[1].decode()
            self.base_url = f"{self.url}/v1"
            self._wait_until_ready()
        except RuntimeError as exc:
            self._process.kill()
            self._log.seek(0)
            raise RuntimeError(f"llama.cpp's server did not start ({exc}):\n{self._log.read().decode(errors='replace')}") from None

    def stop(self) -> None:
        self._process.communicate(timeout=START_BOUND)  # it ends when its standard input does
        self._log.close()

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=START_BOUND) as answer:
            return json.load(answer)

    def busy_slots(self) -> int:
        """How many slots work on an answer now."""
        return sum(slot["is_processing"] for slot in self.get("/slots"))

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + START_BOUND
        while True:
            try:
                if self.get("/health")["status"] == "ok":
                    return
            except (urllib.error.URLError, OSError) as exc:
                if time.monotonic() > give_up:
                    raise RuntimeError(f"/health: {exc}") from None
            time.sleep(0.02)


def _serve() -> None:
    import xllamacpp

    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--api-key")
    parser.add_argument("--embeds", action="store_true")
    options = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT * SLOTS
    params.endpoint_slots = True
    params.use_jinja = True
    params.warmup = False
    params.verbosity = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    if options.api_key:
        params.api_keys = [options.api_key]
    if options.embeds:  # such a server makes vectors and nothing else
        params.embedding = True
        # With the mean of all tokens, the texts of one batch get mixed up.
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    server = xllamacpp.Server(params)
    print("listening", server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
