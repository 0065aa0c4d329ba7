//! The form of a proposal graph: its inputs, outputs and image size, read from the file.

use std::path::{Path, PathBuf};

use super::ProposalError;
use super::decode::{BOX, HEAD};
use crate::runtime::{Element, Graph, Port, Signature, ZeroInput};

/// Side of the image of a graph that accepts any size, when neither the user nor the file states one: Ultralytics' default.
const DEFAULT_SIDE: u32 = 640;

/// Sides are multiples of this when the file does not state a stride.
const DEFAULT_STRIDE: u32 = 32;

/// Smallest and largest side of an image, in pixels.
const SIDES: std::ops::RangeInclusive<u32> = 32..=8192;

/// The inputs and outputs that messages say are expected.
const EXPECTED: &str = "an input images of float32 or float16 [1,3,H,W], and outputs output0 [1,4+classes+32,anchors] or [1,detections,6+32] and output1 [1,32,H/4,W/4], as Ultralytics exports FastSAM and YOLO segmentation models (`yolo export model=FastSAM-s.pt format=onnx`)";

/// The size of a graph's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSize {
    /// One size only: width and height in pixels.
    Fixed(u32, u32),
    /// Any size with sides that are multiples of `stride`. The longer side is `side`.
    Any {
        /// Pixels.
        side: u32,
        /// Pixels.
        stride: u32,
    },
}

/// A graph of the form that Ultralytics gives FastSAM and YOLO segmentation models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Name of the input.
    pub input: String,
    /// Its dtype, float32 or float16.
    pub element: Element,
    /// The image.
    pub size: ImageSize,
    /// Name of the output with the detections.
    pub detections: String,
    /// Name of the output with the prototypes of masks.
    pub prototypes: String,
    /// Names of the classes, as the file has them: `{0: 'person', 1: 'car'}`.
    pub names: Option<String>,
}

impl Form {
    /// Reads the form of a graph from the file `path`. `side` is the longer side of the image, in pixels, of a graph that
    /// accepts any size.
    ///
    /// # Errors
    /// [`ProposalError::Form`] for a graph of another form, [`ProposalError::Side`] for a side that it does not accept.
    pub fn of(graph: &dyn Graph, path: &Path, side: Option<u32>) -> Result<Self, ProposalError> {
        let signature = graph.signature().unwrap_or(Signature {
            inputs: Vec::new(),
            outputs: Vec::new(),
        });
        let ports = Ports::of(&signature).map_err(|reason| ProposalError::Form {
            path: path.to_path_buf(),
            reason,
            inputs: listed(&signature.inputs),
            outputs: listed(&signature.outputs),
            expected: EXPECTED,
        })?;
        let size = ports
            .size(graph, side)
            .map_err(|problem| ProposalError::Side {
                path: path.to_path_buf(),
                asked: problem.asked,
                expected: problem.expected,
            })?;
        Ok(Self {
            input: ports.input.name.clone(),
            element: ports.element,
            size,
            detections: ports.detections.name.clone(),
            prototypes: ports.prototypes.name.clone(),
            names: graph.metadata("names"),
        })
    }

    /// Width and height of the largest image that the graph runs on, in pixels.
    pub fn largest(&self) -> (u32, u32) {
        match self.size {
            ImageSize::Fixed(width, height) => (width, height),
            ImageSize::Any { side, .. } => (side, side),
        }
    }

    /// The largest image, all zeros, to measure the graph's memory.
    pub fn largest_input(&self) -> ZeroInput {
        let (width, height) = self.largest();
        ZeroInput {
            name: self.input.clone(),
            element: self.element,
            shape: vec![1, 3, height as usize, width as usize],
        }
    }

    /// The name of a class, if the file has one.
    pub fn class_name(&self, class: u32) -> Option<String> {
        class_name(self.names.as_deref()?, class)
    }
}

/// The input and outputs of a proposal graph among those of a graph.
struct Ports<'a> {
    input: &'a Port,
    element: Element,
    height: Option<usize>,
    width: Option<usize>,
    detections: &'a Port,
    prototypes: &'a Port,
}

