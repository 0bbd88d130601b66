//! What happens, step by step, for whoever looks for a fault.
//!
//! Off until a program installs a listener; then the parent half tells each step as it happens. The child half says
//! nothing of its own here: what it reports to the parent is told by the parent.

use std::fmt;
use std::sync::OnceLock;

/// Takes one message at a time, from whatever thread works.
pub type Listener = fn(fmt::Arguments<'_>);

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Installs the listener of this process; the first one stays. Whether it was the first.
///
/// The listener must not panic, and must not call back into this crate.
pub fn listen(listener: Listener) -> bool {
    LISTENER.set(listener).is_ok()
}

/// Whether somebody listens: for what costs before it can be told.
pub(crate) fn is_heard() -> bool {
    LISTENER.get().is_some()
}

/// Tells the listener, if there is one.
pub(crate) fn tell(message: fmt::Arguments<'_>) {
    if let Some(listener) = LISTENER.get() {
        listener(message);
    }
}

/// Tells the listener; the arguments are formatted only if there is one.
macro_rules! trace {
    ($($argument:tt)*) => {
        $crate::trace::tell(format_args!($($argument)*))
    };
}

pub(crate) use trace;
