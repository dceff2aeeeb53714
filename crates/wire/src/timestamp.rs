//! Points in time as the protocols write them: epoch seconds, RFC 3339 and HTTP dates.
//!
//! Calendar arithmetic is the proleptic Gregorian calendar in UTC; leap seconds do not exist here, as
//! they do not in Amazon's formats.

use std::fmt;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// The span we read and write: years 0001 to 9999.
const EARLIEST: i64 = -62_135_596_800_000;
const LATEST: i64 = 253_402_300_799_999;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

impl Timestamp {
    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// From seconds with a fraction; `None` outside the years 0001 to 9999.
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        let millis = (seconds * 1000.0).round();
        if !millis.is_finite() || millis < EARLIEST as f64 || millis > LATEST as f64 {
            return None;
        }
        Some(Timestamp(millis as i64))
    }

    /// Seconds with at most three decimals, the form of the JSON protocols.
    pub fn to_epoch(self) -> String {
        let (seconds, millis) = (self.0.div_euclid(1000), self.0.rem_euclid(1000));
        if millis == 0 {
            return seconds.to_string();
        }
        if seconds < 0 {
            // A negative number counts its fraction the other way.
            let magnitude = self.0.unsigned_abs();
            return trim(format!("-{}.{:03}", magnitude / 1000, magnitude % 1000));
        }
        trim(format!("{seconds}.{millis:03}"))
    }

    /// RFC 3339 in UTC, with milliseconds where there are any.
    pub fn to_rfc3339(self) -> String {
        let date = Civil::of(self.clamped());
        let Civil { year, month, day, hour, minute, second, millis, .. } = date;
        let base = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if millis == 0 { format!("{base}Z") } else { format!("{base}.{millis:03}Z") }
    }

    /// The date of RFC 7231, such as `Tue, 15 Nov 1994 08:12:31 GMT`.
    pub fn to_http_date(self) -> String {
        let date = Civil::of(self.clamped());
        let weekday = WEEKDAYS.get(date.weekday).copied().unwrap_or("Thu");
        let month = MONTHS.get(date.month as usize - 1).copied().unwrap_or("Jan");
        let Civil { year, day, hour, minute, second, .. } = date;
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }

    /// The compact form of SigV4, `20260102T030405Z`.
    pub fn to_amz_date(self) -> String {
        let Civil { year, month, day, hour, minute, second, .. } = Civil::of(self.clamped());
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    /// Reads any of the textual forms; `None` when it is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > 64 || !text.is_ascii() {
            return None;
        }
        if let Ok(seconds) = text.parse::<f64>() {
            return Timestamp::from_seconds(seconds);
        }
        parse_rfc3339(text).or_else(|| parse_http_date(text))
    }

    /// Reads SigV4's compact form.
    pub fn parse_amz_date(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 16 || bytes.get(8) != Some(&b'T') || bytes.get(15) != Some(&b'Z') {
            return None;
        }
        let part = |from: usize, to: usize| digits(text.get(from..to)?);
        civil(part(0, 4)?, part(4, 6)?, part(6, 8)?, part(9, 11)?, part(11, 13)?, part(13, 15)?, 0)
    }

    fn clamped(self) -> i64 {
        self.0.clamp(EARLIEST, LATEST)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

impl From<i64> for Timestamp {
    fn from(millis: i64) -> Self {
        Timestamp(millis)
    }
}

fn trim(text: String) -> String {
    text.trim_end_matches('0').to_owned()
}

struct Civil {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    millis: u32,
    weekday: usize,
}

impl Civil {
    /// Splits milliseconds since the epoch (Howard Hinnant's `civil_from_days`).
    fn of(millis: i64) -> Civil {
        let days = millis.div_euclid(86_400_000);
        let rest = millis.rem_euclid(86_400_000) as u32;
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
        let month = (if mp < 10 { mp + 3 } else { mp - 9 }) as u32;
        let year = yoe + era * 400 + i64::from(month <= 2);
        Civil {
            year,
            month,
            day,
            hour: rest / 3_600_000,
            minute: rest / 60_000 % 60,
            second: rest / 1000 % 60,
            millis: rest % 1000,
            weekday: days.rem_euclid(7) as usize,
        }
    }
}

fn digits(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 9 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn civil(y: i64, m: i64, d: i64, hour: i64, min: i64, sec: i64, millis: i64) -> Option<Timestamp> {
    let leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    let longest = match m {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    let valid = (1..=9999).contains(&y)
        && (1..=12).contains(&m)
        && (1..=longest).contains(&d)
        && (0..24).contains(&hour)
        && (0..60).contains(&min)
        && (0..=60).contains(&sec);
    if !valid {
        return None;
    }
    let shifted = if m <= 2 { y - 1 } else { y };
    let era = shifted.div_euclid(400);
    let yoe = shifted.rem_euclid(400);
    let doy = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + d - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    Some(Timestamp((((days * 24 + hour) * 60 + min) * 60 + sec) * 1000 + millis))
}

fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, "00:00:00Z"),
    };
    let mut parts = date.splitn(3, '-');
    let (y, m, d) = (digits(parts.next()?)?, digits(parts.next()?)?, digits(parts.next()?)?);
    let (clock, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => (time.get(..at)?, offset_minutes(time.get(at..)?)?),
        None => (time, 0),
    };
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (digits(parts.next()?)?, digits(parts.next()?)?);
    let second = parts.next().unwrap_or("0");
    let (second, fraction) = second.split_once('.').unwrap_or((second, ""));
    let millis = if fraction.is_empty() {
        0
    } else {
        let padded = format!("{:0<3}", fraction.get(..fraction.len().min(3))?);
        digits(&padded)?
    };
    let local = civil(y, m, d, hour, minute, digits(second)?, millis)?;
    let utc = local.0 - offset * 60_000;
    (EARLIEST..=LATEST).contains(&utc).then_some(Timestamp(utc))
}

