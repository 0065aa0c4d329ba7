//! Inputs and outputs that the engine expects of a graph.

use super::manifest::{DType, Role};

/// What one axis has to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Axis {
    /// A fixed axis of this size.
    Size(u64),
    /// A dynamic axis with a symbol of this meaning; the symbol's spelling is free.
    Dynamic(&'static str),
    /// A fixed axis of a size that the manifest does not state, but that is the same wherever this name occurs.
    Shared(&'static str),
}

/// What a tensor's dtype has to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum ExpectedType {
    /// This dtype.
    Is(DType),
    /// A floating-point format that the export chose.
    Float,
}

/// A graph's inputs or its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

impl Side {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// One input or output that a graph must have.
pub(super) struct ExpectedTensor {
    pub(super) graph: Role,
    pub(super) side: Side,
    pub(super) name: String,
    pub(super) dtype: ExpectedType,
    pub(super) shape: Vec<Axis>,
}

/// Collects the expected tensors of graphs.
#[derive(Default)]
pub(super) struct Table(pub(super) Vec<ExpectedTensor>);

impl Table {
    /// The same table to add tensors of one graph to.
    pub(super) fn graph(&mut self, graph: Role) -> GraphTable<'_> {
        GraphTable { graph, table: self }
    }
}

/// Collects the expected tensors of one graph.
pub(super) struct GraphTable<'a> {
    graph: Role,
    table: &'a mut Table,
}

impl GraphTable<'_> {
    /// Adds an input.
    pub(super) fn input(&mut self, name: &str, dtype: ExpectedType, shape: &[Axis]) -> &mut Self {
        self.add(Side::Input, name, dtype, shape)
    }

    /// Adds an output.
    pub(super) fn output(&mut self, name: &str, dtype: ExpectedType, shape: &[Axis]) -> &mut Self {
        self.add(Side::Output, name, dtype, shape)
    }

    fn add(&mut self, side: Side, name: &str, dtype: ExpectedType, shape: &[Axis]) -> &mut Self {
        self.table.0.push(ExpectedTensor {
            graph: self.graph,
            side,
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
        });
        self
    }
}

/// An output that is fed to another graph without a conversion, so that both have to have the same dtype.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feed {
    pub(super) from: Role,
    pub(super) output: &'static str,
    pub(super) to: Role,
    /// Name of the input. A `*` at its end stands for the number of a slot, or `cond`.
    pub(super) input: &'static str,
}

/// A [`Feed`] from an output of one graph to an input of another.
pub(super) const fn feed(from: Role, output: &'static str, to: Role, input: &'static str) -> Feed {
    Feed {
        from,
        output,
        to,
        input,
    }
}
