//! The decisions of text tracking on masks made by hand, and runs with texts. Whole clips are compared with the reference in
//! tests/parity.

use snow_ort::masks::PackedMask;
use snow_ort::masks::nms::keep_masks;
use snow_ort::text_tracking::association::{
    Decision, Detection, Prediction, TextTrackingParameters, TextTracks, fill_and_clean, shrunk,
};

use crate::fake::{Desk, read_json, save};
use crate::fake_detector::{give_detector, two_resolutions};

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

fn pixels(from: usize, to: usize) -> PackedMask {
    PackedMask::of(&stripe(from, to))
}

fn parameters() -> TextTrackingParameters {
    TextTrackingParameters {
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

fn detection(score: f32, from: usize, to: usize) -> Detection {
    Detection {
        text: 0,
        score,
        pixels: pixels(from, to),
    }
}

fn prediction(from: usize, to: usize) -> Prediction {
    Prediction {
        pixels: pixels(from, to),
        score: 5.0,
    }
}

/// New objects: the index of each detection, and the id.
fn new_of(decision: &Decision) -> Vec<(usize, u32)> {
    let new = decision.new_objects.iter();
    new.map(|new| (new.detection, new.id)).collect()
}

#[test]
fn intersection_over_union() {
    assert_eq!(pixels(0, 4).area(), 32);
    let iou = |a: PackedMask, b: PackedMask| a.iou(&b).or_f32(0.0);
    assert_eq!(iou(pixels(0, 4), pixels(2, 6)), 16.0 / 48.0);
    assert_eq!(iou(pixels(0, 4), pixels(4, 8)), 0.0);
    assert_eq!(iou(pixels(0, 0), pixels(0, 0)), 0.0);
}

#[test]
fn the_better_of_overlapping_detections_stays() {
    let masks = [pixels(0, 4), pixels(0, 5), pixels(5, 8), pixels(4, 8)];
    let scores = [0.6, 0.9, 0.8, 0.7];
    // The second drops the first; the fourth goes because of the third, although the first is gone.
    assert_eq!(keep_masks(&scores, &masks, 0.5), [false, true, true, false]);
    assert_eq!(keep_masks(&scores, &masks, 0.0), [true; 4]);
    // An IoU of just the limit stays.
    assert_eq!(keep_masks(&scores[..2], &masks[..2], 0.8), [true, true]);
}

#[test]
fn a_detection_away_from_all_tracks_begins_one_if_its_score_is_high() {
    let mut tracker = TextTracks::new(parameters());
    // Without tracks the score of a new object is not asked for.
    let first = tracker.decide(0, &[detection(0.6, 0, 3)], &[]);
    assert_eq!(new_of(&first), [(0, 0)]);
    let tracks = [prediction(0, 3)];
    let seen = [
        detection(0.9, 0, 3),
        detection(0.75, 4, 6),
        detection(0.65, 6, 8),
    ];
    let second = tracker.decide(1, &seen, &tracks);
    assert_eq!(new_of(&second), [(1, 1)]);
    assert_eq!(tracker.objects(), [0, 1]);
    assert_eq!(tracker.score_of(1), 0.75);
}

#[test]
fn texts_do_not_share_tracks() {
    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3)], &[]);
    let other = Detection {
        text: 1,
        ..detection(0.9, 0, 3)
    };
    let decision = tracker.decide(1, &[other], &[prediction(0, 3)]);
    assert_eq!(new_of(&decision), [(0, 1)]);
    assert_eq!((tracker.text_of(0), tracker.text_of(1)), (0, 1));
}

#[test]
fn a_new_object_that_nothing_confirms_is_removed_and_an_old_one_is_not() {
    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3)], &[]);
    for frame in 1..3 {
        assert!(
            tracker
                .decide(frame, &[], &[prediction(0, 3)])
                .removed
                .is_empty()
        );
    }
    assert_eq!(
        tracker.decide(3, &[], &[prediction(0, 3)]).removed,
        [0].into()
    );
    assert!(tracker.objects().is_empty());

    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3)], &[]);
    for frame in 1..16 {
        tracker.decide(frame, &[detection(0.9, 0, 3)], &[prediction(0, 3)]);
    }
    for frame in 16..30 {
        assert!(
            tracker
                .decide(frame, &[], &[prediction(0, 3)])
                .removed
                .is_empty()
        );
    }
    // An empty mask is not unmatched.
    assert!(
        tracker
            .decide(30, &[], &[prediction(0, 0)])
            .removed
            .is_empty()
    );
}

