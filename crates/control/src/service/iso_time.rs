//! Times as expressions of the cluster query language have them: ISO 8601 with a zone. They were checked when they were
//! given; this reads them again for the instances that a daemon service looks at.

use domain::Timestamp;

/// Reads `2018-06-18T22:28:28Z`, with a fraction or an offset if there is one.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let mut days = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (days.next()??, days.next()??, days.next()??);
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone_at);
    let offset = match zone.trim_start_matches(['Z', 'z']) {
        "" => 0,
        zone => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    let (second, fraction) = parts.next().map(|part| part.split_once('.').unwrap_or((part, "")))?;
    let second = second.parse::<i64>().ok()?;
    let millis = format!("{fraction:0<3}").get(..3)?.parse::<i64>().ok()?;
    let seconds = days_since_epoch(year, month, day)? * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    Some(Timestamp(seconds * 1000 + millis))
}

/// Howard Hinnant's `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_fractions_and_zones_are_read() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2018-06-18T22:28:28Z", Some(1_529_360_908_000)),
            ("2018-06-18T22:28:28.5+02:00", Some(1_529_353_708_500)),
            ("2000-02-29T00:00:00-01:30", Some(951_787_800_000)),
            ("2018-06-18", None),
            ("2018-13-18T00:00:00Z", None),
            ("nonsense", None),
        ] {
            assert_eq!(read(text), millis.map(Timestamp), "{text}");
        }
    }
}
