use std::fmt;
use std::str::FromStr;

/// Compatibility version of a build. Zero is below every build's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Builds of different majors need an upgrade path.
    pub major: u16,
    /// Rises with each new entry type or format.
    pub minor: u16,
}

impl Version {
    /// `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("{text:?} is not a version: write MAJOR.MINOR");
        let (major, minor) = text.split_once('.').ok_or_else(bad)?;
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok(Self { major, minor }),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_by_number_and_read_what_they_write() {
        assert!(Version::new(1, 10) > Version::new(1, 9) && Version::new(2, 0) > Version::new(1, 10));
        assert_eq!("1.10".parse(), Ok(Version::new(1, 10)));
        for bad in ["", "1", "1.", ".1", "1.2.3", "1.65536", "a.b"] {
            assert!(bad.parse::<Version>().unwrap_err().contains("write MAJOR.MINOR"), "{bad}");
        }
        assert_eq!(Version::new(3, 7).to_string().parse(), Ok(Version::new(3, 7)));
    }
}
