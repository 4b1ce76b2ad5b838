//! The kernel modules that the guest loads. Each comes after the modules that it needs.

use super::archive::Archive;
use crate::provision::Kernel;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::fs;

/// The modules that the data centre, the plugins and the reference plugins need.
const WANTED: [&str; 37] = [
    "8021q",
    "act_mirred",
    "af_packet",
    "bonding",
    "br_netfilter",
    "bridge",
    "cls_u32",
    "dummy",
    "ifb",
    "macvlan",
    "nf_conntrack",
    "nf_conntrack_bridge",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_compat",
    "nft_ct",
    "nft_fib",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_hash",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_meta_bridge",
    "nft_nat",
    "nft_redir",
    "nft_reject_inet",
    "overlay",
    "sch_ingress",
    "sch_netem",
    "sch_tbf",
    "sctp",
    "veth",
    "xt_comment",
    "xt_mark",
];

/// The parameters that keep a module from making an interface.
const OPTIONS: [(&str, &str); 3] =
    [("bonding", "max_bonds=0"), ("dummy", "numdummies=0"), ("ifb", "numifbs=0")];

/// Adds the modules and `order`, the list that init loads.
pub(super) fn add(archive: &mut Archive, kernel: &Kernel) -> Result<()> {
    let read = |name: &str| {
        let path = kernel.modules.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let order = load_order(&WANTED, &read("modules.dep")?, &read("modules.builtin")?)
        .with_context(|| format!("kernel {}", kernel.release))?;
    let mut names = String::new();
    for path in &order {
        let content = fs::read(kernel.modules.join(path)).with_context(|| format!("cannot read {path}"))?;
        let name = file_name(path);
        archive.file(&format!("usr/lib/modules/{name}"), 0o644, &content);
        let option =
            OPTIONS.iter().find(|(module, _)| *module == module_name(path)).map_or("", |(_, text)| text);
        names += &format!("{name} {option}\n");
    }
    archive.file("usr/lib/modules/order", 0o644, names.as_bytes());
    Ok(())
}

/// The paths of the wanted modules and all that they depend on, each after its own dependencies.
fn load_order(wanted: &[&str], dependencies: &str, builtin: &str) -> Result<Vec<String>> {
    let table: HashMap<&str, (&str, Vec<&str>)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (module_name(path), (path, needs.split_whitespace().collect())))
        .collect();
    let mut order = Vec::new();
    for name in wanted {
        if table.contains_key(name) {
            visit(name, &table, &mut order);
        } else if !builtin.lines().any(|path| module_name(path) == *name) {
            bail!("there is no module {name}");
        }
    }
    Ok(order)
}

fn visit(name: &str, table: &HashMap<&str, (&str, Vec<&str>)>, order: &mut Vec<String>) {
    let Some((path, needs)) = table.get(name) else { return };
    if order.iter().any(|done| done == path) {
        return;
    }
    for need in needs {
        visit(module_name(need), table, order);
    }
    order.push((*path).to_owned());
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn module_name(path: &str) -> &str {
    let name = file_name(path);
    name.split_once(".ko").map_or(name, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "net/bonding.ko: net/tls.ko\nnet/tls.ko:\nnet/br.ko: net/stp.ko net/llc.ko\nnet/stp.ko: net/llc.ko\nnet/llc.ko:\n";

    #[test]
    fn dependencies_come_first_and_once() {
        let order = load_order(&["br", "stp", "bonding", "core"], DEPENDENCIES, "kernel/core.ko\n").unwrap();
        assert_eq!(order, ["net/llc.ko", "net/stp.ko", "net/br.ko", "net/tls.ko", "net/bonding.ko"]);
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let error = load_order(&["unheard_of"], DEPENDENCIES, "").unwrap_err();
        assert_eq!(error.to_string(), "there is no module unheard_of");
    }
}
