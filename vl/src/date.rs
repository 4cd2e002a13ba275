//! Dates: those of `-rtc base=…`, and of snapshots.

/// Seconds since 1970-01-01 UTC of `YYYY-MM-DD` or `YYYY-MM-DDThh:mm:ss`.
pub fn parse(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let numbers = |t: &str, sep: char, widths: [usize; 3]| -> Option<[i64; 3]> {
        let parts: Vec<&str> = t.split(sep).collect();
        let [a, b, c] = <[&str; 3]>::try_from(parts).ok()?;
        let number = |(t, w): (&str, usize)| {
            (t.len() <= w && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse().ok()).flatten()
        };
        let [w0, w1, w2] = widths;
        Some([number((a, w0))?, number((b, w1))?, number((c, w2))?])
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 || year < 1970 {
        return None;
    }
    // Days from civil date, after H. Hinnant's public-domain algorithm `days_from_civil`.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y / 400;
    let yoe = y - era * 400;
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    let days = era * 146_097 + doe - 719_468;
    Some(days * 86400 + hour * 3600 + minute * 60 + second)
}

/// Seconds since 1970-01-01 UTC as `YYYY-MM-DD hh:mm:ss` in the host's time zone.
pub fn local(seconds: i64) -> String {
    show(seconds.saturating_add(hw_core::local_time::ahead_of_utc(seconds)))
}

fn show(seconds: i64) -> String {
    // Civil date from days, the inverse of the above (H. Hinnant's `civil_from_days`).
    let (days, second) = (seconds.div_euclid(86400) + 719_468, seconds.rem_euclid(86400));
    let (era, doe) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let (mp, march) = ((5 * doy + 2) / 153, yoe + era * 400);
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = if month <= 2 { march + 1 } else { march };
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02}", second % 60)
}

#[cfg(test)]
mod tests {
    use super::{parse, show};

    #[test]
    fn what_is_shown_is_understood_again() {
        for seconds in [0, 951_868_799, 951_868_800, 1_150_560_081, 4_107_542_399] {
            assert_eq!(parse(&show(seconds).replace(' ', "T")), Some(seconds));
        }
        assert_eq!(show(951_782_400), "2000-02-29 00:00:00");
        show(i64::MAX);
    }

    #[test]
    fn dates() {
        assert_eq!(parse("1970-01-01"), Some(0));
        assert_eq!(parse("2006-06-17T16:01:21"), Some(1_150_560_081));
        assert_eq!(parse("2000-02-29T23:59:59"), Some(951_868_799));
        for bad in ["2001-02-29", "2006-13-01", "x", "2006-06-17T24:00:00", "2006-06", "06-06-06T1:1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
