//! Collects what file, variables and flags say about each setting, and reads typed values out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Origin, Problem};
use super::table::{self, SECTIONS, Setting};
use super::value::{Kind, SettingValue};

/// Everything that can give settings.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Environment variables. Those that do not start with `DROVER_` and the name of a section are left alone.
    pub env: Vec<(String, String)>,
    /// Paths of settings (`section.field`) with what the command line says about them.
    pub flags: Vec<(&'static str, String)>,
}

enum Raw<'i> {
    Toml(Spanned<DeValue<'i>>),
    Text(String),
}

/// What was given, and what was wrong with it so far.
pub(super) struct Reader<'i> {
    file: Option<(&'i Path, &'i str)>,
    given: BTreeMap<&'static str, Raw<'i>>,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
    /// Settings whose values are wrong or missing: something else stands in their places.
    wrong: BTreeSet<&'static str>,
    /// Settings and sections that were probably meant by names that there are not.
    meant: BTreeSet<String>,
    /// Whether the file is TOML, or there is none.
    is_read: bool,
}

impl<'i> Reader<'i> {
    /// Reads the text of the file, if there is one, then the variables, then the flags: the later wins.
    pub fn new(file: Option<(&'i Path, &'i str)>, sources: &Sources) -> Self {
        let mut reader = Self {
            file,
            given: BTreeMap::new(),
            origins: BTreeMap::new(),
            problems: Vec::new(),
            wrong: BTreeSet::new(),
            meant: BTreeSet::new(),
            is_read: true,
        };
        reader.read_file();
        reader.read_variables(&sources.env);
        for (path, text) in &sources.flags {
            let flag = table::find(path).map_or_else(|| (*path).to_owned(), Setting::flag);
            reader.give(path, Origin::Flag(flag), Raw::Text(text.clone()));
        }
        reader
    }

    /// Notes that something is wrong with a setting or a part of it.
    pub fn refuse(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let field = field.into();
        self.problems.push(Problem { origin: self.origin(&field), field, message: message.into() });
    }

