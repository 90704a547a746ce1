//! `drover shell` as people and scripts use it: at a terminal, and over a pipe.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use drover_client::{Client, Timestamp};
use drover_testkit::Cluster;
use drover_testkit::cluster::{PATIENCE, drover_binary};
use drover_testkit::terminal::{CTRL_C, CTRL_D, ENTER, TAB, Terminal};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

const PROMPT: &str = "drover> ";

fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(drover_binary().unwrap());
    command.arg("shell").args(arguments).env("DROVER_ENDPOINTS", cluster.endpoints().join(","));
    command
}

/// Somebody at the prompt.
struct Shell {
    terminal: Terminal,
    prompt: String,
}

impl Shell {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        Self::of(command(cluster, arguments))
    }

    fn of(command: Command) -> Self {
        let mut shell = Self { terminal: Terminal::start(command).unwrap(), prompt: PROMPT.to_owned() };
        let greeting = shell.see(PROMPT);
        assert!(greeting.contains("Type help"), "{greeting}");
        shell
    }

    fn press(&mut self, keys: &str) {
        self.terminal.press(keys).unwrap();
    }

    fn see(&mut self, wanted: &str) -> String {
        self.terminal.see(wanted, PATIENCE).unwrap()
    }

    /// Types a line and enters it. Its echo is behind us then, and so is line editing.
    fn enter(&mut self, line: &str) {
        self.press(line);
        self.press(ENTER);
        self.see(&format!("{line}\n"));
    }

    /// Enters a line; what is printed before the next prompt.
    fn run(&mut self, line: &str) -> String {
        self.enter(line);
        self.next()
    }

    /// What is printed before the next prompt.
    fn next(&mut self) -> String {
        let prompt = self.prompt.clone();
        let text = self.see(&prompt);
        text.strip_suffix(&prompt).unwrap().to_owned()
    }

    /// Begins a transaction; its id, which the prompt shows from then on.
    fn begin(&mut self, line: &str) -> String {
        self.enter(line);
        let text = self.see("\n");
        let id = text.trim_end().strip_prefix("transaction ").unwrap().split(',').next().unwrap().to_owned();
        assert_eq!(id.len(), 32, "{text}");
        self.prompt = format!("drover txn {}…> ", &id[..4]);
        assert_eq!(self.next(), "");
        id
    }

    /// Ends the transaction; what is printed.
    fn finish(&mut self, line: &str) -> String {
        self.prompt = PROMPT.to_owned();
        self.run(line)
    }

    /// Presses Ctrl-D; what is printed until the end, which is a good one.
    fn leave(mut self) -> String {
        self.press(CTRL_D);
        let (status, text) = self.terminal.end().unwrap();
        assert!(status.success(), "{status}: {text}");
        text
    }
}

fn timestamp(text: &str, before: &str) -> Timestamp {
    let shown = text.trim_end().strip_prefix(before).unwrap_or_else(|| panic!("{text}"));
    shown.parse().unwrap()
}

async fn value(client: &Client, key: &str) -> Option<String> {
    let found = client.get(key.to_owned()).await.unwrap();
    found.map(|version| String::from_utf8(version.value.to_vec()).unwrap())
}

async fn is(client: &Client, key: &str, expect: &str) {
    assert_eq!(value(client, key).await.as_deref(), Some(expect), "{key}");
}

