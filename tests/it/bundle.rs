//! Bundles that can be run, and every way in which one cannot.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};
use snow_ort::bundle::{Bundle, Role};

use crate::fake::{Desk, FakeBundle, graph, sha256, tensor};

#[track_caller]
fn refused(dir: &Path, words: &[&str]) {
    let error = Bundle::open(dir).expect_err("the bundle was accepted");
    let error = chain(&error);
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

/// The error with its causes, as the program prints it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[track_caller]
fn refused_after(change: impl FnOnce(&mut Value), words: &[&str]) {
    let mut bundle = FakeBundle::new();
    bundle.change(change);
    refused(&bundle.dir, words);
}

#[test]
fn weights_that_the_manifest_does_not_list_are_refused() {
    let bundle = FakeBundle::new();
    std::fs::write(bundle.dir.join("mask_decoder.onnx.data"), b"weights").unwrap();
    refused(&bundle.dir, &["mask_decoder.onnx.data", "not listed"]);
}

#[test]
fn a_whole_bundle_opens() {
    let bundle = FakeBundle::new();
    let opened = Bundle::open(&bundle.dir).unwrap();
    assert_eq!(opened.manifest().resolution, 28);
    assert_eq!(opened.dir(), bundle.dir);
    let path = opened.graph_path(Role::MaskDecoder).unwrap();
    assert_eq!(path, bundle.dir.join("mask_decoder.onnx"));
    assert_eq!(opened.graph_path(Role::Detector), None);
    let manifest = std::fs::read(bundle.dir.join("manifest.json")).unwrap();
    assert_eq!(opened.manifest_sha256(), sha256(&manifest));
}

#[test]
fn unknown_fields_are_ignored() {
    let mut bundle = FakeBundle::new();
    bundle.change(|m| {
        m["later"] = json!({"a": 1});
        m["policy"]["later"] = json!(1);
    });
    Bundle::open(&bundle.dir).unwrap();
}

#[test]
fn a_folder_without_a_manifest_is_no_bundle() {
    let root = tempfile::tempdir().unwrap();
    refused(
        &root.path().join("absent"),
        &["absent", "no such folder", "snow-export"],
    );
    refused(root.path(), &["no manifest.json", "snow-export"]);
    let file = root.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(&file, &["file is not a bundle", "not a folder"]);
}

#[test]
fn a_manifest_that_is_not_json_is_refused() {
    let bundle = FakeBundle::new();
    std::fs::write(bundle.dir.join("manifest.json"), "{\"schema_version\": 1,").unwrap();
    refused(&bundle.dir, &["manifest.json", "line 1"]);
}

#[test]
fn a_missing_field_is_named() {
    refused_after(
        |m| drop(m.as_object_mut().unwrap().remove("grid")),
        &["manifest.json", "grid"],
    );
    refused_after(
        |m| drop(m["policy"].as_object_mut().unwrap().remove("num_maskmem")),
        &["manifest.json", "num_maskmem"],
    );
    refused_after(
        |m| drop(m.as_object_mut().unwrap().remove("schema_version")),
        &["manifest.json", "schema_version"],
    );
}

#[test]
fn another_schema_version_is_refused_with_a_way_out() {
    for version in [
        json!(2),
        json!(0),
        json!(-1),
        json!("1"),
        json!(99_999_999_999u64),
    ] {
        let shown = version.to_string();
        let words = [
            "manifest.json",
            "schema version",
            &shown,
            "reads version 1",
            "snow-export some/checkpoint",
        ];
        refused_after(|m| m["schema_version"] = version.clone(), &words);
    }
    refused_after(|m| m["schema_version"] = json!(2), &["update snow-ort"]);
}

#[test]
fn a_later_version_is_named_even_when_its_layout_differs() {
    let bundle = FakeBundle::new();
    std::fs::write(bundle.dir.join("manifest.json"), "{\"schema_version\": 7}").unwrap();
    refused(
        &bundle.dir,
        &["schema version 7", "reads version 1", "export"],
    );
}

#[test]
fn missing_truncated_and_altered_files_are_refused() {
    for file in [
        "mask_decoder.onnx",
        "vision_encoder.onnx.data",
        "golden/rollout.safetensors",
    ] {
        let bundle = FakeBundle::new();
        let path = bundle.dir.join(file);
        let content = std::fs::read(&path).unwrap();

        let mut altered = content.clone();
        altered[3] ^= 1;
        std::fs::write(&path, &altered).unwrap();
        let (expected, found) = (sha256(&content), sha256(&altered));
        refused(
            &bundle.dir,
            &[file, "was changed", &expected, &found, "snow-export"],
        );

        std::fs::write(&path, &content[..5]).unwrap();
        let expected = format!("expected {}", content.len());
        refused(
            &bundle.dir,
            &[file, "5 bytes", &expected, "truncated", "snow-export"],
        );

        std::fs::remove_file(&path).unwrap();
        refused(
            &bundle.dir,
            &[
                file,
                "is missing",
                &content.len().to_string(),
                "snow-export",
            ],
        );
    }
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let absolute = outside.path().to_str().unwrap().to_owned();
    refused_after(
        |m| graph(m, "mask_decoder")["file"] = json!(absolute),
        &[
            "manifest.json",
            "graphs[mask_decoder].file",
            &absolute,
            "absolute",
        ],
    );
    refused_after(
        |m| graph(m, "vision_encoder")["data"]["file"] = json!("../fake/vision_encoder.onnx.data"),
        &["graphs[vision_encoder].data.file", "../fake", "`..`"],
    );
    refused_after(
        |m| m["golden"][0]["file"] = json!(""),
        &["golden[0].file", "empty"],
    );
    refused_after(
        |m| m["golden"][0]["file"] = json!("golden"),
        &["golden[0].file", "not a file"],
    );

    let bundle = FakeBundle::new();
    let path = bundle.dir.join("mask_decoder.onnx");
    std::fs::copy(&path, outside.path()).unwrap();
    std::fs::remove_file(&path).unwrap();
    symlink(outside.path(), &path).unwrap();
    refused(
        &bundle.dir,
        &[
            "graphs[mask_decoder].file",
            "mask_decoder.onnx",
            "symbolic link",
        ],
    );
}

#[test]
fn a_link_inside_of_the_folder_and_a_linked_folder_are_fine() {
    let bundle = FakeBundle::new();
    let path = bundle.dir.join("mask_decoder.onnx");
    std::fs::rename(&path, bundle.dir.join("elsewhere")).unwrap();
    symlink("elsewhere", &path).unwrap();
    Bundle::open(&bundle.dir).unwrap();
    let link = bundle.dir.with_file_name("link");
    symlink(&bundle.dir, &link).unwrap();
    Bundle::open(&link).unwrap();
}

#[test]
fn roles_are_complete_and_single() {
    refused_after(
        |m| drop(m["graphs"].as_array_mut().unwrap().remove(3)),
        &[
            "manifest.json",
            "memory_encoder",
            "snow-export some/checkpoint --res 28",
        ],
    );
    refused_after(
        |m| {
            let first = m["graphs"][0].clone();
            m["graphs"].as_array_mut().unwrap().push(first);
        },
        &["two graphs", "vision_encoder"],
    );
    refused_after(
        |m| m["graphs"][0]["role"] = json!("juggler"),
        &["manifest.json", "juggler"],
    );
}

#[test]
fn wrong_tensors_are_refused_by_name() {
    let cases: [(&str, &str, &str, Value, &[&str]); 7] = [
        (
            "vision_encoder",
            "inputs",
            "image",
            json!([1, 29, 28, 3]),
            &["uint8 [1,28,28,3]", "uint8 [1,29,28,3]"],
        ),
        (
            "vision_encoder",
            "outputs",
            "features_nlc",
            json!([1, 5, 8]),
            &["[1,4,", "[1,5,8]"],
        ),
        (
            "mask_decoder",
            "inputs",
            "embeddings_nlc",
            json!(["objects", 4, 9]),
            &["[objects,4,8]", "features_nlc of vision_encoder"],
        ),
        (
            "mask_decoder",
            "outputs",
            "low_res_masks",
            json!([1, 8, 8]),
            &["[objects,8,8]", "[1,8,8]"],
        ),
        (
            "mask_decoder",
            "outputs",
            "pointers",
            json!(["objects", 2]),
            &["[objects,2,4]", "[objects,2]"],
        ),
        (
            "memory_attention",
            "inputs",
            "memory_1",
            json!(["objects", "t", 5]),
            &["[objects,tokens,4]", "[objects,t,5]"],
        ),
        (
            "memory_encoder",
            "inputs",
            "mask_prompt",
            json!([1, 14, 14]),
            &["[1,28,28]", "[1,14,14]"],
        ),
    ];
    for (role, side, name, shape, words) in cases {
        let mut words = words.to_vec();
        words.extend([
            "manifest.json",
            role,
            side.trim_end_matches('s'),
            name,
            "snow-export",
        ]);
        refused_after(|m| tensor(m, role, side, name)["shape"] = shape, &words);
    }
    refused_after(
        |m| tensor(m, "vision_encoder", "inputs", "image")["dtype"] = json!("float32"),
        &["vision_encoder", "image", "expected uint8", "got float32"],
    );
    refused_after(
        |m| tensor(m, "mask_decoder", "outputs", "pointers")["dtype"] = json!("float16"),
        &[
            "memory_attention",
            "pointers_",
            "float16 as mask_decoder returns it",
            "got float32",
        ],
    );
    refused_after(
        |m| tensor(m, "mask_decoder", "outputs", "iou")["name"] = json!("quality"),
        &["mask_decoder", "iou", "no such tensor", "quality"],
    );
    refused_after(
        |m| {
            let extra = json!({"name": "surprise", "dtype": "bool", "shape": [1]});
            graph(m, "memory_encoder")["inputs"]
                .as_array_mut()
                .unwrap()
                .push(extra);
        },
        &["memory_encoder", "input surprise", "no input of that name"],
    );
    refused_after(
        |m| m["policy"]["max_cond_frames"] = json!(2),
        &["memory_attention", "memory_2"],
    );
    refused_after(
        |m| m["policy"]["max_object_pointers"] = json!(3),
        &["memory_attention", "pointers_2"],
    );
}

#[test]
fn values_that_this_program_cannot_work_with_are_refused() {
    refused_after(
        |m| m["preprocess"]["filter"] = json!("bicubic"),
        &["preprocess.filter", "bicubic", "bilinear"],
    );
    refused_after(
        |m| m["preprocess"]["antialias"] = json!(false),
        &["preprocess.antialias", "false", "true"],
    );
    refused_after(
        |m| m["family"] = json!("sam9"),
        &["family", "sam9", "sam3_tracker_video"],
    );
    refused_after(
        |m| m["policy"]["name"] = json!("goldfish"),
        &["policy.name", "goldfish", "sam2_memory_bank"],
    );
    refused_after(
        |m| m["policy"]["num_maskmem"] = json!(0),
        &["policy.num_maskmem", "is 0"],
    );
    refused_after(
        |m| m["policy"]["num_maskmem"] = json!(u32::MAX),
        &["policy.num_maskmem", "4294967295"],
    );
    refused_after(|m| m["grid"] = json!(3), &["grid", "is 3", "28"]);
    refused_after(
        |m| m["memory"]["tokens"] = json!(5),
        &["memory.tokens", "is 5", "= 4"],
    );
}

#[test]
fn the_program_refuses_a_broken_bundle_and_leaves_nothing() {
    let mut desk = Desk::new();
    let run = |desk: &Desk| desk.run(&["in", "--box", "1,1,9,9", "--out", "out"]);

    let path = desk.bundle.dir.join("memory_encoder.onnx");
    let content = std::fs::read(&path).unwrap();
    std::fs::write(&path, &content[..content.len() - 1]).unwrap();
    run(&desk).refuses(&["memory_encoder.onnx", "truncated"]);
    std::fs::write(&path, &content).unwrap();

    desk.bundle.change(|m| m["schema_version"] = json!(9));
    run(&desk).refuses(&["schema version 9", "snow-export"]);
    desk.bundle.change(|m| m["schema_version"] = json!(1));

    desk.bundle
        .change(|m| graph(m, "mask_decoder")["file"] = json!("/etc/hostname"));
    run(&desk).refuses(&["/etc/hostname", "absolute"]);
    desk.holds(&["in"]);
}

#[test]
fn the_committed_schema_is_the_one_of_the_types() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/schema/manifest.schema.json");
    let committed = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        committed,
        snow_ort::bundle::schema(),
        "write it again with `snow-ort schema > models/schema/manifest.schema.json`"
    );
    let desk = Desk::new();
    let output = desk.command().arg("schema").output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), committed);
    // Doc comments of the types are the schema's descriptions.
    assert!(committed.contains("Side of the vision encoder's token grid"));
}
