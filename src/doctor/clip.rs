//! A short clip, drawn in code, and the mask logits that a bundle's whole tracker computes for it. The clip is the same on every
//! machine.
//!
//! Golden vectors test one graph at a time, mostly with one object. Errors between graphs, in batches of objects or in the memory
//! bank show only in a clip. Its shapes are large, plain and apart, so that no mask depends on a few pixels: the rounding of a
//! provider must not look like an error.

use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::bundle::{Manifest, Role};
use crate::runtime::Backend;
use crate::tracker::{Graphs, ModelSpec, Prompt, TrackError, Tracker, TrackerOptions};

/// Number of objects in the clip. All are prompted on its first frame.
pub const OBJECTS: usize = 4;

/// Number of frames that are tracked with a small bundle.
pub const FRAMES: usize = 6;

/// Number of frames with a large bundle: objects are prompted one by one on the first, so two frames run in batches.
pub const FEW_FRAMES: usize = 3;

/// A bundle is small if the bytes of its vision encoder times the tokens of an image are at most this: one or two seconds a frame
/// on two cores. SAM3 has about 900 MiB in fp16, and 5184 tokens at 1008 px.
const MAX_SMALL: u64 = (64 << 20) * 1024;

/// Name of the tensor with [`ClipLogits::together`] in a file.
const TOGETHER: &str = "together";
/// Name of the tensor with [`ClipLogits::alone`].
const ALONE: &str = "alone";

/// Mask logits of a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// Number of frames.
    pub frames: usize,
    /// Number of objects on each frame.
    pub objects: usize,
    /// Width and height of a mask in pixels.
    pub side: usize,
    /// `[frames, objects, side, side]`, float32.
    pub values: Vec<f32>,
}

/// Mask logits of the clip on one provider.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipLogits {
    /// All objects tracked in one batch; `None` if that was not run.
    pub together: Option<Logits>,
    /// Objects tracked one at a time.
    pub alone: Logits,
}

#[derive(Clone, Copy)]
enum Form {
    Disc,
    Rectangle,
    Diamond,
}

/// A moving shape. Lengths are fractions of the image's side.
struct Shape {
    form: Form,
    /// x and y of its centre on frame 0.
    centre: [f32; 2],
    /// Half of its width and height.
    half: [f32; 2],
    /// Movement per frame.
    step: [f32; 2],
    /// RGB.
    colour: [u8; 3],
}

const SHAPES: [Shape; OBJECTS] = [
    Shape {
        form: Form::Disc,
        centre: [0.25, 0.25],
        half: [0.13, 0.13],
        step: [0.012, 0.006],
        colour: [220, 50, 40],
    },
    Shape {
        form: Form::Rectangle,
        centre: [0.74, 0.26],
        half: [0.15, 0.10],
        step: [-0.010, 0.008],
        colour: [40, 90, 220],
    },
    Shape {
        form: Form::Diamond,
        centre: [0.27, 0.73],
        half: [0.15, 0.17],
        step: [0.008, -0.010],
        colour: [240, 200, 40],
    },
    Shape {
        form: Form::Disc,
        centre: [0.73, 0.73],
        half: [0.10, 0.16],
        step: [-0.008, -0.008],
        colour: [40, 180, 80],
    },
];

impl Shape {
    fn centre_on(&self, frame: usize) -> [f32; 2] {
        [0, 1].map(|axis| self.centre[axis] + self.step[axis] * frame as f32)
    }

    fn covers(&self, frame: usize, at: [f32; 2]) -> bool {
        let centre = self.centre_on(frame);
        let [x, y] = [0, 1].map(|axis| (at[axis] - centre[axis]) / self.half[axis]);
        match self.form {
            Form::Disc => x * x + y * y <= 1.0,
            Form::Rectangle => x.abs().max(y.abs()) <= 1.0,
            Form::Diamond => x.abs() + y.abs() <= 1.0,
        }
    }
}

/// Whether the object covers each pixel of a frame of `side` x `side` pixels: `[side, side]`. `object` counts from 0.
pub fn drawn(object: usize, frame: usize, side: usize) -> Vec<bool> {
    let places = (0..side * side).map(|index| middle(index, side));
    places.map(|at| SHAPES[object].covers(frame, at)).collect()
}

