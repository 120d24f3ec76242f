//! Events for programs that collect them: only with the feature `tracing`, and never on a hot path.

/// Tells of something through `tracing`, where the feature is on; nothing otherwise.
macro_rules! event {
    ($level:ident, $($arg:tt)+) => {
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "seawal", $($arg)+);
    };
}

pub(crate) use event;
