//! The example file and the reference page, made from the table of settings.

use std::fmt::Write;

use super::read::range_text;
use super::table::{SECTIONS, Section, Setting};
use super::value::Kind;

const EXAMPLE_HEAD: &str = "\
# Configuration of one node: drover server --config drover.toml
#
# Settings in comments show their defaults. What each means, and how to give it as a variable or as a flag, is told in
# docs/configuration.md. This file is made from the table of settings in crates/server/src/config/table.rs.
";

const PAGE_HEAD: &str = "\
# Configuration

<!-- Made from crates/server/src/config/table.rs. After a change there: DROVER_UPDATE_DOCS=1 cargo test -p drover-server -->

`drover server` takes each setting from a TOML file (`--config FILE`, or the variable `DROVER_CONFIG`), from an environment
variable, or from a flag. A flag wins over a variable, a variable over the file, the file over the default. A complete file is
[drover.example.toml](drover.example.toml).

| the setting `raft.heartbeat_ms` | is |
|---|---|
| in the file | `heartbeat_ms = \"100ms\"` in section `[raft]` |
| as a variable | `DROVER_RAFT_HEARTBEAT_MS=100ms` |
| as a flag | `--raft-heartbeat-ms 100ms` |

- A **duration** is a whole number of milliseconds, or text with a unit: `\"250ms\"`, `\"10s\"`, `\"1m 30s\"`, `\"2h\"`, `\"7d\"`.
- A **size** is a whole number of bytes, or text with a unit: `\"4KiB\"`, `\"64MiB\"`, `\"1GiB\"` (powers of 1024), `\"1MB\"` (powers
  of 1000).
- A **list of tables** is written as `[[section.field]]` in the file. As a variable or flag it is one TOML array:
  `--bootstrap-groups '[{id = 1, replicas = [1, 2, 3]}]'`.

A node that finds anything wrong lists every problem, with file, line and column or with the variable or flag, and does not
start. That includes names it does not know: in the file, on the command line, and variables that start with `DROVER_` and
the name of a section, such as `DROVER_RAFT_HEARTBEAT`.
";

/// The example file.
pub fn example() -> String {
    let mut out = String::from(EXAMPLE_HEAD);
    for section in SECTIONS {
        out.push('\n');
        comment(&mut out, section.doc);
        if section.settings.iter().any(|setting| setting.kind != Kind::List) {
            line(&mut out, &format!("[{}]", section.name));
        }
        for setting in section.settings {
            example_setting(&mut out, setting);
        }
    }
    out
}

fn example_setting(out: &mut String, setting: &Setting) {
    let field = setting.section_and_field().1;
    out.push('\n');
    comment(out, setting.doc);
    match (setting.kind, setting.example, setting.default) {
        (Kind::List, Some(tables), _) => out.push_str(tables),
        (_, Some(example), _) => line(out, &format!("{field} = {example}")),
        (_, None, Some(default)) => line(out, &format!("# {field} = {}", as_toml(setting, default))),
        (_, None, None) => line(out, &format!("# {field} = (none)")),
    }
}

/// The reference page.
pub fn reference() -> String {
    let mut out = String::from(PAGE_HEAD);
    for section in SECTIONS {
        reference_section(&mut out, section);
    }
    out
}

fn reference_section(out: &mut String, section: &Section) {
    let doc: Vec<&str> = section.doc.iter().map(|line| line.trim()).collect();
    let head = format!(
        "\n## `[{}]`\n\n{}\n\n| setting | type | default | allowed | meaning |\n|---|---|---|---|---|",
        section.name,
        doc.join(" ")
    );
    line(out, &head);
    for setting in section.settings {
        let default = match (setting.default, setting.required) {
            (Some(default), _) => format!("`{default}`"),
            (None, true) => "required".to_owned(),
            (None, false) => "none".to_owned(),
        };
        let row = format!(
            "| `{}` | {} | {default} | {} | {} |",
            setting.path,
            setting.kind,
            range_text(setting),
            setting.description().replace('|', "\\|"),
        );
        line(out, &row);
    }
}

/// The text of a value as it stands in a file.
fn as_toml(setting: &Setting, text: &str) -> String {
    match setting.kind {
        Kind::Number => text.to_owned(),
        _ => format!("\"{text}\""),
    }
}

fn comment(out: &mut String, doc: &[&str]) {
    for text in doc {
        line(out, &format!("# {}", text.trim()));
    }
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("writing to a string cannot fail");
}
