//! The command line of compare.

use std::path::PathBuf;

use super::peer::Peer;
use crate::{Result, scenario::GROUPS};

/// What to measure, and how thoroughly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(super) quick: bool,
    /// Empty is all.
    pub(super) only: Vec<String>,
    pub(super) peers: Vec<Peer>,
    /// Threads of each proxy.
    pub(super) workers: usize,
    pub(super) rounds: usize,
    pub(super) switchgate: Option<PathBuf>,
    /// Another build, measured in the same rounds.
    pub(super) before: Option<PathBuf>,
    pub(super) out: Option<PathBuf>,
    pub(super) strict: bool,
    /// HAProxy splices whatever it can, in place of when it thinks that it pays.
    pub(super) splice_always: bool,
    /// The arguments as they were given, to be repeated.
    pub(super) words: Vec<String>,
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    /// A sentence about the first argument that is wrong.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            quick: false,
            only: Vec::new(),
            peers: Peer::ALL.into(),
            workers: 1,
            rounds: 0,
            switchgate: None,
            before: None,
            out: None,
            strict: false,
            splice_always: false,
            words: arguments.to_vec(),
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => options.quick = true,
                "--strict" => options.strict = true,
                "--splice-always" => options.splice_always = true,
                "--only" => options.only = groups(value()?)?,
                "--peers" => options.peers = peers(value()?)?,
                "--workers" => options.workers = number(value()?)?,
                "--rounds" => options.rounds = number(value()?)?,
                "--switchgate" => options.switchgate = Some(value()?.into()),
                "--before" => options.before = Some(value()?.into()),
                "--out" => options.out = Some(value()?.into()),
                other => return Err(format!("compare knows no `{other}`").into()),
            }
        }
        if options.rounds == 0 {
            options.rounds = if options.quick { 3 } else { 5 };
        }
        if options.before.is_some() {
            options.peers.push(Peer::Before);
        }
        Ok(options)
    }

    /// The same with this peer alone.
    pub(crate) fn alone(self, peer: Peer) -> Self {
        Self { peers: vec![peer], ..self }
    }
}

fn groups(text: &str) -> Result<Vec<String>> {
    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| !GROUPS.contains(&name.as_str())) {
        Some(name) => Err(format!("there is no scenario `{name}`; there are {}", GROUPS.join(", ")).into()),
        None => Ok(names),
    }
}

fn peers(text: &str) -> Result<Vec<Peer>> {
    let known = |name: &str| Peer::ALL.into_iter().find(|peer| peer.name() == name);
    text.split(',').map(|name| known(name).ok_or_else(|| format!("there is no peer `{name}`").into())).collect()
}

fn number(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(number @ 1..=64) => Ok(number),
        _ => Err(format!("`{text}` is no number from 1 to 64").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_given_is_taken_and_what_is_wrong_is_named() {
        let options = parse("--quick --only idle,get --peers switchgate,floor --workers 2").unwrap();
        assert_eq!((options.quick, options.rounds, options.workers), (true, 3, 2));
        assert_eq!(options.peers, [Peer::Switchgate, Peer::Floor]);
        assert_eq!(parse("").unwrap().rounds, 5);
        let before = parse("--before old --peers switchgate").unwrap();
        assert_eq!(before.peers, [Peer::Switchgate, Peer::Before]);
        for wrong in ["--only nothing", "--peers apache", "--workers 0", "--workers", "--fast"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
