//! Which provider runs each node of a session, read through the library's C interface.

use std::ffi::{CStr, c_char};
use std::{ptr, slice};

use ort::AsPointer as _;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::sys;

use super::message;
use crate::runtime::PlacedNode;

/// Has the sessions of a builder record where nodes are put.
pub(super) fn record(builder: SessionBuilder) -> Result<SessionBuilder, String> {
    builder
        .with_config_entry("session.record_ep_graph_assignment_info", "1")
        .map_err(message)
}

fn check(status: sys::OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: every status comes straight from the library, which gives it away, and is looked at once.
    unsafe { ort::Error::result_from_status(status) }
}

/// The nodes of a session whose builder recorded them.
pub(super) fn read(session: &Session) -> ort::Result<Vec<PlacedNode>> {
    let api = ort::api();
    let mut placed = Vec::new();
    // SAFETY: the session is alive. Lists, nodes and strings are the session's own and live as long as it does; each list
    // has as many entries as the library says, and strings are copied at once.
    unsafe {
        let (mut parts, mut count) = (ptr::null(), 0);
        check((api.Session_GetEpGraphAssignmentInfo)(
            session.ptr(),
            &mut parts,
            &mut count,
        ))?;
        for &part in list(parts, count) {
            let mut provider = ptr::null();
            check((api.EpAssignedSubgraph_GetEpName)(part, &mut provider))?;
            let (mut nodes, mut count) = (ptr::null(), 0);
            check((api.EpAssignedSubgraph_GetNodes)(
                part, &mut nodes, &mut count,
            ))?;
            for &node in list(nodes, count) {
                let (mut operator, mut name) = (ptr::null(), ptr::null());
                check((api.EpAssignedNode_GetOperatorType)(node, &mut operator))?;
                check((api.EpAssignedNode_GetName)(node, &mut name))?;
                placed.push(PlacedNode {
                    provider: text(provider),
                    operator: text(operator),
                    name: text(name),
                });
            }
        }
    }
    Ok(placed)
}

/// SAFETY: `start` has `count` entries, or is null.
unsafe fn list<'l, T>(start: *const T, count: usize) -> &'l [T] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { slice::from_raw_parts(start, count) }
}

/// SAFETY: `text` is a string that ends in a zero, or null.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
