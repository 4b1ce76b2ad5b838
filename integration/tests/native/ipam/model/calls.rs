//! The calls of a sequence, about attachments by their numbers.

use super::OWNERS;
use super::owners::names;
use super::rig::Run;
use integration::{Attachment, Background, Call, Outcome, plugin, run_quickly};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

impl<'a> Run<'a> {
    pub(super) fn call(&self, verb: &str, attachment: &Attachment) -> Call<'a> {
        self.rig.ipam.plugin().call(verb, attachment)
    }

    pub(super) fn call_about(&mut self, verb: &str, owner: u8, ask: Option<IpAddr>) -> Call<'a> {
        let attachment = self.attachment_of(verb, owner, ask);
        self.call(verb, &attachment)
    }

    pub(super) fn gc_call(&self, keep: u8) -> Call<'_> {
        let kept = (0..OWNERS).filter(|owner| keep & 1 << owner != 0).map(|owner| {
            let (id, ifname) = names(owner);
            json!({"containerID": id, "ifname": ifname})
        });
        let kept: Vec<Value> = kept.collect();
        let plugin = self.rig.ipam.plugin().with("cni.dev/valid-attachments", kept.into());
        plugin.call_without_attachment("GC")
    }

    pub(super) fn by_hand(&self, words: &[&str]) -> Command {
        let mut command = Command::new(plugin("vlan-bridge-ipam"));
        command.args(words).arg("--data-dir").arg(self.rig.ipam.node.data_dir());
        command.env_remove("CNI_COMMAND");
        command
    }

    /// An ADD names the namespace by the owner's own process.
    pub(super) fn attachment_of(&mut self, verb: &str, owner: u8, ask: Option<IpAddr>) -> Attachment {
        let (id, ifname) = names(owner);
        if verb != "ADD" {
            return self.attachment(id, ifname, "/none".into(), ask);
        }
        let start = || Background::start(Command::new("sleep").arg("infinity"));
        let pid = self.processes.entry(owner).or_insert_with(start).pid();
        self.model.alive.insert(owner, pid);
        self.attachment(id, ifname, format!("/proc/{pid}/ns/net").into(), ask)
    }

    pub(super) fn attachment(
        &self,
        id: String,
        ifname: &str,
        netns: PathBuf,
        ask: Option<IpAddr>,
    ) -> Attachment {
        let args = ask.map_or(String::new(), |addr| format!("IP={addr}"));
        Attachment { id, netns: Some(netns), ifname: ifname.into(), args, capabilities: json!({}) }
    }
}

pub(super) fn quickly(call: &Call<'_>) -> Outcome {
    run_quickly(&mut call.bare_command(), call.input())
}
