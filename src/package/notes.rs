//! The texts of a package: README.md, and licences/SOURCES.md with the sources of its libraries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::debian::Installed;
use super::manifest::{BundleEntry, Needs};
use super::recipe::Recipe;

/// The facts in the texts.
pub(super) struct Facts<'a> {
    /// The program's version.
    pub version: &'a str,
    /// Kernel and architecture, such as `linux-x86_64`.
    pub system: &'a str,
    /// What the package is made from.
    pub recipe: &'a Recipe,
    /// Whether FFmpeg is inside.
    pub video: bool,
    /// What the machine must have.
    pub needs: &'a Needs,
    /// The Debian packages with libraries in it.
    pub debian: &'a BTreeSet<Installed>,
    /// Version of the FFmpeg that scripts/build-ffmpeg built; `None` if it is the system's, or without video.
    pub ffmpeg: Option<&'a str>,
    /// The bundles in it.
    pub bundles: &'a [BundleEntry],
}

/// The text of README.md.
pub(super) fn readme(facts: &Facts<'_>) -> String {
    let mut text = format!(
        "# snow-ort {} for {}, {}\n\n\
         Tracks objects in {} with SAM3. Unpack it anywhere, also on a read-only disk; it installs nothing.\n\n",
        facts.version,
        facts.system,
        facts.recipe.runtime,
        if facts.video {
            "videos and folders of images"
        } else {
            "folders of images (this package has no FFmpeg)"
        },
    );
    let clip = if facts.video { "clip.mp4" } else { "frames/" };
    let model = match facts.bundles {
        [] => " --model BUNDLE",
        _ => "",
    };
    let provider = match facts.needs.nvidia_driver {
        Some(_) => " --provider cuda",
        None => "",
    };
    let _ = write!(
        text,
        "    ./snow-ort run {clip} --box 120,80,410,460{model}{provider} --out out\n    ./snow-ort --help\n    sha256sum --check --quiet SHA256SUMS\n\n\
         A link to the program works from any folder: `ln -s \"$PWD/snow-ort\" ~/.local/bin/`.\n\n"
    );
    needs(facts, &mut text);
    if facts.bundles.is_empty() {
        text.push_str("## Models\n\nThe package has no bundle. Give one with --model, or put it into models/ beside the program.\n\n");
    } else {
        text.push_str("## Models\n\n");
        for bundle in facts.bundles {
            let _ = writeln!(text, "- {}: {}", bundle.path, bundle.licence);
        }
        text.push('\n');
    }
    text.push_str(
        "## What is inside\n\n\
         package.json lists every file with its hash and its origin, and what the package needs; bom.spdx.json is the bill of \
         materials; licences/ has the licences of all parts, and SOURCES.md there says what you must do if you pass the package \
         on.\n",
    );
    text
}

/// Adds the section about what the machine must have.
fn needs(facts: &Facts<'_>, text: &mut String) {
    let _ = write!(
        text,
        "## What it needs\n\n- Linux with glibc {} or later (`ldd --version`), and /proc, which every system and container has:\n",
        facts.needs.glibc
    );
    let mut by_glibc: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for part in &facts.needs.glibc_by_part {
        by_glibc.entry(&part.glibc).or_default().push(&part.part);
    }
    for (glibc, parts) in by_glibc.iter().rev() {
        let shown = parts.iter().take(4).copied().collect::<Vec<_>>().join(", ");
        let more = match parts.len().saturating_sub(4) {
            0 => String::new(),
            more => format!(" and {more} more (package.json)"),
        };
        let _ = writeln!(text, "  - {glibc}: {shown}{more}");
    }
    if let (Some(driver), Some(capability)) =
        (&facts.needs.nvidia_driver, &facts.needs.compute_capability)
    {
        let _ = writeln!(
            text,
            "- for --provider cuda: an NVIDIA driver, {driver} or later, and a GPU of compute capability {capability} or later"
        );
        if !facts.recipe.cuda {
            let cuda = facts
                .needs
                .libraries
                .iter()
                .filter(|name| super::closure::is_cuda(name));
            let _ = writeln!(
                text,
                "- for --provider cuda: {}, on the loader's search path (LD_LIBRARY_PATH, ldconfig)",
                cuda.map(String::as_str).collect::<Vec<_>>().join(", ")
            );
        }
    }
    text.push('\n');
}

/// The text of licences/SOURCES.md.
pub(super) fn sources(facts: &Facts<'_>) -> String {
    let mut text = String::from(
        "# Licences and sources\n\n\
         snow-ort is under MIT or Apache-2.0, at your choice. rust-crates.txt has the licences of the crates in it; the other \
         folders have those of the libraries in lib/. ONNX Runtime is under MIT.\n\n",
    );
    if facts.video {
        text.push_str(
            "## FFmpeg: the GPL\n\n\
             The FFmpeg in lib/ is built with x264 and other parts that are under the GNU General Public License. If you pass this \
             package on, changed or not, you must pass it on under the GPL as a whole: with these licences, and with the complete \
             source of the libraries below, or a written offer of it that is valid for three years. snow-ort's own licences allow \
             that. Using the package requires nothing. The package without video (a program built with `--no-default-features`) has \
             none of these parts.\n\n",
        );
        if let Some(version) = facts.ffmpeg {
            let _ = write!(
                text,
                "FFmpeg was built from Debian's source package ffmpeg {version} by scripts/build-ffmpeg of snow-ort. That source \
                 and that script are the complete source; ffmpeg/CONFIGURATION has the options.\n\n"
            );
        }
    }
    if facts.recipe.cuda && facts.recipe.runtime.is_cuda() {
        text.push_str(
            "## NVIDIA's libraries\n\n\
             They are under NVIDIA's licences (folders nvidia-…), which allow you to pass them on, unchanged, as part of an \
             application. The GPL does not allow you to pass on GPL code together with them as one program: ",
        );
        text.push_str(match facts.video {
            true => {
                "keep this package, which has both, to yourself; pass on one without video.\n\n"
            }
            false => "this package has no FFmpeg, so that it can be passed on.\n\n",
        });
    }
    if facts.debian.is_empty() {
        return text;
    }
    text.push_str(
        "## Debian's libraries\n\n\
         Their RPATH was set; nothing else was changed. debian/ has the licence of each, common/ the full texts. The sources are \
         at deb.debian.org, and permanently at snapshot.debian.org:\n\n",
    );
    let sources: BTreeSet<(&str, &str)> = facts
        .debian
        .iter()
        .map(|package| (package.source.as_str(), package.source_version.as_str()))
        .collect();
    for (source, version) in sources {
        let _ = writeln!(text, "    apt-get source {source}={version}");
    }
    text
}
