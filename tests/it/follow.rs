//! The decisions of the loop that finds objects and follows them, on masks made by hand. The whole loop is compared with
//! the reference in tests/parity.

use snow_ort::text_tracking::association::{
    FollowParameters, Following, Found, Pixels, Predicted, fill_and_clean, shrunk,
    suppress_overlaps,
};

use crate::fake::{Desk, read_json, save, write_bundle};
use crate::fake_detector::{add_detector, give_detector};

const SIDE: usize = 8;

/// Logits that are positive in columns `from..to`.
fn stripe(from: usize, to: usize) -> Vec<f32> {
    (0..SIDE * SIDE)
        .map(|i| {
            if (from..to).contains(&(i % SIDE)) {
                1.0
            } else {
                -1.0
            }
        })
        .collect()
}

fn pixels(from: usize, to: usize) -> Pixels {
    Pixels::of(&stripe(from, to))
}

fn parameters() -> FollowParameters {
    FollowParameters {
        score_threshold: 0.5,
        nms_iou: 0.1,
        match_iou: 0.1,
        track_match_iou: 0.5,
        new_object_score: 0.7,
        recondition_on_track_masks: true,
        recondition_every: 16,
        recondition_score: 0.8,
        recondition_iou: 0.8,
        hotstart_delay: 15,
        hotstart_unmatched: 3,
        hotstart_duplicate: 3,
        suppress_unmatched_only_within_hotstart: true,
        keep_alive_init: 30,
        keep_alive_max: 30,
        keep_alive_min: -1,
        keep_alive_falls_when_empty: false,
        occlusion_iou: 0.7,
        max_objects: 100,
    }
}

fn found(score: f32, from: usize, to: usize) -> Found {
    Found {
        text: 0,
        score,
        pixels: pixels(from, to),
    }
}

fn predicted(from: usize, to: usize) -> Predicted {
    Predicted {
        pixels: pixels(from, to),
        score: 5.0,
    }
}

#[test]
fn intersection_over_union() {
    assert_eq!(pixels(0, 4).area(), 32);
    assert_eq!(pixels(0, 4).iou(&pixels(2, 6)), 16.0 / 48.0);
    assert_eq!(pixels(0, 4).iou(&pixels(4, 8)), 0.0);
    assert_eq!(pixels(0, 0).iou(&pixels(0, 0)), 0.0);
}

#[test]
fn the_better_of_overlapping_detections_stays() {
    let masks = [pixels(0, 4), pixels(0, 5), pixels(5, 8), pixels(4, 8)];
    let scores = [0.6, 0.9, 0.8, 0.7];
    // The second drops the first; the fourth goes because of the third, although the first is gone.
    assert_eq!(
        suppress_overlaps(&scores, &masks, 0.5),
        [false, true, true, false]
    );
    assert_eq!(suppress_overlaps(&scores, &masks, 0.0), [true; 4]);
    // An IoU of just the limit stays.
    assert_eq!(
        suppress_overlaps(&scores[..2], &masks[..2], 0.8),
        [true, true]
    );
}

#[test]
fn a_detection_away_from_all_tracks_is_born_if_it_is_sure() {
    let mut following = Following::new(parameters());
    // Without tracks the score of a new object is not asked for.
    let first = following.judge(0, &[found(0.6, 0, 3)], &[]);
    assert_eq!(first.born, [(0, 0)]);
    let tracks = [predicted(0, 3)];
    let seen = [found(0.9, 0, 3), found(0.75, 4, 6), found(0.65, 6, 8)];
    let second = following.judge(1, &seen, &tracks);
    assert_eq!(second.born, [(1, 1)]);
    assert_eq!(following.objects(), [0, 1]);
    assert_eq!(following.score_of(1), 0.75);
}

#[test]
fn texts_do_not_share_tracks() {
    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3)], &[]);
    let other = Found {
        text: 1,
        ..found(0.9, 0, 3)
    };
    let verdict = following.judge(1, &[other], &[predicted(0, 3)]);
    assert_eq!(verdict.born, [(0, 1)]);
    assert_eq!((following.text_of(0), following.text_of(1)), (0, 1));
}

