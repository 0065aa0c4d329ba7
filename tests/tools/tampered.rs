//! The tracker with one of its inputs falsified, for the parity tests: `tampered BUNDLE CLIP PROMPTS OUT HOW`.
//!
//! A comparison that does not notice these would not notice the same mistake in the tracker. `honest` changes nothing;
//! `image-N` writes the first frame as a model of N px gets it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use safetensors::tensor::{Dtype, TensorView};
use snow_ort::bundle::{Bundle, Role};
use snow_ort::media::{self, resize};
use snow_ort::prompts::Prompts;
use snow_ort::runtime::{Backend, Element, Engine, EngineOptions, Graph, GraphError, Host, Tensor};
use snow_ort::tracker::{FrameResult, Graphs, ModelSpec, Tracker, TrackerOptions};

/// Stands before the memory attention graph and changes what it is given.
struct Tamper {
    inner: Box<dyn Graph>,
    engine: Engine,
    how: String,
    previous: Option<Tensor>,
}

impl Tamper {
    fn shifted(&self, tensor: &Tensor, shift: impl Fn(f32) -> f32) -> Result<Vec<f32>, GraphError> {
        Ok(self
            .engine
            .download(tensor)?
            .into_iter()
            .map(shift)
            .collect())
    }

    fn empty_like(&self, tensor: &Tensor) -> Result<Tensor, GraphError> {
        self.engine
            .empty(tensor.element(), &[tensor.shape()[0], 0, tensor.shape()[2]])
    }

    fn integers(tensor: &Tensor, entries: &[(&str, &Tensor)], rows: usize) -> Vec<i64> {
        // The tracker fills memory slots with conditioning frames first; their row is the last of the table.
        let tokens = entries
            .iter()
            .filter(|(name, _)| name.starts_with("memory_") && *name != "memory_time");
        let filled = tokens.filter(|(_, slot)| slot.shape()[1] > 0).count();
        assert_eq!(filled, tensor.shape()[1]);
        let mut row = vec![6_i64];
        row.extend((0..filled as i64 - 1).rev());
        row.repeat(rows)
    }
}

impl Graph for Tamper {
    fn run(
        &mut self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
    ) -> Result<Vec<Tensor>, GraphError> {
        let mut changed: BTreeMap<String, Tensor> = inputs
            .iter()
            .map(|(name, tensor)| ((*name).to_owned(), (*tensor).clone()))
            .collect();
        let features = changed["features_nlc"].clone();
        match self.how.as_str() {
            "dropped-memory" => {
                let time = &changed["memory_time"];
                let (rows, entries) = (time.shape()[0], time.shape()[1]);
                if entries > 1 {
                    let kept = Self::integers(time, inputs, 1)[..entries - 1].repeat(rows);
                    let empty = self.empty_like(&changed["memory_0"])?;
                    let time = self.engine.upload(&[rows, entries - 1], Host::I64(kept))?;
                    changed.insert(format!("memory_{}", entries - 1), empty);
                    changed.insert("memory_time".to_owned(), time);
                }
            }
            "shifted-memory-time" => {
                let time = &changed["memory_time"];
                let shape = time.shape().to_vec();
                let mut rows = Self::integers(time, inputs, shape[0]);
                rows.iter_mut().for_each(|row| *row = (*row + 1) % 7);
                let time = self.engine.upload(&shape, Host::I64(rows))?;
                changed.insert("memory_time".to_owned(), time);
            }
            "shifted-pointer-time" => {
                let time = &changed["pointer_time"];
                let shape = time.shape().to_vec();
                let data = self.shifted(time, |time| time + 1.0 / 15.0)?;
                let time = self.engine.upload(&shape, Host::F32(data))?;
                changed.insert("pointer_time".to_owned(), time);
            }
            "no-pointers" => {
                for (name, tensor) in &mut changed {
                    if name.starts_with("pointers_") {
                        *tensor = self.empty_like(tensor)?;
                    }
                }
                let time = self
                    .engine
                    .empty(Element::F32, &[changed["pointer_time"].shape()[0], 0])?;
                changed.insert("pointer_time".to_owned(), time);
            }
            "stale-features" => {
                let stale = self.previous.replace(features.clone()).unwrap_or(features);
                changed.insert("features_nlc".to_owned(), stale);
            }
            _ => {}
        }
        let inputs: Vec<(&str, &Tensor)> = changed
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect();
        self.inner.run(&inputs, outputs)
    }
}

