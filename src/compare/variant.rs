//! Variants, and their description as text: `NAME=DIR[,KEY=VALUE…]`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::error::AbError;
use crate::runtime::Provider;
use crate::size;
use crate::tracker::memory_policy::Selection;

/// The keys of a description, for messages.
const KEYS: &str = "provider, device-id, ort-lib, threads, chunk, mem-limit, memory-selection, detect-every, det-res, follow, discover-every";

/// A bundle and how it is run. A setting that is `None` is that of the whole comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its name: 1 to [`MAX_NAME`] letters, digits, `-` and `_`.
    pub name: String,
    /// The bundle's folder.
    pub model: PathBuf,
    /// The provider on which it runs.
    pub provider: Option<Provider>,
    /// The GPU, 0 or more.
    pub device_id: Option<i32>,
    /// The ONNX Runtime library.
    pub ort_lib: Option<PathBuf>,
    /// CPU threads.
    pub threads: Option<NonZeroUsize>,
    /// The largest number of objects in one run of a graph.
    pub chunk: Option<NonZeroUsize>,
    /// The largest number of bytes that its graphs may use.
    pub mem_limit: Option<u64>,
    /// Which tracked frames may be recalled.
    pub memory_selection: Option<Selection>,
    /// Frames from one detection to the next.
    pub detect_every: Option<NonZeroUsize>,
    /// The resolution of the detector in pixels.
    pub det_res: Option<u32>,
    /// Parameters of text tracking, `NAME=VALUE` each.
    pub follow: Vec<String>,
    /// Frames from one run of the graph that proposes objects to the next.
    pub discover_every: Option<NonZeroUsize>,
}

/// The largest number of characters in a name.
pub const MAX_NAME: usize = 40;

impl Variant {
    /// The first key that it sets and that has a meaning only with texts.
    pub fn key_of_texts(&self) -> Option<&'static str> {
        let keys = [
            self.detect_every.map(|_| "detect-every"),
            self.det_res.map(|_| "det-res"),
            self.follow.first().map(|_| "follow"),
        ];
        keys.into_iter().flatten().next()
    }

    /// The first key that it sets and that has a meaning only with proposals.
    pub fn key_of_proposals(&self) -> Option<&'static str> {
        self.discover_every.map(|_| "discover-every")
    }

    /// Reads the description of one variant.
    ///
    /// # Errors
    /// [`AbError::Variant`] says what cannot be read.
    pub fn parse(text: &str) -> Result<Self, AbError> {
        let bad = |detail: String| AbError::Variant {
            text: text.to_owned(),
            detail,
        };
        let (name, rest) = text
            .split_once('=')
            .ok_or_else(|| bad("expected NAME=DIR or NAME=DIR,KEY=VALUE,…".into()))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
            return Err(bad(format!(
                "the name is {name:?}, expected 1 to {MAX_NAME} letters, digits, - or _"
            )));
        }
        let mut parts = rest.split(',');
        let model = parts.next().unwrap_or_default();
        if model.is_empty() {
            return Err(bad("expected the folder of a bundle after =".into()));
        }
        let mut variant = Self {
            name: name.to_owned(),
            model: model.into(),
            provider: None,
            device_id: None,
            ort_lib: None,
            threads: None,
            chunk: None,
            mem_limit: None,
            memory_selection: None,
            detect_every: None,
            det_res: None,
            follow: Vec::new(),
            discover_every: None,
        };
        let mut seen = Vec::new();
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                bad(format!(
                    "expected KEY=VALUE after a comma, got {part:?}; a path must not have a comma"
                ))
            })?;
            // `follow` sets another parameter each time.
            if key != "follow" && seen.contains(&key) {
                return Err(bad(format!("{key} is given twice")));
            }
            seen.push(key);
            variant.set(key, value).map_err(bad)?;
        }
        Ok(variant)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let count = || {
            let number = value.parse::<NonZeroUsize>();
            let wrong = |_| format!("{key}={value}: expected a whole number, 1 or more");
            number.map(Some).map_err(wrong)
        };
        match key {
            "provider" => self.provider = Some(value.parse()?),
            "device-id" => {
                let id = value.parse::<i32>().ok().filter(|id| *id >= 0);
                let id = id.ok_or(format!("device-id={value}: expected a number, 0 or more"))?;
                self.device_id = Some(id);
            }
            "ort-lib" if !value.is_empty() => self.ort_lib = Some(value.into()),
            "ort-lib" => return Err("ort-lib=: expected a path".into()),
            "threads" => self.threads = count()?,
            "chunk" => self.chunk = count()?,
            "mem-limit" => {
                let bytes =
                    size::parse(value).map_err(|why| format!("mem-limit={value}: {why}"))?;
                self.mem_limit = Some(bytes);
            }
            "memory-selection" => {
                let selection = value.parse();
                let wrong = |why| format!("memory-selection={value}: {why}");
                self.memory_selection = Some(selection.map_err(wrong)?);
            }
            "detect-every" => self.detect_every = count()?,
            "det-res" => {
                let side = count()?.and_then(|side| u32::try_from(side.get()).ok());
                self.det_res = Some(side.ok_or(format!("det-res={value}: expected pixels"))?);
            }
            "follow" if value.contains('=') => self.follow.push(value.to_owned()),
            "follow" => {
                return Err(format!("follow={value}: expected follow=NAME=VALUE"));
            }
            "discover-every" => self.discover_every = count()?,
            _ => return Err(format!("unknown key {key:?}, expected one of {KEYS}")),
        }
        Ok(())
    }
}

