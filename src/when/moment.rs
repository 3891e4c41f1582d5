//! Read the moment that people name with words, and write moments so that they can be read back.

use crate::entry::Time;
use crate::error::{Error, Result};
use jiff::civil::{self, Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Span, Timestamp, ToSpan, Zoned};

const FORMS: &str = "write a date (2026-11-19), a date and time (\"2026-11-19 14:00\", 2026-11-19T14:00:05+02:00, \
    \"2026-11-19 14:00 Europe/Berlin\"), now, today, yesterday, \"yesterday 14:00\", \"last monday\", \"3 days ago\", \
    \"2h ago\" or @1700000000";
/// No form is longer; what is, is a slip or an attack.
const TEXT_BYTES_MAX: usize = 128;

/// The span of time that words name: a day, a minute, a second or one instant (then both ends are the same).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Its first instant: where a database is brought back to.
    pub start: Time,
    /// Its last instant: the newest snapshot at this or before is the one meant. A snapshot begun by a timer at 14:00:02 is
    /// therefore found by `14:00`, and any of a day by its date.
    pub end: Time,
    /// What people must know about how the words were taken.
    pub note: Option<String>,
}

/// Reads a moment; `now` is the present and the zone in which words without one are meant.
pub fn parse_moment(text: &str, now: &Zoned) -> Result<Moment> {
    let refuse = |why: String| {
        let shown: String = text.chars().take(TEXT_BYTES_MAX).collect();
        Error::invalid("read the time", format_args!("\"{}\"", shown.escape_debug()), why).hint(FORMS)
    };
    if text.len() > TEXT_BYTES_MAX {
        return Err(refuse("it is too long".to_owned()));
    }
    read(text.trim(), now).map_err(refuse)
}

/// `2026-11-19 14:00:05+01:00`, which [`parse_moment`] reads back; seconds since 1970 where no calendar reaches.
pub fn format_time(time: Time, zone: &TimeZone) -> String {
    match to_timestamp(time) {
        Some(timestamp) => timestamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string(),
        None => format!("@{}", time.seconds),
    }
}

/// RFC 3339 with this offset from UTC, in seconds east. For a time beyond every calendar, `@` and its seconds since 1970.
pub(crate) fn rfc3339(time: Time, offset: i32) -> String {
    match to_timestamp(time) {
        Some(timestamp) if offset == 0 => timestamp.to_string(),
        Some(timestamp) => {
            timestamp.display_with_offset(Offset::from_seconds(offset).unwrap_or(Offset::UTC)).to_string()
        }
        None => format!("@{}", time.seconds),
    }
}

/// None when the time is outside the years -9999 to 9999 or is malformed, as a stored time may be.
pub(crate) fn to_timestamp(time: Time) -> Option<Timestamp> {
    if time.nanoseconds < 1_000_000_000 { Timestamp::new(time.seconds, time.nanoseconds as i32).ok() } else { None }
}

pub(crate) fn from_timestamp(timestamp: Timestamp) -> Time {
    let nanoseconds = timestamp.as_nanosecond();
    Time {
        seconds: nanoseconds.div_euclid(1_000_000_000) as i64,
        nanoseconds: nanoseconds.rem_euclid(1_000_000_000) as u32,
    }
}

type Said<T> = std::result::Result<T, String>;

