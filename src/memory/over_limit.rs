//! A run that needs more memory than its limit, and what would fit.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Costs, Extent, Group, Part, Plan, Sizes, largest_chunk, max_objects};
use crate::bundle::{Manifest, Precision};
use crate::runtime::Provider;
use crate::size;
use crate::words::counted;

/// A run needs more memory than its limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct OverLimit {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Objects that the run was planned for.
    pub objects: usize,
    /// Objects in one run of a graph.
    pub chunk: usize,
    /// Bytes that the run needs.
    pub needed: u64,
    /// Bytes that it may take.
    pub limit: u64,
    /// The part that needs most.
    pub largest: Part,
    /// Bytes of that part.
    pub largest_bytes: u64,
    /// Where the objects come from, which decides how their number is bounded.
    pub origin: ObjectOrigin,
    /// Changes of which each alone would make the run fit; never empty.
    pub would_fit: Vec<Fit>,
}

/// Where the objects of a run come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectOrigin {
    /// Prompts of the user.
    Prompts,
    /// A graph that proposes objects.
    Proposals,
    /// Texts.
    Texts,
}

/// A change that would make a run fit in its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Fewer objects in one run of a graph.
    Chunk {
        /// How many.
        chunk: usize,
        /// Bytes that the run needs then.
        bytes: u64,
    },
    /// Fewer objects at once.
    Objects(usize),
    /// A bundle of about this resolution in pixels, or less. Estimated: all but the weights grows with the number of image tokens,
    /// which is the square of the side.
    Resolution(u32),
    /// A bundle in fp16, with about this many bytes. Estimated: half of everything.
    Fp16(u64),
    /// A limit of this many bytes, or more. It is the last one.
    Limit(u64),
}

impl fmt::Display for Fit {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Chunk { chunk, bytes } => {
                write!(to, "a chunk of {chunk} ({})", size::show(bytes))
            }
            Self::Objects(count) => write!(to, "{} at once", counted(count as u64, "object")),
            Self::Resolution(side) => write!(to, "a bundle of about {side} px or less"),
            Self::Fp16(bytes) => write!(to, "a bundle in fp16 (about {})", size::show(bytes)),
            Self::Limit(bytes) => write!(to, "a limit of {} or more", size::in_mib(bytes)),
        }
    }
}

impl fmt::Display for OverLimit {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "{} with {} and {} at once needs {} of memory, but the limit is {}; the largest part is {} with {}",
            self.bundle.display(),
            counted(self.objects as u64, "object"),
            self.chunk,
            size::show(self.needed),
            size::show(self.limit),
            self.largest,
            size::show(self.largest_bytes),
        )
    }
}

/// What a bundle's estimates start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Model {
    /// Side of the image in pixels.
    pub resolution: u32,
    /// Side of a patch in pixels; resolutions are multiples of it.
    pub patch: u32,
    /// Precision of the weights.
    pub precision: Precision,
}

impl Model {
    /// Reads it from the manifest of a bundle.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self {
            resolution: manifest.resolution,
            patch: (manifest.resolution / manifest.grid.max(1)).max(1),
            precision: manifest.precision,
        }
    }
}

/// A plan that does not fit, and what it was made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused<'a> {
    /// The smallest plan.
    pub plan: &'a Plan,
    /// What its graphs take.
    pub costs: &'a Costs,
    /// What its tensors take.
    pub sizes: &'a Sizes,
    /// Its objects.
    pub groups: &'a [Group],
    /// What each object recalls at most.
    pub extent: Extent,
    /// Whether the user asked for the plan's chunk, so that smaller ones were not tried.
    pub chunk_requested: bool,
    /// What the run may use, in bytes.
    pub limit: u64,
    /// Where graphs run.
    pub provider: Provider,
    /// The bundle.
    pub model: Model,
    /// The bundle's folder.
    pub bundle: &'a Path,
    /// Where the objects come from.
    pub origin: ObjectOrigin,
}

