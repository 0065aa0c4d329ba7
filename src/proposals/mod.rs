//! Proposals: objects that a FastSAM or YOLO segmentation graph, as Ultralytics exports it to ONNX, sees on a frame.
//!
//! For each frame: the graph's image is made ([`letterbox`]), the graph runs, its outputs are decoded to candidates
//! ([`decode`]), overlapping candidates are dropped ([`keep_boxes`]), and the others get boxes and masks in pixels of the
//! frame. [`form`] describes which graphs can be used.

pub mod decode;
pub mod form;
pub mod letterbox;
pub(crate) mod proposer;

use std::path::PathBuf;

use half::f16;

use self::decode::{Layout, Prototypes, candidates};
use self::form::{Form, ImageSize};
use self::letterbox::Letterbox;
use crate::masks::CroppedMask;
use crate::masks::nms::{BoxLimits, ScoredBox, keep_boxes};
use crate::media::Frame;
use crate::runtime::{Backend, Element, Graph, GraphError, Host, IsFull, Tensor};
use crate::size;

/// The graph's role in messages and profiles.
pub const ROLE: &str = "proposals";

/// Which candidates of a frame become proposals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProposalOptions {
    /// Only candidates with a score above this, 0 to 1.
    pub min_score: f32,
    /// Box NMS: of two boxes of one class with a greater IoU than this, 0 to 1, the one with the lower score is dropped.
    pub max_iou: f32,
    /// Most proposals of a frame; those with the highest scores are kept.
    pub max_proposals: usize,
    /// Whether boxes of different classes are compared too.
    pub class_agnostic: bool,
}

/// One proposal: an object that the graph sees on a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// x1, y1, x2, y2 in pixels of the frame, within it; never empty.
    pub bbox: [f32; 4],
    /// 0 to 1.
    pub score: f32,
    /// The class, from 0.
    pub class: u32,
    /// The mask, within the box; never empty.
    pub mask: CroppedMask,
}

/// Why a file gives no proposals.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposalError {
    /// The file does not exist, or cannot be read.
    #[error("proposal graph {}: cannot be read: {source}; give an ONNX file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The library cannot load the file.
    #[error(
        "proposal graph {}: no ONNX graph that this library can load ({reason}); export the model again (`yolo export model=FastSAM-s.pt format=onnx`)",
        path.display()
    )]
    Load {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// The graph has other inputs or outputs than a graph that proposes objects.
    #[error(
        "proposal graph {}: not a graph that proposes objects: {reason}. Its inputs: {inputs}. Its outputs: {outputs}. Expected: {expected}",
        path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// The first difference.
        reason: String,
        /// Inputs with dtypes and shapes.
        inputs: String,
        /// Outputs with dtypes and shapes.
        outputs: String,
        /// What they should be.
        expected: &'static str,
    },
    /// An image size that the graph does not accept.
    #[error("proposal graph {}: images of {asked} px: expected {expected}", path.display())]
    Side {
        /// The file.
        path: PathBuf,
        /// The longer side that was asked for, in pixels.
        asked: u32,
        /// The sides that it accepts.
        expected: String,
    },
    /// An output of another shape than a graph of its form has.
    #[error("graph {ROLE} returned {got}, expected {expected}; export the model again")]
    Output {
        /// The shape that was expected.
        expected: String,
        /// The shape that it returned.
        got: String,
    },
    /// The graph does not fit in the memory limit.
    #[error(
        "{}: a run on images of {side} px needs {} of memory, {} of them weights, but the limit is {}",
        path.display(), size::show(*needed), size::show(*weights), size::show(*limit)
    )]
    OverLimit {
        /// The file.
        path: PathBuf,
        /// The longer side of the graph's image in pixels.
        side: u32,
        /// Bytes that the run needs.
        needed: u64,
        /// Bytes of weights among them.
        weights: u64,
        /// Bytes that it may take.
        limit: u64,
    },
    /// The library or the device fails.
    #[error(transparent)]
    Graph(GraphError),
}