/// Reads all variants of a comparison; the first is the baseline.
///
/// # Errors
/// [`AbError::Variant`], [`AbError::TooFewVariants`] and [`AbError::SameName`].
pub fn parse_all(texts: &[String]) -> Result<Vec<Variant>, AbError> {
    let variants = texts
        .iter()
        .map(|text| Variant::parse(text))
        .collect::<Result<Vec<_>, _>>()?;
    if variants.len() < 2 {
        return Err(AbError::TooFewVariants {
            count: variants.len(),
        });
    }
    for (place, variant) in variants.iter().enumerate() {
        // Names become folders, and some file systems ignore case.
        let same = |other: &&Variant| other.name.eq_ignore_ascii_case(&variant.name);
        if let Some(other) = variants[..place].iter().find(same) {
            return Err(AbError::SameName {
                name: other.name.clone(),
            });
        }
    }
    Ok(variants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_has_a_name_a_folder_and_options() {
        let variant = Variant::parse(
            "b=models/x-672=y,provider=cuda,device-id=1,chunk=8,mem-limit=4GiB,ort-lib=/l.so,threads=2",
        )
        .unwrap();
        assert_eq!(
            (variant.name.as_str(), variant.model.to_str()),
            ("b", Some("models/x-672=y"))
        );
        assert_eq!(
            (variant.provider, variant.device_id),
            (Some(Provider::Cuda), Some(1))
        );
        assert_eq!(
            (variant.chunk, variant.threads),
            (NonZeroUsize::new(8), NonZeroUsize::new(2))
        );
        assert_eq!(
            (variant.mem_limit, variant.ort_lib),
            (Some(4 << 30), Some("/l.so".into()))
        );
        let variant = Variant::parse("a=m").unwrap();
        assert_eq!((variant.provider, variant.key_of_texts()), (None, None));
        assert_eq!(variant.key_of_proposals(), None);
        let variant = Variant::parse(
            "a=m,detect-every=4,det-res=336,follow=x=1,follow=y=2,memory-selection=all,discover-every=8",
        )
        .unwrap();
        assert_eq!(
            (variant.detect_every, variant.det_res),
            (NonZeroUsize::new(4), Some(336))
        );
        assert_eq!(variant.follow, ["x=1", "y=2"]);
        assert_eq!(variant.memory_selection, Some(Selection(None)));
        assert_eq!(variant.key_of_texts(), Some("detect-every"));
        assert_eq!(variant.key_of_proposals(), Some("discover-every"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, word) in [
            ("models/x", "NAME=DIR"),
            ("=m", "the name is \"\""),
            ("a.b=m", "the name is \"a.b\""),
            ("a=", "folder"),
            ("a=m,fast", "KEY=VALUE"),
            (
                "a=m,speed=3",
                "unknown key \"speed\", expected one of provider",
            ),
            ("a=m,provider=tpu", "unknown provider \"tpu\""),
            ("a=m,chunk=0", "chunk=0: expected a whole number"),
            ("a=m,mem-limit=lots", "mem-limit=lots: expected a size"),
            ("a=m,device-id=-1", "device-id=-1"),
            ("a=m,chunk=1,chunk=2", "chunk is given twice"),
            ("a=m,ort-lib=", "expected a path"),
            ("a=m,detect-every=0", "detect-every=0: expected a whole"),
            ("a=m,det-res=small", "det-res=small: expected a whole"),
            ("a=m,det-res=9999999999", "det-res=9999999999: expected pix"),
            ("a=m,follow=x", "follow=x: expected follow=NAME=VALUE"),
            ("a=m,memory-selection=2", "memory-selection=2: expected a n"),
            ("a=m,discover-every=-1", "discover-every=-1: expected a wh"),
        ] {
            let message = Variant::parse(text).unwrap_err().to_string();
            assert!(
                message.contains(word) && message.contains(text),
                "{message}"
            );
        }
        let all = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            parse_all(&texts).map(|all| all.len())
        };
        assert_eq!(all(&["a=m", "b=m"]).unwrap(), 2);
        for (texts, word) in [
            (&["a=m"][..], "two variants or more, got 1"),
            (&["a=m", "A=n"], "called a"),
        ] {
            let message = all(texts).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
