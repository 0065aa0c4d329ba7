//! Does a provider serve? A library may name one that cannot be loaded, and load one that has no code for the GPU at hand.

use std::ffi::CStr;
use std::ptr;

use ort::editor::{Graph as Editor, Node, ONNX_DOMAIN};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::TensorElementType;

use super::made::{outlet, session_of};
use super::running::OrtGraph;
use super::{Runtime, message};
use crate::runtime::{Backend as _, GraphError, Host};

const ROLE: &str = "trial";

impl Runtime {
    /// Makes a session of one multiplication on the provider, runs it and looks at the result, in an arena that is gone
    /// afterwards.
    ///
    /// # Errors
    /// [`GraphError::Provider`] for a provider that cannot be loaded, other errors for one that does not compute or
    /// computes wrongly.
    pub fn try_provider(&self) -> Result<(), GraphError> {
        let open = || {
            let builder = self
                .builder()
                .map_err(|reason| self.provider_error(reason))?;
            let failed = |error: ort::Error| self.provider_error(message(error));
            Ok(OrtGraph {
                role: ROLE.to_owned(),
                session: square_session(&builder).map_err(failed)?,
                device: self.device().map_err(failed)?,
                kept: Vec::new(),
                copies: None,
                placed: false,
            })
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

    /// The providers that the library names, in its own words, the preferred one first. Naming one does not mean that it
    /// can be loaded.
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

    /// What the library says of its build.
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
