//! The arithmetic, on costs made by hand.

use super::*;
use crate::tracker::memory_policy::Parameters;

pub(super) const EXTENT: Extent = Extent {
    entries: 7,
    conditioning_pointers: 1,
    pointers: 15,
};

pub(super) fn costs() -> Costs {
    let stage = |weights, fixed, per_object| StageCost {
        weights,
        fixed,
        per_object,
    };
    Costs {
        packed: true,
        gaps_percent: GPU_GAPS_PERCENT,
        vision_encoder: stage(1 << 20, 4 << 20, 0),
        memory_attention: stage(1 << 20, 1 << 20, 4 << 20),
        mask_decoder: stage(1 << 20, 0, 1 << 20),
        memory_encoder: stage(1 << 20, 0, 2 << 20),
        proposals: None,
        detector: None,
    }
}

pub(super) fn sizes() -> Sizes {
    Sizes {
        features: 1 << 20,
        conditioned: 1 << 17,
        decoded: 1 << 14,
        memory: 1 << 15,
        pointers: 100,
        selected: false,
    }
}

pub(super) fn group(objects: usize) -> [Group; 1] {
    [Group {
        objects,
        first: 0,
        extent: EXTENT,
    }]
}

#[test]
fn a_graph_for_proposals_runs_before_the_rest_or_between_or_stays_loaded() {
    let plan_with = |weights: u64, fixed: u64, presence| {
        let cost = StageCost {
            weights: weights << 20,
            fixed: fixed << 20,
            per_object: 0,
        };
        let costs = Costs {
            proposals: Some(ProposalCost { cost, presence }),
            ..costs()
        };
        plan(&costs, &sizes(), &group(2), 8).total_bytes
    };
    let without = plan(&costs(), &sizes(), &group(2), 8).total_bytes;
    // The memory attention takes 9 MiB.
    assert_eq!(plan_with(3, 5, Presence::Before), without);
    assert_eq!(plan_with(3, 5, Presence::InTurn), without);
    assert_eq!(plan_with(3, 5, Presence::Loaded), without + (3 << 20));
    // What is there before, alone, is not there with weights, features and the bank.
    let (before, in_turn) = (
        plan_with(10, 40, Presence::Before),
        plan_with(10, 40, Presence::InTurn),
    );
    let alone: u64 = (50 << 20) * 9 / 8;
    assert_eq!(before, alone + alone * 40 / 100);
    assert!(in_turn > before + (5 << 20), "{in_turn}, {before}");
}

#[test]
fn objects_that_differ_in_later_prompts_only_go_together_at_first() {
    let [one] = group(3);
    let [mut other] = group(2);
    other.extent.conditioning_pointers = 2;
    let plan_of = |groups: &[Group]| plan(&costs(), &sizes(), groups, 8).workspace_bytes;
    assert_eq!(plan_of(&[one, other]), plan_of(&group(5)));
    other.first = 4;
    assert_eq!(plan_of(&[one, other]), plan_of(&group(3)));
}

#[test]
fn the_total_is_the_sum_of_what_lives_at_the_worst_moment() {
    let plan = plan(&costs(), &sizes(), &group(10), 4);
    // Batches of 4, 4 and 2: each tensor is rounded up by itself.
    let pointers = 16 * (512 + 512 + 256);
    assert_eq!(plan.bank_bytes, 10 * 7 * (1 << 15) + pointers);
    assert_eq!(plan.workspace_bytes.memory_attention, 17 << 20);
    let worst = 18 << 20;
    let working = worst + rounded(worst / UNCOUNTED);
    assert_eq!(plan.in_use_bytes, (4 << 20) + plan.bank_bytes + working);
    assert_eq!(plan.total_bytes, plan.in_use_bytes + working * 2 / 5);
    assert_eq!(plan.largest().1, 17 << 20);
}

#[test]
fn the_largest_chunk_that_fits_is_taken() {
    let total = |chunk| plan(&costs(), &sizes(), &group(20), chunk).total_bytes;
    let chosen = largest_chunk(&costs(), &sizes(), &group(20), 8, total(3)).unwrap();
    assert_eq!(chosen.chunk, 3);
    let refused = largest_chunk(&costs(), &sizes(), &group(20), 8, total(1) - 1).unwrap_err();
    assert_eq!((refused.chunk, refused.total_bytes), (1, total(1)));
    let fit = max_objects(&costs(), &sizes(), EXTENT, 20, total(1) - 1);
    assert_eq!(fit, 19);
}