fn read(text: &str, now: &Zoned) -> Said<Moment> {
    if let Some(seconds) = text.strip_prefix('@') {
        let seconds =
            seconds.parse().map_err(|_| "a whole number of seconds since 1970 must follow the @".to_owned())?;
        let start = Timestamp::from_second(seconds).map_err(out_of_range)?;
        return span(start, end_of(start, 1.second())?, None);
    }
    let lower = text.to_ascii_lowercase();
    if lower == "now" {
        return span(now.timestamp(), now.timestamp(), None);
    }
    if lower.ends_with("ago") {
        let back: Span = lower.parse().map_err(|_| "what comes before \"ago\" is not a length of time".to_owned())?;
        if back.is_positive() {
            return Err("it is in the future".to_owned());
        }
        let then = now.checked_add(back).map_err(out_of_range)?.timestamp();
        return span(then, then, None);
    }
    let (day, rest) = split_day(text, &lower)?;
    let (clock, rest) = split_clock(rest)?;
    let zone = match rest.trim() {
        "" => now.time_zone().clone(),
        // An offset may follow the time at once, a name needs a space or brackets.
        named if rest.starts_with([' ', '\t', '[']) || clock.is_some() && rest.starts_with(['+', '-', 'Z', 'z']) => {
            bracketed(named)?
        }
        _ => return Err("what follows the date is neither a time nor a time zone".to_owned()),
    };
    // "Yesterday" is meant where the clock stands that the words speak of.
    let today = now.with_time_zone(zone.clone()).date();
    let date = match day {
        DayWord::Date(date) => date,
        DayWord::Back(days) => today.checked_sub(days.days()).map_err(out_of_range)?,
        DayWord::Last(weekday) => today.nth_weekday(-1, weekday).map_err(out_of_range)?,
    };
    match clock {
        Some(clock) => {
            let (start, note) = instant(date.to_datetime(clock.time), &zone)?;
            span(start, end_of(start, clock.precision)?, note)
        }
        None => {
            let (start, note) = instant(date.to_datetime(civil::Time::midnight()), &zone)?;
            let tomorrow = date.tomorrow().map_err(out_of_range)?;
            let (next, _) = instant(tomorrow.to_datetime(civil::Time::midnight()), &zone)?;
            let end = next.checked_sub(1.nanosecond()).map_err(out_of_range)?;
            // A few zones have skipped a whole day; its end is then before where its start was moved to.
            span(start.min(end), end, note)
        }
    }
}

enum DayWord {
    Date(Date),
    Back(i32),
    Last(Weekday),
}

/// The day at the beginning of the text and what follows it.
fn split_day<'a>(text: &'a str, lower: &str) -> Said<(DayWord, &'a str)> {
    for (word, days) in [("today", 0), ("yesterday", 1)] {
        if lower.starts_with(word) {
            return Ok((DayWord::Back(days), &text[word.len()..]));
        }
    }
    if let Some(after) = lower.strip_prefix("last ") {
        let word = after.trim_start();
        let begin = text.len() - word.len();
        let end = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
        let weekday = weekday(&word[..end]).ok_or("the name of a weekday must follow \"last\"")?;
        return Ok((DayWord::Last(weekday), &text[begin + end..]));
    }
    let date = text.get(..10).and_then(|date| {
        let bytes = date.as_bytes();
        let number = |range: std::ops::Range<usize>| digits(&bytes[range]);
        let dashes = bytes[4] == b'-' && bytes[7] == b'-';
        dashes.then_some(())?;
        Some((number(0..4)?, number(5..7)?, number(8..10)?))
    });
    let (year, month, day) = date.ok_or("it begins neither with a date nor with a known word")?;
    let date = Date::new(year as i16, month as i8, day as i8).map_err(|_| "there is no such day".to_owned())?;
    Ok((DayWord::Date(date), &text[10..]))
}

fn weekday(word: &str) -> Option<Weekday> {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    let names = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let days = [Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday];
    let fits = |name: &str| name == word || name[..3] == *word;
    Some(days[names.iter().position(|name| fits(name))?])
}

struct ClockTime {
    time: civil::Time,
    /// How long a time the words cover.
    precision: Span,
}

