//! Network lists driven through libcni, the library inside container runtimes.

use crate::process::{Outcome, run};
use crate::{Attachment, Node, Scratch, programs};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// A runtime's view of one network on one node. The verbs run on the whole list, as in a runtime.
///
/// A failed verb exits with 1 and prints the plugin's CNI error: see [`Outcome::error_code`].
#[derive(Debug)]
pub struct Client<'a> {
    node: &'a Node,
    folder: Scratch,
}

impl<'a> Client<'a> {
    pub(crate) fn new(node: &'a Node, list: &Value) -> Client<'a> {
        let folder = Scratch::new("conf");
        fs::write(folder.path().join("list.conflist"), list.to_string()).expect("our own folder is writable");
        Client { node, folder }
    }

    /// ADD; [`Outcome::json`] is the result of the last plugin.
    #[track_caller]
    pub fn add(&self, attachment: &Attachment) -> Outcome {
        self.on("add", attachment)
    }

    /// DEL.
    #[track_caller]
    pub fn del(&self, attachment: &Attachment) -> Outcome {
        self.on("del", attachment)
    }

    /// CHECK.
    #[track_caller]
    pub fn check(&self, attachment: &Attachment) -> Outcome {
        self.on("check", attachment)
    }

    /// GC. None sends no list of valid attachments, which differs from an empty list. libcni itself first
    /// sends a DEL for each attachment in its cache that is not valid.
    #[track_caller]
    pub fn gc(&self, valid: Option<&[&Attachment]>) -> Outcome {
        let mut command = self.command("gc");
        if let Some(valid) = valid {
            let valid: Value = valid.iter().map(|attachment| attachment.valid()).collect();
            command.args(["-valid", &valid.to_string()]);
        }
        run(&mut command)
    }

    /// STATUS.
    #[track_caller]
    pub fn status(&self) -> Outcome {
        run(&mut self.command("status"))
    }

    /// The command of a verb, ready to be spawned by a test that runs many at once.
    pub fn command_for(&self, verb: &str, attachment: &Attachment) -> Command {
        let mut command = self.command(verb);
        command.args(["-id", &attachment.id, "-netns", &attachment.netns_text()]);
        command.args(["-ifname", &attachment.ifname, "-args", &attachment.args]);
        command.args(["-capabilities", &attachment.capabilities.to_string()]);
        command
    }

    fn on(&self, verb: &str, attachment: &Attachment) -> Outcome {
        run(&mut self.command_for(verb, attachment))
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = self.node.command(programs::client());
        command.arg(verb).arg("-conf").arg(self.folder.path().join("list.conflist"));
        command.arg("-cache").arg(self.node.cache_dir()).args(["-bin", &programs::search_path()]);
        command
    }
}
