//! Running graphs, behind the traits [`Graph`] and [`Backend`]: the tracker knows tensors and graphs, not ONNX Runtime.
//!
//! `ort` is the only module that names the library; an [`Engine`] is its backend. [`recorded`] is a backend for tests.

mod error;
pub mod library;
mod ort;
pub mod recorded;
mod rows;

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::error::GraphError;
pub(crate) use self::error::IsFull;
pub use self::ort::{Engine, EngineOptions};

/// Where graphs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(format!("unknown provider {text:?}, expected cpu or cuda")),
        }
    }
}

/// Element types that bundles use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// Unsigned byte.
    U8,
    /// 64-bit signed integer.
    I64,
    /// One byte, 0 or 1.
    Bool,
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl Element {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::I64 => 8,
        }
    }
}

/// A tensor on its backend's device. Clones share the data.
#[derive(Clone)]
pub struct Tensor {
    element: Element,
    shape: Vec<usize>,
    value: Arc<dyn Any + Send + Sync>,
}

impl Tensor {
    /// Wraps a value of the backend, with its dtype and shape.
    pub fn new(element: Element, shape: Vec<usize>, value: Arc<dyn Any + Send + Sync>) -> Self {
        Self {
            element,
            shape,
            value,
        }
    }

    /// Element type.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Length of the first axis.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Bytes of the data.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.size()
    }

    /// The backend's value, if it is of type `T`.
    pub fn value<T: 'static>(&self) -> Option<&T> {
        self.value.downcast_ref()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.element, self.shape)
    }
}

/// Data in host memory, to be uploaded to a backend.
#[derive(Debug, Clone, PartialEq)]
pub enum Host {
    /// Unsigned bytes.
    U8(Vec<u8>),
    /// Integers.
    I64(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Floats.
    F32(Vec<f32>),
    /// IEEE halves.
    F16(Vec<half::f16>),
    /// bfloat16 numbers.
    Bf16(Vec<half::bf16>),
}

impl Host {
    /// Element type of the data.
    pub fn element(&self) -> Element {
        match self {
            Self::U8(_) => Element::U8,
            Self::I64(_) => Element::I64,
            Self::Bool(_) => Element::Bool,
            Self::F32(_) => Element::F32,
            Self::F16(_) => Element::F16,
            Self::Bf16(_) => Element::Bf16,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(data) => data.len(),
            Self::I64(data) => data.len(),
            Self::Bool(data) => data.len(),
            Self::F32(data) => data.len(),
            Self::F16(data) => data.len(),
            Self::Bf16(data) => data.len(),
        }
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An input or output of a graph file.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type; `None` for a type that no bundle uses.
    pub element: Option<Element>,
    /// Length of each axis; `None` for an axis whose length is known only when the graph runs.
    pub shape: Vec<Option<usize>>,
}

/// What the arena that all graphs of a backend share holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaStats {
    /// Bytes in tensors and weights now.
    pub in_use: u64,
    /// The most that was in tensors and weights at once.
    pub peak_in_use: u64,
    /// Bytes taken from the system now. The limit bounds this.
    pub held: u64,
    /// The most that was taken from the system at once.
    pub peak_held: u64,
    /// The most that it may take; `None` without a limit.
    pub limit: Option<u64>,
}

/// Bytes copied between the host and the device; 0 where graphs run in host memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copies {
    /// Inputs that were in host memory when a graph ran, counted at each run.
    pub to_device: u64,
    /// Tensors that [`Backend::download`] copied.
    pub to_host: u64,
}

/// An input of zeros, for measuring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZeroInput {
    /// The input's name.
    pub name: String,
    /// Element type.
    pub element: Element,
    /// Axes; one of length 0 makes an empty tensor.
    pub shape: Vec<usize>,
}

/// What a graph takes of the arena, as measured, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryProfile {
    /// Weights that the arena holds, without those that stay mapped from their file.
    pub weights: u64,
    /// One a run: the most that was in use above the weights, with the run's outputs.
    pub peaks: Vec<u64>,
}

/// Inputs and outputs of a graph file.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
}

/// A node of a graph, and where the library put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedNode {
    /// The provider, in the library's words, such as `CPUExecutionProvider`.
    pub provider: String,
    /// The operator, such as `MatMul`.
    pub operator: String,
    /// The node's name.
    pub name: String,
}

/// A graph that can be run.
pub trait Graph: Send {
    /// Inputs and outputs as the file says; `None` for a graph without a file.
    fn signature(&self) -> Option<Signature> {
        None
    }

    /// The file's metadata under `key`; `None` if it has none.
    fn metadata(&self, _key: &str) -> Option<String> {
        None
    }