#[test]
fn the_later_of_two_tracks_of_one_object_is_removed() {
    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3)], &[]);
    tracker.decide(1, &[detection(0.9, 5, 8)], &[prediction(0, 3)]);
    assert_eq!(tracker.objects(), [0, 1]);
    let both = [prediction(0, 3), prediction(0, 4)];
    for frame in 2..4 {
        assert!(
            tracker
                .decide(frame, &[detection(0.9, 0, 4)], &both)
                .removed
                .is_empty()
        );
    }
    assert_eq!(
        tracker.decide(4, &[detection(0.9, 0, 4)], &both).removed,
        [1].into()
    );
    assert_eq!(tracker.objects(), [0]);
}

#[test]
fn of_overlapping_tracks_the_one_that_was_hidden_later_is_suppressed() {
    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3), detection(0.9, 5, 8)], &[]);
    tracker.decide(1, &[], &[prediction(0, 0), prediction(5, 8)]);
    tracker.decide(2, &[], &[prediction(0, 3), prediction(0, 0)]);
    // Both were hidden, the second more recently.
    let decision = tracker.decide(3, &[], &[prediction(0, 4), prediction(0, 4)]);
    assert_eq!(decision.suppressed, [false, true]);

    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3), detection(0.9, 5, 8)], &[]);
    tracker.decide(1, &[], &[prediction(0, 3), prediction(0, 0)]);
    // The first never was hidden: it cannot suppress.
    let decision = tracker.decide(2, &[], &[prediction(0, 4), prediction(0, 4)]);
    assert_eq!(decision.suppressed, [false, false]);
}

#[test]
fn confirmed_tracks_are_reconditioned_at_times() {
    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3)], &[]);
    let sure = [detection(0.9, 0, 3)];
    let tracks = [prediction(0, 3)];
    assert!(tracker.decide(15, &sure, &tracks).reconditioned.is_empty());
    assert_eq!(
        tracker.decide(16, &sure, &tracks).reconditioned,
        [(0, 0)].into()
    );
    let unsure = [Prediction {
        score: 0.5,
        ..prediction(0, 3)
    }];
    assert!(tracker.decide(32, &sure, &unsure).reconditioned.is_empty());
    assert!(
        tracker
            .decide(48, &[detection(0.7, 0, 3)], &tracks)
            .reconditioned
            .is_empty()
    );
}

#[test]
fn the_best_are_tracked_where_there_is_room_for_few() {
    let mut tracker = TextTracks::new(TextTrackingParameters {
        max_objects: 2,
        ..parameters()
    });
    let seen = [
        detection(0.7, 0, 2),
        detection(0.9, 3, 5),
        detection(0.8, 6, 8),
    ];
    let decision = tracker.decide(0, &seen, &[]);
    assert_eq!(new_of(&decision), [(1, 0), (2, 1)]);
}

#[test]
fn masks_that_lose_most_of_their_pixels_are_reported() {
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
fn on_frames_without_detections_no_track_begins_is_removed_or_counted() {
    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3)], &[]);
    // Twelve frames without detections, an empty mask among them: three would be enough for the removal if they counted.
    for frame in 1..13 {
        let mask = prediction(0, if frame == 5 { 0 } else { 3 });
        let decision = tracker.propagate(frame, &[mask]);
        assert!(decision.new_objects.is_empty() && decision.removed.is_empty());
        assert!(decision.reconditioned.is_empty() && decision.hidden.is_empty());
        assert_eq!(decision.suppressed, [false]);
    }
    // Confirmed tracks are reconditioned on frame 16, if it has detections.
    assert!(
        tracker
            .propagate(16, &[prediction(0, 3)])
            .reconditioned
            .is_empty()
    );

    // Frames with detections count, the delay is in all frames: two without a match, and the third comes after it.
    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3)], &[]);
    for frame in 1..30 {
        let decision = match frame % 5 {
            0 => tracker.decide(frame, &[], &[prediction(0, 3)]),
            _ => tracker.propagate(frame, &[prediction(0, 3)]),
        };
        assert!(decision.removed.is_empty(), "frame {frame}");
    }
    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3)], &[]);
    for frame in 1..=12 {
        let decision = match frame % 4 {
            0 => tracker.decide(frame, &[], &[prediction(0, 3)]),
            _ => tracker.propagate(frame, &[prediction(0, 3)]),
        };
        assert_eq!(!decision.removed.is_empty(), frame == 12, "frame {frame}");
    }
}