/// The time of day at the beginning, if there is one, and what follows it.
fn split_clock(text: &str) -> Said<(Option<ClockTime>, &str)> {
    let after = match text.strip_prefix(['T', 't']) {
        Some(after) => after,
        None => text.trim_start(),
    };
    if !after.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok((None, text));
    }
    if after.len() == text.len() {
        return Err("there must be a space or a T between the date and the time".to_owned());
    }
    let end = after.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(after.len());
    let (clock, rest) = after.split_at(end);
    let wrong = || format!("\"{clock}\" is not a time of day");
    let (whole, fraction) = match clock.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (clock, None),
    };
    let parts: Vec<u32> = whole
        .split(':')
        .map(|part| digits(part.as_bytes()).filter(|_| part.len() == 2))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let (hour, minute, second, precision) = match (&parts[..], fraction) {
        (&[hour, minute], None) => (hour, minute, 0, 1.minute()),
        (&[hour, minute, second], None) => (hour, minute, second, 1.second()),
        (&[hour, minute, second], Some(_)) => (hour, minute, second, 1.nanosecond()),
        _ => return Err(wrong()),
    };
    let nanoseconds = match fraction {
        Some(text) if text.len() > 9 => return Err(wrong()),
        Some(text) => digits(text.as_bytes()).ok_or_else(wrong)? * 10_u32.pow(9 - text.len() as u32),
        None => 0,
    };
    let time = civil::Time::new(hour as i8, minute as i8, second as i8, nanoseconds as i32).map_err(|_| wrong())?;
    Ok((Some(ClockTime { time, precision }), rest))
}

/// At most nine ASCII digits as a number.
fn digits(bytes: &[u8]) -> Option<u32> {
    let plain = !bytes.is_empty() && bytes.len() <= 9 && bytes.iter().all(u8::is_ascii_digit);
    plain.then(|| bytes.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
}

/// `ZONE`, `[ZONE]` or `OFFSET[ZONE]`.
fn bracketed(text: &str) -> Said<TimeZone> {
    let Some(inner) = text.strip_suffix(']') else { return zone(text) };
    match inner.split_once('[') {
        Some(("", name)) => zone(name),
        Some(_) => Err("it has both an offset and a time zone: write only one of them".to_owned()),
        None => Err("a bracket is missing".to_owned()),
    }
}

fn zone(text: &str) -> Said<TimeZone> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    if let Some(sign) = text.strip_prefix('+').map(|_| 1).or(text.strip_prefix('-').map(|_| -1)) {
        let wrong = || format!("\"{text}\" is not an offset such as +02:00");
        let bytes: Vec<u8> = match text.as_bytes()[1..] {
            [a, b] => vec![a, b, b'0', b'0'],
            [a, b, c, d] | [a, b, b':', c, d] => vec![a, b, c, d],
            _ => return Err(wrong()),
        };
        let (hours, minutes) = digits(&bytes[..2]).zip(digits(&bytes[2..])).ok_or_else(wrong)?;
        if hours > 23 || minutes > 59 {
            return Err(wrong());
        }
        let seconds = sign * (hours * 3600 + minutes * 60) as i32;
        return Ok(Offset::from_seconds(seconds).map_err(|_| wrong())?.to_time_zone());
    }
    TimeZone::get(text).map_err(|_| format!("the time zone \"{}\" is unknown", text.escape_debug()))
}

/// The instant of a local time. Where clocks are put back a time happens twice: the first is taken. Where they are put
/// forward some never happen: as much later is taken as the clocks were moved. Both are told.
fn instant(local: DateTime, zone: &TimeZone) -> Said<(Timestamp, Option<String>)> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let offset = ambiguous.offset();
    let timestamp = ambiguous.compatible().map_err(out_of_range)?;
    let named = |offset: Offset| offset.to_datetime(timestamp).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let shown = local.strftime("%Y-%m-%d %H:%M:%S");
    let note = match offset {
        AmbiguousOffset::Unambiguous { .. } => None,
        AmbiguousOffset::Gap { after, .. } => Some(format!(
            "{shown} does not exist in that time zone, as clocks were put forward; taken as {} {}",
            named(after),
            offset_text(after)
        )),
        AmbiguousOffset::Fold { before, after } => Some(format!(
            "{shown} happened twice in that time zone, as clocks were put back; taken as the first, {}; the second is {}",
            offset_text(before),
            offset_text(after)
        )),
    };
    Ok((timestamp, note))
}

