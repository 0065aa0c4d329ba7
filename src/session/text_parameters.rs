//! The parameters of text tracking: the bundle's, with a run's changes.

use super::config::Parameter;
use super::error::ParameterError;
use crate::bundle::TextTrackingSpec;

/// The bundle's parameters with `changes`; of two changes of a name the last counts.
///
/// # Errors
/// A parameter that does not exist, or a value of another type.
pub(crate) fn changed(
    bundle: &TextTrackingSpec,
    changes: &[Parameter],
) -> Result<TextTrackingSpec, ParameterError> {
    let together = |error: serde_json::Error| ParameterError::Together {
        reason: error.to_string(),
    };
    let mut values = serde_json::to_value(bundle).map_err(together)?;
    let serde_json::Value::Object(fields) = &mut values else {
        return Err(ParameterError::Together {
            reason: "the bundle's parameters are no JSON object".to_owned(),
        });
    };
    for Parameter { name, value } in changes {
        let Some(field) = fields.get_mut(name) else {
            return Err(ParameterError::Unknown {
                name: name.clone(),
                names: fields.keys().cloned().collect(),
            });
        };
        let parsed = serde_json::from_str::<serde_json::Value>(value)
            .ok()
            .filter(|value| value.is_boolean() == field.is_boolean() && !value.is_string());
        let expected = match field.is_boolean() {
            true => "true or false",
            false => "a number",
        };
        *field = parsed.ok_or_else(|| ParameterError::Value {
            name: name.clone(),
            value: value.clone(),
            expected: expected.to_owned(),
        })?;
    }
    serde_json::from_value(values).map_err(together)
}
