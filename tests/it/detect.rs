//! `snow-ort detect` where it cannot find anything; what it finds is compared with the reference in tests/parity.

use crate::fake::{Desk, Ran};

#[track_caller]
fn refused(args: &[&str], words: &[&str]) {
    let desk = Desk::with_images(2, 40, 30);
    let mut command = desk.command();
    command.arg("detect").args(args);
    command.arg("--model").arg(&desk.bundle.dir);
    let ran: Ran = command.output().unwrap().into();
    ran.refuses(words);
    assert!(!desk.path("out").exists(), "something was kept");
}

#[test]
fn what_to_find_has_to_be_said() {
    refused(&["in"], &["nothing to detect", "--text", "--box"]);
}

#[test]
fn a_bundle_without_a_detector_says_how_to_get_one() {
    let command = "snow-export some/checkpoint --res 28 --precision fp32 --parts tracker,detector";
    refused(
        &["in", "--text", "bear"],
        &["fake has no detector", command],
    );
}

#[test]
fn example_boxes_belong_to_one_image() {
    refused(
        &["in", "--box", "1,1,5,5"],
        &["a box stands in one image", "2"],
    );
}

#[test]
fn wrong_boxes_are_refused() {
    for (text, words) in [
        ("1,2,3", "expected x1,y1,x2,y2"),
        ("1,2,3,4,2", "label 2, expected 1"),
        ("5,1,1,5", "inverted"),
        ("1,1,x,5", "not a number"),
    ] {
        refused(
            &["in", "--text", "bear", "--box", text],
            &[&format!("--box {text}"), words],
        );
    }
}

#[test]
fn a_missing_image_is_named() {
    refused(&["nowhere.png", "--text", "bear"], &["nowhere.png"]);
}