/// The centre of a pixel, as fractions of the side.
fn middle(index: usize, side: usize) -> [f32; 2] {
    [index % side, index / side].map(|at| (at as f32 + 0.5) / side as f32)
}

/// A frame of the clip: `[side, side, 3]` RGB.
pub fn image(frame: usize, side: usize) -> Vec<u8> {
    let pixel = |index: usize| {
        let at = middle(index, side);
        let shape = SHAPES.iter().find(|shape| shape.covers(frame, at));
        match shape {
            Some(shape) => shape.colour,
            None => {
                // A gradient, so that no two places have the same surroundings.
                let grey = 90.0 + 50.0 * at[0] + 20.0 * at[1];
                [grey as u8; 3]
            }
        }
    };
    (0..side * side).flat_map(pixel).collect()
}

/// A box prompt around each shape on the first frame, for frames of `side` x `side` pixels.
pub fn prompts(side: usize) -> Vec<Prompt> {
    let ids = 1..;
    let boxed = |(object, shape): (u32, &Shape)| {
        let corner =
            |axis: usize, sign: f32| (shape.centre[axis] + sign * shape.half[axis]) * side as f32;
        Prompt {
            frame: 0,
            object,
            bbox: Some([
                corner(0, -1.0),
                corner(1, -1.0),
                corner(0, 1.0),
                corner(1, 1.0),
            ]),
            ..Prompt::default()
        }
    };
    ids.zip(&SHAPES).map(boxed).collect()
}

/// Whether a bundle is small enough that the clip is always tracked, also on a slow processor.
pub fn is_small(manifest: &Manifest) -> bool {
    let encoder = manifest.graph(Role::VisionEncoder);
    let bytes = encoder.map_or(0, |graph| {
        graph.bytes + graph.data.as_ref().map_or(0, |data| data.bytes)
    });
    let tokens = u64::from(manifest.grid).pow(2);
    bytes.saturating_mul(tokens) <= MAX_SMALL
}

/// Tracks all objects through the first `frames` frames, with up to `chunk` objects in a batch.
///
/// # Errors
/// As [`Tracker::step`].
pub fn track(
    spec: ModelSpec,
    backend: Arc<dyn Backend>,
    graphs: Graphs,
    frames: usize,
    chunk: usize,
) -> Result<Logits, TrackError> {
    let (image_side, side) = (spec.resolution, spec.low_size);
    let options = TrackerOptions {
        num_frames: frames,
        chunk,
    };
    let mut tracker = Tracker::from_parts(spec, backend, graphs, options)?;
    let first = prompts(image_side);
    let size = (image_side as u32, image_side as u32);
    let mut values = Vec::with_capacity(frames * OBJECTS * side * side);
    for frame in 0..frames {
        let prompts: &[Prompt] = if frame == 0 { &first } else { &[] };
        let result = tracker.step(frame, image(frame, image_side), size, prompts)?;
        for object in result.objects {
            values.extend_from_slice(object.low_res.values());
        }
    }
    Ok(Logits {
        frames,
        objects: OBJECTS,
        side,
        values,
    })
}

/// Writes logits as a safetensors file: float32 tensors `together` (if it was run) and `alone`, `[frames, objects, side, side]`.
///
/// # Errors
/// The file cannot be written. The text says why.
pub fn write(path: &Path, logits: &ClipLogits) -> Result<(), String> {
    let bytes = |logits: &Logits| -> Vec<u8> {
        let values = logits.values.iter();
        values.flat_map(|value| value.to_le_bytes()).collect()
    };
    let named = logits
        .together
        .iter()
        .map(|logits| (TOGETHER, logits))
        .chain([(ALONE, &logits.alone)]);
    let data: Vec<_> = named
        .map(|(name, logits)| (name, logits, bytes(logits)))
        .collect();
    let wrong = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", path.display());
    let mut views = Vec::new();
    for (name, logits, bytes) in &data {
        let shape = vec![logits.frames, logits.objects, logits.side, logits.side];
        let view = TensorView::new(Dtype::F32, shape, bytes).map_err(|error| wrong(&error))?;
        views.push((*name, view));
    }
    safetensors::serialize_to_file(views, None, path).map_err(|error| wrong(&error))
}

