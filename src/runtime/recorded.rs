//! A backend without a library, for tests: tensors are vectors, and graphs are closures.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Backend, Element, Graph, GraphError, Host, Tensor, rows};

/// What a recorded graph does: from inputs by name to outputs by name.
pub type Behaviour = Arc<dyn Fn(&BTreeMap<String, Value>) -> BTreeMap<String, Value> + Send + Sync>;

/// A tensor's contents, every element as f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Element type that the tensor claims.
    pub element: Element,
    /// Axes.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub data: Vec<f32>,
}

/// One run of a graph: its role and inputs.
pub type Call = (String, BTreeMap<String, Value>);

/// A backend that records every run.
#[derive(Default, Clone)]
pub struct Recorded {
    behaviours: BTreeMap<String, Behaviour>,
    calls: Arc<Mutex<Vec<Call>>>,
    loaded: Arc<Mutex<Vec<(String, bool)>>>,
    equal_widths: bool,
}

impl Recorded {
    /// Sets [`Backend::wants_equal_widths`], as on a GPU.
    pub fn with_equal_widths(mut self) -> Self {
        self.equal_widths = true;
        self
    }

    /// Sets what the graph of a role does.
    pub fn with(mut self, role: &str, behaviour: Behaviour) -> Self {
        self.behaviours.insert(role.to_owned(), behaviour);
        self
    }

    /// Roles of all graphs that were loaded so far, in order.
    pub fn loaded(&self) -> Vec<String> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.iter().map(|(role, _)| role.clone()).collect()
    }

    /// Roles of the graphs that are loaded now, in the order in which they were loaded.
    pub fn open(&self) -> Vec<String> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let open = loaded.iter().filter(|(_, open)| *open);
        open.map(|(role, _)| role.clone()).collect()
    }

    /// All runs so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn value(tensor: &Tensor) -> Result<&Value, GraphError> {
    tensor.value::<Value>().ok_or_else(|| GraphError::Tensor {
        name: "recorded".to_owned(),
        expected: "a recorded tensor".to_owned(),
        got: format!("{tensor:?}"),
    })
}

fn tensor(value: Value) -> Tensor {
    Tensor::new(value.element, value.shape.clone(), Arc::new(value))
}

struct RecordedGraph {
    role: String,
    behaviour: Behaviour,
    calls: Arc<Mutex<Vec<Call>>>,
    loaded: Arc<Mutex<Vec<(String, bool)>>>,
    place: usize,
}

impl Drop for RecordedGraph {
    fn drop(&mut self) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, open)) = loaded.get_mut(self.place) {
            *open = false;
        }
    }
}

impl Graph for RecordedGraph {
    fn run(
        &mut self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
    ) -> Result<Vec<Tensor>, GraphError> {
        let mut values = BTreeMap::new();
        for (name, tensor) in inputs {
            values.insert((*name).to_owned(), value(tensor)?.clone());
        }
        let mut results = (self.behaviour)(&values);
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((self.role.clone(), values));
        let missing = |name: &str| GraphError::Run {
            role: self.role.clone(),
            reason: format!("no output {name}"),
        };
        outputs
            .iter()
            .map(|name| {
                results
                    .remove(*name)
                    .map(tensor)
                    .ok_or_else(|| missing(name))
            })
            .collect()
    }
}

impl Backend for Recorded {
    fn wants_equal_widths(&self) -> bool {
        self.equal_widths
    }

    fn load(&self, role: &str, path: &Path) -> Result<Box<dyn Graph>, GraphError> {
        let behaviour = self
            .behaviours
            .get(role)
            .cloned()
            .ok_or_else(|| GraphError::Load {
                role: role.to_owned(),
                path: path.to_path_buf(),
                reason: "no behaviour was given".to_owned(),
            })?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.push((role.to_owned(), true));
        Ok(Box::new(RecordedGraph {
            role: role.to_owned(),
            behaviour,
            calls: Arc::clone(&self.calls),
            loaded: Arc::clone(&self.loaded),
            place: loaded.len() - 1,
        }))
    }

    fn upload(&self, shape: &[usize], data: Host) -> Result<Tensor, GraphError> {
        let element = data.element();
        let data = match data {
            Host::U8(data) => data.into_iter().map(f32::from).collect(),
            Host::I64(data) => data.into_iter().map(|x| x as f32).collect(),
            Host::Bool(data) => data.into_iter().map(|x| f32::from(u8::from(x))).collect(),
            Host::F32(data) => data,
            Host::F16(data) => data.into_iter().map(f32::from).collect(),
            Host::Bf16(data) => data.into_iter().map(f32::from).collect(),
        };
        Ok(tensor(Value {
            element,
            shape: shape.to_vec(),
            data,
        }))
    }

    fn empty(&self, element: Element, shape: &[usize]) -> Result<Tensor, GraphError> {
        Ok(tensor(Value {
            element,
            shape: shape.to_vec(),
            data: Vec::new(),
        }))
    }

    fn download(&self, tensor: &Tensor) -> Result<Vec<f32>, GraphError> {
        Ok(value(tensor)?.data.clone())
    }

    fn gather_rows(&self, sources: &[(&Tensor, Vec<usize>)]) -> Result<Tensor, GraphError> {
        let tensors: Vec<&Tensor> = sources.iter().map(|(tensor, _)| *tensor).collect();
        join(&tensors, &rows::plan_rows(sources)?)
    }

    fn concat_tokens(&self, tensors: &[&Tensor]) -> Result<Tensor, GraphError> {
        join(tensors, &rows::plan_tokens(tensors)?)
    }
}

fn join(tensors: &[&Tensor], plan: &rows::Plan) -> Result<Tensor, GraphError> {
    let size = plan.key.element.size();
    let mut data = Vec::new();
    for &(source, start, bytes) in &plan.slices {
        let source = &value(tensors[source])?.data;
        data.extend_from_slice(&source[start / size..(start + bytes) / size]);
    }
    Ok(tensor(Value {
        element: plan.key.element,
        shape: plan.shape.clone(),
        data,
    }))
}
