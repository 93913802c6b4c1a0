//! The console: lines of text for whoever watches the board. Nothing is read from it.

use core::fmt;

use crate::hardware::CONSOLE;

/// The console, for `writeln!`.
#[derive(Debug, Clone, Copy)]
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        CONSOLE.send(text.as_bytes());
        Ok(())
    }
}

/// Writes a line.
#[macro_export]
macro_rules! say {
    ($($arguments:tt)*) => {{
        use ::core::fmt::Write as _;
        // The console never refuses.
        ::core::writeln!($crate::console::Console, $($arguments)*).unwrap_or_default();
    }};
}
