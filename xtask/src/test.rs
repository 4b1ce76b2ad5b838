//! `cargo xtask test`: every check and every test, with the totals in the last line.

use crate::command::{cargo, output, run, shown};
use crate::counts::Counts;
use crate::product::{self, Libc};
use crate::{deny, dist, guest, msrv, provision, suite, tidy, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Much longer than the guest's suite takes, and shorter than CI allows.
const GUEST_LIMIT: Duration = Duration::from_secs(20 * 60);

/// How many tests run at a time. They wait more than they compute, so a few more than there are processors.
const THREADS: &str = "4";

/// Which tests to run, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run everything here: for kernels that have bonding and 802.1q
    #[arg(long)]
    native: bool,
    /// Run only the tests whose path contains this, and leave the checks out
    filter: Option<String>,
}

/// Runs the verb.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let mut counts = Counts::default();
    let outcome = all(options.native, options.filter.as_deref(), &mut counts);
    if let Err(error) = &outcome {
        eprintln!("cargo xtask test: {error:#}");
    }
    println!("{counts}");
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs every stage in turn. After a failed stage the later ones still run, unless they need its output.
fn all(native: bool, filter: Option<&str>, counts: &mut Counts) -> Result<()> {
    ensure_root()?;
    provision::install_programs(!native)?;
    if native {
        provision::ensure_native()?;
    }
    let mut failures = Vec::new();
    let mut note = |name: &str, outcome: Result<()>| match outcome {
        Ok(()) => (),
        Err(error) => failures.push(format!("{name}: {error:#}")),
    };
    if filter.is_none() {
        note("checks", stage("checks", checks));
        note("dependencies", stage("dependencies", deny::check));
        note("oldest Rust", stage("oldest Rust", || oldest_rust(counts)));
    }
    note("unit tests", stage("unit tests", || unit_tests(filter, counts)));
    if filter.is_none() {
        note("release builds", stage("release builds", builds_for_both));
    }
    let product = product::ready()?;
    note("native suite", stage("native suite", || here("native", &product, filter, counts)));
    let datacenter = || {
        if native { here("datacenter", &product, filter, counts) } else { in_guest(&product, filter, counts) }
    };
    note("datacenter suite", stage("datacenter suite", datacenter));
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    ensure!(counts.passed > 0, "no test ran");
    Ok(())
}

/// Prints the name of a stage, and afterwards its duration.
pub(crate) fn stage<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("== {name}");
    let start = Instant::now();
    let outcome = work();
    println!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
    outcome
}

pub(crate) fn ensure_root() -> Result<()> {
    let uid = output(Command::new("id").arg("-u"))?;
    ensure!(uid.trim() == "0", "network namespaces take root: run this as root");
    Ok(())
}