impl From<GraphError> for ProposalError {
    fn from(error: GraphError) -> Self {
        match error {
            // Only this graph is a file that the user chose, so its error names the file.
            GraphError::Load { path, reason, .. } => Self::Load { path, reason },
            other => Self::Graph(other),
        }
    }
}

impl IsFull for ProposalError {
    fn is_full(&self) -> bool {
        matches!(self, Self::Graph(error) if error.is_full())
    }
}

impl Form {
    /// The place of a frame of `width` x `height` pixels in the graph's image.
    pub fn place(&self, width: u32, height: u32) -> Letterbox {
        match self.size {
            ImageSize::Fixed(w, h) => Letterbox::fixed((width, height), (w, h)),
            ImageSize::Any { side, stride } => Letterbox::tight((width, height), side, stride),
        }
    }

    /// Runs a graph of this form on a frame. Returns the proposals by descending score.
    ///
    /// A candidate whose box or mask is empty in the frame is dropped, but counts towards
    /// [`ProposalOptions::max_proposals`], as in Ultralytics.
    ///
    /// # Errors
    /// The backend fails, or an output has another shape than the file states.
    pub fn propose(
        &self,
        backend: &dyn Backend,
        graph: &mut dyn Graph,
        frame: &Frame,
        options: &ProposalOptions,
    ) -> Result<Vec<Proposal>, ProposalError> {
        let place = self.place(frame.width, frame.height);
        let image = place.apply(frame);
        let shape = [1, 3, place.image.1 as usize, place.image.0 as usize];
        let image = match self.element {
            Element::F16 => Host::F16(image.into_iter().map(f16::from_f32).collect()),
            _ => Host::F32(image),
        };
        let image = backend.upload(&shape, image)?;
        let outputs = graph.run(
            &[(&self.input, &image)],
            &[&self.detections, &self.prototypes],
        )?;
        drop(image);
        let (rows, layout, prototypes) = read_outputs(backend, &outputs)?;
        drop(outputs);
        let candidates = candidates(&rows, layout, prototypes.count(), options.min_score);
        // An end-to-end graph has dropped overlapping candidates already.
        let limits = BoxLimits {
            max_iou: match layout {
                Layout::Anchors { .. } => options.max_iou,
                Layout::EndToEnd { .. } => 1.0,
            },
            max_boxes: options.max_proposals,
            class_agnostic: options.class_agnostic,
        };
        let boxes: Vec<ScoredBox> = candidates
            .iter()
            .map(|candidate| ScoredBox {
                bbox: candidate.bbox,
                score: candidate.score,
                class: candidate.class,
            })
            .collect();
        Ok(keep_boxes(&boxes, limits)
            .into_iter()
            .filter_map(|kept| {
                let candidate = &candidates[kept];
                let bbox = place.to_frame(candidate.bbox);
                let mask = prototypes.mask(&candidate.coefficients, &bbox, &place)?;
                Some(Proposal {
                    bbox,
                    score: candidate.score,
                    class: candidate.class,
                    mask,
                })
            })
            .collect())
    }
}

/// The graph's outputs: detections, row-major, with their layout, and the prototypes.
fn read_outputs(
    backend: &dyn Backend,
    outputs: &[Tensor],
) -> Result<(Vec<f32>, Layout, Prototypes), ProposalError> {
    let [detections, prototypes] = outputs else {
        return Err(ProposalError::Output {
            expected: "two outputs".to_owned(),
            got: outputs.len().to_string(),
        });
    };
    let rows = backend.download(detections)?;
    let shape = detections.shape();
    let prototypes = Prototypes::new(prototypes.shape(), backend.download(prototypes)?)?;
    let count = prototypes.count();
    let layout = Layout::of(shape, count).ok_or_else(|| ProposalError::Output {
        expected: format!("detections [1,4+classes+{count},anchors] or [1,detections,6+{count}]"),
        got: format!("{shape:?}"),
    })?;
    Ok((rows, layout, prototypes))
}