/// What is told of a commit fits what is there. A commit that has not happened yet may still happen.
async fn is_what_is_told(client: &Client, key: &str, written: &str, ask: impl AsyncFnOnce() -> String) {
    let before = value(client, key).await;
    let told = ask().await;
    let committed = told.starts_with("committed at ");
    assert!(committed || before.as_deref() != Some(written), "{told}");
    let known = ["nothing is known", "prepared", "rolled back"].iter().any(|state| told.starts_with(state));
    assert!(committed || known, "{told}");
    if committed {
        is(client, key, written).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_at_a_terminal_reads_and_writes_in_and_out_of_transactions() {
    let cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let mut shell = Shell::start(&cluster, &["--no-history"]);
    timestamp(&shell.run("put a 1"), "done at ");
    assert_eq!(shell.run("get a"), "1\n");
    assert_eq!(shell.run("get nothing"), "nothing has no value\n");
    timestamp(&shell.run(r#"put "m n" '\x00\'\xff'"#), "done at ");
    assert_eq!(client.get("m n").await.unwrap().unwrap().value, &b"\0'\xff"[..]);
    assert_eq!(shell.run("scan"), "a\t1\nm n\t\\x00'\\xff\n");
    assert!(shell.run("cas a 2 3").starts_with("not as expected: the value is 1, committed at "));
    assert!(shell.run("frobnicate").starts_with("error: unrecognized subcommand 'frobnicate'\n"));
    assert_eq!(shell.run("commit"), "error: no transaction is open: begin one\n");
    assert!(shell.run("help put").contains("Usage: put [OPTIONS] <KEY> <VALUE>"));
    // Several commands that are pasted run one after the other.
    shell.press("\x1b[200~put p 1\nput p 2\x1b[201~");
    shell.press(ENTER);
    shell.see("put p 2\n");
    assert_eq!(shell.next().matches("done at ").count(), 2);
    timestamp(&shell.run("delete p"), "done at ");

    // One transaction over two groups: it sees itself, others do not.
    let id = shell.begin("begin");
    assert_eq!(shell.run("get a"), "1\n");
    assert_eq!(shell.run("put a 2"), "kept until the commit, 1 write so far\n");
    assert_eq!(shell.run("put z 26"), "kept until the commit, 2 writes so far\n");
    assert_eq!(shell.run("get a"), "2\n");
    assert_eq!(shell.run("cas a 2 3"), "kept until the commit, 2 writes so far\n");
    assert_eq!(shell.run("cas a 2 4"), "not as expected: the value is 3\n");
    assert_eq!(shell.run("delete 'm n'"), "kept until the commit, 3 writes so far\n");
    assert_eq!(shell.run("scan - -"), "a\t3\nz\t26\n");
    assert_eq!(shell.run("scan --reverse --limit 1 --keys-only"), "z\n");
    assert_eq!(shell.run("count"), "2\n");
    assert!(shell.run("begin").starts_with("error: a transaction is open"));
    assert!(shell.run("get a --at 1.0").starts_with("error: a transaction reads at its own snapshot"));
    let shown = shell.run("show");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with(&format!("transaction {id}, open for ")), "{shown}");
    assert_eq!(lines[1], "3 writes, seen by nobody else before the commit");
    assert_eq!(lines[2..5], ["  put a 3", "  put z 26", "  delete \"m n\""]);
    assert_eq!(lines[5..7], ["1 key and 3 ranges read", "  get a"]);
    is(&client, "a", "1").await;
    let commit_ts = timestamp(&shell.finish("commit"), "committed at ");
    let [a, z] = ["a", "z"].map(|key| client.get(key));
    assert_eq!((a.await.unwrap().unwrap().commit_ts, z.await.unwrap().unwrap().commit_ts), (commit_ts, commit_ts));
    assert_eq!(value(&client, "m n").await, None);
    assert_eq!(shell.run(&format!("txn status {id}")), format!("committed at {commit_ts}\n"));
    assert_eq!(shell.run("txn list"), "no transaction holds a lock\n");
    assert!(shell.run(&format!("txn resolve {id}")).starts_with("error: FAILED_PRECONDITION: "));

    // What somebody else changes is a conflict, and nothing is written.
    shell.begin("begin");
    assert_eq!(shell.run("get a"), "3\n");
    client.put("a", "4").await.unwrap();
    shell.run("put a 5");
    let refused = shell.finish("commit");
    assert!(refused.starts_with("error: TXN_CONFLICT: "), "{refused}");
    assert!(
        refused.contains("\nthe transaction is over and nothing of it was written; begin another one\n"),
        "{refused}"
    );
    is(&client, "a", "4").await;

    // A look at the past.
    shell.begin(&format!("begin --read-only --at {commit_ts}"));
    assert_eq!(shell.run("get a"), "3\n");
    assert!(shell.run("put a 6").starts_with("error: the open transaction only reads"));
    assert_eq!(shell.finish("commit"), format!("committed at {commit_ts}\n"));
    shell.begin(&format!("begin --at {commit_ts}"));
    assert_eq!(shell.run("get a"), "3\n");
    shell.run("put a 6");
    assert!(shell.finish("commit").starts_with("error: TXN_CONFLICT: "), "it was changed since that snapshot");
    shell.begin("begin");
    shell.run("put a 7");
    assert!(shell.finish("abort").ends_with(" was aborted; 1 write of it dropped\n"));

    // Leaving drops what is open.
    let id = shell.begin("begin");
    shell.run("put a 8");
    let parting = shell.leave();
    assert!(parting.contains(&format!("transaction {id} was aborted; 1 write of it dropped")), "{parting}");
    is(&client, "a", "4").await;
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_completed_cleared_and_remembered_and_a_watch_ends_at_a_key() {
    let cluster = Cluster::builder().nodes(1).data_groups(1).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("history");
    let mut shell = Shell::start(&cluster, &["--history", history.to_str().unwrap()]);
    timestamp(&shell.run("put alpha 1"), "done at ");
    timestamp(&shell.run(" put hidden 1"), "done at ");
    // A command, and a key that was named before.
    shell.press(&format!("cou{TAB}{ENTER}"));
    shell.see("count \n");
    assert_eq!(shell.next(), "2\n");
    shell.press(&format!("get al{TAB}{ENTER}"));
    shell.see("get alpha \n");
    assert_eq!(shell.next(), "1\n");
    // Ctrl-C drops the line and nothing else.
    shell.press("put alpha 2");
    shell.see("put alpha 2");
    shell.press(CTRL_C);
    shell.next();
    is(&client, "alpha", "1").await;

    assert!(shell.run("status").contains("leader"));
    shell.enter("watch status --every 100ms");
    shell.see("look 3, every 100ms; Enter or Ctrl-C ends it\n");
    assert!(shell.see("leader").contains("cluster "));
    shell.press(ENTER);
    shell.next();
    shell.enter("watch status --every 1h");
    shell.see("look 1, every 1h; ");
    shell.press(CTRL_C);
    shell.next();
    let watched = shell.run("watch status --every 1ms --times 3");
    assert!(watched.contains("look 3 of 3, every 1ms") && !watched.contains("look 4"), "{watched}");
    assert_eq!(shell.run("get alpha"), "1\n");
    shell.leave();

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&history), 0o600);
    let kept = std::fs::read_to_string(&history).unwrap();
    assert!(kept.contains("put alpha 1\n") && !kept.contains("hidden") && !kept.contains("put alpha 2"), "{kept}");
    // The next shell has it, and makes the file its owner's alone again.
    std::fs::set_permissions(&history, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut shell = Shell::start(&cluster, &["--history", history.to_str().unwrap()]);
    shell.press("\x1b[A");
    shell.see("get alpha");
    shell.press(ENTER);
    assert_eq!(shell.next(), "\n1\n");
    shell.enter("quit");
    assert!(shell.terminal.end().unwrap().0.success());
    assert_eq!(mode(&history), 0o600);

    // Where it lies if nobody says, and not at all.
    let state = dir.path().join("state");
    let mut at_home = command(&cluster, &[]);
    at_home.env("XDG_STATE_HOME", &state);
    let mut shell = Shell::of(at_home);
    shell.run("count");
    shell.leave();
    assert_eq!((mode(&state.join("drover")), mode(&state.join("drover/history"))), (0o700, 0o600));
    let mut nowhere = command(&cluster, &["--no-history"]);
    nowhere.env("XDG_STATE_HOME", dir.path().join("other"));
    let mut shell = Shell::of(nowhere);
    shell.run("count");
    shell.leave();
    assert!(!dir.path().join("other").exists());
    let device = Terminal::start(command(&cluster, &["--history", "/dev/null"])).unwrap().end().unwrap();
    assert_eq!(device.0.code(), Some(5), "{}", device.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_interrupted_says_whether_it_may_have_happened_and_how_to_find_out() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let mut shell = Shell::start(&cluster, &["--no-history", "--timeout", "60s"]);
    let id = shell.begin("begin");
    assert_eq!(shell.run("get 'a b'"), "a b has no value\n");
    shell.run("put 'a b' 1");
    cluster.nodes().iter().for_each(|node| node.stop().unwrap());

    shell.enter("commit");
    shell.press(CTRL_C);
    shell.prompt = PROMPT.to_owned();
    let told = shell.next();
    assert!(told.contains("error: TIMEOUT_INDEFINITE: interrupted before the answer came"), "{told}");
    let ask = told.lines().last().unwrap().strip_prefix("to find out what became of it: ").unwrap();
    assert_eq!(ask, format!("txn status {id} \"a b\""));

    shell.enter("put c 1");
    shell.press(CTRL_C);
    let told = shell.next();
    let settle = told.lines().last().unwrap().strip_prefix("to find out what became of it: ").unwrap();
    assert!(settle.starts_with("settle c --idempotency-key "), "{told}");
    shell.enter("get c");
    shell.press(CTRL_C);
    let told = shell.next();
    assert!(told.contains("error: interrupted; what was interrupted changes nothing\n"), "{told}");

    cluster.nodes().iter().for_each(|node| node.resume().unwrap());
    cluster.wait_ready(PATIENCE).await.unwrap();
    let settled = shell.run(settle);
    match value(&client, "c").await.as_deref() {
        Some("1") => assert!(settled.starts_with("it happened, at "), "{settled}"),
        other => assert_eq!((other, settled.as_str()), (None, "it did not happen and never will\n")),
    }
    is_what_is_told(&client, "a b", "1", async || shell.run(ask)).await;
    shell.leave();
    cluster.assert_replicas_equal().await.unwrap();
}

/// How a shell without terminal ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

/// A shell that reads a pipe.
struct Piped {
    child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Piped {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        let mut command = tokio::process::Command::from(command(cluster, arguments));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (input, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, answers: BufReader::new(answers).lines() }
    }

    /// Sends a line and waits for the one line of its answer.
    async fn ask(&mut self, line: &str) -> String {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        tokio::time::timeout(PATIENCE, self.answers.next_line()).await.unwrap().unwrap().unwrap()
    }

    /// Sends the rest, closes the pipe, and waits for the end.
    async fn end(mut self, rest: &str) -> Ended {
        self.input.write_all(rest.as_bytes()).await.unwrap();
        drop(self.input);
        let (mut out, mut err) = (String::new(), String::new());
        while let Some(line) = self.answers.next_line().await.unwrap() {
            out += &(line + "\n");
        }
        self.child.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
        let code = self.child.wait().await.unwrap().code().unwrap();
        Ended { code, out, err }
    }
}

async fn script(cluster: &Cluster, text: &str) -> Ended {
    Piped::start(cluster, &[]).end(text).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_runs_without_prompt_and_stops_at_its_first_failure() {
    let cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let text = "# comment\n\nput a 1\nbegin\nget a\nput a 2\nput z \"2 6\"\ncommit\nscan\ncount --prefix z\n";
    let ended = script(&cluster, text).await;
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{}", ended.out);
    let lines: Vec<&str> = ended.out.lines().collect();
    let [put, begun, got, one, two, committed, rows @ ..] = &lines[..] else { panic!("{}", ended.out) };
    assert!(put.starts_with("done at ") && begun.starts_with("transaction ") && committed.starts_with("committed at "));
    assert_eq!(
        [*got, one, two],
        ["1", "kept until the commit, 1 write so far", "kept until the commit, 2 writes so far"]
    );
    assert_eq!(*rows, ["a\t2", "z\t2 6", "1"]);
    // It ends with quit as well, and what stands behind is not read.
    assert_eq!(script(&cluster, "quit\nput a 0\n").await.code, 0);

    let table = [
        ("put b 1\nget nothing\nput b 2\n", 1, "nothing has no value"),
        ("put b 1\ncas b 5 6\nput b 2\n", 1, "not as expected: the value is 1"),
        ("put b 1\nfrobnicate\nput b 2\n", 2, "error: line 2: unrecognized subcommand 'frobnicate'"),
        ("put b 1\ncommit\nput b 2\n", 2, "error: line 2: no transaction is open"),
        ("put b 1\nbegin\nput b 2\n", 2, "error: the script ends within a transaction: transaction "),
        ("put b 1\nbegin\nput b 2\nquit\ncommit\n", 2, "1 write of it dropped"),
        ("put b 1\nbegin\nput b 2\nget nothing\ncommit\n", 1, " was aborted; 1 write of it dropped"),
        ("put b 1\nput '' 2\nput b 2\n", 2, "error: line 2: the key is empty"),
        ("put b 1\nget b --at 281474976710655.0\nput b 2\n", 4, "error: line 2: TIMESTAMP_IN_FUTURE: "),
    ];
    for (text, code, part) in table {
        client.put("b", "0").await.unwrap();
        let ended = script(&cluster, text).await;
        assert_eq!(ended.code, code, "{text}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains(part), "{text}: {}", ended.err);
        is(&client, "b", "1").await;
    }
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_json_every_command_is_one_object_also_if_it_fails() {
    let cluster = Cluster::builder().nodes(1).data_groups(1).start().await.unwrap();
    let text = "put a 1\nget a\nbegin\nget nothing\n";
    let ended = Piped::start(&cluster, &["--json"]).end(text).await;
    assert_eq!(ended.code, 1);
    let objects = |text: &str| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let shown = objects(&ended.out);
    assert_eq!(shown.len(), 4, "{}", ended.out);
    assert_eq!((&shown[1]["key"], &shown[1]["value"]), (&"a".into(), &"1".into()));
    assert_eq!(shown[1]["commit_ts"], shown[0]["commit_ts"]);
    assert_eq!((&shown[3]["key"], &shown[3]["value"]), (&"nothing".into(), &Value::Null));
    let text = "put b 2\nscan\nstatus\nbegin\nput a 3\nget a\ncas a 1 2 --ttl 1h\n";
    let ended = Piped::start(&cluster, &["--json"]).end(text).await;
    let shown = objects(&ended.out);
    assert_eq!((ended.code, shown.len()), (1, 7), "{}", ended.out);
    assert_eq!(shown[1]["rows"].as_array().unwrap().len(), 2);
    assert_eq!(shown[2]["nodes"].as_array().unwrap().len(), 1);
    assert_eq!((&shown[4]["writes"], &shown[5]["value"]), (&1.into(), &"3".into()));
    assert_eq!((&shown[6]["succeeded"], &shown[6]["current"]["value"]), (&false.into(), &"3".into()));
    let text = "begin\nput a 4\nshow\ncommit\nbegin --read-only\nshow\nabort\ntxn list\nhelp\nwatch status --times 2 --every 1ms\nput a\n";
    let ended = Piped::start(&cluster, &["--json"]).end(text).await;
    let shown = objects(&ended.out);
    assert_eq!((ended.code, shown.len()), (2, 12), "{}", ended.out);
    assert_eq!(
        (&shown[2]["transaction"], &shown[3]["transaction"]),
        (&shown[0]["transaction"], &shown[0]["transaction"])
    );
    assert_eq!(shown[2]["writes"][0]["value"], "4");
    assert!(shown[3]["commit_ts"].is_string() && shown[5]["snapshot"].is_null(), "{}", ended.out);
    assert_eq!((&shown[6]["writes_dropped"], &shown[7]["transactions"]), (&0.into(), &Value::Array(Vec::new())));
    assert!(shown[8]["help"].as_str().unwrap().contains("begin") && shown[10]["nodes"].is_array());
    assert_eq!(shown[11]["exit_code"], 2);
    assert!(shown[11]["error"]["message"].as_str().unwrap().starts_with("line 11: "), "{}", shown[11]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_a_script_that_conflicts_or_stays_unknown_has_its_code_and_says_what_to_do() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    client.put("a", "1").await.unwrap();
    let mut shell = Piped::start(&cluster, &["--json"]);
    shell.ask("begin").await;
    shell.ask("get a").await;
    client.put("a", "2").await.unwrap();
    shell.ask("put a 3").await;
    let failed: Value = serde_json::from_str(&shell.ask("commit").await).unwrap();
    let error = &failed["error"];
    assert_eq!((&error["reason"], &error["certainty"]), (&"TXN_CONFLICT".into(), &"definite".into()));
    let ended = shell.end("").await;
    assert_eq!((ended.code, &failed["exit_code"]), (4, &4.into()), "{}", ended.err);
    assert!(ended.err.contains("the transaction is over and nothing of it was written"), "{}", ended.err);
    is(&client, "a", "2").await;

    let mut shell = Piped::start(&cluster, &["--timeout", "1s"]);
    let begun = shell.ask("begin").await;
    assert_eq!(shell.ask("get a").await, "2");
    shell.ask("put a 4").await;
    cluster.nodes().iter().for_each(|node| node.stop().unwrap());
    let ended = shell.end("commit\nput a 5\n").await;
    assert_eq!(ended.code, 3, "{}", ended.err);
    let ask = ended.err.lines().last().unwrap().strip_prefix("to find out what became of it: ").unwrap();
    assert_eq!(ask, format!("txn status {} a", begun.strip_prefix("transaction ").unwrap()));
    cluster.nodes().iter().for_each(|node| node.resume().unwrap());
    cluster.wait_ready(PATIENCE).await.unwrap();
    is_what_is_told(&client, "a", "4", async || script(&cluster, &format!("{ask}\n")).await.out).await;
    // A script that is interrupted while it waits is a failure on this side.
    let mut shell = Piped::start(&cluster, &[]);
    shell.ask("begin").await;
    shell.ask("put a 6").await;
    let pid = rustix::process::Pid::from_raw(shell.child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = tokio::time::timeout(PATIENCE, shell.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(5));
}
