"""The attention of the tracker's memory alone, time and error: `python -m snow_export.gpu_attention --device cuda`.

One head of 256 over the keys of a full memory bank, as one node of the operator that the exported graphs use. Its
values are as wide as the memory (64), as wide as the head, or a little wider than 128, which is where ONNX Runtime's
memory-efficient kernel begins to be one that can have keys of 256. Prints JSON: for each width the milliseconds of one
object and the relative L2 distance from the same in float64. Environment variables choose the kernel, so each choice
needs a process of its own.
"""

import argparse
import json
import statistics
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

HEAD, MEMORY, ABOVE_128 = 256, 64, 136
# Queries whose attention is also computed in float64.
CHECKED = 64
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


def attention_model(width: int, element: int) -> onnx.ModelProto:
    """q `[batch, queries, 256]`, k `[batch, keys, 256]`, v `[batch, keys, width]` -> out `[batch, queries, width]`."""

    def port(name: str, length: str, channels: int):
        return helper.make_tensor_value_info(name, element, ["batch", length, channels])

    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["out"], domain="com.microsoft", num_heads=1)
    inputs = [port("q", "queries", HEAD), port("k", "keys", HEAD), port("v", "keys", width)]
    graph = helper.make_graph([node], "attention", inputs, [port("out", "queries", width)])
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


def exact(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Softmax attention in float64, `[batch, tokens, channels]` each."""
    query, key, value = (array.astype(np.float64) for array in (query, key, value))
    scores = query @ key.transpose(0, 2, 1) / HEAD**0.5
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights @ value / weights.sum(axis=-1, keepdims=True)


def measure(device: str, width: int, batch: int, queries: int, keys: int, runs: int) -> dict[str, float]:
    """The median time of a run for each of `batch` objects, inputs and output on the device, and its error."""
    half = device == "cuda"
    element, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    model = attention_model(width, element).SerializeToString()
    session = ort.InferenceSession(model, providers=[PROVIDERS[device]])
    if session.get_providers()[0] != PROVIDERS[device]:
        raise SystemExit(f"this onnxruntime ({ort.__version__}) has no {PROVIDERS[device]}")
    random = np.random.default_rng(0)
    binding = session.io_binding()
    given = []
    for name, length, channels in (("q", queries, HEAD), ("k", keys, HEAD), ("v", keys, width)):
        given.append(random.standard_normal((batch, length, channels), dtype=np.float32).astype(dtype))
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(given[-1], device, 0))
    binding.bind_output("out", device, 0)
    times = []
    for _ in range(runs + 3):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        times.append(time.perf_counter() - start)
    got = binding.copy_outputs_to_cpu()[0][:, :CHECKED]
    wanted = exact(given[0][:, :CHECKED], *given[1:])
    return {
        "milliseconds": 1e3 * statistics.median(times[3:]) / batch,
        "relative_l2": float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted)),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=sorted(PROVIDERS), default="cuda")
    parser.add_argument("--grid", type=int, default=72, help="tokens along a side of the image")
    parser.add_argument("--batch", type=int, default=4, help="objects at once")
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    tokens = arguments.grid**2
    # Seven memories and sixteen pointers of four tokens.
    shape = (arguments.batch, tokens, 7 * tokens + 64, arguments.runs)
    print(json.dumps({width: measure(arguments.device, width, *shape) for width in (MEMORY, ABOVE_128, HEAD)}))


if __name__ == "__main__":
    main()
