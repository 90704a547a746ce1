//! Refuses requests that were routed by a map under which this group was not the owner.

use drover_guards::{self as guards, Guard};
use drover_keys::CatalogVersion;
use drover_kv::Refusal;

use crate::state::OwnedInterval;

/// Lets a request pass whose `observed` catalog version is at or above the version at which the ownership of each of
/// `owned` began.
///
/// # Errors
/// [`Refusal::StaleRoute`] if it is older, or absent.
pub fn judge(owned: &[OwnedInterval], observed: Option<CatalogVersion>) -> Result<(), Refusal> {
    let acquired = owned.iter().map(|o| o.acquired_version).max().unwrap_or_default();
    match observed {
        Some(version) if version >= acquired || !guards::on(Guard::ComposedGate) => Ok(()),
        None if !guards::on(Guard::AbsentVersion) => Ok(()),
        Some(_) | None => Err(Refusal::StaleRoute { acquired_version: acquired }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::owned;

    #[test]
    fn an_absent_or_older_version_is_stale() {
        let table = [
            ("absent", None, false),
            ("one older", Some(6), false),
            ("the same", Some(7), true),
            ("newer", Some(8), true),
        ];
        for (case, observed, passes) in table {
            let got = judge(&[owned("a", "b", 7)], observed.map(CatalogVersion));
            let expect = if passes { Ok(()) } else { Err(Refusal::StaleRoute { acquired_version: CatalogVersion(7) }) };
            assert_eq!(got, expect, "{case}");
        }
    }

    #[test]
    fn the_youngest_ownership_of_a_wide_footprint_decides() {
        let wide = [owned("a", "b", 3), owned("b", "c", 9), owned("c", "d", 5)];
        let stale = Err(Refusal::StaleRoute { acquired_version: CatalogVersion(9) });
        assert_eq!(judge(&wide, Some(CatalogVersion(8))), stale);
        assert_eq!(judge(&wide, Some(CatalogVersion(9))), Ok(()));
    }
}
