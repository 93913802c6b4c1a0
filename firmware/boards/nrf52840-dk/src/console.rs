//! The console: lines of text in memory that a debug probe reads (RTT). Nothing is read from it, and a line for which there is no room, because
//! nobody reads, is left out.

/// Writes a line.
#[macro_export]
macro_rules! say {
    ($($arguments:tt)*) => {
        ::rtt_target::rprintln!("{}", ::core::format_args!($($arguments)*))
    };
}
