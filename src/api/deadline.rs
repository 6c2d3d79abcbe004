//! How long a call may take: the caller's `grpc-timeout`, at most [`limits::REQUEST_DEADLINE_MS`].

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::limits;

const HEADER: &str = "grpc-timeout";

/// An answer that says what became of a write must reach the caller before its own timer fires, so the node stops
/// this much earlier, or a tenth of the time if that is less.
const ANSWER_MARGIN: Duration = Duration::from_millis(20);

/// When the answer must be ready.
pub(crate) fn of(metadata: &MetadataMap) -> Instant {
    let asked = metadata
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(parse);
    Instant::now() + patience(asked)
}

fn patience(asked: Option<Duration>) -> Duration {
    let longest = Duration::from_millis(limits::REQUEST_DEADLINE_MS);
    asked.map_or(longest, |asked| {
        let asked = asked.min(longest);
        asked.saturating_sub(ANSWER_MARGIN.min(asked / 10))
    })
}

/// At most eight digits and a unit, as the gRPC specification has it. What does not parse is no deadline.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let well_formed = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let count: u64 = well_formed.then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_every_unit_parse() {
        let cases = [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("5S", Some(Duration::from_secs(5))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
            ("5 S", None),
            ("123456789S", None),
            ("5µ", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_deadline_is_capped_and_leaves_time_to_answer() {
        let longest = Duration::from_millis(limits::REQUEST_DEADLINE_MS);
        assert_eq!(patience(None), longest);
        assert_eq!(patience(parse("2H")), longest.saturating_sub(ANSWER_MARGIN));
        assert_eq!(patience(parse("100m")), Duration::from_millis(90));
        assert_eq!(patience(parse("0m")), Duration::ZERO);
    }
}
