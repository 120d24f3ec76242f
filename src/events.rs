//! Events for programs that collect them: only with the feature `tracing`, and never on a hot path.
//!
//! A subscriber is foreign code that may call the store, even [`Engine::close`](crate::Engine::close). So an event is
//! told by a thread that holds no lock: what happens under a lock is noted there, and told after it.

/// Tells of something through `tracing`, where the feature is on; nothing otherwise.
macro_rules! event {
    ($level:ident, $($arg:tt)+) => {
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "seawal", $($arg)+);
    };
}

pub(crate) use event;
