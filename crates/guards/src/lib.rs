//! The safety guards of the product by name, and a switch that takes each of them out.
//!
//! A guard is a decision without which the product would break one of its promises: a gate, an order of two steps, a
//! margin. The code asks [`on`] at the place where it decides. In the product the answer is the constant `true`, and no
//! environment variable is looked at. Tests are also built with the feature `switchable`: there the guards named in
//! `DROVER_GUARDS_OFF` are out, and the tests that each [`Guard`] names have to fail. `cargo run -p xtask -- guards`
//! sees to that, and `docs/hazards.md` lists which hazard is met by which guard.
//!
//! Knows nothing of the crates that ask.

mod crash;
mod guard;

pub use crash::{
    CRASH_AT, CRASH_FILE, CrashPoint, HELD_WORDS, HOLD, JobMark, LAST_WORDS, Moment, MoveEntry, Place, TxnEntry,
    crash_point, crashes_are_possible, is_held_at,
};
pub use guard::{Guard, Witness};

/// Whether this build can switch guards off. The binary refuses to be built then.
pub const SWITCHABLE: bool = cfg!(feature = "switchable");

/// The environment variable that names the guards to switch off, separated by commas.
pub const VARIABLE: &str = "DROVER_GUARDS_OFF";

/// Whether `guard` guards.
#[cfg(not(feature = "switchable"))]
#[inline]
pub const fn on(_guard: Guard) -> bool {
    true
}

/// Whether `guard` guards: it is not named in [`VARIABLE`], which is read once.
///
/// # Panics
/// If the variable names something that is no guard.
#[cfg(feature = "switchable")]
pub fn on(guard: Guard) -> bool {
    static OFF: std::sync::OnceLock<Vec<Guard>> = std::sync::OnceLock::new();
    let read = || {
        let names = std::env::var(VARIABLE).unwrap_or_default();
        let named = |name: &str| Guard::by_name(name).unwrap_or_else(|| panic!("{VARIABLE}: there is no guard {name}"));
        names.split(',').filter(|name| !name.is_empty()).map(named).collect()
    };
    !OFF.get_or_init(read).contains(&guard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guard_is_on_unless_it_is_named() {
        assert!(Guard::ALL.iter().all(|guard| on(*guard)));
    }

    #[test]
    fn names_are_unique_and_found_again() {
        for guard in Guard::ALL {
            assert_eq!(Guard::by_name(guard.name()), Some(*guard));
            assert!(!guard.witnesses().is_empty(), "{}", guard.name());
        }
        assert_eq!(Guard::by_name("Nothing"), None);
    }
}
