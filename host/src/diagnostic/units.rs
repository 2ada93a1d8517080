//! Quantities with a unit, as people write them: `20s`, `32MiB`.

use std::time::Duration;

/// A text that is not a quantity of the kind that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {kind}: write {example}")]
pub struct InvalidUnit {
    kind: &'static str,
    example: &'static str,
}

/// A duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidUnit> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    quantity(text, &units).map(Duration::from_millis).ok_or(InvalidUnit {
        kind: "a duration",
        example: "a whole number and a unit, as in \"500ms\", \"20s\", \"5m\", \"1h\", \"30d\"",
    })
}

/// A number of bytes: a whole number and `B`, `KiB`, `MiB` or `GiB`.
pub fn parse_bytes(text: &str) -> Result<u64, InvalidUnit> {
    quantity(text, &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]).ok_or(InvalidUnit {
        kind: "a size",
        example: "a whole number and a unit, as in \"512KiB\", \"32MiB\", \"1GiB\"",
    })
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit())?)?;
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quantity_is_a_whole_number_and_a_unit() {
        assert_eq!(parse_duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(parse_duration("500 ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_bytes("32MiB"), Ok(32 << 20));
        for bad in ["", "20", "s", "-1s", "1.5s", "20 parsecs", "20S", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        for bad in ["32MB", "32", "MiB", "18446744073709551615GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in ".{0,24}") {
            let _ = (parse_duration(&text), parse_bytes(&text));
        }
    }
}
