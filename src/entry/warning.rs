//! A warning about one path, as reports, snapshots and JSON carry it.

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Maximum number of warnings that a report or a snapshot lists. Further warnings are only counted.
pub(crate) const WARNINGS_MAX: usize = 10_000;

/// Something that was not saved, or not restored, as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The path that it is about.
    pub path: PathText,
    /// What happened, for people.
    pub what: String,
}

/// A path of any bytes. It serialises as text if it is UTF-8, otherwise as `{"base64": …}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathText(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm {
    Text(String),
    Bytes { base64: String },
}

impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => PathForm::Text(text.to_owned()),
            Err(_) => PathForm::Bytes { base64: BASE64.encode(&self.0) },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match PathForm::deserialize(deserializer)? {
            PathForm::Text(text) => Ok(PathText(text.into_bytes())),
            PathForm::Bytes { base64 } => {
                BASE64.decode(base64.as_bytes()).map(PathText).map_err(|_| serde::de::Error::custom("bad base64"))
            }
        }
    }
}
