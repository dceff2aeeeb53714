//! How well the kernel's clock is kept, by what the time daemon has told the kernel.

use std::io;
use std::time::Duration;

/// How far the clock may be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockAccuracy {
    /// The most it differs from UTC; grows as long as nobody synchronises it.
    pub error_bound: Duration,
    /// Whether somebody keeps it synchronised.
    pub synchronized: bool,
}

/// Asks the kernel.
///
/// # Errors
/// What the kernel refuses.
pub fn clock_accuracy() -> io::Result<ClockAccuracy> {
    // SAFETY: all zero is a valid `timex`. With `modes` 0 the call only fills it in, and it is ours alone.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    if state == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(ClockAccuracy {
        error_bound: Duration::from_micros(u64::try_from(timex.maxerror).unwrap_or_default()),
        synchronized: timex.status & libc::STA_UNSYNC == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_good_its_clock_is() {
        let accuracy = clock_accuracy().expect("readable");
        assert!(accuracy.synchronized || accuracy.error_bound > Duration::ZERO, "{accuracy:?}");
    }
}
