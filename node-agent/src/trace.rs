//! Parts of a traced piece of work as spans. The same work outside of every trace, a repair for example, makes none.

/// A span of this name below the current one; none where there is no current one.
macro_rules! part {
    ($name:literal) => {
        if tracing::Span::current().is_none() { tracing::Span::none() } else { tracing::info_span!($name) }
    };
}

pub(crate) use part;
