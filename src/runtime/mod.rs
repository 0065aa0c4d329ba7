//! Running graphs, behind traits: the tracker knows tensors and graphs, not ONNX Runtime.
//!
//! [`ort`] is the only module that names the library; [`recorded`] is a double for tests.

pub mod library;
mod ort;
pub mod recorded;
mod rows;

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

pub use self::ort::{Runtime, RuntimeOptions};
use crate::size;

/// Where graphs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Provider {
    /// The processor.
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

/// A tensor that lies where its backend put it; cloning shares it.
#[derive(Clone)]
pub struct Tensor {
    element: Element,
    shape: Vec<usize>,
    value: Arc<dyn Any + Send + Sync>,
}

impl Tensor {
    /// Wraps a backend's own value of a dtype and shape.
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

/// Data on its way to a backend.
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

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An input or output of a graph file.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type; `None` for one that no bundle uses.
    pub element: Option<Element>,
    /// Axes; `None` where the length is only known when the graph runs.
    pub shape: Vec<Option<usize>>,
}

/// What the arena that all graphs of a backend share holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaStats {
    /// In tensors and weights now.
    pub in_use: u64,
    /// Most that was in tensors and weights at once.
    pub peak_in_use: u64,
    /// Taken from the system now. The limit bounds this.
    pub held: u64,
    /// Most that was taken from the system at once.
    pub peak_held: u64,
    /// Most that it may take; `None` without a limit.
    pub limit: Option<u64>,
}

/// What went between the host and a device of its own, in bytes; nothing where graphs run in the host's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copies {
    /// Inputs that lay in the host's memory when a graph ran, counted for each run.
    pub to_device: u64,
    /// What [`Backend::download`] fetched.
    pub to_host: u64,
}

/// An input that is all zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blank {
    /// The input's name.
    pub name: String,
    /// Element type.
    pub element: Element,
    /// Axes; one of length 0 makes an empty tensor.
    pub shape: Vec<usize>,
}

/// What a graph was seen to take of the arena, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sounding {
    /// Weights that the arena holds; those that stay mapped from their file do not count.
    pub weights: u64,
    /// For each run the most that was in use above the weights, its outputs included.
    pub peaks: Vec<u64>,
}

/// What a graph file takes and gives.
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
pub trait Graph {
    /// What the file itself says; `None` for a graph that is no file.
    fn signature(&self) -> Option<Signature> {
        None
    }

    /// What whoever made the file noted in it under `key`; `None` without such a note.
    fn metadata(&self, _key: &str) -> Option<String> {
        None
    }

    /// Its nodes as they run, after the library's own changes; `None` where that was not recorded
    /// ([`RuntimeOptions::record_placement`]).
    ///
    /// # Errors
    /// A library that does not say.
    fn placement(&self) -> Result<Option<Vec<PlacedNode>>, GraphError> {
        Ok(None)
    }

    /// Gives outputs of fixed shape places of their own, now, which every run writes anew: for outputs that nobody uses
    /// any more when the graph runs again. A backend that has no need of it does nothing.
    ///
    /// # Errors
    /// An output that is unknown or has no fixed shape, or no memory.
    fn keep_outputs(&mut self, _outputs: &[&str]) -> Result<(), GraphError> {
        Ok(())
    }

    /// What the graph's arena holds; `None` for a graph without one.
    ///
    /// # Errors
    /// A library that does not say.
    fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        Ok(None)
    }

    /// Runs the graph on inputs by name and returns the outputs asked for, in that order, on the backend's device.
    ///
    /// # Errors
    /// An input that is missing, unknown or of a wrong shape or dtype; a failure of the backend (out of memory, …).
    fn run(
        &mut self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
    ) -> Result<Vec<Tensor>, GraphError>;
}

/// A graph's outputs, as many as were asked for.
///
/// # Errors
/// [`GraphError::Tensor`] for another number.
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

/// A device with its graphs and tensors.
pub trait Backend {
    /// Prepares a graph file.
    ///
    /// # Errors
    /// A file that the library refuses, or a provider that cannot run it.
    fn load(&self, role: &str, path: &Path) -> Result<Box<dyn Graph>, GraphError>;