fn offset_text(offset: Offset) -> String {
    let minutes = offset.seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

/// The last instant of so long a time from `start`.
fn end_of(start: Timestamp, length: Span) -> Said<Timestamp> {
    start.checked_add(length).and_then(|next| next.checked_sub(1.nanosecond())).map_err(out_of_range)
}

fn span(start: Timestamp, end: Timestamp, note: Option<String>) -> Said<Moment> {
    Ok(Moment { start: from_timestamp(start), end: from_timestamp(end), note })
}

fn out_of_range(_: jiff::Error) -> String {
    "it is outside the supported calendar".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        // A Saturday.
        "2026-11-21T10:30:15.5+01:00[Europe/Berlin]".parse().expect("a good moment")
    }

    fn utc(time: Time) -> String {
        to_timestamp(time).expect("within the calendar").to_string()
    }

    #[test]
    fn moments_are_read() {
        #[rustfmt::skip]
        let table = [
            ("2026-11-19", "2026-11-18T23:00:00Z", "2026-11-19T22:59:59.999999999Z"),
            ("2026-11-19 UTC", "2026-11-19T00:00:00Z", "2026-11-19T23:59:59.999999999Z"),
            ("2026-11-19[Asia/Tokyo]", "2026-11-18T15:00:00Z", "2026-11-19T14:59:59.999999999Z"),
            ("2026-11-19 14:00", "2026-11-19T13:00:00Z", "2026-11-19T13:00:59.999999999Z"),
            (" 2026-11-19  14:00:05 ", "2026-11-19T13:00:05Z", "2026-11-19T13:00:05.999999999Z"),
            ("2026-11-19 14:00:05.25", "2026-11-19T13:00:05.25Z", "2026-11-19T13:00:05.25Z"),
            ("2026-11-19T14:00:05+02:00", "2026-11-19T12:00:05Z", "2026-11-19T12:00:05.999999999Z"),
            ("2026-11-19t14:00:05z", "2026-11-19T14:00:05Z", "2026-11-19T14:00:05.999999999Z"),
            ("2026-11-19T14:00[europe/berlin]", "2026-11-19T13:00:00Z", "2026-11-19T13:00:59.999999999Z"),
            ("2026-11-19 14:00 America/New_York", "2026-11-19T19:00:00Z", "2026-11-19T19:00:59.999999999Z"),
            ("2026-11-19 14:00 UTC", "2026-11-19T14:00:00Z", "2026-11-19T14:00:59.999999999Z"),
            ("2026-11-19 14:00 -0530", "2026-11-19T19:30:00Z", "2026-11-19T19:30:59.999999999Z"),
            ("2026-11-19 +02", "2026-11-18T22:00:00Z", "2026-11-19T21:59:59.999999999Z"),
            ("yesterday", "2026-11-19T23:00:00Z", "2026-11-20T22:59:59.999999999Z"),
            ("Yesterday 14:00", "2026-11-20T13:00:00Z", "2026-11-20T13:00:59.999999999Z"),
            ("yesterday 23:00 Pacific/Auckland", "2026-11-20T10:00:00Z", "2026-11-20T10:00:59.999999999Z"),
            ("today", "2026-11-20T23:00:00Z", "2026-11-21T22:59:59.999999999Z"),
            ("today 09:00:00", "2026-11-21T08:00:00Z", "2026-11-21T08:00:00.999999999Z"),
            ("now", "2026-11-21T09:30:15.5Z", "2026-11-21T09:30:15.5Z"),
            ("3 days ago", "2026-11-18T09:30:15.5Z", "2026-11-18T09:30:15.5Z"),
            ("2h ago", "2026-11-21T07:30:15.5Z", "2026-11-21T07:30:15.5Z"),
            ("1 month ago", "2026-10-21T08:30:15.5Z", "2026-10-21T08:30:15.5Z"),
            ("last monday", "2026-11-15T23:00:00Z", "2026-11-16T22:59:59.999999999Z"),
            ("last Saturday", "2026-11-13T23:00:00Z", "2026-11-14T22:59:59.999999999Z"),
            ("last fri 12:00 UTC", "2026-11-20T12:00:00Z", "2026-11-20T12:00:59.999999999Z"),
            ("@1700000000", "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.999999999Z"),
            ("@-1", "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.999999999Z"),
            ("2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59.999999999Z"),
        ];
        for (text, start, end) in table {
            let moment = parse_moment(text, &now()).unwrap_or_else(|e| panic!("{e:?}"));
            assert_eq!((utc(moment.start).as_str(), utc(moment.end).as_str()), (start, end), "{text}");
            assert_eq!(moment.note, None, "{text}");
        }
    }

    #[test]
    fn clocks_put_forward_or_back_give_a_defined_answer_and_a_note() {
        let table = [
            ("2026-10-25 02:30", "2026-10-25T00:30:00Z", "first, +02:00; the second is +01:00"),
            ("2026-03-29 02:30", "2026-03-29T01:30:00Z", "taken as 2026-03-29 03:30:00 +02:00"),
            ("2011-12-30 Pacific/Apia", "2011-12-30T09:59:59.999999999Z", "does not exist"),
        ];
        for (text, start, note) in table {
            let moment = parse_moment(text, &now()).unwrap_or_else(|e| panic!("{e:?}"));
            assert_eq!(utc(moment.start), start, "{text}");
            assert!(moment.note.as_ref().is_some_and(|said| said.contains(note)), "{moment:?}");
            assert!(moment.start <= moment.end);
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_with_the_forms() {
        #[rustfmt::skip]
        let table = [
            "", "soon", "2026", "2026-13-01", "2026-02-30", "2026-11-19 25:00", "2026-11-19 14", "2026-11-19 1:00",
            "2026-11-19 14:00:60", "2026-11-19 14:00.5", "2026-11-19 14:00:05.", "2026-11-1914:00", "2026-11-19Z",
            "2026-11-19 14:00 Mars/Base", "2026-11-19T14:00+02:00[Europe/Berlin]", "2026-11-19 14:00 +99:00",
            "2026-11-19 14:00 ]", "yesterdayish", "last month", "ago", "x ago", "-3 days ago", "9999999 years ago", "@", "@x",
            "@99999999999999", "9999-12-31", "2026/11/19", "\u{661}026-11-19", "2026-11-1\u{e4}", "19.11.2026", "today today",
        ];
        for text in table {
            let error = parse_moment(text, &now()).expect_err(text);
            assert!(error.advice().is_some_and(|hint| hint.contains("yesterday 14:00")), "{text}");
        }
        assert!(parse_moment(&"1".repeat(1000), &now()).is_err());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let berlin = zone("Europe/Berlin").expect("compiled in");
        let mut state = 7_i64;
        for _ in 0..500 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let time = Time { seconds: (state >> 20) % 5_000_000_000, nanoseconds: state as u32 % 1_000_000_000 };
            assert_eq!(to_timestamp(time).map(from_timestamp), Some(time));
            // Offsets of the nineteenth century had seconds; people write only what has none.
            if time.seconds > -2_000_000_000 {
                let text = format_time(time, &berlin);
                assert_eq!(
                    parse_moment(&text, &now()).map(|moment| moment.start.seconds).ok(),
                    Some(time.seconds),
                    "{text}"
                );
            }
        }
        for hostile in [i64::MIN, i64::MAX] {
            let time = Time { seconds: hostile, nanoseconds: 0 };
            assert_eq!(format_time(time, &berlin), format!("@{hostile}"));
        }
        assert_eq!(to_timestamp(Time { seconds: 0, nanoseconds: u32::MAX }), None);
        assert!(zone("Mars/Base").is_err());
    }

    #[test]
    fn no_words_make_it_panic() {
        let pieces = [
            "2026-11-19",
            "T",
            " ",
            "14:00",
            ":05",
            ".5",
            "+02:00",
            "[",
            "]",
            "UTC",
            "ago",
            "last ",
            "mon",
            "@",
            "3",
            "days",
            "\u{e4}",
            "yesterday",
            "-",
            "9999-12-31",
            "0000-01-01",
            "Z",
        ];
        let mut state = 3_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..5 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            if let Ok(moment) = parse_moment(&text, &now()) {
                assert!(moment.start <= moment.end, "{text}");
            }
        }
    }
}