/// Reads a file that [`write()`] wrote.
///
/// # Errors
/// The file cannot be read or lacks a tensor. The text says which.
pub fn read(path: &Path) -> Result<ClipLogits, String> {
    let wrong = |reason: String| format!("{}: {reason}", path.display());
    let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| wrong(format!("is not a safetensors file: {error}")))?;
    let logits = |name: &str| -> Result<Logits, String> {
        let view = file
            .tensor(name)
            .map_err(|_| wrong(format!("has no tensor {name}")))?;
        let (Dtype::F32, &[frames, objects, side, _]) = (view.dtype(), view.shape()) else {
            return Err(wrong(format!(
                "tensor {name} is {:?} {:?}, expected F32 [frames, objects, side, side]",
                view.dtype(),
                view.shape()
            )));
        };
        let (numbers, _) = view.data().as_chunks();
        let values = numbers.iter().map(|&number| f32::from_le_bytes(number));
        Ok(Logits {
            frames,
            objects,
            side,
            values: values.collect(),
        })
    };
    let has_together = file.names().into_iter().any(|name| name == TOGETHER);
    Ok(ClipLogits {
        together: has_together.then(|| logits(TOGETHER)).transpose()?,
        alone: logits(ALONE)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_stay_inside_and_apart_on_every_frame() {
        for frame in 0..FRAMES {
            let masks: Vec<Vec<bool>> = (0..OBJECTS)
                .map(|object| drawn(object, frame, 96))
                .collect();
            for (object, mask) in masks.iter().enumerate() {
                let area = mask.iter().filter(|&&covered| covered).count();
                assert!(area > 96 * 96 / 32, "object {object}: {area} pixels");
                let edge = (0..96).flat_map(|at| [at, at * 96, at * 96 + 95, 95 * 96 + at]);
                assert!(edge.into_iter().all(|index| !mask[index]), "{object}");
            }
            let covered = |index: usize| masks.iter().filter(|mask| mask[index]).count();
            assert!((0..96 * 96).all(|index| covered(index) <= 1));
        }
    }

    #[test]
    fn frames_differ_and_each_box_contains_its_shape() {
        assert_eq!(image(0, 28).len(), 28 * 28 * 3);
        assert_ne!(image(0, 336), image(1, 336));
        assert_eq!(image(2, 336), image(2, 336));
        for (object, prompt) in prompts(336).iter().enumerate() {
            let [x1, y1, x2, y2] = prompt.bbox.unwrap();
            assert_eq!(prompt.object as usize, object + 1);
            let mask = drawn(object, 0, 336);
            for (index, _) in mask.iter().enumerate().filter(|(_, covered)| **covered) {
                let (x, y) = ((index % 336) as f32 + 0.5, (index / 336) as f32 + 0.5);
                assert!(x >= x1 - 0.1 && x <= x2 + 0.1 && y >= y1 - 0.1 && y <= y2 + 0.1);
            }
        }
    }

    #[test]
    fn the_projects_model_is_small_and_sam3_is_not() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tiny = root.join("models/snow-tiny/snow-tiny-336-fp16");
        let mut manifest = crate::bundle::Bundle::peek(&tiny).unwrap();
        assert!(is_small(&manifest));
        manifest.grid = 72;
        let graphs = manifest.graphs.iter_mut();
        for data in graphs.filter_map(|graph| graph.data.as_mut()) {
            data.bytes = 900 << 20;
        }
        assert!(!is_small(&manifest));
    }

    #[test]
    fn written_logits_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.safetensors");
        let logits = |from: f32| Logits {
            frames: 2,
            objects: 1,
            side: 2,
            values: (0..8).map(|value| value as f32 + from).collect(),
        };
        for together in [None, Some(logits(0.5))] {
            let clip = ClipLogits {
                together,
                alone: logits(-3.0),
            };
            write(&path, &clip).unwrap();
            assert_eq!(read(&path).unwrap(), clip);
        }
        std::fs::write(&path, b"none").unwrap();
        assert!(read(&path).unwrap_err().contains("clip.safetensors"));
    }
}