    /// Notes that a setting does not fit others, unless the value of one of them is wrong anyway.
    pub fn refuse_relation(&mut self, field: &'static str, others: &[&'static str], message: impl Into<String>) {
        if !self.is_wrong(field) && !others.iter().any(|other| self.is_wrong(other)) {
            self.refuse(field, message);
        }
    }

    /// Whether the value of a setting is wrong or missing, so that nothing can be told from it.
    pub fn is_wrong(&self, path: &str) -> bool {
        self.wrong.contains(path)
    }

    /// Whether what was given could be read at all.
    pub fn is_read(&self) -> bool {
        self.is_read
    }

    /// What is wrong.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Where a setting, or the part of one, was given.
    pub fn origin(&self, field: &str) -> Origin {
        let mut part = field;
        loop {
            if let Some(origin) = self.origins.get(part) {
                return origin.clone();
            }
            // `a.b[2].c` is known at least as well as `a.b[2]`, and that as `a.b`.
            match part.rfind(['.', '[']) {
                Some(at) => part = &part[..at],
                None => return Origin::Default,
            }
        }
    }

    /// The value of a setting. If it is wrong, that is noted, and another value stands in its place.
    pub fn take<T: SettingValue>(&mut self, path: &'static str) -> T {
        let setting = table::find(path).expect("the table is made from the same list as the callers of this function");
        self.take_right(setting).unwrap_or_else(|| {
            self.wrong.insert(path);
            stand_in(setting)
        })
    }

    fn take_right<T: SettingValue>(&mut self, setting: &'static Setting) -> Option<T> {
        let path = setting.path;
        let value = match self.given.remove(path) {
            Some(Raw::Toml(value)) => self.take_toml(path, &value),
            Some(Raw::Text(text)) => self.take_text(path, &text),
            None => match (setting.default, T::absent()) {
                (Some(default), _) => self.take_text(path, default),
                (None, Some(absent)) => Some(absent),
                (None, None) => {
                    self.lacks(path);
                    None
                }
            },
        }?;
        match (&setting.range, value.magnitude()) {
            (Some(range), Some(n)) if !range.contains(&n) => {
                self.refuse(path, format!("{} is out of range: {}", unit(n, setting.kind), range_text(setting)));
                None
            }
            _ => Some(value),
        }
    }

    /// Notes that a setting has no value and needs one, unless it may have been given under a wrong name.
    pub fn lacks(&mut self, path: &str) {
        let section = path.split('.').next().unwrap_or(path);
        if !self.is_read || self.meant.contains(path) || self.meant.contains(section) {
            return;
        }
        let message = table::find(path).map(missing).unwrap_or_default();
        self.problems.push(Problem { field: path.to_owned(), origin: Origin::Missing, message });
    }

    fn take_text<T: SettingValue>(&mut self, path: &str, text: &str) -> Option<T> {
        T::from_text(text).map_err(|message| self.refuse(path, message)).ok()
    }

    fn take_toml<T: SettingValue>(&mut self, path: &str, value: &Spanned<DeValue<'i>>) -> Option<T> {
        self.note_places(path, value);
        match T::from_toml(value) {
            Ok(value) => Some(value),
            Err(all) => {
                for bad in all {
                    let origin = self.place(&bad.span);
                    self.problems.push(Problem { field: format!("{path}{}", bad.at), origin, message: bad.message });
                }
                None
            }
        }
    }

    /// Remembers where each part of a list was given.
    fn note_places(&mut self, path: &str, value: &Spanned<DeValue<'i>>) {
        match value.as_ref() {
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.origins.insert(path.clone(), self.place(&item.span()));
                    self.note_places(&path, item);
                }
            }
            DeValue::Table(fields) => {
                for name in fields.keys() {
                    let place = self.place(&name.span());
                    self.origins.insert(format!("{path}.{}", name.as_ref()), place);
                }
            }
            _ => {}
        }
    }

    fn give(&mut self, path: &'static str, origin: Origin, raw: Raw<'i>) {
        self.origins.insert(path.to_owned(), origin);
        self.given.insert(path, raw);
    }

    fn read_file(&mut self) {
        let Some((_, text)) = self.file else { return };
        let root = match DeTable::parse(text) {
            Ok(root) => root.into_inner(),
            Err(error) => {
                self.is_read = false;
                let origin = self.place(&error.span().unwrap_or(0..0));
                let message = error.message().to_owned();
                self.problems.push(Problem { field: String::new(), origin, message });
                return;
            }
        };
        for (name, value) in root {
            let known = SECTIONS.iter().find(|section| section.name == name.as_ref());
            let span = value.span();
            match (known, value.into_inner()) {
                (Some(section), DeValue::Table(fields)) => self.read_section(section, fields),
                (Some(section), other) => {
                    self.meant.insert(section.name.to_owned());
                    let message = format!("expected a section [{}], found {}", name.as_ref(), other.type_str());
                    self.refuse_at(&span, name.as_ref(), message);
                }
                (None, _) => {
                    let near = nearest(name.as_ref(), SECTIONS.iter().map(|section| section.name));
                    self.meant.extend(near.map(str::to_owned));
                    self.refuse_at(&name.span(), name.as_ref(), unknown("section", name.as_ref(), near));
                }
            }
        }
    }

    fn read_section(&mut self, section: &'static table::Section, fields: DeTable<'i>) {
        for (name, value) in fields {
            let known = section.settings.iter().find(|setting| setting.section_and_field().1 == name.as_ref());
            match known {
                Some(setting) => {
                    let origin = self.place(&name.span());
                    self.give(setting.path, origin, Raw::Toml(value));
                }
                None => {
                    let names = section.settings.iter().map(|setting| setting.section_and_field().1);
                    let near = nearest(name.as_ref(), names);
                    self.meant.extend(near.map(|near| format!("{}.{near}", section.name)));
                    let message = unknown("setting", name.as_ref(), near);
                    self.refuse_at(&name.span(), &format!("{}.{}", section.name, name.as_ref()), message);
                }
            }
        }
    }

    fn read_variables(&mut self, env: &[(String, String)]) {
        let names: Vec<(String, &'static str)> = table::all().map(|s| (s.variable(), s.path)).collect();
        for (variable, text) in env {
            let origin = Origin::Variable(variable.clone());
            if let Some((_, path)) = names.iter().find(|(name, _)| name == variable) {
                self.give(path, origin, Raw::Text(text.clone()));
            } else if SECTIONS.iter().any(|section| {
                variable.strip_prefix("DROVER_").is_some_and(|rest| {
                    rest.strip_prefix(&section.name.to_uppercase()).is_some_and(|rest| rest.starts_with('_'))
                })
            }) {
                let near = nearest(variable, names.iter().map(|(name, _)| name.as_str()));
                let meant = names.iter().find(|(name, _)| Some(name.as_str()) == near);
                self.meant.extend(meant.map(|(_, path)| (*path).to_owned()));
                let message = unknown("variable", variable, near);
                self.problems.push(Problem { field: String::new(), origin, message });
            }
        }
    }

    fn refuse_at(&mut self, span: &Range<usize>, field: &str, message: String) {
        let origin = self.place(span);
        self.problems.push(Problem { field: field.to_owned(), origin, message });
    }

    fn place(&self, span: &Range<usize>) -> Origin {
        let Some((path, text)) = self.file else { return Origin::Default };
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Origin::File {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Says how a value is given to a setting that has none.
fn missing(setting: &Setting) -> String {
    let (section, field) = setting.section_and_field();
    format!(
        "write {field} into section [{section}] of the file, set the variable {}, or give the \
         flag --{}",
        setting.variable(),
        setting.flag()
    )
}

/// A value that everything else can be checked with.
fn stand_in<T: SettingValue>(setting: &Setting) -> T {
    let default = || T::from_text(setting.default?).ok();
    let example = || T::from_toml(&DeValue::parse(setting.example?).ok()?).ok();
    T::absent().or_else(default).or_else(example).expect("a setting that must be given has an example")
}

/// The name that may have been meant.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let (distance, other) = known.map(|other| (distance(name, other), other)).min()?;
    (distance <= 1 + name.len() / 4).then_some(other)
}

/// Says that there is no such name, and which one may have been meant.
fn unknown(what: &str, name: &str, nearest: Option<&str>) -> String {
    match nearest {
        Some(other) => format!("there is no {what} {name}; did you mean {other}?"),
        None => format!("there is no {what} {name}"),
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A number as people write it in a setting of this kind.
pub(super) fn unit(n: u64, kind: Kind) -> String {
    match kind {
        Kind::Size => [(30, "GiB"), (20, "MiB"), (10, "KiB")]
            .into_iter()
            .find(|&(shift, _)| n >= 1 << shift && n.trailing_zeros() >= shift)
            .map_or_else(|| format!("{n} bytes"), |(shift, unit)| format!("{}{unit}", n >> shift)),
        Kind::Duration => humantime::format_duration(std::time::Duration::from_millis(n)).to_string(),
        _ => n.to_string(),
    }
}

/// The allowed values of a setting, for people.
pub(super) fn range_text(setting: &Setting) -> String {
    let Some(range) = &setting.range else { return String::new() };
    let (low, high) = (unit(*range.start(), setting.kind), unit(*range.end(), setting.kind));
    match *range.end() {
        n if n >= u64::MAX / 2 => format!("at least {low}"),
        _ => format!("{low} to {high}"),
    }
}
