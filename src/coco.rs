//! `detections.json`: what was found in images, in the layout of COCO's results with its run-length masks.

use serde::{Deserialize, Serialize};

use crate::masks::Rle;

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoFile {
    /// What made it, with which model.
    pub info: CocoInfo,
    /// The images, in the order in which they were given.
    pub images: Vec<CocoImage>,
    /// The texts; a category's id is the text's place, from 1.
    pub categories: Vec<CocoCategory>,
    /// What was found, image by image, the best first.
    pub annotations: Vec<CocoAnnotation>,
}

/// What made the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoInfo {
    /// Program and version.
    pub description: String,
    /// The bundle's folder.
    pub model: String,
    /// SHA-256 of its manifest.
    pub manifest_sha256: String,
    /// Least score.
    pub threshold: f32,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoImage {
    /// Its number, from 0; its mask is `masks/<number>.png`.
    pub id: u64,
    /// As it was given.
    pub file_name: String,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CocoCategory {
    /// From 1.
    pub id: u64,
    /// The text.
    pub name: String,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoAnnotation {
    /// Over all images, from 1.
    pub id: u64,
    /// The image.
    pub image_id: u64,
    /// The text.
    pub category_id: u64,
    /// Its value in the image's index mask, from 1.
    pub mask_index: u32,
    /// The model's box: left, top, width and height in pixels.
    pub bbox: [f32; 4],
    /// Pixels of the mask.
    pub area: u64,
    /// Run lengths of the mask.
    pub segmentation: Rle,
    /// 0 to 1.
    pub score: f32,
    /// Always 0: the mask is of one object.
    pub iscrowd: u8,
}
