//! Prompts as the mask decoder takes them: points with labels.

use super::Prompt;

/// Points of one or more objects.
pub(super) struct Points {
    /// `[objects, points, 2]`: x and y in pixels of the model's image.
    pub(super) coords: Vec<f32>,
    /// `[objects, points]`: 1 on the object, 0 beside it, 2 and 3 the corners of a box, -1 no point.
    pub(super) labels: Vec<i64>,
}

impl Points {
    /// One "no point" for each of `objects` objects, as transformers gives its prompt encoder on frames without a prompt.
    pub(super) fn none(objects: usize) -> Self {
        Self {
            coords: vec![0.0; 2 * objects],
            labels: vec![-1; objects],
        }
    }

    /// The corners of a prompt's box, then its points, scaled from a source frame of width and height `size` to the model's image
    /// of side `side`, as the processor of transformers scales them.
    pub(super) fn of(prompt: &Prompt, size: (u32, u32), side: usize) -> Self {
        let ratio = |length: u32| (side as f64 / f64::from(length)) as f32;
        let (x_ratio, y_ratio) = (ratio(size.0), ratio(size.1));
        let mut coords = Vec::new();
        let mut labels = Vec::new();
        let mut push = |x: f32, y: f32, label: i64| {
            coords.extend([x * x_ratio, y * y_ratio]);
            labels.push(label);
        };
        if let Some([x1, y1, x2, y2]) = prompt.bbox {
            push(x1, y1, 2);
            push(x2, y2, 3);
        }
        for &[x, y, label] in &prompt.points {
            push(x, y, label as i64);
        }
        Self { coords, labels }
    }
}
