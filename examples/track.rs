//! Tracks the objects of a prompts file through a clip and prints where each is, frame by frame.
//!
//!     cargo run --release --example track -- demo/clip.mp4 models/snow-tiny/snow-tiny-336-fp16 demo/prompts.json

#![expect(clippy::print_stdout, reason = "it shows results")]

use std::path::PathBuf;

use snow_ort::{Config, FrameResult, Objects, Observer, Prompts, Stop};

/// Prints each frame's objects. A result has logits at the size of the model; the mask is where they are above 0.
struct Print {
    frame_size: (u32, u32),
}

impl Observer for Print {
    fn frame(&mut self, result: &FrameResult) {
        let (width, height) = self.frame_size;
        for object in &result.objects {
            let mask = object.mask(0.0, width, height);
            match mask.bounding_box() {
                Some([x, y, w, h]) => println!(
                    "frame {} object {}: {} pixels in {w}x{h} at {x},{y}",
                    result.frame,
                    object.object,
                    mask.area()
                ),
                None => println!(
                    "frame {} object {}: not visible",
                    result.frame, object.object
                ),
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [clip, bundle, prompts] = arguments.as_slice() else {
        return Err("usage: track CLIP BUNDLE PROMPTS.json".into());
    };
    let prompts = Prompts::load(&[], Some(prompts))?;
    let session = snow_ort::open(Config::new(clip, bundle, Objects::Prompts(prompts)))?;
    let mut print = Print {
        frame_size: session.frame_size(),
    };
    let finished = session.run(&Stop::default(), &mut print)?;
    println!("{} frames", finished.report.frames);
    Ok(())
}
