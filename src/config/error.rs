//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;

/// A configuration that will not do. Its text is for the operator: place, cause, cure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// `FILE:LINE`, a flag, or a file.
    pub place: String,
    /// What is wrong.
    pub cause: String,
    /// What to write or run instead.
    pub cure: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}\n  cure: {}", self.place, self.cause, self.cure)
    }
}

impl std::error::Error for ConfigError {}

/// A value that will not do, before it is known where it stood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Complaint {
    pub cause: String,
    pub cure: String,
}

impl Complaint {
    pub(super) fn new(cause: impl Into<String>, cure: impl Into<String>) -> Complaint {
        Complaint { cause: cause.into(), cure: cure.into() }
    }

    pub(super) fn at(self, place: impl Into<String>) -> ConfigError {
        ConfigError { place: place.into(), cause: self.cause, cure: self.cure }
    }
}