/// A side that a graph does not accept.
struct WrongSide {
    asked: u32,
    expected: String,
}

impl<'a> Ports<'a> {
    /// # Errors
    /// The first difference from a proposal graph.
    fn of(signature: &'a Signature) -> Result<Self, String> {
        let input = match signature.inputs.as_slice() {
            [input] => input,
            inputs => return Err(format!("it has {} inputs", inputs.len())),
        };
        let name = &input.name;
        let element = match input.element {
            Some(element @ (Element::F32 | Element::F16)) => element,
            _ => return Err(format!("its input {name} is not float32 or float16")),
        };
        let [batch, channels, height, width] = *input.shape.as_slice() else {
            return Err(format!("its input {name} has {} axes", input.shape.len()));
        };
        if batch.is_some_and(|batch| batch != 1) || channels.is_some_and(|count| count != 3) {
            return Err(format!("its input {name} is not one RGB image"));
        }
        let detections = output(signature, "output0", 3)?;
        let prototypes = output(signature, "output1", 4)?;
        check_outputs(detections, prototypes)?;
        Ok(Self {
            input,
            element,
            height,
            width,
            detections,
            prototypes,
        })
    }

    /// The image's size: the graph's own, or the side that is asked for, stated by the file, or the default.
    fn size(&self, graph: &dyn Graph, side: Option<u32>) -> Result<ImageSize, WrongSide> {
        let pixels = |length: usize| u32::try_from(length).ok();
        let fixed = (self.width.and_then(pixels), self.height.and_then(pixels));
        if let (Some(width), Some(height)) = fixed {
            return match side.filter(|side| *side != width.max(height)) {
                None => Ok(ImageSize::Fixed(width, height)),
                Some(asked) => Err(WrongSide {
                    asked,
                    expected: format!(
                        "the graph accepts images of {width}x{height} only; use that size, or export it with dynamic=True"
                    ),
                }),
            };
        }
        let stride = number(graph, "stride").unwrap_or(DEFAULT_STRIDE);
        let stride = stride.clamp(1, 1024);
        let side = side
            .or_else(|| number(graph, "imgsz"))
            .unwrap_or(DEFAULT_SIDE);
        if SIDES.contains(&side) && side.is_multiple_of(stride) {
            return Ok(ImageSize::Any { side, stride });
        }
        let (min, max) = (*SIDES.start(), *SIDES.end());
        Err(WrongSide {
            asked: side,
            expected: format!(
                "a multiple of {stride} from {min} to {max}, such as {}",
                side.clamp(min, max).next_multiple_of(stride)
            ),
        })
    }
}

/// The output called `name`, or the only one with as many axes.
fn output<'a>(signature: &'a Signature, name: &str, axes: usize) -> Result<&'a Port, String> {
    let is_float = |port: &Port| matches!(port.element, Some(Element::F32 | Element::F16));
    let mut fit = signature
        .outputs
        .iter()
        .filter(|port| port.shape.len() == axes && is_float(port));
    let named = fit.clone().find(|port| port.name == name);
    match (named, fit.next(), fit.next()) {
        (Some(port), ..) | (None, Some(port), None) => Ok(port),
        _ => Err(format!("it has no output {name} of {axes} axes")),
    }
}

/// A number of the file's metadata: one such as `640`, or the greatest of a list such as `[480, 640]`.
fn number(graph: &dyn Graph, key: &str) -> Option<u32> {
    let text = graph.metadata(key)?;
    let numbers = text.trim_matches(['[', ']', '(', ')']).split(',');
    numbers
        .map(|number| number.trim().parse::<u32>().ok())
        .collect::<Option<Vec<u32>>>()?
        .into_iter()
        .max()
}

