//! Prompts from a JSON file.

use std::path::{Path, PathBuf};

use super::entry::{PromptEntry, PromptShape, check_object, valid_box, valid_point};
use super::json::{Json, not_a_number};
use super::mask::{mask_of_object, read_mask};
use super::{PromptError, PromptProblem};
use crate::words::counted;

const FIELDS: [&str; 5] = ["frame", "object", "box", "points", "mask"];

/// The entries of a JSON file: a list of objects with `frame`, `object` and any of `box`, `points` and `mask`. Mask files
/// are relative to the file's folder.
///
/// # Errors
/// A file that cannot be read or is not such a list, or the first wrong entry.
pub(super) fn read_file(file: &Path) -> Result<Vec<PromptEntry>, PromptError> {
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
    let value = serde_json::from_slice(text).map_err(|error| match not_a_number(text) {
        Some((entry, word)) => PromptProblem::Malformed(format!(
            "{word} is not a number that a box or point can have, expected pixels of the source frame ({error})"
        ))
        .at(format!("{}: entry {entry}", file.display())),
        None => invalid(error.to_string()),
    })?;
    let values = match value {
        Json::List(values) if values.is_empty() => {
            return Err(invalid("the list is empty".into()));
        }
        Json::List(values) => values,
        other => return Err(invalid(format!("got {}", other.kind()))),
    };
    let mut entries = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        entries.extend(read_entry(file, index + 1, value)?);
    }
    Ok(entries)
}

/// The entries of one JSON object, the `number`th of the file from 1: one each for its box, its points and its mask.
fn read_entry(file: &Path, number: usize, value: Json) -> Result<Vec<PromptEntry>, PromptError> {
    let fields = match value {
        Json::Object(fields) => Fields(fields),
        other => {
            let problem = PromptProblem::Malformed(format!(
                "got {}, expected an object such as {{\"frame\": 0, \"object\": 1, \"box\": [10, 20, 110, 220]}}",
                other.kind()
            ));
            return Err(problem.at(format!("{}: entry {number}", file.display())));
        }
    };
    let origin = format!(
        "{}: entry {number} (frame {}, object {})",
        file.display(),
        fields.shown("frame"),
        fields.shown("object")
    );
    let invalid = |problem: PromptProblem| problem.at(&origin);
    fields.check_names().map_err(invalid)?;
    let frame = fields
        .whole("frame", "a whole number, 0 or more")
        .map_err(invalid)?;
    let frame = usize::try_from(frame).map_err(|_| {
        invalid(PromptProblem::Malformed(format!(
            "frame is {frame}, expected 0 or more"
        )))
    })?;
    let object = fields
        .whole("object", "a whole number, 1 or more")
        .and_then(check_object)
        .map_err(invalid)?;

    let mut shapes = Vec::new();
    if let Some(value) = fields.given("box") {
        shapes.push(PromptShape::Box(read_box(value).map_err(invalid)?));
    }
    if let Some(value) = fields.given("points") {
        shapes.push(PromptShape::Points(read_points(value).map_err(invalid)?));
    }
    if let Some(value) = fields.given("mask") {
        let Json::Text(mask) = value else {
            return Err(invalid(PromptProblem::Malformed(format!(
                "mask is {}, expected the name of a PNG file",
                value.shown()
            ))));
        };
        let path: PathBuf = file.parent().unwrap_or(Path::new("")).join(mask);
        let image = read_mask(&origin, &path)?;
        let mask = mask_of_object(&image, object)
            .map_err(|problem| problem.at(format!("{origin}: {}", path.display())))?;
        shapes.push(PromptShape::Mask {
            file: Some(path),
            mask,
        });
    }
    if shapes.is_empty() {
        return Err(invalid(PromptProblem::NoShape));
    }
    let entries = shapes.into_iter().map(|shape| PromptEntry {
        origin: origin.clone(),
        frame,
        object,
        shape,
    });
    Ok(entries.collect())
}

/// The fields of one JSON object, in their order, repeated ones included.
struct Fields(Vec<(String, Json)>);

