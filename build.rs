//! Tells the binary which commit it was built from, where that is known, and packs its relocations, where they are understood.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=OUTRIGGER_COMMIT");
    // HEAD itself only names the branch; its log changes with every commit. A path that is not there would have cargo
    // build everything anew each time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    let log = log.filter(|path| Path::new(path).exists());
    println!("cargo::rerun-if-changed={}", log.as_deref().unwrap_or("build.rs"));
    let given = std::env::var("OUTRIGGER_COMMIT").ok();
    let commit = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=OUTRIGGER_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    if is_native() && glibc().is_some_and(|version| version >= (2, 36)) {
        // Half a mebibyte less. Older linkers ignore it with a warning; older C libraries do not load what has it.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// True where the binary will run where it is built: on Linux with glibc.
fn is_native() -> bool {
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    of("HOST") == of("TARGET") && of("TARGET").ends_with("-linux-gnu")
}

/// The version of the C library, as `getconf` tells it: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