#[test]
fn a_short_clip_recalls_less() {
    let policy = Parameters {
        num_maskmem: 7,
        max_cond_frames: 4,
        max_object_pointers: 16,
        multimask_output_in_sam: true,
        multimask_output_for_tracking: true,
        multimask_min_points: 0,
        multimask_max_points: 1,
        memory_selection: None,
    };
    let extent = |prompted, frames| Extent::new(&policy, prompted, frames);
    assert_eq!(extent(1, 16), EXTENT);
    assert_eq!(extent(9, 16).entries, 10);
    assert_eq!(extent(9, 16).conditioning_pointers, 9);
    assert_eq!((extent(1, 3).entries, extent(1, 3).pointers), (3, 2));
    assert_eq!(extent(1, 1).entries, 1);
}

#[test]
fn two_measurements_make_a_line() {
    let stage = StageCost::through(5, 110, 210);
    assert_eq!((stage.fixed, stage.workspace(8)), (10, 810));
}

#[test]
fn a_detector_is_in_turn_with_the_tracker_and_its_text_encoder_comes_before() {
    let stage = |weights: u64, fixed: u64, per_object: u64| StageCost {
        weights: weights << 20,
        fixed: fixed << 20,
        per_object: per_object << 20,
    };
    let needs = |search: u64, text_encoder: u64, own: u64| DetectorNeeds {
        costs: DetectorCosts {
            text_encoder: stage(text_encoder, 1, 0),
            vision_encoder: stage(own, own, 0),
            features: stage(1, 2, 0),
            search: stage(1, search, 0),
            masks: stage(1, 1, 1),
        },
        sizes: DetectorSizes {
            text: 1 << 10,
            backbone: own << 20,
            levels: 1 << 20,
            candidates: 1 << 18,
            max_detections: 5,
        },
        texts: 2,
    };
    let total = |needs: Option<DetectorNeeds>| {
        let costs = Costs {
            detector: needs,
            gaps_percent: 0,
            ..costs()
        };
        plan(&costs, &sizes(), &group(2), 8)
    };
    let without = total(None).in_use_bytes;
    // The memory attention takes 9 MiB, and what was decoded of both objects stays while it runs; weights and texts stay.
    let decoded = 2 << 14;
    let stays = (3 << 20) + (2 << 10);
    let more = decoded + rounded((10 << 20) / UNCOUNTED + decoded / UNCOUNTED)
        - rounded((10 << 20) / UNCOUNTED);
    assert_eq!(
        total(Some(needs(2, 4, 0))).in_use_bytes,
        without + stays + more
    );
    // A search that needs more than the tracker does, with the image's features beside it.
    let searching = total(Some(needs(20, 4, 0)));
    let worst = (1 << 20) + (1 << 20) + (20 << 20);
    let expected =
        (7 << 20) + (2 << 10) + searching.bank_bytes + worst + rounded(worst / UNCOUNTED);
    assert_eq!(searching.in_use_bytes, expected);
    assert_eq!(searching.largest(), (Part::Detector, 20 << 20));
    // Images of its own: weights, and tokens while it looks.
    let own = total(Some(needs(20, 4, 3)));
    let worst = worst + (3 << 20);
    let expected = (10 << 20) + (2 << 10) + own.bank_bytes + worst + rounded(worst / UNCOUNTED);
    assert_eq!(own.in_use_bytes, expected);
    // A text encoder larger than all else.
    let text = total(Some(needs(2, 90, 0)));
    let alone = (91 << 20) + (2 << 10);
    assert_eq!(text.in_use_bytes, alone + rounded(alone / UNCOUNTED));
    let part = text.detector.unwrap();
    assert_eq!((part.texts, part.text_encoder_bytes), (2, alone));
    assert_eq!(
        (part.weights_bytes, part.workspace_bytes.masks),
        (3 << 20, 6 << 20)
    );
}

#[test]
fn as_many_objects_are_planned_for_as_fit() {
    let costs = Costs {
        detector: Some(DetectorNeeds {
            costs: DetectorCosts::default(),
            sizes: DetectorSizes::default(),
            texts: 1,
        }),
        ..costs()
    };
    let total = |objects| plan(&costs, &sizes(), &one_by_one(objects, EXTENT), 4).total_bytes;
    for objects in [1, 7, 20] {
        let limit = total(objects);
        let fit = |max, limit| max_objects_one_by_one(&costs, &sizes(), EXTENT, max, 4, limit);
        assert_eq!(fit(100, limit), objects);
        assert_eq!(fit(3, limit), objects.min(3));
        assert_eq!(fit(100, limit - 1), objects - 1);
    }
}
