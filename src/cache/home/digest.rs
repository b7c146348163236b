//! What two homes of a model are told apart by: whatever a later step can depend on. Every field is named here, so that a new one
//! does not compile before someone has decided.

use std::hash::{Hash, Hasher};

use super::Home;
use crate::rules::Rules;

impl<R: Rules> Hash for Home<R> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self {
            node,
            term,
            config: _,
            elected_us,
            next_number,
            next_transaction,
            leases,
            joining,
            releasing,
            leaving,
            directory,
            busy,
            fills,
            traffic,
            rules: _,
        } = self;
        (node, term, elected_us, next_number, next_transaction).hash(hasher);
        (leases, joining, releasing, leaving, directory, busy, fills, traffic).hash(hasher);
    }
}
