//! What may follow what is typed.

use super::super::notation::Notation;
use super::known::Known;
use super::state::{State, Verb};
use super::words::{Typed, typed, word};

/// What completion knows.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Only commands that are allowed are offered.
    pub state: State,
    /// What was come across.
    pub known: Known,
    /// How keys are written.
    pub notation: Notation,
}

impl Completion {
    /// The byte from which on the line is replaced, and the words that may stand there.
    pub fn of(&self, line: &str) -> (usize, Vec<String>) {
        let Typed { done, start, last } = typed(line);
        let mut offered = self.offer(&done, &last);
        offered.retain(|candidate| candidate.starts_with(&last) || unquoted(candidate).starts_with(&last));
        (start, offered)
    }

    /// Everything that may stand behind these words; `last` tells whether a flag is wanted.
    fn offer(&self, done: &[String], last: &str) -> Vec<String> {
        let tree = super::grammar::tree();
        let Some((first, rest)) = done.split_first() else { return self.commands() };
        if first == "help" {
            let within = rest.iter().try_fold(&tree, |command, name| command.find_subcommand(name));
            return within
                .map(|command| if rest.is_empty() { all_commands() } else { names(command) })
                .unwrap_or_default();
        }
        let Some(mut command) = tree.find_subcommand(first) else { return Vec::new() };
        let mut rest = rest;
        while let [name, further @ ..] = rest
            && let Some(sub) = command.find_subcommand(name)
        {
            (command, rest) = (sub, further);
        }
        if command.has_subcommands() {
            return if rest.is_empty() { names(command) } else { Vec::new() };
        }
        if last.starts_with('-') {
            return flags(command, rest);
        }
        // The value of a flag, or a word behind some: only the first words of a command have a meaning that is known here.
        if rest.iter().any(|word| word.starts_with('-')) {
            return Vec::new();
        }
        self.arguments(command, rest.len())
    }

    fn commands(&self) -> Vec<String> {
        let allowed = Verb::ALL.into_iter().filter(|verb| self.state.permits(*verb).is_ok());
        let mut names: Vec<String> = allowed.map(|verb| verb.name().to_owned()).collect();
        names.push("exit".to_owned());
        names
    }

    /// What is known for the positional argument at this place.
    fn arguments(&self, command: &clap::Command, place: usize) -> Vec<String> {
        let Some(argument) = command.get_positionals().nth(place) else { return Vec::new() };
        match argument.get_id().as_str() {
            "key" | "from" | "to" | "primary" => self.known.keys().map(|key| word(self.notation, key)).collect(),
            "id" => self.known.txns().map(|id| id.to_string()).collect(),
            _ => Vec::new(),
        }
    }
}

fn all_commands() -> Vec<String> {
    Verb::ALL.into_iter().map(|verb| verb.name().to_owned()).collect()
}

fn names(command: &clap::Command) -> Vec<String> {
    command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect()
}

/// The flags that are not there yet.
fn flags(command: &clap::Command, there: &[String]) -> Vec<String> {
    let all = command.get_arguments().filter_map(|argument| argument.get_long());
    all.map(|name| format!("--{name}")).filter(|flag| !there.contains(flag)).collect()
}

/// The beginning of a candidate as somebody types it who has begun no quote.
fn unquoted(candidate: &str) -> &str {
    candidate.strip_prefix('"').unwrap_or(candidate)
}

#[cfg(test)]
mod tests {
    use drover_client::TxnId;

    use super::*;

    #[test]
    fn what_may_follow_is_offered_and_nothing_else() {
        let mut known = Known::default();
        for key in ["alice", "all of it", "bob", "-x"] {
            known.key(&key.into());
        }
        known.txn(TxnId([0x1a; 16]), "alice".into());
        let id = "1a".repeat(16);
        let (outside, writing, reading) = (State::Outside, State::Writing, State::Reading);
        let table: Vec<(State, &str, usize, Vec<&str>)> = vec![
            (outside, "be", 0, vec!["begin"]),
            (writing, "be", 0, vec![]),
            (outside, "co", 0, vec!["count"]),
            (writing, "co", 0, vec!["count", "commit"]),
            (writing, "  p", 2, vec!["put"]),
            (reading, "p", 0, vec![]),
            (outside, "q", 0, vec!["quit"]),
            (outside, "ex", 0, vec!["exit"]),
            (outside, "zzz", 0, vec![]),
            (outside, "txn ", 4, vec!["list", "status", "resolve"]),
            (outside, "txn st", 4, vec!["status"]),
            (outside, "txn list x", 9, vec![]),
            (outside, "watch ", 6, vec!["status"]),
            (outside, "watch status --e", 13, vec!["--every"]),
            (outside, "watch nothing ", 14, vec![]),
            (outside, "help st", 5, vec!["status"]),
            (outside, "help com", 5, vec!["commit"]),
            (outside, "help txn r", 9, vec!["resolve"]),
            (outside, "get --", 4, vec!["--at"]),
            (outside, "scan --r", 5, vec!["--reverse"]),
            (outside, "scan a --reverse --r", 17, vec![]),
            (outside, "scan a --limit ", 15, vec![]),
            (outside, "begin --r", 6, vec!["--read-only"]),
            (outside, "get al", 4, vec!["alice", "\"all of it\""]),
            (outside, "get \"al", 4, vec!["alice", "\"all of it\""]),
            (outside, "get b", 4, vec!["bob"]),
            (outside, "get \\x2d", 4, vec!["\\x2dx"]),
            (outside, "scan alice b", 11, vec!["bob"]),
            (outside, "put alice ", 10, vec![]),
            (outside, "cas bob ", 8, vec![]),
            (outside, "txn status ", 11, vec![&id]),
            (outside, "txn resolve 1a", 12, vec![&id]),
            (outside, "nothing a", 8, vec![]),
        ];
        for (state, line, start, expect) in table {
            let completion = Completion { state, known: known.clone(), notation: Notation::Escaped };
            let (at, mut offered) = completion.of(line);
            offered.retain(|candidate| candidate != "--help");
            assert_eq!(
                (at, offered.iter().map(String::as_str).collect::<Vec<_>>()),
                (start, expect),
                "{state:?} {line:?}"
            );
        }
        let hex = Completion { state: outside, known, notation: Notation::Hex };
        assert_eq!(hex.of("get 62").1, ["626f62"]);
    }

    #[test]
    fn at_the_beginning_everything_that_is_allowed_is_offered() {
        for (state, missing) in [
            (State::Outside, &["show", "commit", "abort"][..]),
            (State::Writing, &["begin"]),
            (State::Reading, &["begin", "put", "delete", "cas"]),
        ] {
            let completion = Completion { state, known: Known::default(), notation: Notation::Escaped };
            let (_, offered) = completion.of("");
            for verb in Verb::ALL {
                let offers = offered.iter().any(|name| name == verb.name());
                assert_eq!(offers, !missing.contains(&verb.name()), "{verb:?} in {state:?}");
            }
        }
    }
}