impl Fields {
    fn get(&self, name: &str) -> Option<&Json> {
        let field = self.0.iter().find(|(found, _)| found == name);
        field.map(|(_, value)| value)
    }

    /// The field's value; null is what programs write for a field without one.
    fn given(&self, name: &str) -> Option<&Json> {
        self.get(name).filter(|value| !matches!(value, Json::Null))
    }

    /// The field's number for an error's origin, which names the frame and object even if another field is wrong.
    fn shown(&self, name: &str) -> String {
        match self.get(name) {
            Some(value @ (Json::Whole(_) | Json::Number(_))) => value.shown(),
            _ => "?".to_owned(),
        }
    }

    fn whole(&self, name: &str, expected: &str) -> Result<i64, PromptProblem> {
        let reason = match self.get(name) {
            Some(Json::Whole(number)) => return Ok(*number),
            Some(other) => format!("{name} is {}, expected {expected}", other.shown()),
            None => format!("missing field `{name}`, expected {expected}"),
        };
        Err(PromptProblem::Malformed(reason))
    }

    fn check_names(&self) -> Result<(), PromptProblem> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !FIELDS.contains(&name.as_str()) {
                return Err(PromptProblem::Malformed(format!(
                    "unknown field `{name}`, expected frame, object, box, points or mask"
                )));
            }
            if self.0[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(PromptProblem::Malformed(format!(
                    "field `{name}` is given twice, expected once; write two entries"
                )));
            }
        }
        Ok(())
    }
}

fn read_box(value: &Json) -> Result<[f32; 4], PromptProblem> {
    let Json::List(items) = value else {
        return Err(PromptProblem::Malformed(format!(
            "box is {}, expected 4 numbers: [x1, y1, x2, y2]",
            value.shown()
        )));
    };
    match finite(items, "box")?[..] {
        [x1, y1, x2, y2] => valid_box([x1, y1, x2, y2]),
        ref numbers => Err(PromptProblem::Malformed(format!(
            "box has {}, expected 4: [x1, y1, x2, y2]",
            counted(numbers.len() as u64, "number")
        ))),
    }
}

fn read_points(value: &Json) -> Result<Vec<[f32; 3]>, PromptProblem> {
    const EXPECTED: &str = "expected a list of points: [[x, y], [x, y, label], …]";
    let malformed = PromptProblem::Malformed;
    let Json::List(points) = value else {
        return Err(malformed(format!(
            "points is {}, {EXPECTED}",
            value.shown()
        )));
    };
    if points.is_empty() {
        return Err(malformed("points is an empty list".into()));
    }
    points
        .iter()
        .map(|point| match point {
            Json::List(items) => read_point(items),
            other => Err(malformed(format!(
                "points holds {}, {EXPECTED}",
                other.shown()
            ))),
        })
        .collect()
}

fn read_point(items: &[Json]) -> Result<[f32; 3], PromptProblem> {
    match finite(items, "points")?[..] {
        [x, y] => Ok([x, y, 1.0]),
        [x, y, label] => valid_point([x, y, label]),
        ref numbers => Err(PromptProblem::Malformed(format!(
            "a point has {}, expected [x, y] or [x, y, label]",
            counted(numbers.len() as u64, "number")
        ))),
    }
}

/// JSON has no NaN or infinity; programs write null, or a number past the range, in their place.
fn finite(items: &[Json], field: &str) -> Result<Vec<f32>, PromptProblem> {
    let numbers = items.iter().map(|item| match item {
        Json::Whole(number) => Ok(*number as f32),
        Json::Number(number) if (*number as f32).is_finite() => Ok(*number as f32),
        Json::Number(number) => Err(format!("{field} holds {number}, expected pixels")),
        Json::Null => Err(format!("{field} holds null (NaN?), expected numbers")),
        other => Err(format!("{field} holds {}, expected numbers", other.kind())),
    });
    numbers
        .collect::<Result<_, _>>()
        .map_err(PromptProblem::Malformed)
}
