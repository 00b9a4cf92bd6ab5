//! A panic is a fault of infill: one sentence and exit code 1, like any other failure.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

use crate::failure::{Failure, Result};

/// What the last panic said, and where.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the panic's text for the one who catches it, instead of printing it.
pub(crate) fn install() {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let place =
            info.location().map(|at| format!(" (at {}:{})", at.file(), at.line())).unwrap_or_default();
        let message = format!("{}{place}", text.unwrap_or("no message"));
        // A server catches panics of its own; this is where they can be found.
        tracing::error!("{message}");
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }));
}

/// Runs `work`; a panic in it is a failure.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let message = LAST.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        Err(Failure::Failed(format!("infill has a fault: {message}; please report it")))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[test]
    fn a_panic_is_one_sentence() {
        install();
        let failure = caught::<()>(|| panic!("two\nlines")).err();
        let _ = panic::take_hook();
        let sentence = failure.map(|f| f.sentence()).unwrap_or_default();
        assert!(
            sentence.starts_with("infill has a fault: two; lines (at ") && sentence.contains("panics.rs"),
            "{sentence}"
        );
    }
}