    /// Its nodes as they run, after the library optimised the graph; `None` if that was not recorded
    /// ([`EngineOptions::record_placement`]).
    ///
    /// # Errors
    /// The library does not answer.
    fn placement(&self) -> Result<Option<Vec<PlacedNode>>, GraphError> {
        Ok(None)
    }

    /// Allocates buffers for outputs of fixed shape, which every run then overwrites. Only for outputs that are not used any more
    /// when the graph runs again. A backend that does not need it does nothing.
    ///
    /// # Errors
    /// An output that is unknown or has no fixed shape; [`GraphError::ArenaFull`].
    fn keep_outputs(&mut self, _outputs: &[&str]) -> Result<(), GraphError> {
        Ok(())
    }

    /// What the graph's arena holds; `None` for a graph without an arena.
    ///
    /// # Errors
    /// The library does not answer.
    fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        Ok(None)
    }

    /// Runs the graph on inputs by name and returns the outputs that `outputs` names, in that order, on the backend's device.
    ///
    /// # Errors
    /// [`GraphError::Run`] for an input that is missing, unknown, or of a wrong shape or dtype, and for a failure of the library;
    /// [`GraphError::ArenaFull`]; [`GraphError::Tensor`] for an unknown output.
    fn run(
        &mut self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
    ) -> Result<Vec<Tensor>, GraphError>;
}

/// A graph's outputs as an array.
///
/// # Errors
/// [`GraphError::Tensor`] if they are not `N`.
pub(crate) fn exactly<const N: usize>(
    role: &str,
    outputs: Vec<Tensor>,
) -> Result<[Tensor; N], GraphError> {
    let count = outputs.len();
    outputs.try_into().map_err(|_| GraphError::Tensor {
        name: format!("outputs of {role}"),
        expected: N.to_string(),
        got: count.to_string(),
    })
}

/// A device that loads graphs and holds tensors.
pub trait Backend: Send + Sync {
    /// Loads a graph file. `role` names it in errors.
    ///
    /// # Errors
    /// [`GraphError::Load`] for a file that the library refuses, [`GraphError::Provider`] for a provider that does not work,
    /// [`GraphError::ArenaFull`], and [`GraphError::OtherArena`].
    fn load(&self, role: &str, path: &Path) -> Result<Box<dyn Graph>, GraphError>;

    /// What the arena of all graphs holds; `None` for a backend without an arena, and before its first graph.
    ///
    /// # Errors
    /// The library does not answer.
    fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        Ok(None)
    }

    /// Makes the arena hold `bytes` bytes in all: one region in addition to what it holds already. If a limit or the device does not
    /// allow that, the error comes now and not on some frame. A backend without an arena does nothing.
    ///
    /// # Errors
    /// [`GraphError::ArenaFull`].
    fn reserve(&self, _bytes: u64) -> Result<(), GraphError> {
        Ok(())
    }

    /// Whether attention needs values as wide as keys.
    ///
    /// ONNX Runtime's memory-efficient kernel for CUDA is compiled for widths of up to 64, up to 128, or any, and is chosen by the
    /// width of the values alone. Where keys are wider than that, its result is wrong, and differs from run to run (seen on an H100
    /// with 1.26.0 and 1.31.1). It is used wherever cuDNN's flash attention is not.
    fn wants_equal_widths(&self) -> bool {
        false
    }

    /// Bytes copied between the host and the device so far.
    fn copies(&self) -> Copies {
        Copies::default()
    }

    /// Makes a tensor of `shape` from host data.
    ///
    /// # Errors
    /// A shape that does not fit the data, or a failure of the device.
    fn upload(&self, shape: &[usize], data: Host) -> Result<Tensor, GraphError>;

    /// Makes a tensor without elements: one axis has length 0.
    ///
    /// # Errors
    /// A shape without an axis of length 0.
    fn empty(&self, element: Element, shape: &[usize]) -> Result<Tensor, GraphError>;

    /// Copies a tensor of f32, f16 or bf16 to the host, as f32.
    ///
    /// # Errors
    /// A tensor of another dtype, or a failure of the device.
    fn download(&self, tensor: &Tensor) -> Result<Vec<f32>, GraphError>;

    /// Copies rows (slices of the first axis) of one or more tensors into a new tensor, one after the other. The tensors may differ in
    /// the length of the first axis only.
    ///
    /// # Errors
    /// No source, sources of different shapes or dtypes, or a row past the end.
    fn gather_rows(&self, sources: &[(&Tensor, Vec<usize>)]) -> Result<Tensor, GraphError>;

    /// Joins tensors `[rows, tokens_i, …]` along their second axis. They may differ in the length of that axis only.
    ///
    /// # Errors
    /// No tensor, or tensors of different shapes or dtypes.
    fn concat_tokens(&self, tensors: &[&Tensor]) -> Result<Tensor, GraphError>;
}
