//! Prompts from a JSON file.

use std::path::{Path, PathBuf};

use super::json::{Json, not_a_number};
use super::{
    Piece, PromptError, Prompts, Shape, check_object, mask_of_object, read_mask, valid_box,
    valid_point,
};
use crate::words::counted;

const FIELDS: [&str; 5] = ["frame", "object", "box", "points", "mask"];

impl Prompts {
    pub(super) fn add_file(&mut self, file: &Path) -> Result<(), PromptError> {
        let text = std::fs::read(file).map_err(|source| PromptError::Read {
            file: file.to_path_buf(),
            source,
        })?;
        // Some editors put a byte-order mark before the text.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let invalid = |reason: String| PromptError::Json {
            file: file.to_path_buf(),
            reason,
        };
        let value = serde_json::from_slice(text).map_err(|error| {
            match not_a_number(text) {
                Some((entry, word)) => PromptError::Invalid {
                    origin: format!("{}: entry {entry}", file.display()),
                    reason: format!(
                        "{word} is not a number that a box or point can have, expected pixels of the source frame ({error})"
                    ),
                },
                None => invalid(error.to_string()),
            }
        })?;
        let entries = match value {
            Json::List(entries) if entries.is_empty() => {
                return Err(invalid("the list is empty".into()));
            }
            Json::List(entries) => entries,
            other => return Err(invalid(format!("got {}", other.kind()))),
        };
        for (index, value) in entries.into_iter().enumerate() {
            self.add_entry(file, index + 1, value)?;
        }
        Ok(())
    }

    fn add_entry(&mut self, file: &Path, number: usize, value: Json) -> Result<(), PromptError> {
        let fields = match value {
            Json::Object(fields) => fields,
            other => {
                return Err(PromptError::Invalid {
                    origin: format!("{}: entry {number}", file.display()),
                    reason: format!(
                        "got {}, expected an object such as {{\"frame\": 0, \"object\": 1, \"box\": [10, 20, 110, 220]}}",
                        other.kind()
                    ),
                });
            }
        };
        let field = |name: &str| {
            let value = fields.iter().find(|(found, _)| found == name);
            value.map(|(_, value)| value)
        };
        // The frame and object are named even when another field makes the entry unreadable.
        let named = |name: &str| match field(name) {
            Some(value @ (Json::Whole(_) | Json::Number(_))) => value.shown(),
            _ => "?".to_owned(),
        };
        let origin = format!(
            "{}: entry {number} (frame {}, object {})",
            file.display(),
            named("frame"),
            named("object")
        );
        let invalid = |reason: String| PromptError::Invalid {
            origin: origin.clone(),
            reason,
        };

        for (index, (name, _)) in fields.iter().enumerate() {
            if !FIELDS.contains(&name.as_str()) {
                return Err(invalid(format!(
                    "unknown field `{name}`, expected frame, object, box, points or mask"
                )));
            }
            if fields[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(invalid(format!(
                    "field `{name}` stands there twice, expected once; give two entries"
                )));
            }
        }
        let whole = |name: &str, expected: &str| match field(name) {
            Some(Json::Whole(number)) => Ok(*number),
            Some(other) => Err(invalid(format!(
                "{name} is {}, expected {expected}",
                other.shown()
            ))),
            None => Err(invalid(format!(
                "missing field `{name}`, expected {expected}"
            ))),
        };
        let frame = whole("frame", "a whole number, 0 or more")?;
        let frame = usize::try_from(frame)
            .map_err(|_| invalid(format!("frame is {frame}, expected 0 or more")))?;
        let object =
            check_object(whole("object", "a whole number, 1 or more")?).map_err(invalid)?;

        // Null is what programs write for a field without a value.
        let given = |name: &str| field(name).filter(|value| !matches!(value, Json::Null));
        let mut shapes = Vec::new();
        if let Some(value) = given("box") {
            shapes.push(Shape::Box(read_box(value).map_err(invalid)?));
        }
        if let Some(value) = given("points") {
            shapes.push(Shape::Points(read_points(value).map_err(invalid)?));
        }
        if let Some(value) = given("mask") {
            let Json::Text(mask) = value else {
                return Err(invalid(format!(
                    "mask is {}, expected the name of a PNG file",
                    value.shown()
                )));
            };
            let path: PathBuf = file.parent().unwrap_or(Path::new("")).join(mask);
            let image = read_mask(&origin, &path)?;
            let mask = mask_of_object(&image, object)
                .map_err(|reason| invalid(format!("{}: {reason}", path.display())))?;
            shapes.push(Shape::Mask { file: path, mask });
        }
        if shapes.is_empty() {
            return Err(invalid(
                "it says nothing of the object: give box, points or mask".into(),
            ));
        }
        self.pieces.extend(shapes.into_iter().map(|shape| Piece {
            origin: origin.clone(),
            frame,
            object,
            shape,
        }));
        Ok(())
    }
}

fn read_box(value: &Json) -> Result<[f32; 4], String> {
    const EXPECTED: &str = "expected 4: [x1, y1, x2, y2]";
    let Json::List(items) = value else {
        return Err(format!(
            "box is {}, expected 4 numbers: [x1, y1, x2, y2]",
            value.shown()
        ));
    };
    let numbers = finite(items, "box")?;
    match *numbers.as_slice() {
        [x1, y1, x2, y2] => valid_box([x1, y1, x2, y2]),
        _ => Err(format!(
            "box has {}, {EXPECTED}",
            counted(numbers.len() as u64, "number")
        )),
    }
}

fn read_points(value: &Json) -> Result<Vec<[f32; 3]>, String> {
    const EXPECTED: &str = "expected a list of points: [[x, y], [x, y, label], …]";
    let Json::List(points) = value else {
        return Err(format!("points is {}, {EXPECTED}", value.shown()));
    };
    if points.is_empty() {
        return Err("points is an empty list".into());
    }
    points
        .iter()
        .map(|point| match point {
            Json::List(items) => valid_point(&finite(items, "points")?),
            other => Err(format!("points holds {}, {EXPECTED}", other.shown())),
        })
        .collect()
}

/// JSON has no NaN or infinity; programs write null, or a number past the range, in their place.
fn finite(items: &[Json], field: &str) -> Result<Vec<f32>, String> {
    items
        .iter()
        .map(|item| match item {
            Json::Whole(number) => Ok(*number as f32),
            Json::Number(number) if (*number as f32).is_finite() => Ok(*number as f32),
            Json::Number(number) => Err(format!("{field} holds {number}, expected pixels")),
            Json::Null => Err(format!("{field} holds null (NaN?), expected numbers")),
            other => Err(format!("{field} holds {}, expected numbers", other.kind())),
        })
        .collect()
}
