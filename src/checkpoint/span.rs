//! The span of the checkpoint in progress, which several calls may advance one after the other.
//!
//! A subscriber is foreign code, so all of these methods are called without any lock.

use crate::events::Span;
use crate::io::sync::{AtomicBool, Mutex, Ordering};

/// The span of a checkpoint, between the calls that advance it.
pub(super) struct CheckpointSpan {
    kept: Mutex<Option<Span>>,
    /// Whether a checkpoint was in progress when the job was last unlocked.
    pub(super) is_under_way: AtomicBool,
}

impl CheckpointSpan {
    pub(super) fn new() -> CheckpointSpan {
        CheckpointSpan { kept: Mutex::new(None), is_under_way: AtomicBool::new(false) }
    }

    /// The span of the checkpoint in progress, or a new one if the call may begin a checkpoint.
    pub(super) fn resume(&self, may_begin: impl FnOnce() -> bool, new: impl FnOnce() -> Span) -> Span {
        if !cfg!(feature = "tracing") {
            return Span::none();
        }
        let kept = self.kept.lock().take();
        kept.unwrap_or_else(
            || if self.is_under_way.load(Ordering::Acquire) || may_begin() { new() } else { Span::none() },
        )
    }

    /// Keeps the span for the next call if the checkpoint goes on.
    pub(super) fn pause(&self, span: Span) {
        if cfg!(feature = "tracing") && self.is_under_way.load(Ordering::Acquire) {
            // another call may have made a span of its own, which then ends here, after the lock
            let _replaced = self.kept.lock().replace(span);
        }
    }
}