/// Checks that the known lengths can be those of detections and their prototypes.
fn check_outputs(detections: &Port, prototypes: &Port) -> Result<(), String> {
    let (first, second) = (&detections.shape, &prototypes.shape);
    if first[0].or(second[0]).is_some_and(|batch| batch != 1) {
        return Err("it runs on several images at once".to_owned());
    }
    let Some(count) = second[1] else {
        return Ok(());
    };
    let end_to_end = first[2].is_none_or(|values| values == HEAD + count);
    let anchors = first[1].is_none_or(|values| values > BOX + count);
    if end_to_end || anchors {
        return Ok(());
    }
    Err(format!(
        "{} has neither {BOX} + classes + {count} rows nor rows of {HEAD} + {count} values for the {count} prototypes of {}",
        detections.name, prototypes.name
    ))
}

/// Ports as text: `images float32 [1,3,?,?]`, separated by commas.
fn listed(ports: &[Port]) -> String {
    if ports.is_empty() {
        return "none".to_owned();
    }
    let port = |port: &Port| {
        let shape: Vec<String> = port
            .shape
            .iter()
            .map(|length| length.map_or("?".to_owned(), |length| length.to_string()))
            .collect();
        let element = match port.element {
            Some(element) => format!("{element:?}").to_lowercase(),
            None => "of another type".to_owned(),
        };
        format!("{} {element} [{}]", port.name, shape.join(","))
    };
    ports.iter().map(port).collect::<Vec<_>>().join(", ")
}

/// The name of `class` in `{0: 'person', 1: "driver's seat"}`, which is how Python writes a dictionary.
fn class_name(names: &str, class: u32) -> Option<String> {
    let mut rest = names.trim().strip_prefix('{')?;
    loop {
        let (key, after) = rest.split_once(':')?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| ['\'', '"'].contains(c))?;
        let mut name = String::new();
        let mut characters = after.char_indices().skip(1);
        let end = loop {
            match characters.next()? {
                (_, '\\') => name.push(characters.next()?.1),
                (at, c) if c == quote => break at,
                (_, c) => name.push(c),
            }
        };
        if key.trim().parse() == Ok(class) {
            return Some(name);
        }
        rest = after[end + 1..].trim_start().strip_prefix(',')?;
    }
}