#[test]
fn an_unconfirmed_track_stays_hidden_between_detections() {
    let mut tracker = TextTracks::new(TextTrackingParameters {
        suppress_unmatched_only_within_hotstart: false,
        hotstart_unmatched: 100,
        keep_alive_init: 1,
        ..parameters()
    });
    tracker.decide(0, &[detection(0.9, 0, 3)], &[]);
    assert!(tracker.propagate(1, &[prediction(0, 3)]).hidden.is_empty());
    let decision = tracker.decide(2, &[], &[prediction(0, 3)]);
    assert_eq!(decision.hidden, [0].into());
    for frame in 3..6 {
        let decision = tracker.propagate(frame, &[prediction(0, 3)]);
        assert_eq!(decision.hidden, [0].into(), "frame {frame}");
    }
    let decision = tracker.decide(6, &[detection(0.9, 0, 3)], &[prediction(0, 3)]);
    assert!(decision.hidden.is_empty());
    assert!(tracker.propagate(7, &[prediction(0, 3)]).hidden.is_empty());
}

#[test]
fn overlaps_are_suppressed_between_detections() {
    let mut tracker = TextTracks::new(parameters());
    tracker.decide(0, &[detection(0.9, 0, 3), detection(0.9, 5, 8)], &[]);
    tracker.propagate(1, &[prediction(0, 0), prediction(5, 8)]);
    tracker.propagate(2, &[prediction(0, 3), prediction(0, 0)]);
    let decision = tracker.propagate(3, &[prediction(0, 4), prediction(0, 4)]);
    assert_eq!(decision.suppressed, [false, true]);
}

/// Objects on each frame of a run in which each run of the detector begins a track, because the tracker's mask is half of
/// the detection's.
#[track_caller]
fn objects_of_run(every: &[&str], looks: u64) -> Vec<usize> {
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
fn objects_are_detected_on_every_nth_frame() {
    assert_eq!(objects_of_run(&[], 5), [1, 2, 3, 4, 5]);
    assert_eq!(objects_of_run(&["--detect-every", "1"], 5), [1, 2, 3, 4, 5]);
    assert_eq!(objects_of_run(&["--detect-every", "2"], 3), [1, 1, 2, 2, 3]);
    assert_eq!(objects_of_run(&["--detect-every", "9"], 1), [1, 1, 1, 1, 1]);
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

const DET_RES: [&str; 5] = ["in", "--text", "bear", "--det-res", "56"];

#[test]
fn a_detector_can_have_its_own_resolution() {
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
        "comes from the checkpoint",
        &format!("{there} comes from the checkpoint 11"),
        &format!("{here} from 00"),
        "snow-export some/checkpoint --res 56",
    ]);

    let (desk, ..) = two_resolutions(true, false);
    desk.run(&DET_RES)
        .refuses(&["fake-56 has no detector", "--parts tracker,detector"]);

    let (desk, ..) = two_resolutions(false, true);
    desk.run(&DET_RES)
        .refuses(&["fake cannot track", "`direct`", "--res 28"]);

    let (desk, ..) = two_resolutions(true, true);
    let args = ["in", "--text", "bear", "--det-res", "84"];
    desk.run(&args).refuses(&[
        "no bundle of fake at 84 pixels",
        "fake-56",
        "snow-export some/checkpoint --res 84",
    ]);
    desk.holds(&["in"]);
}
