//! A writer of small ONNX files: just enough of the protobuf format for the fake bundles of these tests.

/// A model's graph under construction.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<u8>,
    initializers: Vec<u8>,
    inputs: Vec<u8>,
    outputs: Vec<u8>,
}

/// Element type numbers of `TensorProto.DataType`.
pub fn element_type(dtype: &str) -> u64 {
    match dtype {
        "float32" => 1,
        "uint8" => 2,
        "int64" => 7,
        "bool" => 9,
        other => panic!("no fake tensors of {other}"),
    }
}

impl Graph {
    /// Declares an input or output; dims are numbers or names.
    pub fn declare(&mut self, input: bool, name: &str, dtype: &str, shape: &[serde_json::Value]) {
        let mut dims = Vec::new();
        for dim in shape {
            let mut item = Vec::new();
            match dim.as_u64() {
                Some(size) => number(&mut item, 1, size),
                None => bytes(&mut item, 2, dim.as_str().unwrap().as_bytes()),
            }
            bytes(&mut dims, 1, &item);
        }
        let mut tensor = Vec::new();
        number(&mut tensor, 1, element_type(dtype));
        bytes(&mut tensor, 2, &dims);
        let mut kind = Vec::new();
        bytes(&mut kind, 1, &tensor);
        let mut info = Vec::new();
        bytes(&mut info, 1, name.as_bytes());
        bytes(&mut info, 2, &kind);
        let (list, field) = if input {
            (&mut self.inputs, 11)
        } else {
            (&mut self.outputs, 12)
        };
        bytes(list, field, &info);
    }

    /// Adds a float constant.
    pub fn floats(&mut self, name: &str, shape: &[u64], values: &[f32]) {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, "float32", shape, &raw);
    }

    /// Adds an int64 constant.
    pub fn ints(&mut self, name: &str, values: &[i64]) {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, "int64", &[values.len() as u64], &raw);
    }

    fn constant(&mut self, name: &str, dtype: &str, shape: &[u64], raw: &[u8]) {
        let mut tensor = Vec::new();
        for size in shape {
            number(&mut tensor, 1, *size);
        }
        number(&mut tensor, 2, element_type(dtype));
        bytes(&mut tensor, 8, name.as_bytes());
        bytes(&mut tensor, 9, raw);
        bytes(&mut self.initializers, 5, &tensor);
    }

    /// Adds a node; `axis` is its only attribute, an integer.
    pub fn node(&mut self, op: &str, inputs: &[&str], output: &str, axis: Option<u64>) {
        let mut node = Vec::new();
        for input in inputs {
            bytes(&mut node, 1, input.as_bytes());
        }
        bytes(&mut node, 2, output.as_bytes());
        bytes(&mut node, 4, op.as_bytes());
        if let Some(axis) = axis {
            let mut attribute = Vec::new();
            bytes(&mut attribute, 1, b"axis");
            number(&mut attribute, 3, axis);
            number(&mut attribute, 20, 2);
            bytes(&mut node, 5, &attribute);
        }
        bytes(&mut self.nodes, 1, &node);
    }

    /// The file's content.
    pub fn finish(self) -> Vec<u8> {
        let mut graph = self.nodes;
        bytes(&mut graph, 2, b"fake");
        graph.extend(self.initializers);
        graph.extend(self.inputs);
        graph.extend(self.outputs);
        let mut opset = Vec::new();
        number(&mut opset, 2, 17);
        let mut model = Vec::new();
        number(&mut model, 1, 8);
        bytes(&mut model, 7, &graph);
        bytes(&mut model, 8, &opset);
        model
    }
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn number(to: &mut Vec<u8>, field: u64, value: u64) {
    varint(to, field << 3);
    varint(to, value);
}

fn bytes(to: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(to, field << 3 | 2);
    varint(to, value.len() as u64);
    to.extend(value);
}
