use super::{Newest, Property, Tick};

/// When all is over, no group knows of a range that leaves or arrives.
#[derive(Default)]
pub struct Leftovers {
    newest: Newest,
}

impl Property for Leftovers {
    fn name(&self) -> &'static str {
        "moves leave nothing behind"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        self.newest.note(tick.changed);
        Ok(())
    }

    fn at_the_end(&self) -> Result<(), String> {
        for (group, (_, state)) in &self.newest.0 {
            if !state.moves.sources.is_empty() || !state.moves.imports.is_empty() {
                return Err(format!("group {group}: {:?}", state.moves));
            }
        }
        Ok(())
    }
}