    /// What the arena of all graphs holds; `None` for a backend without one, or before its first graph.
    ///
    /// # Errors
    /// A library that does not say.
    fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        Ok(None)
    }

    /// Makes the arena hold `bytes` bytes in all, in one region beside what it holds already, so that a limit or a
    /// device that cannot give them shows now and not on some frame. A backend without an arena has nothing to do.
    ///
    /// # Errors
    /// [`GraphError::ArenaFull`].
    fn reserve(&self, _bytes: u64) -> Result<(), GraphError> {
        Ok(())
    }

    /// Whether attention wants values as wide as keys here.
    ///
    /// ONNX Runtime's memory-efficient kernel for CUDA is compiled for widths of up to 64, up to 128, or any, and chosen by
    /// that of the values alone: where keys need a wider one, what it returns is wrong, and not the same twice (seen on an
    /// H100 with 1.26.0 and 1.31.1). It serves wherever cuDNN's flash attention does not.
    fn wants_equal_widths(&self) -> bool {
        false
    }

    /// What went between the host and the device so far.
    fn copies(&self) -> Copies {
        Copies::default()
    }

    /// Moves data to where graphs take it; `shape` is the whole shape.
    ///
    /// # Errors
    /// A shape that does not fit the data, or no memory.
    fn upload(&self, shape: &[usize], data: Host) -> Result<Tensor, GraphError>;

    /// A tensor without elements (one axis is 0).
    ///
    /// # Errors
    /// A shape that has elements.
    fn empty(&self, element: Element, shape: &[usize]) -> Result<Tensor, GraphError>;

    /// The elements of a float tensor of any width as f32.
    ///
    /// # Errors
    /// A tensor of integers.
    fn download(&self, tensor: &Tensor) -> Result<Vec<f32>, GraphError>;

    /// Rows (slices of the first axis) of several tensors that differ in it only, one after the other, as a new tensor
    /// on the device.
    ///
    /// # Errors
    /// No source, sources of different shapes or dtypes, or a row past the end.
    fn gather_rows(&self, sources: &[(&Tensor, Vec<usize>)]) -> Result<Tensor, GraphError>;

    /// `[rows, tokens_i, …]` tensors that differ in their second axis only, side by side along it.
    ///
    /// # Errors
    /// No tensor, or tensors of different shapes or dtypes.
    fn concat_tokens(&self, tensors: &[&Tensor]) -> Result<Tensor, GraphError>;
}

/// What can go wrong below the tracker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// No library was found in any of the usual places.
    #[error(
        "no ONNX Runtime library found; looked for:\n{}\ninstall one with `pip install onnxruntime` into .venv, or name \
         it with --ort-lib or ORT_DYLIB_PATH",
        looked.iter().map(|place| format!("  - {place}")).collect::<Vec<_>>().join("\n")
    )]
    NoLibrary {
        /// Places in the order in which they were tried.
        looked: Vec<String>,
    },
    /// A library was named that is not there.
    #[error("ONNX Runtime library {}: {reason} ({origin}); give the path of libonnxruntime.so or of its folder", path.display())]
    LibraryMissing {
        /// The path as given.
        path: PathBuf,
        /// Flag or variable that named it.
        origin: String,
        /// Why it cannot serve.
        reason: String,
    },
    /// The library is there and cannot be used.
    #[error("ONNX Runtime library {} ({origin}) cannot be loaded: {reason}", path.display())]
    LibraryLoad {
        /// The library.
        path: PathBuf,
        /// How it was found.
        origin: String,
        /// The loader's reason.
        reason: String,
    },
    /// The library is older than the interface that this program uses.
    #[error(
        "ONNX Runtime library {} ({origin}) is version {found}, expected 1.{needed} or later; install a later one with \
         `pip install --upgrade onnxruntime` or name another with --ort-lib",
        path.display()
    )]
    LibraryTooOld {
        /// The library.
        path: PathBuf,
        /// How it was found.
        origin: String,
        /// Its version.
        found: String,
        /// Least minor version.
        needed: u32,
    },
    /// The library has no such provider, or the provider cannot serve.
    #[error("provider {provider} cannot serve with ONNX Runtime {version} at {}: {reason}; {advice}", library.display())]
    Provider {
        /// The provider that was asked for.
        provider: Provider,
        /// Version of the library.
        version: String,
        /// The library.
        library: PathBuf,
        /// The library's reason.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// A graph file is refused.
    #[error("graph {role} ({}) cannot be prepared: {reason}", path.display())]
    Load {
        /// The graph's role in the bundle.
        role: String,
        /// Its file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// A graph fails while running.
    #[error("graph {role} failed: {reason}")]
    Run {
        /// The graph's role in the bundle.
        role: String,
        /// The library's reason.
        reason: String,
    },
    /// The arena has no room, under its limit or on the device.
    #[error(
        "{what} needs {}, but the arena already holds {} and {}: {reason}; give a higher --mem-limit, a smaller --chunk, \
         fewer objects, or a bundle of a lower resolution",
        requested.map_or("more memory".to_owned(), |bytes| format!("{} more", size::show(bytes))),
        size::show(*held),
        limit.map_or("the device has no more".to_owned(), |limit| format!("its limit is {}", size::show(limit))),
    )]
    ArenaFull {
        /// The graph or operation.
        what: String,
        /// Bytes asked for at once, where the library says so.
        requested: Option<u64>,
        /// Bytes that the arena holds.
        held: u64,
        /// Its limit in bytes.
        limit: Option<u64>,
        /// The library's reason.
        reason: String,
    },
    /// A tensor is not what the operation takes.
    #[error("tensor {name}: expected {expected}, got {got}")]
    Tensor {
        /// Its name, or the operation.
        name: String,
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// Moving or making a tensor fails.
    #[error("{operation} failed: {reason}")]
    Device {
        /// What was attempted.
        operation: String,
        /// The library's reason.
        reason: String,
    },
}

/// An error that may say that the arena is full.
pub(crate) trait IsFull {
    /// Whether it does.
    fn is_full(&self) -> bool;
}

impl IsFull for GraphError {
    fn is_full(&self) -> bool {
        matches!(self, Self::ArenaFull { .. })
    }
}
