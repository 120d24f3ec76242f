//! Events and spans for programs that collect them: only with the feature `tracing`, and never on a
//! hot path.
//!
//! A subscriber is foreign code that may call the store, even
//! [`Engine::close`](crate::Engine::close). So only a thread that holds no lock reports an event, or
//! makes, enters, leaves or drops a span. What happens under a lock is recorded there and reported
//! after its release.

use std::fmt::Display;

/// Reports an event through `tracing` if the feature is enabled. Otherwise it does nothing.
macro_rules! event {
    ($level:ident, $($arg:tt)+) => {
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "seawal", $($arg)+);
    };
}

/// Makes a [`Span`] of this name and with these fields. Without the feature, it evaluates none of
/// them.
macro_rules! span {
    ($name:literal, $($fields:tt)+) => {{
        #[cfg(feature = "tracing")]
        let span = $crate::events::Span::new(tracing::info_span!(target: "seawal", $name, $($fields)+));
        #[cfg(not(feature = "tracing"))]
        let span = $crate::events::Span::none();
        span
    }};
}

pub(crate) use {event, span};

/// A span of time that events belong to. Without the feature `tracing`, it is nothing.
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Span {
    #[cfg(feature = "tracing")]
    pub(crate) fn new(span: tracing::Span) -> Span {
        Span { span }
    }

    /// A span that no subscriber sees.
    pub(crate) fn none() -> Span {
        Span {
            #[cfg(feature = "tracing")]
            span: tracing::Span::none(),
        }
    }

    /// Makes the span the current one of this thread, until the result is dropped.
    pub(crate) fn enter(&self) -> impl Sized + '_ {
        #[cfg(feature = "tracing")]
        return self.span.enter();
        #[cfg(not(feature = "tracing"))]
        self
    }

    /// Sets a field that was declared empty.
    pub(crate) fn record(&self, field: &'static str, value: u64) {
        #[cfg(feature = "tracing")]
        self.span.record(field, value);
        #[cfg(not(feature = "tracing"))]
        let _ = (field, value);
    }

    /// Sets a field that was declared empty to a text.
    pub(crate) fn record_text(&self, field: &'static str, value: &dyn Display) {
        #[cfg(feature = "tracing")]
        self.span.record(field, tracing::field::display(value));
        #[cfg(not(feature = "tracing"))]
        let _ = (field, value);
    }
}
