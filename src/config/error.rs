//! What is wrong with a config: every problem, with its place.

use std::{fmt, ops::Range, path::PathBuf};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub text: String,
}

/// Every mistake of one file.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    path: PathBuf,
    problems: Vec<Problem>,
}

impl ConfigErrors {
    pub(super) fn new(path: PathBuf, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self { path, problems }
    }

    /// The mistakes, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, column, text }) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            match line {
                0 => write!(f, "{separator}{}: {text}", self.path.display())?,
                _ => write!(f, "{separator}{}:{line}:{column}: {text}", self.path.display())?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Gathers mistakes of one text.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    text: &'a str,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// Notes a mistake at a place of the text.
    pub(super) fn at(&mut self, span: &Range<usize>, text: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        self.found.push(Problem { line, column, text: text.into() });
    }

    /// Notes a mistake of the file as a whole.
    pub(super) fn in_whole(&mut self, text: impl Into<String>) {
        self.found.push(Problem { line: 0, column: 0, text: text.into() });
    }

    pub(super) fn into_found(self) -> Vec<Problem> {
        self.found
    }
}

/// ``; did you mean `x`?`` or a list of what there is.
pub(super) fn nearest<'n>(wrong: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let best = known.iter().map(|name| (strsim::damerau_levenshtein(wrong, name), *name)).min();
    match best {
        Some((distance, name)) if distance <= 1 + wrong.chars().count() / 3 => format!("; did you mean `{name}`?"),
        _ if known.is_empty() => String::new(),
        _ => format!("; expected one of: {}", known.join(", ")),
    }
}
