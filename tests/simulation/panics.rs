//! Panics of a run, wherever they are: the runtime catches those of a task, and nobody asks how the task has ended.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    /// Of the run that has this thread.
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on they are noted.
pub fn note() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let text = || panic.to_string();
            FIRST.with_borrow_mut(|first| _ = first.get_or_insert_with(text));
            before(panic);
        }));
    });
}

/// The first one of this thread's run.
pub fn first() -> Option<String> {
    FIRST.with_borrow(Clone::clone)
}