#[test]
fn a_new_object_that_nothing_confirms_is_removed_and_an_old_one_is_not() {
    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3)], &[]);
    for frame in 1..3 {
        assert!(
            following
                .judge(frame, &[], &[predicted(0, 3)])
                .removed
                .is_empty()
        );
    }
    assert_eq!(
        following.judge(3, &[], &[predicted(0, 3)]).removed,
        [0].into()
    );
    assert!(following.objects().is_empty());

    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3)], &[]);
    for frame in 1..16 {
        following.judge(frame, &[found(0.9, 0, 3)], &[predicted(0, 3)]);
    }
    for frame in 16..30 {
        assert!(
            following
                .judge(frame, &[], &[predicted(0, 3)])
                .removed
                .is_empty()
        );
    }
    // An empty mask is not unmatched.
    assert!(
        following
            .judge(30, &[], &[predicted(0, 0)])
            .removed
            .is_empty()
    );
}

#[test]
fn the_later_of_two_tracks_of_one_object_is_removed() {
    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3)], &[]);
    following.judge(1, &[found(0.9, 5, 8)], &[predicted(0, 3)]);
    assert_eq!(following.objects(), [0, 1]);
    let both = [predicted(0, 3), predicted(0, 4)];
    for frame in 2..4 {
        assert!(
            following
                .judge(frame, &[found(0.9, 0, 4)], &both)
                .removed
                .is_empty()
        );
    }
    assert_eq!(
        following.judge(4, &[found(0.9, 0, 4)], &both).removed,
        [1].into()
    );
    assert_eq!(following.objects(), [0]);
}

#[test]
fn of_overlapping_tracks_the_one_that_was_hidden_later_is_suppressed() {
    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3), found(0.9, 5, 8)], &[]);
    following.judge(1, &[], &[predicted(0, 0), predicted(5, 8)]);
    following.judge(2, &[], &[predicted(0, 3), predicted(0, 0)]);
    // Both were hidden, the second more recently.
    let verdict = following.judge(3, &[], &[predicted(0, 4), predicted(0, 4)]);
    assert_eq!(verdict.suppressed, [false, true]);

    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3), found(0.9, 5, 8)], &[]);
    following.judge(1, &[], &[predicted(0, 3), predicted(0, 0)]);
    // The first never was: it cannot suppress.
    let verdict = following.judge(2, &[], &[predicted(0, 4), predicted(0, 4)]);
    assert_eq!(verdict.suppressed, [false, false]);
}

#[test]
fn sure_tracks_are_remembered_anew_at_times() {
    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3)], &[]);
    let sure = [found(0.9, 0, 3)];
    let tracks = [predicted(0, 3)];
    assert!(following.judge(15, &sure, &tracks).reconditioned.is_empty());
    assert_eq!(
        following.judge(16, &sure, &tracks).reconditioned,
        [(0, 0)].into()
    );
    let unsure = [Predicted {
        score: 0.5,
        ..predicted(0, 3)
    }];
    assert!(following.judge(32, &sure, &unsure).reconditioned.is_empty());
    assert!(
        following
            .judge(48, &[found(0.7, 0, 3)], &tracks)
            .reconditioned
            .is_empty()
    );
}

#[test]
fn the_best_are_tracked_where_there_is_room_for_few() {
    let mut following = Following::new(FollowParameters {
        max_objects: 2,
        ..parameters()
    });
    let seen = [found(0.7, 0, 2), found(0.9, 3, 5), found(0.8, 6, 8)];
    assert_eq!(following.judge(0, &seen, &[]).born, [(1, 0), (2, 1)]);
}

#[test]
fn masks_that_lose_most_of_themselves_are_found() {
    let strong: Vec<f32> = stripe(0, 4).iter().map(|x| 3.0 * x).collect();
    let weak = stripe(0, 5);
    // One column of five is left of the weak mask.
    assert_eq!(shrunk(&[&strong, &weak], 0.3), [false, true]);
    assert_eq!(shrunk(&[&strong, &weak], 0.2), [false, false]);
    assert_eq!(shrunk(&[&weak], 0.3), [false]);
}

#[test]
fn holes_are_filled_and_specks_removed() {
    let mut logits = stripe(0, 5);
    let at = |x: usize, y: usize| y * SIDE + x;
    logits[at(2, 2)] = -3.0;
    // Touches the hole at a corner: one hole of two pixels.
    logits[at(3, 3)] = -3.0;
    logits[at(7, 7)] = 3.0;
    let before = logits.clone();
    fill_and_clean(&mut logits, SIDE, 1);
    assert_eq!((logits[at(2, 2)], logits[at(3, 3)]), (-3.0, -3.0));
    assert_eq!(logits[at(7, 7)], -0.1);
    logits = before;
    fill_and_clean(&mut logits, SIDE, 2);
    assert_eq!((logits[at(2, 2)], logits[at(3, 3)]), (0.1, 0.1));

    // A mask that is all speck stays: it is more than half of itself.
    let mut tiny = vec![-1.0; SIDE * SIDE];
    tiny[at(4, 4)] = 2.0;
    fill_and_clean(&mut tiny, SIDE, 4);
    assert_eq!(tiny[at(4, 4)], 2.0);
}

