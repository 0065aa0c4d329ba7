//! The bill of materials, as an SPDX 2.3 document in JSON.

use serde_json::{Value, json};
use spdx::{Expression, ParseMode};

use super::archive::TIME;

/// A part of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Material {
    /// Its name in its registry or distribution.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as it states it: an SPDX expression or any text; empty if it states none.
    pub licence: String,
    /// Its package URL; `None` if it is not from a registry.
    pub purl: Option<String>,
    /// Whether it is linked into the program rather than a file beside it.
    pub linked: bool,
    /// A remark.
    pub comment: String,
}

/// The document for the package `name`. `digest` is a hash of its contents; it makes the document's namespace unique.
pub(super) fn document(name: &str, version: &str, digest: &str, materials: &[Material]) -> Value {
    let root = "SPDXRef-Package";
    let mut packages = vec![json!({
        "SPDXID": root,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    })];
    let mut relations = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": root,
    })];
    for (number, material) in materials.iter().enumerate() {
        let id = format!("SPDXRef-{number}-{}", id_part(&material.name));
        let declared = expression(&material.licence);
        let mut comment = material.comment.clone();
        if declared.is_none() && !material.licence.is_empty() {
            comment = format!("States its licence as: {}. {comment}", material.licence);
        }
        let mut package = json!({
            "SPDXID": id,
            "name": material.name,
            "versionInfo": material.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": declared.unwrap_or_else(|| "NOASSERTION".to_owned()),
            "copyrightText": "NOASSERTION",
            "comment": comment.trim(),
        });
        if let Some(purl) = &material.purl {
            package["externalRefs"] = json!([{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }]);
        }
        packages.push(package);
        relations.push(json!({
            "spdxElementId": root,
            "relationshipType": if material.linked { "STATIC_LINK" } else { "CONTAINS" },
            "relatedSpdxElement": id,
        }));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/{name}-{digest}"),
        "creationInfo": {
            "created": created(),
            "creators": [format!("Tool: snow-ort-{version}")],
            "comment": "The time is that of every entry of the archive: the same inputs give the same bytes.",
        },
        "packages": packages,
        "relationships": relations,
    })
}

/// [`TIME`] as SPDX writes it.
fn created() -> &'static str {
    const { assert!(TIME == 315_532_800) };
    "1980-01-01T00:00:00Z"
}

/// A licence as an SPDX expression; `None` if it is not one.
pub(super) fn expression(licence: &str) -> Option<String> {
    // Older crates write `/` for `OR`.
    let licence = licence.replace('/', " OR ");
    let mode = ParseMode {
        allow_deprecated: true,
        ..ParseMode::STRICT
    };
    Expression::parse_mode(&licence, mode).ok()?;
    let canonical = Expression::canonicalize(&licence).ok()?;
    Some(canonical.unwrap_or(licence))
}

/// The name with `-` for every character that an SPDX identifier must not have.
fn id_part(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material(name: &str, licence: &str) -> Material {
        Material {
            name: name.to_owned(),
            version: "1".to_owned(),
            licence: licence.to_owned(),
            purl: Some(format!("pkg:cargo/{name}@1")),
            linked: true,
            comment: String::new(),
        }
    }

    #[test]
    fn other_texts_are_not_expressions() {
        for valid in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR MIT",
            "(MIT AND BSD-3-Clause) OR Zlib",
            "GPL-2.0-or-later",
        ] {
            assert!(expression(valid).is_some(), "{valid}");
        }
        for other in [
            "",
            "MIT License",
            "NVIDIA Proprietary Software",
            "OR MIT",
            "MIT OR",
            "SAM License",
        ] {
            assert_eq!(expression(other), None, "{other}");
        }
    }

    #[test]
    fn every_material_has_an_id_and_a_relation() {
        let materials = [
            material("zstd", "MIT"),
            material("a_b", "MIT License"),
            material("a-b", "MIT"),
        ];
        let document = document("p", "0.1.0", "abc", &materials);
        let packages = document["packages"].as_array().unwrap();
        let ids: std::collections::BTreeSet<&str> = packages
            .iter()
            .map(|p| p["SPDXID"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), 4);
        assert!(ids.iter().all(|id| {
            id.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
        }));
        assert_eq!(document["relationships"].as_array().unwrap().len(), 4);
        assert_eq!(packages[2]["licenseDeclared"], "NOASSERTION");
        assert!(
            packages[2]["comment"]
                .as_str()
                .unwrap()
                .contains("MIT License")
        );
        assert_eq!(packages[1]["licenseDeclared"], "MIT");
        assert!(
            document["documentNamespace"]
                .as_str()
                .unwrap()
                .ends_with("p-abc")
        );
    }
}
