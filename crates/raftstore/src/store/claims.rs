//! Which ranges are being created or destroyed here: one at a time does that to a range.

use isotherm_types::RangeId;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;

/// The ranges that somebody is creating or destroying on this node.
#[derive(Debug, Default, Clone)]
pub struct Claims(Arc<Mutex<HashSet<RangeId>>>);

/// The right to create or destroy the replica of a range here; given back when dropped.
#[derive(Debug)]
pub struct Claim {
    claims: Claims,
    range: RangeId,
}

impl Claims {
    /// The claim on `range`, unless somebody has it.
    pub fn take(&self, range: RangeId) -> Option<Claim> {
        let is_free = self.0.lock().insert(range);
        is_free.then(|| Claim { claims: self.clone(), range })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.0.lock().remove(&self.range);
    }
}
