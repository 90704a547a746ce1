use super::{Property, Tick};
use crate::history::{Outcome, What};

/// What the accounts hold together before and behind every transfer.
pub const TOTAL: i64 = 600;

/// Money moves between accounts of all groups in transactions: all accounts, read at once, always hold the same together.
#[derive(Default)]
pub struct Bank {
    transferred: u64,
    counted: u64,
}

impl Property for Bank {
    fn name(&self) -> &'static str {
        "the bank's total stays"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        for event in tick.events {
            match &event.what {
                What::Transferred(Outcome::Done(_)) => self.transferred += 1,
                What::Counted(total) if *total == TOTAL => self.counted += 1,
                What::Counted(total) => return Err(format!("the accounts hold {total}, not {TOTAL}: {event}")),
                _ => {}
            }
        }
        Ok(())
    }

    fn at_the_end(&self) -> Result<(), String> {
        let idle = self.transferred == 0 || self.counted == 0;
        if idle { Err("nothing was transferred, or nothing counted".to_owned()) } else { Ok(()) }
    }
}