#[test]
fn on_frames_that_nobody_looks_at_nothing_is_born_removed_or_counted() {
    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3)], &[]);
    // Twelve frames without a look, an empty mask among them: three would do for the removal if they counted.
    for frame in 1..13 {
        let mask = predicted(0, if frame == 5 { 0 } else { 3 });
        let verdict = following.propagate(frame, &[mask]);
        assert!(verdict.born.is_empty() && verdict.removed.is_empty());
        assert!(verdict.reconditioned.is_empty() && verdict.hidden.is_empty());
        assert_eq!(verdict.suppressed, [false]);
    }
    // Frame 16 is one to remember confirmed tracks anew, if it is looked at.
    assert!(
        following
            .propagate(16, &[predicted(0, 3)])
            .reconditioned
            .is_empty()
    );

    // Looks count, the delay is in frames: two looks without confirmation, and the third comes after it.
    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3)], &[]);
    for frame in 1..30 {
        let verdict = match frame % 5 {
            0 => following.judge(frame, &[], &[predicted(0, 3)]),
            _ => following.propagate(frame, &[predicted(0, 3)]),
        };
        assert!(verdict.removed.is_empty(), "frame {frame}");
    }
    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3)], &[]);
    for frame in 1..=12 {
        let verdict = match frame % 4 {
            0 => following.judge(frame, &[], &[predicted(0, 3)]),
            _ => following.propagate(frame, &[predicted(0, 3)]),
        };
        assert_eq!(!verdict.removed.is_empty(), frame == 12, "frame {frame}");
    }
}

#[test]
fn what_is_hidden_for_want_of_confirmation_stays_so_between_looks() {
    let mut following = Following::new(FollowParameters {
        suppress_unmatched_only_within_hotstart: false,
        hotstart_unmatched: 100,
        keep_alive_init: 1,
        ..parameters()
    });
    following.judge(0, &[found(0.9, 0, 3)], &[]);
    assert!(following.propagate(1, &[predicted(0, 3)]).hidden.is_empty());
    let look = following.judge(2, &[], &[predicted(0, 3)]);
    assert_eq!(look.hidden, [0].into());
    for frame in 3..6 {
        let verdict = following.propagate(frame, &[predicted(0, 3)]);
        assert_eq!(verdict.hidden, [0].into(), "frame {frame}");
    }
    let look = following.judge(6, &[found(0.9, 0, 3)], &[predicted(0, 3)]);
    assert!(look.hidden.is_empty());
    assert!(following.propagate(7, &[predicted(0, 3)]).hidden.is_empty());
}

#[test]
fn overlaps_are_suppressed_between_looks() {
    let mut following = Following::new(parameters());
    following.judge(0, &[found(0.9, 0, 3), found(0.9, 5, 8)], &[]);
    following.propagate(1, &[predicted(0, 0), predicted(5, 8)]);
    following.propagate(2, &[predicted(0, 3), predicted(0, 0)]);
    let verdict = following.propagate(3, &[predicted(0, 4), predicted(0, 4)]);
    assert_eq!(verdict.suppressed, [false, true]);
}

/// Objects of a run in which each look finds a new one, as the tracker's mask is half of what is found.
#[track_caller]
fn born(every: &[&str], looks: u64) -> Vec<usize> {
    let mut desk = Desk::with_images(5, 40, 30);
    give_detector(&mut desk);
    desk.bundle.narrow_masks();
    let mut args = vec!["in", "--text", "bear", "--out", "out"];
    args.extend(["--follow", "match_iou=0.6", "--follow", "occlusion_iou=0"]);
    args.extend(every);
    desk.run(&args).succeeds();
    let report = read_json(&desk.path("out/run.json"));
    assert_eq!(report["detector"]["looks"], looks);
    let tracks = read_json(&desk.path("out/tracks.json"));
    let frames = tracks["frames"].as_array().unwrap();
    frames
        .iter()
        .map(|frame| frame["objects"].as_array().unwrap().len())
        .collect()
}

