//! Options of a job by their names, as people give them.

use super::JobOptions;

const MAX_PAUSE_MS: &str = "max_pause_ms";
const MAX_BYTES_PER_SECOND: &str = "max_bytes_per_second";

impl JobOptions {
    /// The names of all options.
    pub const NAMES: [&str; 2] = [MAX_PAUSE_MS, MAX_BYTES_PER_SECOND];

    /// These, but for what names and values say. Whether the numbers make sense is for
    /// [`JobOptions::check`] to say.
    ///
    /// # Errors
    /// Which name is none, or which value is no number.
    pub fn with_named<'a>(self, named: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut options = self;
        for (name, value) in named {
            let number = value.parse::<u64>().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
            let Some(number) = number.filter(|_| Self::NAMES.contains(&name)) else {
                return Err(match Self::NAMES.contains(&name) {
                    true => format!("option {name} is {value:?}; it must be a whole number"),
                    false => format!("there is no option {name:?}; there are {}", Self::NAMES.join(" and ")),
                });
            };
            match name {
                // Anything that does not fit is far too long as well.
                MAX_PAUSE_MS => options.max_pause_ms = u32::try_from(number).unwrap_or(u32::MAX),
                _ => options.max_bytes_per_second = number,
            }
        }
        Ok(options)
    }

    /// How long it takes to copy so many bytes at the rate that is allowed, in milliseconds; `None` without a limit.
    pub fn copy_ms(&self, bytes: u64) -> Option<u64> {
        let ms = (u128::from(bytes) * 1_000).checked_div(u128::from(self.max_bytes_per_second))?;
        Some(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_by_name_and_an_unknown_name_is_told_with_those_that_there_are() {
        let default = JobOptions::default();
        let slow = JobOptions { max_bytes_per_second: 70_000, ..default };
        type Case = (&'static [(&'static str, &'static str)], Result<JobOptions, &'static str>);
        let table: [Case; 9] = [
            (&[], Ok(default)),
            (&[("max_pause_ms", "250")], Ok(JobOptions { max_pause_ms: 250, ..default })),
            (&[("max_bytes_per_second", "70000")], Ok(slow)),
            (&[("max_pause_ms", "250"), ("max_bytes_per_second", "0")], {
                Ok(JobOptions { max_pause_ms: 250, max_bytes_per_second: 0 })
            }),
            (&[("max_pause_ms", "99999999999")], Ok(JobOptions { max_pause_ms: u32::MAX, ..default })),
            (
                &[("max_pause", "1")],
                Err("there is no option \"max_pause\"; there are max_pause_ms and max_bytes_per_second"),
            ),
            (&[("", "1")], Err("there is no option \"\"; there are max_pause_ms and max_bytes_per_second")),
            (&[("max_pause_ms", "soon")], Err("option max_pause_ms is \"soon\"; it must be a whole number")),
            (
                &[("max_bytes_per_second", "+1")],
                Err("option max_bytes_per_second is \"+1\"; it must be a whole number"),
            ),
        ];
        for (named, expect) in table {
            assert_eq!(default.with_named(named.iter().copied()), expect.map_err(str::to_owned), "{named:?}");
        }
        let wider = slow.with_named([("max_pause_ms", "250")]);
        assert_eq!(wider, Ok(JobOptions { max_pause_ms: 250, ..slow }), "what is left out stays as it is");
    }

    #[test]
    fn the_time_of_a_copy_is_told_from_the_rate_if_there_is_one() {
        let rate = |max_bytes_per_second| JobOptions { max_bytes_per_second, ..JobOptions::default() };
        let table = [
            (rate(0), 5, None),
            (rate(100), 0, Some(0)),
            (rate(100), 250, Some(2_500)),
            (rate(1), u64::MAX, Some(u64::MAX)),
        ];
        for (options, bytes, expect) in table {
            assert_eq!(options.copy_ms(bytes), expect, "{options:?} {bytes}");
        }
    }
}
