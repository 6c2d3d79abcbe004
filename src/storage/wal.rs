//! placeholder
use super::Error;
use std::path::Path;
pub(super) fn verify(_directory: &Path) -> Result<(), Error> {
    Ok(())
}