fn write(path: &Path, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Result<()> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>>>()?;
    safetensors::serialize_to_file(views, None, path)?;
    Ok(())
}

fn write_frame(folder: &Path, result: &FrameResult) -> Result<()> {
    let bytes = |values: Vec<f32>| {
        values
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    let count = result.objects.len();
    let masks = result
        .objects
        .iter()
        .flat_map(|object| object.low_res.values().iter().copied())
        .collect();
    let scores = result.objects.iter().map(|object| object.score).collect();
    let ids = result
        .objects
        .iter()
        .flat_map(|object| i64::from(object.object).to_le_bytes())
        .collect();
    let tensors = [
        (
            "low_res_masks",
            Dtype::F32,
            vec![count, result.low_size, result.low_size],
            bytes(masks),
        ),
        ("object_score", Dtype::F32, vec![count], bytes(scores)),
        ("object_ids", Dtype::I64, vec![count], ids),
    ];
    write(
        &folder.join(format!("{:05}.safetensors", result.frame)),
        &tensors,
    )
}

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [bundle, clip, prompts, out, how] = arguments.as_slice() else {
        bail!("usage: tampered BUNDLE CLIP PROMPTS OUT HOW");
    };
    let how = how.to_string_lossy().into_owned();
    std::fs::create_dir_all(out)?;
    let mut source = media::open(clip)?;
    if let Some(side) = how.strip_prefix("image-") {
        let side: u32 = side.parse()?;
        let frame = source.next_frame()?.context("the clip has no frame")?;
        let image = resize::resize_frame(&frame, side)?;
        let shape = vec![side as usize, side as usize, 3];
        return write(
            &out.join("image.safetensors"),
            &[("image", Dtype::U8, shape, image)],
        );
    }
    let prompts = Prompts::load(&[], Some(prompts))?.into_frames();
    let bundle = Bundle::open(bundle)?;
    let load = || Engine::load(&EngineOptions::default());
    let graph = |role: Role, name: &str| -> Result<Box<dyn Graph>> {
        let path = bundle.graph_path(role).context("graph is missing")?;
        Ok(load()?.load(name, &path)?)
    };
    let graphs = Graphs {
        vision_encoder: graph(Role::VisionEncoder, "vision_encoder")?,
        memory_attention: Box::new(Tamper {
            inner: graph(Role::MemoryAttention, "memory_attention")?,
            engine: load()?,
            how,
            previous: None,
        }),
        mask_decoder: graph(Role::MaskDecoder, "mask_decoder")?,
        memory_encoder: graph(Role::MemoryEncoder, "memory_encoder")?,
    };
    let num_frames = media::count_frames_up_to(clip, 16)?;
    let spec = ModelSpec::of(&bundle)?;
    let side = spec.resolution as u32;
    let options = TrackerOptions {
        num_frames,
        chunk: 8,
    };
    let mut tracker = Tracker::from_parts(spec, std::sync::Arc::new(load()?), graphs, options)?;
    while let Some(frame) = source.next_frame()? {
        let image = resize::resize_frame(&frame, side)?;
        let prompts = prompts.get(&frame.index).cloned().unwrap_or_default();
        let result = tracker.step(frame.index, image, (frame.width, frame.height), &prompts)?;
        if !result.objects.is_empty() {
            write_frame(out, &result)?;
        }
    }
    Ok(())
}
