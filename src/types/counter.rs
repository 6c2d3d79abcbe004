//! What a counter may hold.

use super::Invalid;

/// Bounds of a counter, both inclusive, the lower one not above the upper one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    min: i64,
    max: i64,
}

impl Bounds {
    /// From a message's fields; what is not given is as far away as an `i64` goes.
    pub fn parse(min: Option<i64>, max: Option<i64>) -> Result<Self, Invalid> {
        let (min, max) = (min.unwrap_or(i64::MIN), max.unwrap_or(i64::MAX));
        if min > max {
            return Err(Invalid::OutOfRange {
                field: "max",
                min,
                max: i64::MAX,
                actual: max,
            });
        }
        Ok(Self { min, max })
    }

    /// The lower one.
    #[must_use]
    pub fn min(self) -> i64 {
        self.min
    }

    /// The upper one.
    #[must_use]
    pub fn max(self) -> i64 {
        self.max
    }
}
