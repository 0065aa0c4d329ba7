"""Linear layers in 8-bit integers: the last step of an `int8` bundle, on a graph file written in float32.

Weights become signed bytes with one scale an output channel; activations are quantised as they come (`onnxruntime`'s
dynamic quantisation). Attention, convolutions, norms and the resizing of masks stay as they are.
"""

import hashlib
import logging
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from .errors import ExportError
from .onnx_writer import EXTERNAL_DATA_THRESHOLD


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array)).digest()


def linear_weights(stage: nn.Module) -> set[bytes]:
    """Hashes of every linear layer's weight as a graph may hold it, either way round."""
    weights = [module.weight for module in stage.modules() if isinstance(module, nn.Linear)]
    # `W_o W_v` of the memory attention, which stands for two linear layers.
    weights += [values[0] for module in stage.modules() if (values := getattr(module, "folded", None)) is not None]
    arrays = [weight.detach().float().numpy() for weight in weights]
    return {_digest(array) for weight in arrays for array in (weight, weight.T)}


def _part_shared_weights(model: onnx.ModelProto, arrays: dict[str, onnx.TensorProto]) -> set[str]:
    """Gives every Gemm a weight of its own, and returns the names of those that had to share.

    The library turns the weight of a Gemm round in place, so one that two of them share would be turned twice. Only the
    heads that place boxes share theirs, and they are better off in float32.
    """
    gemms = [node for node in model.graph.node if node.op_type == "Gemm" and node.input[1] in arrays]
    uses = Counter(node.input[1] for node in gemms)
    shared = [node for node in gemms if uses[node.input[1]] > 1]
    for number, node in enumerate(shared):
        own = onnx.TensorProto()
        own.CopyFrom(arrays[node.input[1]])
        own.name = f"{own.name}_{number}"
        model.graph.initializer.append(own)
        node.input[1] = own.name
    return {node.name for node in shared}


def quantize_linear(path: Path, weights: set[bytes]) -> int:
    """Rewrites `<role>.onnx` and its data file in place, and returns how many linear layers were found.

    `weights` as from `linear_weights`. Raises `ExportError` for a graph without any of them.
    """
    data = path.with_name(path.name + ".data")
    model = onnx.load(path)
    arrays = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 2}
    nodes = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in arrays]
    shared = _part_shared_weights(model, arrays)
    nodes = [node for node in nodes if node.name not in shared]
    chosen = [node.name for node in nodes if _digest(numpy_helper.to_array(arrays[node.input[1]])) in weights]
    if not chosen:
        raise ExportError(f"{path.name}: none of its {len(nodes)} constant matrices is a linear layer's weight")
    # Shapes that the exporter noted in between can contradict what the quantiser infers.
    del model.graph.value_info[:]
    signature = list(model.graph.input), list(model.graph.output)
    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / path.name
        onnx.save(model, source, save_as_external_data=True, location="float.data")
        # The library recommends a preprocessing that the exporter has done already.
        root.setLevel(logging.ERROR)
        try:
            quantize_dynamic(
                source,
                target,
                per_channel=True,
                weight_type=QuantType.QInt8,
                # A Gemm becomes a MatMul with another name first.
                nodes_to_quantize=[name + ending for name in chosen for ending in ("", "_MatMul")],
                use_external_data_format=True,
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        finally:
            root.setLevel(level)
        result = onnx.load(target)
    quantized = sum(node.op_type == "MatMulInteger" for node in result.graph.node)
    if quantized != len(chosen):
        raise ExportError(
            f"{path.name}: {quantized} of {len(chosen)} linear layers could be quantised; please report this"
        )
    del result.graph.input[:], result.graph.output[:]
    result.graph.input.extend(signature[0])
    result.graph.output.extend(signature[1])
    del result.graph.value_info[:]
    path.unlink()
    data.unlink()
    onnx.save(result, path, save_as_external_data=True, location=data.name, size_threshold=EXTERNAL_DATA_THRESHOLD)
    return len(chosen)
