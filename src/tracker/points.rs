//! Prompts as the mask decoder takes them: points with labels.

use super::Prompt;

/// "No point" for each object: what the reference gives its prompt encoder on frames without a prompt.
pub(super) fn no_points(objects: usize) -> (Vec<f32>, Vec<i64>) {
    (vec![0.0; 2 * objects], vec![-1; objects])
}

/// A box's corners (labels 2 and 3), then points, scaled to the model's image as the reference's processor does.
pub(super) fn points_of(prompt: &Prompt, size: (u32, u32), side: usize) -> (Vec<f32>, Vec<i64>) {
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
    (coords, labels)
}
