//! Hands the commit to the code as `SWITCHGATE_COMMIT`, for `--version`.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=SWITCHGATE_COMMIT");
    // Naming any path switches off "whenever a file of the package changed", so this one must be named too.
    println!("cargo::rerun-if-changed=build.rs");

    // Packagers build from an archive without a repository and say the commit themselves.
    let commit = env::var("SWITCHGATE_COMMIT")
        .ok()
        .filter(|given| !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_graphic()))
        .or_else(commit_of_this_repository)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=SWITCHGATE_COMMIT={commit}");
}

fn commit_of_this_repository() -> Option<String> {
    // Unpacked below somebody else's repository, git would answer with their commit.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let own = env::var("CARGO_MANIFEST_DIR").ok()?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&own).canonicalize().ok()? {
        return None;
    }
    watch("HEAD");
    // Appended to by every commit, checkout and reset.
    watch("logs/HEAD");
    watch("packed-refs");
    if let Some(branch) = git(&["symbolic-ref", "--quiet", "HEAD"]) {
        watch(&branch);
        // A branch that is packed, or has no commit yet, gets its file later, in this folder.
        watch("refs/heads");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// Runs the script again when this part of the repository changes.
///
/// A path that does not exist counts as changed on every build, so it is left out.
fn watch(part: &str) {
    // In a worktree `.git` is a file, and only git knows where each part lies.
    if let Some(path) = git(&["rev-parse", "--git-path", part]).filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