fn offset_minutes(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'Z' | b'z' => return (text.len() == 1).then_some(0),
        b'+' => 1,
        _ => -1,
    };
    let (hours, minutes) = match text.get(1..)?.split_once(':') {
        Some(parts) => parts,
        None => (text.get(1..3)?, text.get(3..)?),
    };
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

fn parse_http_date(text: &str) -> Option<Timestamp> {
    let rest = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let mut parts = rest.split(' ');
    let day = digits(parts.next()?)?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|m| *m == name)? as i64 + 1;
    let year = digits(parts.next()?)?;
    let mut clock = parts.next()?.split(':');
    let (hour, minute) = (digits(clock.next()?)?, digits(clock.next()?)?);
    civil(year, month, day, hour, minute, digits(clock.next()?)?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_amazons_forms() {
        let time = Timestamp(1_700_000_000_120);
        assert_eq!(time.to_epoch(), "1700000000.12");
        assert_eq!(time.to_rfc3339(), "2023-11-14T22:13:20.120Z");
        assert_eq!(time.to_http_date(), "Tue, 14 Nov 2023 22:13:20 GMT");
        assert_eq!(time.to_amz_date(), "20231114T221320Z");
        assert_eq!(Timestamp(-1500).to_epoch(), "-1.5");
    }

    #[test]
    fn reads_what_clients_send() {
        let expect = Some(Timestamp(1_700_000_000_000));
        for text in [
            "1700000000",
            "1700000000.0",
            "1.7e9",
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.000Z",
            "2023-11-14T23:13:20+01:00",
            "2023-11-14T23:13:20+0100",
            "Tue, 14 Nov 2023 22:13:20 GMT",
        ] {
            assert_eq!(Timestamp::parse(text), expect, "{text}");
        }
        for text in ["", "yesterday", "2023-13-01T00:00:00Z", "2023-02-29", "1e300", "nan", "é"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_form_reads_back(millis in EARLIEST..=LATEST) {
            let time = Timestamp(millis);
            prop_assert_eq!(parse_rfc3339(&time.to_rfc3339()), Some(time));
            let whole = Timestamp(time.seconds() * 1000);
            prop_assert_eq!(Timestamp::parse_amz_date(&time.to_amz_date()), Some(whole));
            prop_assert_eq!(Timestamp::parse(&time.to_http_date()), Some(whole));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = Timestamp::parse(&text);
            let _ = Timestamp::parse_amz_date(&text);
        }
    }
}
