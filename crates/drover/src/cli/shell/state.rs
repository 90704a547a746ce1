//! Which commands are allowed when: the session as a state machine.

use super::action::Action;

/// Whether a transaction is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// None is.
    Outside,
    /// One that may write.
    Writing,
    /// One that only reads.
    Reading,
}

/// A command, whatever it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Put,
    Delete,
    Cas,
    Scan,
    Count,
    Settle,
    Begin,
    Show,
    Commit,
    Abort,
    Status,
    Watch,
    Txn,
    Help,
    Quit,
}

/// Why a command is not allowed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no transaction is open: begin one")]
    NoTransaction,
    #[error("a transaction is open: commit it or abort it first")]
    TransactionOpen,
    #[error("the open transaction only reads; abort it, and begin one without --read-only")]
    ReadOnly,
    #[error("a transaction reads at its own snapshot: leave --at out, or begin one with --at")]
    OwnSnapshot,
}

impl State {
    /// The state after a command, whatever the command comes to.
    ///
    /// # Errors
    /// If the command is not allowed in this state.
    pub fn after(self, action: &Action) -> Result<State, Refusal> {
        self.permits(action.verb())?;
        match (self, action) {
            (State::Writing | State::Reading, action) if action.reads_at().is_some() => Err(Refusal::OwnSnapshot),
            (_, Action::Begin { read_only: true, .. }) => Ok(State::Reading),
            (_, Action::Begin { read_only: false, .. }) => Ok(State::Writing),
            (_, Action::Commit | Action::Abort | Action::Quit) => Ok(State::Outside),
            (state, _) => Ok(state),
        }
    }

    /// Whether a command is allowed.
    ///
    /// # Errors
    /// Why it is not.
    pub fn permits(self, verb: Verb) -> Result<(), Refusal> {
        match (verb, self) {
            (Verb::Begin, State::Writing | State::Reading) => Err(Refusal::TransactionOpen),
            (Verb::Show | Verb::Commit | Verb::Abort, State::Outside) => Err(Refusal::NoTransaction),
            (Verb::Put | Verb::Delete | Verb::Cas, State::Reading) => Err(Refusal::ReadOnly),
            _ => Ok(()),
        }
    }
}

impl Verb {
    /// Every command.
    pub const ALL: [Verb; 16] = [
        Verb::Get,
        Verb::Put,
        Verb::Delete,
        Verb::Cas,
        Verb::Scan,
        Verb::Count,
        Verb::Settle,
        Verb::Begin,
        Verb::Show,
        Verb::Commit,
        Verb::Abort,
        Verb::Status,
        Verb::Watch,
        Verb::Txn,
        Verb::Help,
        Verb::Quit,
    ];

    /// The word that it begins with.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Put => "put",
            Verb::Delete => "delete",
            Verb::Cas => "cas",
            Verb::Scan => "scan",
            Verb::Count => "count",
            Verb::Settle => "settle",
            Verb::Begin => "begin",
            Verb::Show => "show",
            Verb::Commit => "commit",
            Verb::Abort => "abort",
            Verb::Status => "status",
            Verb::Watch => "watch",
            Verb::Txn => "txn",
            Verb::Help => "help",
            Verb::Quit => "quit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::notation::Notation;
    use super::*;

    /// The whole machine: what each command leads to from outside, within a transaction, and within one that only reads.
    #[test]
    fn every_command_is_allowed_exactly_where_the_table_says() {
        use Refusal::{NoTransaction, OwnSnapshot, ReadOnly, TransactionOpen};
        use State::{Outside, Reading, Writing};
        let id = "0".repeat(32);
        let stays = [Ok(Outside), Ok(Writing), Ok(Reading)];
        let writes = [Ok(Outside), Ok(Writing), Err(ReadOnly)];
        let own = [Ok(Outside), Err(OwnSnapshot), Err(OwnSnapshot)];
        let ends = [Err(NoTransaction), Ok(Outside), Ok(Outside)];
        let opens = |state| [Ok(state), Err(TransactionOpen), Err(TransactionOpen)];
        let table: Vec<(String, [Result<State, Refusal>; 3])> = vec![
            ("get k".into(), stays),
            ("scan".into(), stays),
            ("count".into(), stays),
            ("get k --at 1.0".into(), own),
            ("scan --at 1.0".into(), own),
            ("count --at 1.0".into(), own),
            ("put k v".into(), writes),
            ("delete k".into(), writes),
            ("cas k 1 2".into(), writes),
            ("settle k --idempotency-key 00 --not-after 1.0".into(), stays),
            ("begin".into(), opens(Writing)),
            ("begin --at 1.0".into(), opens(Writing)),
            ("begin --read-only".into(), opens(Reading)),
            ("show".into(), [Err(NoTransaction), Ok(Writing), Ok(Reading)]),
            ("commit".into(), ends),
            ("abort".into(), ends),
            ("status".into(), stays),
            ("watch status".into(), stays),
            ("txn list".into(), stays),
            (format!("txn status {id} k"), stays),
            (format!("txn resolve {id}"), stays),
            ("help".into(), stays),
            ("quit".into(), [Ok(Outside); 3]),
        ];
        for (line, expect) in &table {
            let action = Action::parse(line, Notation::Escaped).unwrap().unwrap();
            for (state, expect) in [Outside, Writing, Reading].into_iter().zip(expect) {
                assert_eq!(state.after(&action), *expect, "{line} in {state:?}");
            }
            assert!(line.starts_with(action.verb().name()), "{line}");
        }
        for verb in Verb::ALL {
            assert!(
                table.iter().any(|(line, _)| line.split(' ').next() == Some(verb.name())),
                "{verb:?} is not in the table"
            );
        }
    }

    #[test]
    fn every_command_that_can_be_typed_has_its_verb() {
        let names: Vec<String> =
            super::super::grammar::tree().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        let verbs: Vec<&str> = Verb::ALL.iter().map(|verb| verb.name()).collect();
        assert_eq!(names, verbs);
    }
}
