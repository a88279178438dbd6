//! Ctrl-C: ends the program at once, or, where a text is being made, after the token under way.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Whether the next Ctrl-C is a request rather than the end.
static LISTENING: AtomicBool = AtomicBool::new(false);
/// Whether Ctrl-C was pressed while somebody listened.
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// As long as this lives, the first Ctrl-C asks the program to stop, and the second one ends it.
pub(crate) struct Interrupts(());

impl Interrupts {
    /// Begins to listen.
    pub(crate) fn listen() -> Self {
        LISTENING.store(true, SeqCst);
        Self(())
    }

    /// Whether Ctrl-C was pressed.
    pub(crate) fn requested() -> bool {
        REQUESTED.load(SeqCst)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        LISTENING.store(false, SeqCst);
    }
}

/// Makes Ctrl-C leave the terminal as it was: on a new line, with its colours and its cursor. Exit code 130.
pub(crate) fn end_cleanly_on_interrupt() {
    const RESTORE: &str = "\x1b[0m\x1b[?25h\n";
    let handle = || {
        if LISTENING.swap(false, SeqCst) {
            REQUESTED.store(true, SeqCst);
            return;
        }
        // Not through `Output`: the interrupted thread may hold it.
        if io::stderr().is_terminal() {
            let _ = io::stderr().write_all(RESTORE.as_bytes());
        } else if io::stdout().is_terminal() {
            let _ = io::stdout().write_all(RESTORE.as_bytes()).and_then(|()| io::stdout().flush());
        }
        std::process::exit(130);
    };
    // Without the handler, the system's own way to end a program remains.
    let _ = ctrlc::set_handler(handle);
}
