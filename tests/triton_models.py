"""Serves two models on NVIDIA Triton itself until it is ended: run by the environment of scripts/peers.

`echo` has the tensors of the generate extension, `plain` others, for `infer`.
"""

import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

SAID = b"you said: "


@batch
def echo(text_input, **_):
    return {"text_output": np.array([[SAID + row[0]] for row in text_input], dtype=object)}


@batch
def plain(prompt, **_):
    return {"answer": np.array([[SAID + row[0]] for row in prompt], dtype=object)}


def main() -> None:
    port = int(sys.argv[1])
    config = TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2, exit_timeout_secs=1)
    with Triton(config=config) as triton:
        for name, serve, source, target in (
            ("echo", echo, "text_input", "text_output"),
            ("plain", plain, "prompt", "answer"),
        ):
            triton.bind(
                model_name=name,
                infer_func=serve,
                inputs=[Tensor(name=source, dtype=bytes, shape=(1,))],
                outputs=[Tensor(name=target, dtype=bytes, shape=(1,))],
                config=ModelConfig(max_batch_size=8),
            )
        triton.serve()


main()
