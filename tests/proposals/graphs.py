"""Graphs that propose objects, in the form in which Ultralytics exports FastSAM and YOLO segmentation models.

They are no trained models: what they propose follows from the image by a few convolutions, so that a mistake in what
they are given, or in what is made of their outputs, shows. `python graphs.py OUT.onnx` writes the one of README.md.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PROTOTYPES = 32
STRIDE = 16


class Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        """An empty graph."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Adds a node and returns its output's name."""
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: object, dtype: type) -> str:
        """Adds a constant and returns its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name


def write(
    path: Path,
    *,
    size: tuple[int, int] | None,
    classes: int = 1,
    half: bool = False,
    end_to_end: bool = False,
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes a graph for images of one size (width, height), or of any.

    An anchor stands on each cell of 16 x 16 pixels. Its scores, the offset and size of its box, and its mask
    coefficients are convolutions of the image; so are the prototypes.
    """
    dtype = np.float16 if half else np.float32
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = Graph()
    for name, values in random_weights(classes).items():
        graph.constant(name, values, dtype)
    # Prototypes: a quarter of the image's size.
    graph.add("Conv", ["images", "proto_w", "proto_b"], "output1", strides=[4, 4])
    # Each cell: boxes in units of a cell, scores, coefficients.
    graph.add("Conv", ["images", "box_w", "box_b"], "box_raw", strides=[STRIDE, STRIDE])
    graph.add("Sigmoid", ["box_raw"], "box_cells")
    graph.add("Conv", ["images", "score_w", "score_b"], "score_raw", strides=[STRIDE, STRIDE])
    graph.add("Sigmoid", ["score_raw"], "scores_grid")
    graph.add("Conv", ["images", "coefficient_w", "coefficient_b"], "coefficients_grid", strides=[STRIDE, STRIDE])
    # Where a cell is: a sum over ones before it.
    graph.add("ReduceSum", ["scores_grid", graph.constant("over", [1], np.int64)], "any", keepdims=1)
    graph.add("Mul", ["any", graph.constant("zero", [0], dtype)], "zeros")
    graph.add("Add", ["zeros", graph.constant("one", [STRIDE], dtype)], "ones")
    for axis, name in ((3, "cell_x"), (2, "cell_y")):
        # CumSum has no float16.
        graph.add("Cast", ["ones"], f"{name}_ones", to=TensorProto.FLOAT)
        graph.constant(f"{name}_axis", axis, np.int64)
        graph.add("CumSum", [f"{name}_ones", f"{name}_axis"], f"{name}_sum", exclusive=1)
        graph.add("Cast", [f"{name}_sum"], name, to=kind)
    graph.add("Split", ["box_cells", graph.constant("parts", [1, 1, 2], np.int64)], "box_x", axis=1)
    graph.nodes[-1].output.extend(["box_y", "box_size"])
    for axis in "xy":
        graph.add("Mul", [f"box_{axis}", "one"], f"offset_{axis}")
        graph.add("Add", [f"offset_{axis}", f"cell_{axis}"], f"centre_{axis}")
    graph.add("Mul", ["box_size", graph.constant("largest", [6 * STRIDE], dtype)], "sizes")
    graph.add("Concat", ["centre_x", "centre_y", "sizes", "scores_grid", "coefficients_grid"], "grid", axis=1)
    rows = 4 + classes + PROTOTYPES
    graph.add("Reshape", ["grid", graph.constant("rows", [1, rows, -1], np.int64)], "anchors")
    if end_to_end:
        corners(graph, classes, dtype)
    else:
        graph.add("Identity", ["anchors"], "output0")

    width, height = size or ("width", "height")
    quarter = [1, PROTOTYPES, size[1] // 4, size[0] // 4] if size else [1, PROTOTYPES, "mask_height", "mask_width"]
    cells = (size[0] // STRIDE) * (size[1] // STRIDE) if size else "anchors_number"
    detections = [1, cells, 6 + PROTOTYPES] if end_to_end else [1, rows, cells]
    outputs = {"output0": detections, "output1": quarter}
    save(path, graph, kind, [1, 3, height, width], outputs, metadata or {})


def save(path: Path, graph: Graph, kind: int, image: list, outputs: dict[str, list], metadata: dict[str, str]) -> None:
    """Writes a finished graph."""
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "proposals",
            [helper.make_tensor_value_info("images", kind, image)],
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def corners(graph: Graph, classes: int, dtype: type) -> None:
    """Rows of an end-to-end export: corners, score, class, coefficients. Nothing is suppressed."""
    graph.constant("split", [2, 2, classes, PROTOTYPES], np.int64)
    graph.add("Split", ["anchors", "split"], "e_centre", axis=1)
    graph.nodes[-1].output.extend(["e_size", "e_scores", "e_coefficients"])
    graph.add("Mul", ["e_size", graph.constant("half", [0.5], dtype)], "e_half")
    graph.add("Sub", ["e_centre", "e_half"], "e_low")
    graph.add("Add", ["e_centre", "e_half"], "e_high")
    graph.add("ReduceMax", ["e_scores"], "e_score", axes=[1], keepdims=1)
    graph.add("ArgMax", ["e_scores"], "e_index", axis=1, keepdims=1)
    kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    graph.add("Cast", ["e_index"], "e_class", to=kind)
    graph.add("Concat", ["e_low", "e_high", "e_score", "e_class", "e_coefficients"], "e_all", axis=1)
    graph.add("Transpose", ["e_all"], "output0", perm=[0, 2, 1])


def random_weights(classes: int) -> dict[str, np.ndarray]:
    """Convolutions that tell images apart: of pictures with contrast, a part of the anchors is above a score of 0.5."""
    random = np.random.default_rng(5)

    def draw(outputs: int, side: int, scale: float) -> np.ndarray:
        values = random.standard_normal((outputs, 3, side, side))
        # Without a mean, so that it is the contrast that counts.
        values -= values.mean(axis=(1, 2, 3), keepdims=True)
        return values * scale / side

    return {
        "proto_w": draw(PROTOTYPES, 4, 6.0),
        "proto_b": random.standard_normal(PROTOTYPES) * 0.1,
        "box_w": draw(4, STRIDE, 6.0),
        "box_b": np.zeros(4),
        "score_w": draw(classes, STRIDE, 12.0),
        "score_b": np.full(classes, -1.0),
        "coefficient_w": draw(PROTOTYPES, STRIDE, 6.0),
        "coefficient_b": random.standard_normal(PROTOTYPES),
    }


def write_colours(path: Path) -> None:
    """Writes a graph that proposes what is warm, blue or green, for the demo's clip: it needs no training.

    The score of a square is the share of its pixels that have the colour, less that of a ring around it; the first
    three prototypes are the colours.
    """
    side, sizes, step = 384, (11, 15, 19, 25), 2
    cells = side // 4
    graph = Graph()
    f32 = np.float32
    # R - B, B - R, and green over the mean of the two others.
    opponents = [[1, 0, -1], [-1, 0, 1], [-0.5, 1, -0.5]]
    graph.constant("opponents", np.reshape(opponents, (3, 3, 1, 1)), f32)
    graph.add("Conv", ["images", "opponents"], "opposed")
    graph.add("Relu", ["opposed"], "positive")
    # What is warm or blue is not green.
    graph.constant("unmixed", np.reshape([[1, 0, 0], [0, 1, 0], [-0.5, -0.5, 0]], (3, 3, 1, 1)), f32)
    graph.add("Conv", ["positive", "unmixed"], "others")
    graph.constant("only_green", np.reshape([0, 0, 1], (1, 3, 1, 1)), f32)
    graph.add("Mul", ["opposed", "only_green"], "green")
    graph.add("Add", ["others", "green"], "strength")
    graph.add("Sub", ["strength", graph.constant("least", np.reshape([0.1, 0.06, 0.005], (1, 3, 1, 1)), f32)], "over")
    graph.add("Mul", ["over", graph.constant("gain", [100.0], f32)], "steep")
    graph.add("Sigmoid", ["steep"], "pixels")
    graph.add("AveragePool", ["pixels"], "colours", kernel_shape=[4, 4], strides=[4, 4])
    chosen = np.eye(PROTOTYPES, 3)[:, :, None, None] * 10
    graph.constant("chosen", chosen, f32)
    graph.constant("centred", chosen.sum(axis=1).reshape(-1) * -0.5, f32)
    graph.add("Conv", ["colours", "chosen", "centred"], "output1")

    blocks = []
    for size in sizes:
        around = 2 * size - 1
        for name, kernel in (("in", size), ("out", around)):
            graph.add(
                "AveragePool",
                ["colours"],
                f"{name}_{size}",
                kernel_shape=[kernel, kernel],
                strides=[step, step],
                pads=[kernel // 2] * 4,
                count_include_pad=1,
            )
        ratio = (around / size) ** 2
        share = graph.constant(f"share_{size}", [ratio / (ratio - 1)], f32)
        graph.add("Mul", [f"out_{size}", share], f"ring_{size}")
        inner = graph.constant(f"inner_{size}", [1 + 1 / (ratio - 1)], f32)
        graph.add("Mul", [f"in_{size}", inner], f"whole_{size}")
        graph.add("Sub", [f"whole_{size}", f"ring_{size}"], f"raw_{size}")
        graph.add("Relu", [f"raw_{size}"], f"scores_{size}")
        centres = np.arange(0, cells, step) * 4 + 2
        y, x = np.meshgrid(centres, centres, indexing="ij")
        box = np.stack([x.ravel(), y.ravel(), *[np.full(x.size, 4 * size)] * 2])
        for colour in range(3):
            graph.constant(f"box_{size}_{colour}", box[None], f32)
            mask = np.zeros((1, 3, 1))
            mask[0, colour] = 1
            graph.constant(f"mine_{size}_{colour}", mask, f32)
            graph.add("Reshape", [f"scores_{size}", "shape"], f"flat_{size}_{colour}")
            graph.add("Mul", [f"flat_{size}_{colour}", f"mine_{size}_{colour}"], f"score_{size}_{colour}")
            weights = np.zeros((1, PROTOTYPES, x.size))
            weights[0, colour] = 1
            graph.constant(f"weights_{size}_{colour}", weights, f32)
            parts = [f"{part}_{size}_{colour}" for part in ("box", "score", "weights")]
            blocks.append(graph.add("Concat", parts, f"block_{size}_{colour}", axis=1))
    graph.constant("shape", [1, 3, -1], np.int64)
    graph.add("Concat", blocks, "output0", axis=2)
    anchors = len(sizes) * 3 * (cells // step) ** 2
    outputs = {"output0": [1, 4 + 3 + PROTOTYPES, anchors], "output1": [1, PROTOTYPES, cells, cells]}
    save(path, graph, TensorProto.FLOAT, [1, 3, side, side], outputs, {"names": "{0: 'warm', 1: 'blue', 2: 'green'}"})


if __name__ == "__main__":
    write_colours(Path(sys.argv[1]))
