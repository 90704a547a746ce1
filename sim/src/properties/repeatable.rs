use super::{Property, Tick};
use crate::history::What;

/// A read as of a timestamp finds what one at that timestamp has found before.
#[derive(Default)]
pub struct Repeatable {
    repeated: u64,
}

impl Property for Repeatable {
    fn name(&self) -> &'static str {
        "snapshots stay as they are"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        for event in tick.events {
            let What::ReadAgain { first, again, .. } = &event.what else { continue };
            self.repeated += 1;
            if first != again {
                return Err(event.to_string());
            }
        }
        Ok(())
    }

    fn at_the_end(&self) -> Result<(), String> {
        if self.repeated == 0 { Err("no snapshot was read twice".to_owned()) } else { Ok(()) }
    }
}
