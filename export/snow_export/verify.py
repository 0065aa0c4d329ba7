"""Compares the graphs of a bundle with its golden vectors, through ONNX Runtime on CPU."""

import ctypes
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto
from safetensors.numpy import load_file

from .errors import ExportError
from .golden import INPUT, OUTPUT

# Largest relative L2 distance of a float32 graph's output from the reference's: rounding, with room for an output that
# is itself rounded to bfloat16, where a last bit that falls the other way is 2**-8 of a value.
TOLERANCE = 1e-2
# Fewer bits may tip a choice between masks, and a bundle may still be wanted then: the user is told.
ROUNDED_DOUBTFUL = 5e-2

_TYPES = {
    "tensor(float)": (np.float32, TensorProto.FLOAT),
    "tensor(float16)": (np.float16, TensorProto.FLOAT16),
    "tensor(bfloat16)": (np.uint16, TensorProto.BFLOAT16),
    "tensor(int64)": (np.int64, TensorProto.INT64),
    "tensor(uint8)": (np.uint8, TensorProto.UINT8),
    "tensor(bool)": (np.bool_, TensorProto.BOOL),
}


def _value(array: np.ndarray, type_name: str) -> onnxruntime.OrtValue:
    dtype, onnx_type = _TYPES[type_name]
    if type_name == "tensor(bfloat16)":
        # Golden memories are bfloat16 values widened to float32: the upper half is the value.
        array = (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array, dtype), onnx_type)


def _array(value: onnxruntime.OrtValue) -> np.ndarray:
    if value.data_type() == "tensor(bfloat16)":
        # NumPy has no such dtype, so the library refuses to convert; its memory is readable all the same.
        count = int(np.prod(value.shape()))
        raw = np.ctypeslib.as_array((ctypes.c_uint16 * count).from_address(value.data_ptr())).reshape(value.shape())
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return value.numpy().astype(np.float32)


def relative_l2(got: np.ndarray, expected: np.ndarray) -> float:
    """`|got - expected| / |expected|`, both flattened, in float64."""
    norm = np.linalg.norm(expected.astype(np.float64))
    return float(np.linalg.norm(got.astype(np.float64) - expected.astype(np.float64)) / max(norm, 1e-12))


def verify_stages(folder: Path, roles: list[str], precision: str) -> dict[str, float]:
    """Runs each graph on its golden inputs; the worst relative L2 distance by role.

    Raises `ExportError` when one of a float32 bundle is over `TOLERANCE`.
    """
    worst = {}
    for role in roles:
        golden = load_file(folder / "golden" / f"{role}.safetensors")
        options = onnxruntime.SessionOptions()
        # It warns of what `_forget_shapes` of `onnx_writer` does on purpose; errors come as exceptions.
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            folder / f"{role}.onnx", sess_options=options, providers=["CPUExecutionProvider"]
        )
        binding = session.io_binding()
        for node in session.get_inputs():
            binding.bind_ortvalue_input(node.name, _value(golden[INPUT + node.name], node.type))
        names = [node.name for node in session.get_outputs()]
        for name in names:
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        distances = {
            name: relative_l2(_array(value), golden[OUTPUT + name])
            for name, value in zip(names, binding.get_outputs(), strict=True)
            if OUTPUT + name in golden
        }
        name, distance = max(distances.items(), key=lambda item: item[1])
        if precision == "fp32" and not distance <= TOLERANCE:
            raise ExportError(
                f"{role}: output {name} is {distance:.2e} (relative L2) from the reference, expected at most "
                f"{TOLERANCE:.0e}. Please report this with the checkpoint's config.json."
            )
        worst[role] = distance
    return worst