impl Refused<'_> {
    /// The error, with everything that would fit.
    pub(crate) fn over_limit(&self) -> OverLimit {
        let (largest, largest_bytes) = self.plan.largest();
        OverLimit {
            bundle: self.bundle.to_path_buf(),
            objects: self.plan.objects,
            chunk: self.plan.chunk.min(self.plan.objects),
            needed: self.plan.total_bytes,
            limit: self.limit,
            largest,
            largest_bytes,
            origin: self.origin,
            would_fit: self.would_fit(),
        }
    }

    fn would_fit(&self) -> Vec<Fit> {
        let changes = [
            self.smaller_chunk(),
            self.fewer_objects(),
            self.lower_resolution(),
            self.half_precision(),
        ];
        let mut changes: Vec<Fit> = changes.into_iter().flatten().collect();
        changes.push(Fit::Limit(self.plan.total_bytes));
        changes
    }

    fn smaller_chunk(&self) -> Option<Fit> {
        if !self.chunk_requested {
            return None;
        }
        let chunk = self.plan.chunk;
        let plan = largest_chunk(self.costs, self.sizes, self.groups, chunk, self.limit).ok()?;
        Some(Fit::Chunk {
            chunk: plan.chunk,
            bytes: plan.total_bytes,
        })
    }

    fn fewer_objects(&self) -> Option<Fit> {
        let planned = self.plan.objects;
        let objects = max_objects(self.costs, self.sizes, self.extent, planned, self.limit);
        (objects > 0 && objects < planned).then_some(Fit::Objects(objects))
    }

    fn lower_resolution(&self) -> Option<Fit> {
        let Model {
            resolution, patch, ..
        } = self.model;
        let detector = self.plan.detector.map_or(0, |part| part.weights_bytes);
        let weights = self.plan.weights_bytes + detector;
        let working = self.plan.total_bytes.saturating_sub(weights);
        let room = self.limit.saturating_sub(weights);
        let side = f64::from(resolution) * (room as f64 / working.max(1) as f64).sqrt();
        let side = (side as u32) / patch * patch;
        (side >= 4 * patch && side < resolution).then_some(Fit::Resolution(side))
    }

    fn half_precision(&self) -> Option<Fit> {
        let bytes = self.plan.total_bytes / 2;
        let halves = self.provider == Provider::Cuda && self.model.precision == Precision::Fp32;
        (halves && bytes <= self.limit).then_some(Fit::Fp16(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::super::tests::{EXTENT, costs, group, sizes};
    use super::*;

    const MODEL: Model = Model {
        resolution: 1008,
        patch: 14,
        precision: Precision::Fp32,
    };

    /// The smallest plan for `objects` objects, or the one for a chunk that was asked for, under a limit.
    fn refused(objects: usize, chunk: Option<usize>, limit: u64, provider: Provider) -> OverLimit {
        let (costs, sizes, groups) = (costs(), sizes(), group(objects));
        let plan = plan(&costs, &sizes, &groups, chunk.unwrap_or(1));
        assert!(plan.total_bytes > limit);
        let refused = Refused {
            plan: &plan,
            costs: &costs,
            sizes: &sizes,
            groups: &groups,
            extent: EXTENT,
            chunk_requested: chunk.is_some(),
            limit,
            provider,
            model: MODEL,
            bundle: Path::new("models/a"),
            origin: ObjectOrigin::Prompts,
        };
        refused.over_limit()
    }

    fn total(objects: usize, chunk: usize) -> u64 {
        plan(&costs(), &sizes(), &group(objects), chunk).total_bytes
    }

    #[test]
    fn a_chunk_that_was_asked_for_may_be_smaller() {
        let over = refused(20, Some(8), total(20, 3), Provider::Cpu);
        assert_eq!((over.objects, over.chunk), (20, 8));
        assert_eq!(over.needed, total(20, 8));
        let smaller = Fit::Chunk {
            chunk: 3,
            bytes: total(20, 3),
        };
        assert_eq!(over.would_fit[0], smaller);
        // Without a request the smaller ones were tried.
        let over = refused(20, None, total(20, 1) - 1, Provider::Cpu);
        assert!(!matches!(over.would_fit[0], Fit::Chunk { .. }), "{over}");
    }

    #[test]
    fn fewer_objects_fit_one_at_a_time() {
        let over = refused(20, None, total(12, 1), Provider::Cpu);
        assert_eq!(over.would_fit[0], Fit::Objects(12));
        assert_eq!(over.would_fit.last(), Some(&Fit::Limit(total(20, 1))));
        // Not even one.
        let over = refused(20, None, 4 << 20, Provider::Cpu);
        let objects = over.would_fit.iter();
        assert_eq!(
            objects.filter(|fit| matches!(fit, Fit::Objects(_))).count(),
            0
        );
    }

    #[test]
    fn a_lower_resolution_leaves_the_weights_and_shrinks_the_rest_by_its_area() {
        let needed = total(2, 1);
        let weights = 4 << 20;
        // A quarter of the rest is half of the side.
        let limit = weights + (needed - weights) / 4;
        let over = refused(2, None, limit, Provider::Cpu);
        let side = over.would_fit.iter().find_map(|fit| match fit {
            Fit::Resolution(side) => Some(*side),
            _ => None,
        });
        assert!(matches!(side, Some(490 | 504)), "{over}");
        // Less than four patches is no image.
        let over = refused(2, None, weights, Provider::Cpu);
        assert_eq!(over.would_fit, [Fit::Limit(needed)]);
    }

    #[test]
    fn half_precision_is_for_a_gpu_where_half_fits() {
        let needed = total(2, 1);
        let has = |limit, provider| {
            let over = refused(2, None, limit, provider);
            over.would_fit.contains(&Fit::Fp16(needed / 2))
        };
        assert!(has(needed / 2, Provider::Cuda));
        assert!(!has(needed / 2 - 1, Provider::Cuda));
        assert!(!has(needed / 2, Provider::Cpu));
    }

    #[test]
    fn the_text_names_what_is_needed_and_each_change() {
        let over = refused(20, Some(8), total(20, 3), Provider::Cpu);
        let text = over.to_string();
        for part in [
            "models/a with 20 objects and 8 at once needs ",
            " of memory, but the limit is ",
            "; the largest part is the memory attention's working memory with ",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let changes = [
            (
                Fit::Chunk {
                    chunk: 2,
                    bytes: 3 << 20,
                },
                "a chunk of 2 (3.00 MiB)",
            ),
            (Fit::Objects(1), "1 object at once"),
            (Fit::Resolution(504), "a bundle of about 504 px or less"),
            (Fit::Fp16(6 << 20), "a bundle in fp16 (about 6.00 MiB)"),
            (Fit::Limit((12 << 20) - 5), "a limit of 12MiB or more"),
        ];
        for (change, text) in changes {
            assert_eq!(change.to_string(), text);
        }
    }
}
