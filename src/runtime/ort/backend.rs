//! What an engine does for the tracker: graphs, and tensors between them.

use std::path::Path;

use half::{bf16, f16};
use ort::memory::{AllocationDevice, Allocator};

use ort::value::{DynTensor, DynValue, PrimitiveTensorElementType, Tensor as OrtTensor};

use super::engine::{Allocation, Engine};
use super::running::{InArena, OrtGraph};
use super::values::{element_to, unwrap, wrap};
use super::{join, message};
use crate::runtime::rows;
use crate::runtime::{
    ArenaStats, Backend, Copies, Element, Graph, GraphError, Host, Provider, Tensor,
};

fn from_host<T>(shape: &[usize], data: Vec<T>) -> ort::Result<DynValue>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    Ok(OrtTensor::from_array((shape.to_vec(), data))?.into_dyn())
}

impl Backend for Engine {
    fn load(&self, role: &str, path: &Path) -> Result<Box<dyn Graph>, GraphError> {
        let arena = self.arena()?;
        let graph = arena
            .make_sessions(|| {
                let builder = self.builder(&Allocation::Registered)?;
                self.session(builder, role, path, self.options.profile.as_deref())
            })
            .map_err(|reason| GraphError::Device {
                operation: format!("registering the arena for graph {role}"),
                reason,
            });
        let graph = OrtGraph::within(role, &arena, graph.flatten())?;
        Ok(Box::new(InArena { graph, arena }))
    }

    fn reserve(&self, bytes: u64) -> Result<(), GraphError> {
        let arena = self.arena()?;
        let stats = arena.stats()?;
        // Weights come in by a way that does not look at the limit.
        let beyond = stats.limit.is_some_and(|limit| stats.held > limit);
        let missing = bytes.saturating_sub(stats.held);
        let full = |reason: String| GraphError::ArenaFull {
            what: "reserving the working memory".to_owned(),
            requested: Some(missing),
            held: stats.held,
            limit: stats.limit,
            reason,
        };
        if beyond {
            return Err(full("the weights alone are more".to_owned()));
        }
        arena.reserve(missing).map_err(full)
    }

    fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        self.shared
            .arena
            .get()
            .map(|arena| arena.stats())
            .transpose()
    }

    fn wants_equal_widths(&self) -> bool {
        self.options.provider == Provider::Cuda
    }

    fn copies(&self) -> Copies {
        self.shared.copies.total()
    }

    fn upload(&self, shape: &[usize], data: Host) -> Result<Tensor, GraphError> {
        if shape.iter().product::<usize>() != data.len() {
            return Err(GraphError::Tensor {
                name: "upload".to_owned(),
                expected: format!(
                    "{} elements for shape {shape:?}",
                    shape.iter().product::<usize>()
                ),
                got: data.len().to_string(),
            });
        }
        // On a GPU the binding copies an input once; it is small, or it is the image.
        let value = match data {
            Host::U8(data) => from_host(shape, data),
            Host::I64(data) => from_host(shape, data),
            Host::Bool(data) => from_host(shape, data),
            Host::F32(data) => from_host(shape, data),
            Host::F16(data) => from_host(shape, data),
            Host::Bf16(data) => from_host(shape, data),
        };
        let value = value.map_err(|error| GraphError::Device {
            operation: format!("making a tensor of shape {shape:?}"),
            reason: message(error),
        })?;
        wrap("upload", value)
    }

    fn empty(&self, element: Element, shape: &[usize]) -> Result<Tensor, GraphError> {
        if !shape.contains(&0) {
            return Err(GraphError::Tensor {
                name: "empty".to_owned(),
                expected: "an axis of length 0".to_owned(),
                got: format!("{shape:?}"),
            });
        }
        let value = DynTensor::new(&Allocator::default(), element_to(element), shape.to_vec());
        let value = value.map_err(|error| GraphError::Device {
            operation: format!("making an empty tensor of shape {shape:?}"),
            reason: message(error),
        })?;
        wrap("empty", value.into_dyn())
    }

    fn download(&self, tensor: &Tensor) -> Result<Vec<f32>, GraphError> {
        let value = unwrap("download", tensor)?;
        let failed = |error: ort::Error| GraphError::Device {
            operation: "copying a tensor to the host".to_owned(),
            reason: message(error),
        };
        let local;
        let value = match self.options.provider {
            Provider::Cpu => value,
            Provider::Cuda => {
                local = value.to(AllocationDevice::CPU, 0).map_err(failed)?;
                self.shared.copies.add_to_host(tensor);
                &local
            }
        };
        match tensor.element() {
            Element::F32 => Ok(value
                .try_extract_tensor::<f32>()
                .map_err(failed)?
                .1
                .to_vec()),
            Element::F16 => {
                let (_, data) = value.try_extract_tensor::<f16>().map_err(failed)?;
                Ok(data.iter().map(|x| x.to_f32()).collect())
            }
            Element::Bf16 => {
                let (_, data) = value.try_extract_tensor::<bf16>().map_err(failed)?;
                Ok(data.iter().map(|x| x.to_f32()).collect())
            }
            other => Err(GraphError::Tensor {
                name: "download".to_owned(),
                expected: "a float tensor".to_owned(),
                got: format!("{other:?}"),
            }),
        }
    }

    fn gather_rows(&self, sources: &[(&Tensor, Vec<usize>)]) -> Result<Tensor, GraphError> {
        let plan = rows::plan_rows(sources)?;
        let tensors: Vec<&Tensor> = sources.iter().map(|(tensor, _)| *tensor).collect();
        if self.options.provider == Provider::Cpu {
            return join::on_host(&*self.arena()?, &tensors, &plan);
        }
        let rows: Vec<&[usize]> = sources.iter().map(|(_, rows)| rows.as_slice()).collect();
        self.join_on_device(&tensors, &rows, &plan)
    }

    fn concat_tokens(&self, tensors: &[&Tensor]) -> Result<Tensor, GraphError> {
        let plan = rows::plan_tokens(tensors)?;
        if self.options.provider == Provider::Cpu {
            return join::on_host(&*self.arena()?, tensors, &plan);
        }
        self.join_on_device(tensors, &[], &plan)
    }
}
