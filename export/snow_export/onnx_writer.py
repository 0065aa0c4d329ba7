"""A stage to an ONNX file with one external-data file, reproducibly, and back to its signature."""

import contextlib
import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn

from .errors import ExportError

OPSET = 20
# Smaller tensors stay in the graph file: shape arithmetic needs them there.
EXTERNAL_DATA_THRESHOLD = 1024

_DTYPE_NAMES = {
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
}


@dataclass
class GraphSpec:
    """One graph to write: the stage, example inputs, and the symbolic axes of inputs and outputs.

    `inputs` maps a name to `(example tensor, {axis: symbol})`, in the order of the graph. `arguments` groups the same
    tensors as the stage's `forward` takes them. `output_axes` names the symbolic axes of outputs.
    """

    role: str
    stage: nn.Module
    inputs: dict[str, tuple[torch.Tensor, dict[int, str]]]
    outputs: list[str]
    arguments: Any = None
    output_axes: dict[str, dict[int, str]] = field(default_factory=dict)

    def example(self) -> tuple:
        """The stage's arguments, lists where `forward` takes lists."""
        return self._fill(lambda name: self.inputs[name][0])

    def dynamic_shapes(self, symbols: dict[str, torch.export.Dim]) -> tuple:
        """The same structure with `torch.export` dimensions."""
        return self._fill(lambda name: {axis: symbols[symbol] for axis, symbol in self.inputs[name][1].items()})

    def _fill(self, value) -> tuple:
        arguments = self.arguments if self.arguments is not None else list(self.inputs)
        return tuple([value(n) for n in item] if isinstance(item, list) else value(item) for item in arguments)


@contextlib.contextmanager
def _quiet():
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def write_graph(spec: GraphSpec, folder: Path) -> Path:
    """Writes `<role>.onnx` and `<role>.onnx.data` and returns the former.

    Everything that depends on the machine or on the order of a run (stack traces, source paths) is removed, so that
    equal inputs give equal bytes.
    """
    names = {symbol for _, axes in spec.inputs.values() for symbol in axes.values()}
    symbols = {name: torch.export.Dim(name, min=0 if "tokens" in name else 1) for name in sorted(names)}
    spec.stage.eval()
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            spec.stage,
            spec.example(),
            dynamo=True,
            input_names=list(spec.inputs),
            output_names=spec.outputs,
            dynamic_shapes=spec.dynamic_shapes(symbols) if symbols else None,
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    model = program.model
    ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "snow-export", ""
    model.graph.name = spec.role
    for output in model.graph.outputs:
        axes = spec.output_axes.get(output.name)
        if axes:
            shape = list(output.shape)
            for axis, symbol in axes.items():
                shape[axis] = symbol
            output.shape = onnx_ir.Shape(shape)
    _share_equal_initialisers(model)
    _add_biases_apart(model)
    _forget_shapes(model, infer_none=not symbols)
    path = folder / f"{spec.role}.onnx"
    onnx_ir.save(model, path, external_data=f"{spec.role}.onnx.data", size_threshold_bytes=EXTERNAL_DATA_THRESHOLD)
    return path


def _forget_shapes(model: onnx_ir.Model, infer_none: bool) -> None:
    """Keeps ONNX Runtime from planning which tensors share a buffer, so that each is freed after its last use.

    It plans for tensors whose shapes it knows to be equal, and a buffer then stays until the last layer that uses it:
    the hidden activations of a layer's MLP would lie there while the next layer attends. With unknown shapes the vision
    encoder takes 208 MiB instead of 512 at 1008 px, the memory attention half. So intermediate shapes are left out.

    In a graph without symbolic axes the library would infer them again (`infer_none`): there the target of each Reshape
    becomes an initializer that a caller may override, which the library does not take for a constant. Nobody overrides
    it, and it is no input of a session.
    """
    kept = {*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()}
    for node in model.graph:
        for output in node.outputs:
            if output not in kept:
                output.shape = output.type = None
    if not infer_none:
        return
    targets = (node.inputs[1] for node in model.graph if node.op_type == "Reshape")
    for target in dict.fromkeys(targets):
        if target.is_initializer() and not target.is_graph_input():
            model.graph.inputs.append(target)


def _add_biases_apart(model: onnx_ir.Model) -> None:
    """Makes an addition of every bias of a Gemm.

    On CUDA the library writes the bias to each row of the output first, and a product that reads and adds to it: in the
    vision encoder at 1008 px on an H100, that took nearly as long as all its products. An addition is cheaper, and may
    become one with an activation. Processors take the same time.
    """
    for node in list(model.graph):
        if node.op_type != "Gemm" or len(node.inputs) < 3 or node.inputs[2] is None:
            continue
        (output,) = node.outputs
        product = onnx_ir.node("Gemm", node.inputs[:2], node.attributes, name=node.name)
        product.outputs[0].name = f"{output.name}_product"
        addition = onnx_ir.node("Add", [product.outputs[0], node.inputs[2]], name=f"{node.name}_bias")
        onnx_ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], [product, addition], [output], [addition.outputs[0]]
        )


def _share_equal_initialisers(model: onnx_ir.Model) -> None:
    """Keeps one copy of large constants that are equal, such as the rotary caches of all layers."""
    seen: dict[tuple, onnx_ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes < EXTERNAL_DATA_THRESHOLD:
            continue
        key = (tensor.dtype, tuple(tensor.shape), hash(tensor.tobytes()) if tensor.nbytes < 64 << 20 else name)
        first = seen.setdefault(key, value)
        if first is value or first.const_value.tobytes() != tensor.tobytes():
            continue
        for node, index in list(value.uses()):
            node.replace_input_with(index, first)
        del model.graph.initializers[name]


def read_signature(path: Path) -> tuple[list[dict], list[dict]]:
    """Inputs and outputs as the written file states them: name, dtype, shape with symbols."""
    graph = onnx.load(path, load_external_data=False).graph
    fixed = {tensor.name for tensor in graph.initializer}

    def describe(value) -> dict:
        tensor = value.type.tensor_type
        if tensor.elem_type not in _DTYPE_NAMES:
            raise ExportError(f"{path.name}: {value.name} has ONNX dtype {tensor.elem_type}, which no reader knows")
        shape = [dim.dim_param if dim.HasField("dim_param") else dim.dim_value for dim in tensor.shape.dim]
        return {"name": value.name, "dtype": _DTYPE_NAMES[tensor.elem_type], "shape": shape}

    inputs = [value for value in graph.input if value.name not in fixed]
    return [describe(value) for value in inputs], [describe(value) for value in graph.output]
