//! The operator's commands: list, inspect and release leases.

use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use cni_conf::ipam::{DEFAULT_COOLDOWN, DEFAULT_DATA_DIR};
use cni_skel::lock::LOOK_LIMIT;

use crate::store::{Store, StoreError};

mod orphans;
mod show;

const USAGE: &str = "\
Usage: vlan-bridge-ipam COMMAND [--network NAME] [--data-dir DIR] [-o json]

  list              every held, cooling or quarantined address, with its holder
  show ADDRESS      everything about one address
  usage             the number of used addresses of each range
  check             compare records and leases, release the leases of dead owners, and list
                    folders of leases without a network list
  release ADDRESS   release an address; asks first
    --yes           do not ask
    --force         even if its owner is alive, or on another machine
  release --machine ID
                    release all addresses that another machine assigned from this folder; asks first

  --network NAME    only this network; default: all in the data directory
  --data-dir DIR    folder of the leases (default /var/lib/cni/networks)
  --conf-dir DIR    folder of the network lists, for check (default /etc/cni/net.d)
  -o json           print JSON";

/// The runtimes' default folder of network lists.
const DEFAULT_CONF_DIR: &str = "/etc/cni/net.d";

/// Exit codes.
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    command: OperatorCommand,
    data_dir: PathBuf,
    conf_dir: PathBuf,
    network: Option<String>,
    machine: Option<String>,
    json: bool,
    yes: bool,
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OperatorCommand {
    Help,
    List,
    Show(IpAddr),
    Usage,
    Check,
    Release(IpAddr),
    ReleaseMachine,
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// A message for the user.
    Message(String),
    /// The output could not be written.
    Output(io::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Message(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

/// Executes a command line and returns the exit code: 1 for a failure, 2 for a wrong command line.
///
/// # Errors
/// If `out` cannot be written.
pub fn run(words: &[String], out: &mut dyn Write) -> io::Result<u8> {
    let call = match parse(words) {
        Ok(call) => call,
        Err(why) => {
            report(&format!("{why}\n\n{USAGE}"));
            return Ok(MISUSED);
        }
    };
    match perform(&call, out) {
        Ok(()) => Ok(0),
        Err(Failure::Output(error)) => Err(error),
        Err(Failure::Message(why)) => {
            out.flush()?;
            report(&why);
            Ok(FAILED)
        }
    }
}

fn report(text: &str) {
    // If stderr is closed, there is no other place for the message.
    let _ = writeln!(io::stderr(), "{text}");
}

fn perform(call: &Call, out: &mut dyn Write) -> Result<(), Failure> {
    match call.command {
        OperatorCommand::Help => writeln!(out, "{USAGE}").map_err(Failure::Output),
        OperatorCommand::List => show::list(call, out),
        OperatorCommand::Show(addr) => show::one(call, addr, out),
        OperatorCommand::Usage => show::usage(call, out),
        OperatorCommand::Check => check(call, out),
        OperatorCommand::Release(addr) => release(call, addr, out),
        OperatorCommand::ReleaseMachine => release_machine(call, out),
    }
}

impl Call {
    fn networks(&self) -> Result<Vec<String>, Failure> {
        match &self.network {
            Some(network) => Ok(vec![network.clone()]),
            None => Ok(Store::networks(&self.data_dir)?),
        }
    }

    /// Runs `work` on the store of a network, under its lock. `None` if there is no such network.
    fn with<T>(
        &self,
        network: &str,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError>,
    ) -> Result<Option<T>, Failure> {
        let Some(mut store) = Store::open(&self.data_dir, network, LOOK_LIMIT)? else { return Ok(None) };
        let outcome = work(&mut store);
        store.finish();
        Ok(Some(outcome?))
    }
}

fn check(call: &Call, out: &mut dyn Write) -> Result<(), Failure> {
    for network in call.networks()? {
        let done = call.with(&network, |store| {
            store.reconcile()?;
            Ok((store.reclaim()?, store.addresses()?.len(), store.elsewhere()?))
        })?;
        let Some((released, held, elsewhere)) = done else { continue };
        for addr in &released {
            writeln!(out, "{network}: released {addr}: the namespace of its owner is gone")?;
        }
        writeln!(out, "{network}: {held} addresses held, {} released", released.len())?;
        for (machine, count) in elsewhere {
            writeln!(
                out,
                "{network}: {count} of them belong to another machine, {machine}, and stay. Machines must not share this folder. \
                 If that machine is gone, or this is a copy of its folder, run: \
                 vlan-bridge-ipam release --machine {machine} --network {network}"
            )?;
        }
    }
    orphans::print(call, out)
}

fn release_machine(call: &Call, out: &mut dyn Write) -> Result<(), Failure> {
    let machine = call.machine.as_deref().unwrap_or_default();
    let mut found = 0;
    for network in call.networks()? {
        let count = call.with(&network, |store| Ok(store.elsewhere()?.get(machine).copied()))?.flatten();
        let Some(count) = count else { continue };
        found += count;
        confirm(
            call,
            &format!("release {count} addresses of network {network}, assigned by machine {machine}"),
            out,
        )?;
        for addr in call.with(&network, |store| store.release_machine(machine))?.unwrap_or_default() {
            writeln!(out, "released {addr} of network {network}, assigned by machine {machine}")?;
        }
    }
    match found {
        0 => Err(Failure::Message(format!("no address here belongs to another machine {machine}"))),
        _ => Ok(()),
    }
}

/// Asks the user for confirmation, unless the command has `--yes`.
fn confirm(call: &Call, what: &str, out: &mut dyn Write) -> Result<(), Failure> {
    if call.yes {
        return Ok(());
    }
    write!(out, "{what}? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().eq_ignore_ascii_case("y") {
        true => Ok(()),
        false => Err(Failure::Message("nothing released".into())),
    }
}

fn release(call: &Call, addr: IpAddr, out: &mut dyn Write) -> Result<(), Failure> {
    let (network, known) = show::find(call, addr)?;
    let holder = show::named(&known.holder);
    if let Some(machine) = known.elsewhere.as_ref().filter(|_| !call.force) {
        let why = format!(
            "{addr} of network {network}: {holder} belongs to another machine, {machine}: use --force to release it"
        );
        return Err(Failure::Message(why));
    }
    match known.is_alive() {
        Some(true) if !call.force => {
            let why = format!("{addr} of network {network}: {holder} is alive: use --force to release it");
            return Err(Failure::Message(why));
        }
        None if !call.yes => writeln!(out, "cannot tell whether {holder} is alive")?,
        _ => {}
    }
    confirm(call, &format!("release {addr} of network {network}, held by {holder}"), out)?;
    let inspected = known.holder;
    let released = call.with(&network, |store| {
        // The holder may have changed while the command waited for the answer.
        let same = store.inspector().look(addr)?.is_some_and(|known| known.holder == inspected);
        if same { store.release_address(addr) } else { Ok(false) }
    })?;
    if released != Some(true) {
        return Err(Failure::Message(format!(
            "{addr} of network {network} has another holder now: nothing released"
        )));
    }
    writeln!(out, "released {addr} of network {network}, held by {holder}")?;
    Ok(())
}

fn parse(words: &[String]) -> Result<Call, String> {
    let mut call = Call {
        command: OperatorCommand::Help,
        data_dir: DEFAULT_DATA_DIR.into(),
        conf_dir: DEFAULT_CONF_DIR.into(),
        network: None,
        machine: None,
        json: false,
        yes: false,
        force: false,
    };
    let mut plain = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--network" | "-n" => call.network = Some(value()?.clone()),
            "--machine" => call.machine = Some(value()?.clone()),
            "--conf-dir" => call.conf_dir = value()?.into(),
            "--data-dir" => call.data_dir = value()?.into(),
            "-o" | "--output" if value()? == "json" => call.json = true,
            "-o" | "--output" => return Err(format!("{word} supports only json")),
            "--yes" | "-y" => call.yes = true,
            "--force" => call.force = true,
            "--help" | "-h" => plain.insert(0, "help"),
            other if other.starts_with('-') => return Err(format!("unknown option {other}")),
            other => plain.push(other),
        }
    }
    let address = |text: &str| text.parse().map_err(|_| format!("{text:?} is not an address"));
    call.command = match plain[..] {
        ["help", ..] => OperatorCommand::Help,
        ["list"] => OperatorCommand::List,
        ["usage"] => OperatorCommand::Usage,
        ["check"] => OperatorCommand::Check,
        ["show", text] => OperatorCommand::Show(address(text)?),
        ["release"] if call.machine.is_some() => OperatorCommand::ReleaseMachine,
        ["release", text] if call.machine.is_none() => OperatorCommand::Release(address(text)?),
        _ => return Err(format!("not a command: {}", plain.join(" "))),
    };
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Call, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn understands_its_words_in_any_order() {
        let call = read("release --yes 10.0.0.5 --network vlan136 -o json --data-dir /x").unwrap();
        assert_eq!(call.command, OperatorCommand::Release("10.0.0.5".parse().unwrap()));
        assert_eq!(
            (call.network.as_deref(), call.json, call.yes, call.force),
            (Some("vlan136"), true, true, false)
        );
        assert_eq!(call.data_dir, PathBuf::from("/x"));
        assert_eq!(read("list --help").unwrap().command, OperatorCommand::Help);
        let call = read("release --machine m1").unwrap();
        assert_eq!((call.command, call.machine.as_deref()), (OperatorCommand::ReleaseMachine, Some("m1")));
        for wrong in [
            "release",
            "release 10.0.0.5 --machine m1",
            "lists",
            "show",
            "show x",
            "list more",
            "list -o yaml",
            "list --network",
            "list --what",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
