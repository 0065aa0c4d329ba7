//! Objects that a FastSAM or YOLO segmentation graph proposes on a frame, as Ultralytics exports such models to ONNX.
//!
//! One look: frame to image ([`letterbox`]), one run of the graph, detections ([`decode`]), one of those that overlap
//! ([`nms`]), boxes and masks in pixels of the frame. What a file must be like is said in [`form`].

pub mod decode;
pub mod form;
pub mod letterbox;
pub mod nms;

use std::path::PathBuf;

use half::f16;

use self::decode::{Layout, Prototypes, candidates};
use self::form::{Form, ImageSize};
use self::letterbox::Letterbox;
use crate::media::Frame;
use crate::media::mask::BinaryMask;
use crate::runtime::{Backend, Element, Graph, GraphError, Host, IsFull};

/// The graph's role in messages and profiles.
pub const ROLE: &str = "proposals";

/// Which detections count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// A score must be above this, 0 to 1.
    pub least_score: f32,
    /// Of two boxes of a class that overlap by more, the better one stays: intersection over union, 0 to 1.
    pub most_iou: f32,
    /// The best ones, at most so many.
    pub most: usize,
    /// Whether boxes of different classes count as overlapping too.
    pub class_agnostic: bool,
}

/// A mask as far as its box reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalMask {
    /// The box's first column in the frame.
    pub left: u32,
    /// The box's first row in the frame.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 0 or 1, row-major, `width * height` values.
    pub data: Vec<u8>,
}

impl ProposalMask {
    /// Its pixels.
    pub fn area(&self) -> u64 {
        self.data.iter().map(|inside| u64::from(*inside)).sum()
    }

    /// How many of its pixels are in a mask of the frame's size.
    pub fn shared(&self, whole: &BinaryMask) -> u64 {
        let rows = self.data.chunks_exact(self.width.max(1) as usize);
        let others = whole.data.chunks_exact(whole.width.max(1) as usize);
        rows.zip(others.skip(self.top as usize))
            .flat_map(|(row, other)| row.iter().zip(other.iter().skip(self.left as usize)))
            .map(|(a, b)| u64::from(a & u8::from(*b != 0)))
            .sum()
    }

    /// The mask in a frame of `width` x `height` pixels that its box lies in.
    pub fn in_frame(&self, width: u32, height: u32) -> BinaryMask {
        let mut data = vec![0; width as usize * height as usize];
        let lines = data.chunks_exact_mut(width.max(1) as usize);
        let rows = self.data.chunks_exact(self.width.max(1) as usize);
        for (line, row) in lines.skip(self.top as usize).zip(rows) {
            let line = line.iter_mut().skip(self.left as usize);
            line.zip(row).for_each(|(pixel, value)| *pixel = *value);
        }
        BinaryMask {
            width,
            height,
            data,
        }
    }
}

/// One object that may be there.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// x1, y1, x2, y2 in pixels of the frame, within it; never empty.
    pub bbox: [f32; 4],
    /// 0 to 1.
    pub score: f32,
    /// The class, from 0.
    pub class: u32,
    /// The mask, within the box; never empty.
    pub mask: ProposalMask,
}

/// Why a file proposes nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposalError {
    /// The file is not there, or cannot be read.
    #[error("--proposals {}: cannot be read: {source}; give an ONNX file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The library does not take it.
    #[error(
        "--proposals {}: no ONNX graph that this library can load ({reason}); export the model again (`yolo export model=FastSAM-s.pt format=onnx`)",
        path.display()
    )]
    Load {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// A graph of another form.
    #[error(
        "--proposals {}: not a graph that proposes objects: {reason}. Its inputs: {inputs}. Its outputs: {outputs}. Expected: {expected}",
        path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// The first thing that is different.
        reason: String,
        /// Inputs with dtypes and shapes.
        inputs: String,
        /// Outputs with dtypes and shapes.
        outputs: String,
        /// What they should be.
        expected: &'static str,
    },
    /// An image size that the graph does not take.
    #[error("--proposals {}: images of {asked} px: expected {expected}", path.display())]
    Side {
        /// The file.
        path: PathBuf,
        /// Pixels.
        asked: u32,
        /// What can be given.
        expected: String,
    },
    /// An output that is not what its form says.
    #[error("graph {ROLE} gave {got}, expected {expected}; export the model again")]
    Output {
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// The library or the device.
    #[error(transparent)]
    Graph(GraphError),
}

impl From<GraphError> for ProposalError {
    fn from(error: GraphError) -> Self {
        match error {
            // The user knows the file by its option.
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
    /// Where a frame lies in the graph's image.
    pub fn place(&self, width: u32, height: u32) -> Letterbox {
        match self.size {
            ImageSize::Fixed(w, h) => Letterbox::fixed((width, height), (w, h)),
            ImageSize::Any { side, stride } => Letterbox::tight((width, height), side, stride),
        }
    }

    /// Runs a graph of this form on a frame: the best proposals, from the best score down.
    ///
    /// A detection whose box or mask is empty in the frame is none; it counts towards [`Choice::most`] all the same, as in
    /// Ultralytics.
    ///
    /// # Errors
    /// The backend, and outputs of another form than the file says.
    pub fn look(
        &self,
        backend: &dyn Backend,
        graph: &mut dyn Graph,
        frame: &Frame,
        choice: &Choice,
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
        let [detections, prototypes] = outputs.as_slice() else {
            return Err(ProposalError::Output {
                expected: "two outputs".to_owned(),
                got: outputs.len().to_string(),
            });
        };
        let rows = backend.download(detections)?;
        let shape = detections.shape().to_vec();
        let prototypes = Prototypes::new(prototypes.shape(), backend.download(prototypes)?)?;
        drop(outputs);
        let layout =
            Layout::of(&shape, prototypes.count()).ok_or_else(|| ProposalError::Output {
                expected: format!(
                    "detections [1,4+classes+{0},anchors] or [1,detections,6+{0}]",
                    prototypes.count()
                ),
                got: format!("{shape:?}"),
            })?;
        let found = candidates(&rows, layout, prototypes.count(), choice.least_score);
        // What comes end to end is suppressed already.
        let most_iou = match layout {
            Layout::Anchors { .. } => choice.most_iou,
            Layout::EndToEnd { .. } => 1.0,
        };
        let found = nms::suppress(found, most_iou, choice.most, choice.class_agnostic);
        Ok(found
            .into_iter()
            .filter_map(|candidate| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_goes_to_its_place_and_is_compared_there() {
        let mask = ProposalMask {
            left: 2,
            top: 1,
            width: 2,
            height: 2,
            data: vec![1, 0, 1, 1],
        };
        let whole = mask.in_frame(5, 4);
        #[rustfmt::skip]
        assert_eq!(whole.data, [
            0, 0, 0, 0, 0,
            0, 0, 1, 0, 0,
            0, 0, 1, 1, 0,
            0, 0, 0, 0, 0,
        ]);
        assert_eq!((mask.area(), mask.shared(&whole)), (3, 3));
        let column = BinaryMask {
            data: (0..20).map(|i| u8::from(i % 5 == 2)).collect(),
            ..whole
        };
        assert_eq!(mask.shared(&column), 2);
    }
}
