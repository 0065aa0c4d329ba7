//! What a package is made of, for its bill of materials.

use super::bom::Material;
use super::crates::Crate;
use super::libraries::PROGRAM;
use super::notes::Facts;
use super::wheels::{Distribution, normalized};

/// All materials: the program, its crates, wheels, FFmpeg, Debian packages and bundles.
pub(super) fn materials(
    facts: &Facts<'_>,
    crates: &[Crate],
    wheels: &[&Distribution],
) -> Vec<Material> {
    let mut materials = vec![Material {
        name: PROGRAM.to_owned(),
        version: facts.version.to_owned(),
        licence: env!("CARGO_PKG_LICENSE").to_owned(),
        purl: None,
        linked: false,
        comment: String::new(),
    }];
    materials.extend(crates.iter().map(|one| Material {
        name: one.name.to_owned(),
        version: one.version.to_owned(),
        licence: one.licence.to_owned(),
        purl: Some(format!("pkg:cargo/{}@{}", one.name, one.version)),
        linked: true,
        comment: String::new(),
    }));
    materials.extend(wheels.iter().map(|wheel| Material {
        name: wheel.name.clone(),
        version: wheel.version.clone(),
        licence: wheel.licence.clone(),
        purl: Some(format!(
            "pkg:pypi/{}@{}",
            normalized(&wheel.name),
            wheel.version
        )),
        linked: false,
        comment: String::new(),
    }));
    if let Some(version) = facts.ffmpeg {
        materials.push(Material {
            name: "ffmpeg".to_owned(),
            version: version.to_owned(),
            licence: "GPL-2.0-or-later".to_owned(),
            purl: Some(format!("pkg:deb/debian/ffmpeg@{version}?arch=source")),
            linked: false,
            comment:
                "Built from Debian's source with the options in licences/ffmpeg/CONFIGURATION."
                    .to_owned(),
        });
    }
    materials.extend(facts.debian.iter().map(|package| Material {
        name: package.name.clone(),
        version: package.version.clone(),
        licence: String::new(),
        purl: Some(format!(
            "pkg:deb/debian/{}@{}",
            package.name, package.version
        )),
        linked: false,
        comment: format!(
            "Licences: licences/debian/{}. Source package: {} {}.",
            package.name, package.source, package.source_version
        ),
    }));
    materials.extend(facts.bundles.iter().map(|bundle| Material {
        name: bundle.path.clone(),
        version: bundle.manifest_sha256.clone(),
        licence: bundle.licence.clone(),
        purl: None,
        linked: false,
        comment: "A bundle; its version is the SHA-256 of its manifest.json.".to_owned(),
    }));
    materials
}
