//! The highest token that was shown for a resource: for resources that cannot keep it themselves.
//!
//! ```text
//!   holder 33 ──▶ Fence(disk, 33) ──▶ passes           holder 34 ──▶ Fence(disk, 34) ──▶ passes
//!   holder 33 (late) ──▶ Fence(disk, 33) ──▶ StaleToken, hint 34
//! ```
//!
//! A check and the use of the resource after it are two steps: a holder that is stopped between them is late all the same. It is
//! weaker than a resource that looks at the token itself, in the very step that changes it, and better than no check.
//!
//! What was shown once is never forgotten: to forget would be to let an old token pass. So the number of resources is bounded.

use std::sync::Arc;

use trine_protocol::lock::{Fence, Fenced};
use trine_protocol::{Error, ErrorCode};

use super::release::check_name;
use super::state::State;
use super::stored::Record;
use crate::ids::At;

impl State {
    pub(super) fn fence(&mut self, at: At, fence: &Fence) -> Result<Fenced, Error> {
        let Fence { resource, token } = fence;
        check_name("resource", resource)?;
        if *token == 0 || *token > at.token() {
            let message = format!("token {token} was never given out in this group: 1 to {} can have been", at.token());
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let before = self.fences.get(resource.as_str()).copied().unwrap_or(0);
        if *token < before {
            let message = format!("token {before} was shown for '{resource}' already: {token} is late");
            return Err(Error::new(ErrorCode::StaleToken, message).with_hint(before.to_string()));
        }
        let fences_max = self.bounds.fences_max;
        if before == 0 && self.fences.len() >= fences_max {
            let message = format!("the group keeps tokens for {fences_max} resources, as many as it may");
            return Err(Error::new(ErrorCode::Overloaded, message));
        }
        if *token > before {
            let resource: Arc<str> = resource.as_str().into();
            self.touch(Record::Fence(Arc::clone(&resource)));
            self.fences.insert(resource, *token);
        }
        Ok(Fenced { before })
    }
}
