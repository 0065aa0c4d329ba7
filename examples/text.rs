//! Detects and tracks every object that some texts mean, writes masks, and prints which objects belong to which text.
//!
//!     cargo run --release --example text -- demo/text/clip.mp4 models/snow-tiny/snow-tiny-336-fp16 out/stars 'blue star'

#![expect(clippy::print_stdout, reason = "it shows results")]

use snow_ort::{Config, Objects, OutputConfig, Stop, TextConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [clip, bundle, out, texts @ ..] = arguments.as_slice() else {
        return Err("usage: text CLIP BUNDLE OUT TEXT...".into());
    };
    let objects = Objects::Texts(TextConfig::new(texts.iter().cloned()));
    let config = Config {
        outputs: Some(OutputConfig {
            overwrite: true,
            ..OutputConfig::new(out)
        }),
        ..Config::new(clip, bundle, objects)
    };
    let finished = snow_ort::open(config)?.run(&Stop::default(), &mut ())?;
    for text in &finished.report.texts {
        let objects: Vec<u32> = text.objects.iter().map(|found| found.object).collect();
        println!("{:?}: objects {objects:?}", text.text);
    }
    println!("masks in {out}/masks");
    Ok(())
}