/// SHA-256 of the file `path`, in hexadecimal digits.
///
/// # Errors
/// [`ProposalError::Read`].
pub fn digest(path: &Path) -> Result<String, ProposalError> {
    let failed = |source| ProposalError::Read {
        path: PathBuf::from(path),
        source,
    };
    let bytes = std::fs::read(path).map_err(failed)?;
    Ok(crate::bundle::hex_digest(&bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::runtime::{GraphError, Tensor};

    /// A graph with a signature and metadata that does not run.
    struct Said {
        signature: Signature,
        metadata: BTreeMap<&'static str, &'static str>,
    }

    impl Graph for Said {
        fn signature(&self) -> Option<Signature> {
            Some(self.signature.clone())
        }

        fn metadata(&self, key: &str) -> Option<String> {
            self.metadata.get(key).map(|text| (*text).to_owned())
        }

        fn run(&mut self, _: &[(&str, &Tensor)], _: &[&str]) -> Result<Vec<Tensor>, GraphError> {
            Ok(Vec::new())
        }
    }

    /// 0 is an axis of any length.
    fn port(name: &str, shape: &[usize]) -> Port {
        Port {
            name: name.to_owned(),
            element: Some(Element::F32),
            shape: shape.iter().map(|l| (*l > 0).then_some(*l)).collect(),
        }
    }

    fn said(input: &[usize], outputs: &[(&str, &[usize])]) -> Said {
        Said {
            signature: Signature {
                inputs: vec![port("images", input)],
                outputs: outputs.iter().map(|(n, shape)| port(n, shape)).collect(),
            },
            metadata: BTreeMap::new(),
        }
    }

    const OUTPUTS: [(&str, &[usize]); 2] =
        [("output0", &[1, 37, 8400]), ("output1", &[1, 32, 160, 160])];

    fn form(graph: &Said, side: Option<u32>) -> Result<Form, String> {
        Form::of(graph, Path::new("a.onnx"), side).map_err(|error| error.to_string())
    }

    #[test]
    fn a_graph_of_one_size_accepts_no_other() {
        let graph = said(&[1, 3, 480, 640], &OUTPUTS);
        let found = form(&graph, None).unwrap();
        assert_eq!(found.size, ImageSize::Fixed(640, 480));
        assert_eq!(found.largest_input().shape, [1, 3, 480, 640]);
        assert_eq!(form(&graph, Some(640)).unwrap(), found);
        let wrong = form(&graph, Some(320)).unwrap_err();
        assert!(wrong.contains("images of 640x480 only"), "{wrong}");
    }

    #[test]
    fn a_graph_of_any_size_has_the_side_that_is_asked_for_or_stated_in_the_file() {
        let mut graph = said(
            &[0, 3, 0, 0],
            &[("output0", &[0, 37, 0]), ("output1", &[0, 32, 0, 0])],
        );
        let side = |graph: &Said, asked| form(graph, asked).map(|form| form.largest().0);
        assert_eq!(side(&graph, None), Ok(640));
        assert_eq!(side(&graph, Some(1024)), Ok(1024));
        graph.metadata.insert("imgsz", "[736, 1024]");
        graph.metadata.insert("stride", "64");
        assert_eq!(side(&graph, Some(640)), Ok(640));
        let wrong = side(&graph, Some(100)).unwrap_err();
        assert!(
            wrong.contains("a multiple of 64") && wrong.contains("such as 128"),
            "{wrong}"
        );
        graph.metadata.insert("stride", "32");
        assert_eq!(side(&graph, None), Ok(1024));
    }

    #[test]
    fn outputs_are_found_by_name_or_by_their_axes() {
        let other = [("masks", &[1, 32, 160, 160][..]), ("boxes", &[1, 300, 38])];
        let found = form(&said(&[1, 3, 640, 640], &other), None).unwrap();
        assert_eq!(
            (found.detections.as_str(), found.prototypes.as_str()),
            ("boxes", "masks")
        );
        let more = [OUTPUTS[1], ("extra", &[1, 144, 80, 80][..]), OUTPUTS[0]];
        let found = form(&said(&[1, 3, 640, 640], &more), None).unwrap();
        assert_eq!(found.prototypes, "output1");
    }

    #[test]
    fn another_graph_is_refused_with_what_it_has() {
        let image: &[usize] = &[1, 3, 640, 640];
        let refused = |input: &[usize], outputs: &[(&str, &[usize])], words: &[&str]| {
            let message = form(&said(input, outputs), None).unwrap_err();
            for word in [words, &["a.onnx", "4+classes+32", "yolo export"]].concat() {
                assert!(message.contains(word), "{word:?} is not in {message}");
            }
        };
        // A detector without masks.
        refused(
            image,
            &[("output0", &[1, 84, 8400])],
            &["no output output1 of 4 axes", "output0 f32 [1,84,8400]"],
        );
        // A classifier.
        refused(image, &[("logits", &[1, 1000])], &["logits f32 [1,1000]"]);
        refused(
            &[1, 640, 640, 0],
            &OUTPUTS,
            &["not one RGB image", "images f32 [1,640,640,?]"],
        );
        refused(&[8, 3, 640, 640], &OUTPUTS, &["not one RGB image"]);
        refused(&[1, 3, 640], &OUTPUTS, &["has 3 axes"]);
        refused(
            image,
            &[("output0", &[1, 36, 8400]), OUTPUTS[1]],
            &["neither 4 + classes + 32 rows"],
        );
    }

    #[test]
    fn class_names_are_read_from_a_dictionary_of_python() {
        let names = r#"{0: 'person', 1: "driver's: seat", 12: 'it\'s', 3: 'a, b'}"#;
        let name = |class| class_name(names, class);
        assert_eq!(name(0).as_deref(), Some("person"));
        assert_eq!(name(1).as_deref(), Some("driver's: seat"));
        assert_eq!(name(12).as_deref(), Some("it's"));
        assert_eq!(name(3).as_deref(), Some("a, b"));
        assert_eq!(name(2), None);
        assert_eq!(class_name("['person']", 0), None);
    }
}
