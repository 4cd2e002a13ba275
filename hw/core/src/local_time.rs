//! How far local time is ahead of UTC: `-rtc base=localtime`. Unsafe: one call into the C library.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// Seconds that local time is ahead of UTC at `seconds` since 1970-01-01 UTC; 0 if the C library cannot tell.
pub fn ahead_of_utc(seconds: i64) -> i64 {
    let time: libc::time_t = seconds;
    let mut tm = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live locals of the right type; an all-zero `tm` is a valid value, so it is initialised whether or
    // not the call succeeds.
    let tm = unsafe {
        libc::localtime_r(&raw const time, tm.as_mut_ptr());
        tm.assume_init()
    };
    tm.tm_gmtoff
}

#[cfg(test)]
mod tests {
    use super::ahead_of_utc;

    #[test]
    fn offsets_are_less_than_a_day_and_whole_minutes_today() {
        let ahead = ahead_of_utc(1_700_000_000);
        assert!(ahead.abs() < 86_400 && ahead % 60 == 0, "{ahead}");
    }
}
