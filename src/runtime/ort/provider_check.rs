//! Whether a provider works: a library may name one that cannot be loaded, and load one that has no code for this GPU.

use std::ffi::CStr;
use std::ptr;

use ort::editor::{Graph as Editor, Node, ONNX_DOMAIN};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::TensorElementType;

use super::engine::Engine;
use super::in_memory::{outlet, session_of};
use super::message;
use crate::runtime::{Backend as _, GraphError, Host};

const ROLE: &str = "trial";

impl Engine {
    /// Makes a session of one multiplication on the provider, runs it and checks the result, in an arena that is gone afterwards.
    ///
    /// # Errors
    /// [`GraphError::Provider`] for a provider that cannot be loaded, other errors for one that fails or computes wrongly.
    pub fn try_provider(&self) -> Result<(), GraphError> {
        let open = |builder: SessionBuilder| {
            let session = square_session(&builder);
            self.graph(
                ROLE,
                session.map_err(|error| self.provider_error(message(error)))?,
            )
        };
        let (squares, _) = self.alone_with(ROLE, None, open, |graph| {
            let given = self.upload(&[3], Host::F32(vec![1.0, -2.0, 3.0]))?;
            let squares = graph.run(&[("in", &given)], &["out"])?;
            let square = squares.first().ok_or_else(|| GraphError::Tensor {
                name: "out".to_owned(),
                expected: "one output".to_owned(),
                got: "none".to_owned(),
            })?;
            self.download(square)
        })?;
        if squares != [1.0, 4.0, 9.0] {
            return Err(GraphError::Run {
                role: ROLE.to_owned(),
                reason: format!("the squares of 1, -2 and 3 came out as {squares:?}"),
            });
        }
        Ok(())
    }

    /// The providers that the library was built with, by its names for them, the preferred one first. It may be unable to load them.
    pub fn named_providers(&self) -> Vec<String> {
        let api = ort::api();
        let (mut names, mut count) = (ptr::null_mut(), 0);
        let mut found = Vec::new();
        // SAFETY: the library makes a list of `count` strings, which are copied before it is given back. Both statuses
        // come straight from it and are looked at once.
        unsafe {
            let status = (api.GetAvailableProviders)(&mut names, &mut count);
            if ort::Error::result_from_status(status).is_err() {
                return found;
            }
            for index in 0..usize::try_from(count).unwrap_or(0) {
                let name = CStr::from_ptr(*names.add(index));
                found.push(name.to_string_lossy().into_owned());
            }
            let status = (api.ReleaseAvailableProviders)(names, count);
            // A list that is not given back does no harm.
            let _ = ort::Error::result_from_status(status);
        }
        found
    }

    /// The library's build information, as text.
    pub fn build_info(&self) -> String {
        ort::info().to_owned()
    }
}

fn square_session(builder: &SessionBuilder) -> ort::Result<Session> {
    let port = |name: &str| outlet(name, TensorElementType::Float32, &[3]);
    let mut graph = Editor::new()?;
    graph.set_inputs([port("in")])?;
    graph.set_outputs([port("out")])?;
    let given = ["in", "in"];
    graph.add_node(Node::new("Mul", ONNX_DOMAIN, "square", given, ["out"], [])?)?;
    session_of(graph, builder)
}
