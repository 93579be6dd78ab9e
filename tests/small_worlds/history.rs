//! What led to a failure: kept only when a world is played once more to tell it.

use std::cell::RefCell;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// From now on, or no more.
pub fn keep(keep: bool) {
    LINES.with(|lines| *lines.borrow_mut() = keep.then(Vec::new));
}

/// Something happened.
pub fn note(what: impl FnOnce() -> String) {
    LINES.with(|lines| {
        if let Some(lines) = &mut *lines.borrow_mut() {
            lines.push(what());
        }
    });
}

/// How much happened so far.
pub fn length() -> usize {
    LINES.with(|lines| lines.borrow().as_ref().map_or(0, Vec::len))
}

/// What happened since then was only tried, and nothing was wrong with it.
pub fn forget_from(length: usize) {
    LINES.with(|lines| lines.borrow_mut().iter_mut().for_each(|lines| lines.truncate(length)));
}

/// All of it.
pub fn told() -> String {
    LINES.with(|lines| lines.borrow().as_ref().map_or(String::new(), |lines| lines.join("\n")))
}