fn checks() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run(cargo().args(["doc", "--quiet", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    tidy::check(&workspace::root())
}

/// Builds with the oldest Rust that is promised. Without that Rust, clippy's `incompatible_msrv` still checks
/// the functions of the standard library.
fn oldest_rust(counts: &mut Counts) -> Result<()> {
    if !msrv::check()? {
        println!("not tried: oldest Rust: rustup cannot add {}", msrv::RUST);
        counts.skipped += 1;
    }
    Ok(())
}

/// The tests inside the crates. The integration crate's own are those of its library.
fn unit_tests(filter: Option<&str>, counts: &mut Counts) -> Result<()> {
    let mut failures = Vec::new();
    for selection in
        [&["--workspace", "--exclude", "integration"][..], &["--package", "integration", "--lib"]]
    {
        let mut command = cargo();
        command.args(["test", "--no-fail-fast"]).args(selection).args(filter);
        let (of_command, success) = stream(&mut command)?;
        *counts += of_command;
        if !success || of_command.failed > 0 || of_command.summaries == 0 {
            failures.push(format!("`{}` failed", shown(&command)));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Builds what is shipped. Also builds the glibc variant for toolchains without musl, not optimised, and runs
/// it.
fn builds_for_both() -> Result<()> {
    product::build(Libc::best())?;
    let fallback = product::try_fallback()?;
    for name in product::BINARIES {
        let answer = output(Command::new(fallback.join(name)).arg("--version"))?;
        ensure!(answer.starts_with(name), "{name} built with glibc answers --version with {answer:?}");
    }
    Ok(())
}

/// A suite on the running kernel.
pub(crate) fn here(name: &str, product: &Path, filter: Option<&str>, counts: &mut Counts) -> Result<()> {
    let mut command = Command::new(suite::build(["--test", name])?);
    command.env("RUST_TEST_THREADS", THREADS);
    provision::tell(command.args(filter), product)?;
    let image = workspace::rig().join("product.oci.tar");
    fs::write(&image, dist::image(std::env::consts::ARCH, product)?).context("cannot write the image")?;
    command.env("VLAN_BRIDGE_IMAGE", image).env("CNITOOL", provision::cnitool()?);
    let (of_suite, success) = stream(&mut command)?;
    judge(of_suite, success, counts)
}

/// The suite that needs another kernel, in one boot.
fn in_guest(product: &Path, filter: Option<&str>, counts: &mut Counts) -> Result<()> {
    let (there, runtimes, cnitool) = ("/opt/datacenter".to_owned(), "/opt/runtimes", "/opt/cnitool");
    let mut programs = provision::runtimes_for_guest(runtimes)?;
    programs.push((provision::cnitool()?, cnitool.into()));
    programs.push((suite::build(["--test", "datacenter"])?, there.clone()));
    let mut command = vec![there];
    command.extend(filter.map(str::to_owned));
    let job = guest::Job {
        command,
        environment: vec![
            ("RUST_TEST_THREADS".into(), THREADS.into()),
            // Its clock may be set.
            ("VLAN_BRIDGE_GUEST".into(), "1".into()),
            ("CNI_RUNTIMES".into(), runtimes.into()),
            ("CNITOOL".into(), cnitool.into()),
        ],
        programs,
        deadline: GUEST_LIMIT,
    };
    let boot = || {
        let mut of_suite = Counts::default();
        let code = guest::run(&job, product, &mut |line| {
            println!("{line}");
            of_suite.read(line);
        })?;
        Ok((of_suite, code == 0))
    };
    let (of_suite, success) = once_more_after_a_lockup(boot)?;
    judge(of_suite, success, counts)
}

/// A kernel that locked up says nothing about the tests. So they are run again from the start, once.
fn once_more_after_a_lockup<T>(mut boot: impl FnMut() -> Result<T>) -> Result<T> {
    match boot() {
        Err(error) if error.is::<guest::LockedUp>() => {
            println!(
                "{error:#}\n== the guest's tests are run again from the start, because its kernel locked up"
            );
            boot()
        }
        outcome => outcome,
    }
}

/// A suite has passed if its only summary and its exit code say so.
fn judge(of_suite: Counts, success: bool, counts: &mut Counts) -> Result<()> {
    *counts += of_suite;
    ensure!(of_suite.summaries == 1, "the suite ended without its summary");
    ensure!(of_suite.failed == 0, "{} tests failed", of_suite.failed);
    if !success {
        bail!("the suite failed although no test did");
    }
    Ok(())
}

/// Runs a command, shows its output and counts the summaries in it.
fn stream(command: &mut Command) -> Result<(Counts, bool)> {
    let name = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{name}`"))?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.with_context(|| format!("cannot read the output of `{name}`"))?;
        println!("{line}");
        counts.read(&line);
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{name}`"))?;
    Ok((counts, status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a suite that ended so has passed.
    fn passes(line: &str, success: bool) -> bool {
        let mut of_suite = Counts::default();
        of_suite.read(line);
        judge(of_suite, success, &mut Counts::default()).is_ok()
    }

    #[test]
    fn only_after_a_lockup_a_guest_is_booted_once_more() {
        let boots = |errors: [Option<anyhow::Error>; 3]| {
            let mut outcomes = errors.into_iter().enumerate();
            let boot = || {
                let (index, error) = outcomes.next().context("no fourth boot")?;
                error.map_or(Ok(index), Err)
            };
            let outcome = once_more_after_a_lockup(boot).map_err(|error| error.to_string());
            (outcome, 3 - outcomes.count())
        };
        let locked_up = || Some(guest::LockedUp::default().into());
        let said = guest::LockedUp::default().to_string();
        assert_eq!(boots([None, None, None]), (Ok(0), 1));
        assert_eq!(boots([locked_up(), None, None]), (Ok(1), 2));
        assert_eq!(boots([locked_up(), locked_up(), None]), (Err(said), 2));
        assert_eq!(boots([Some(anyhow::anyhow!("late")), None, None]), (Err("late".into()), 1));
    }

    #[test]
    fn a_suite_passes_by_its_summary_and_its_exit_code() {
        let summary = "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert!(passes(summary, true));
        assert!(!passes(summary, false));
        assert!(!passes("", true));
        assert!(!passes(&summary.replace("0 failed", "1 failed"), true));
    }
}