#[test]
fn objects_are_looked_for_on_every_nth_frame() {
    assert_eq!(born(&[], 5), [1, 2, 3, 4, 5]);
    assert_eq!(born(&["--detect-every", "1"], 5), [1, 2, 3, 4, 5]);
    assert_eq!(born(&["--detect-every", "2"], 3), [1, 1, 2, 2, 3]);
    assert_eq!(born(&["--detect-every", "9"], 1), [1, 1, 1, 1, 1]);
}

#[test]
fn the_last_lines_say_what_each_text_found() {
    let mut desk = Desk::with_images(2, 40, 30);
    give_detector(&mut desk);
    let mut args = vec!["in", "--text", "bear", "--text", "a dog", "--out", "out"];
    args.extend(["--follow", "max_objects=1"]);
    let ran = desk.run(&args);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stdout.contains("found    \"bear\": object 1\n"),
        "{ran:?}"
    );
    assert!(
        ran.stdout.contains("found    \"a dog\": nothing\n"),
        "{ran:?}"
    );
}

#[test]
fn wrong_intervals_are_refused() {
    let desk = Desk::new();
    for (args, words) in [
        (
            &["in", "--text", "bear", "--detect-every", "0"][..],
            &["--detect-every", "1 or more"][..],
        ),
        (
            &["in", "--text", "bear", "--detect-every", "-3"],
            &["--detect-every", "1 or more"],
        ),
    ] {
        desk.run(args).refuses(words);
    }
    let ran = desk.run(&["in", "--box", "1,1,9,9", "--detect-every", "2"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("--text"), "{ran:?}");
}

/// A desk whose bundle has 28 px, with one of 56 px beside it.
pub fn two_resolutions(here: bool, there: bool) -> (Desk, std::path::PathBuf, serde_json::Value) {
    let mut desk = Desk::new();
    if here {
        give_detector(&mut desk);
    }
    let other = desk.bundle.dir.with_file_name("fake-56");
    let mut manifest = write_bundle(&other, 56);
    if there {
        add_detector(&other, &mut manifest);
    }
    (desk, other, manifest)
}

const DET_RES: [&str; 5] = ["in", "--text", "bear", "--det-res", "56"];

#[test]
fn a_detector_looks_at_a_resolution_of_its_own() {
    let (desk, other, _) = two_resolutions(true, true);
    let mut args = DET_RES.to_vec();
    args.extend(["--out", "out", "--detect-every", "2"]);
    desk.run(&args).succeeds();
    let report = read_json(&desk.path("out/run.json"));
    assert_eq!(report["model"]["resolution"], 28);
    let detector = &report["detector"];
    assert_eq!(detector["model"]["resolution"], 56);
    assert_eq!(detector["model"]["dir"], other.display().to_string());
    assert_eq!(
        (&detector["every"], &detector["looks"]),
        (&2.into(), &2.into())
    );
    assert_eq!(report["objects"], serde_json::json!([1]));
    let stages = report["timings"]["stages"].to_string();
    assert!(stages.contains("detector_vision_encoder"), "{stages}");

    // The bundle's own resolution is no other.
    let args = ["in", "--text", "bear", "--det-res", "28", "--out", "same"];
    desk.run(&args).succeeds();
    let report = read_json(&desk.path("same/run.json"));
    assert!(report["detector"]["model"].is_null());
}

#[test]
fn a_detector_that_does_not_belong_to_the_tracker_is_refused() {
    let (desk, other, mut manifest) = two_resolutions(true, true);
    manifest["source"]["sha256"] = "11".into();
    save(&other, &manifest);
    let (here, there) = (
        desk.bundle.dir.display().to_string(),
        other.display().to_string(),
    );
    desk.run(&DET_RES).refuses(&[
        "--det-res 56",
        &format!("{there} comes from the checkpoint 11"),
        &format!("{here} from 00"),
        "snow-export some/checkpoint --res 56",
    ]);

    let (desk, ..) = two_resolutions(true, false);
    desk.run(&DET_RES)
        .refuses(&["fake-56 has no detector", "--parts tracker,detector"]);

    let (desk, ..) = two_resolutions(false, true);
    desk.run(&DET_RES)
        .refuses(&["fake cannot follow", "`direct`", "--res 28"]);

    let (desk, ..) = two_resolutions(true, true);
    let args = ["in", "--text", "bear", "--det-res", "84"];
    desk.run(&args).refuses(&[
        "no bundle of fake at 84 pixels",
        "fake-56",
        "snow-export some/checkpoint --res 84",
    ]);
    desk.holds(&["in"]);
}
