"""Times the attention of the tracker's memory alone: `python -m snow_export.gpu_attention --device cuda`.

One head of 256 over the keys of a full memory bank, as one node of the operator that the exported graphs use. Its
values are as wide as the memory (64, what the export does), or as wide as the head, which is what kernels need that
know one width only. Prints JSON: milliseconds of one object. Environment variables choose the kernel, so each choice
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

HEAD, MEMORY = 256, 64
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


def milliseconds(device: str, width: int, batch: int, queries: int, keys: int, runs: int) -> float:
    """The median time of a run, for each of `batch` objects; inputs and output stay on the device."""
    half = device == "cuda"
    element, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    model = attention_model(width, element).SerializeToString()
    session = ort.InferenceSession(model, providers=[PROVIDERS[device]])
    if session.get_providers()[0] != PROVIDERS[device]:
        raise SystemExit(f"this onnxruntime ({ort.__version__}) has no {PROVIDERS[device]}")
    random = np.random.default_rng(0)
    binding = session.io_binding()
    for name, length, channels in (("q", queries, HEAD), ("k", keys, HEAD), ("v", keys, width)):
        values = random.standard_normal((batch, length, channels), dtype=np.float32).astype(dtype)
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(values, device, 0))
    binding.bind_output("out", device, 0)
    times = []
    for _ in range(runs + 3):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[3:]) / batch


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
    print(json.dumps({width: milliseconds(arguments.device, width, *shape) for width in (MEMORY, HEAD)}))


if __name__ == "__main__":
    main()
