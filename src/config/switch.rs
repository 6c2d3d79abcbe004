//! Switches: flags without a value, whose environment variables have one.

/// Whether a variable turns a switch on. Empty is off, and what is neither on nor off is a mistake: a typo must not turn anything on.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "" | "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err("a switch is on or off: write true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_means_yes_is_on() {
        for (text, is_on) in [
            ("1", Some(true)),
            ("true", Some(true)),
            ("YES", Some(true)),
            ("on", Some(true)),
            ("", Some(false)),
            ("0", Some(false)),
            ("False", Some(false)),
            ("off", Some(false)),
            ("x", None),
            ("2", None),
            ("treu", None),
        ] {
            assert_eq!(switch(text).ok(), is_on, "{text:?}");
        }
    }
}
