//! Events for programs that collect them: only with the feature `tracing`, and never on a hot path.
//!
//! A subscriber is foreign code that may call the store, even
//! [`Engine::close`](crate::Engine::close). So only a thread that holds no lock reports an event.
//! What happens under a lock is recorded there and reported after its release.

/// Reports an event through `tracing` if the feature is enabled. Otherwise it does nothing.
macro_rules! event {
    ($level:ident, $($arg:tt)+) => {
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "seawal", $($arg)+);
    };
}

pub(crate) use event;
