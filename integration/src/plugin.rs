//! A plugin run by hand: any environment, any stdin.

use crate::process::{Outcome, run_with};
use crate::{Attachment, Node, programs};
use serde::Serialize;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A plugin's binary with its configuration, on a node.
#[derive(Debug, Clone)]
pub struct Plugin<'a> {
    node: &'a Node,
    program: PathBuf,
    /// What goes to stdin: one plugin's configuration with `name` and `cniVersion`.
    pub conf: Value,
}

impl<'a> Plugin<'a> {
    pub(crate) fn new(node: &'a Node, program: PathBuf, conf: Value) -> Plugin<'a> {
        Plugin { node, program, conf }
    }

    /// The same plugin with another value of a top-level key.
    pub fn with(mut self, key: &str, value: Value) -> Plugin<'a> {
        self.conf[key] = value;
        self
    }

    /// ADD.
    #[track_caller]
    pub fn add(&self, attachment: &Attachment) -> Outcome {
        self.call("ADD", attachment).run()
    }

    /// DEL.
    #[track_caller]
    pub fn del(&self, attachment: &Attachment) -> Outcome {
        self.call("DEL", attachment).run()
    }

    /// CHECK against the result of an ADD.
    #[track_caller]
    pub fn check(&self, attachment: &Attachment, previous: &impl Serialize) -> Outcome {
        self.clone().with("prevResult", json!(previous)).call("CHECK", attachment).run()
    }

    /// GC with the keys that the configuration has: add `cni.dev/valid-attachments` with [`Plugin::with`].
    #[track_caller]
    pub fn gc(&self) -> Outcome {
        self.call_without_attachment("GC").run()
    }

    /// STATUS.
    #[track_caller]
    pub fn status(&self) -> Outcome {
        self.call_without_attachment("STATUS").run()
    }

    /// VERSION.
    #[track_caller]
    pub fn version(&self) -> Outcome {
        self.call_without_attachment("VERSION").run()
    }

    /// A call about an attachment, which a test may change before it runs.
    pub fn call(&self, verb: &str, attachment: &Attachment) -> Call<'a> {
        let mut plugin = self.clone();
        if let Some(capabilities) = attachment.capabilities.as_object().filter(|map| !map.is_empty()) {
            plugin.conf["runtimeConfig"] = capabilities.clone().into();
        }
        plugin
            .call_without_attachment(verb)
            .env("CNI_CONTAINERID", &attachment.id)
            .env("CNI_NETNS", attachment.netns_text())
            .env("CNI_IFNAME", &attachment.ifname)
            .env("CNI_ARGS", &attachment.args)
    }

    /// A call about no attachment: the variables about one are empty, which is what libcni sends.
    pub fn call_without_attachment(&self, verb: &str) -> Call<'a> {
        let call = Call {
            node: self.node,
            program: self.program.clone(),
            environment: Vec::new(),
            stdin: self.conf.to_string().into_bytes(),
        };
        let call = call.env("CNI_COMMAND", verb).env("CNI_PATH", programs::search_path());
        ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"]
            .into_iter()
            .fold(call, |call, name| call.env(name, ""))
    }
}

/// One run of a plugin, not started yet.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    node: &'a Node,
    program: PathBuf,
    environment: Vec<(String, OsString)>,
    stdin: Vec<u8>,
}

impl Call<'_> {
    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self = self.without_env(name);
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Removes a variable.
    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self
    }

    /// Sends these bytes as stdin instead of the configuration.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs this file instead of the plugin's own.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// Runs the plugin under another program, such as `["strace", "-f"]`.
    #[track_caller]
    pub fn run_under(&self, words: &[&str]) -> Outcome {
        let mut command = match words.split_first() {
            Some((first, rest)) => {
                let mut command = self.node.command(first);
                command.args(rest).arg(&self.program);
                command
            }
            None => self.node.command(&self.program),
        };
        self.prepare(&mut command);
        run_with(&mut command, &self.stdin)
    }

    /// Runs the plugin.
    #[track_caller]
    pub fn run(&self) -> Outcome {
        self.run_under(&[])
    }

    /// The plugin as a command that is not started yet, for measurements. The caller writes its
    /// [stdin](Call::input). Unlike in [`Call::run`] it starts in the caller's namespace: see
    /// [`Namespace::enter`](crate::Namespace::enter).
    pub fn bare_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        self.prepare(&mut command);
        command
    }

    /// Runs calls at the same time, as [`Call::bare_command`] does. Returns the duration. Panics if one
    /// fails.
    #[track_caller]
    pub fn time_all(calls: &[Call<'_>]) -> Duration {
        let start = Instant::now();
        let children: Vec<Child> = calls.iter().map(Call::spawn).collect();
        for mut child in children {
            let status = child.wait().expect("a child can be waited for");
            assert!(status.success(), "one of the calls failed, as does this one: {}", calls[0].run());
        }
        start.elapsed()
    }

    fn spawn(&self) -> Child {
        let mut command = self.bare_command();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a plugin can be run");
        child.stdin.take().expect("stdin is piped").write_all(&self.stdin).expect("it reads its stdin");
        child
    }

    /// What goes to the plugin's stdin.
    pub fn input(&self) -> &[u8] {
        &self.stdin
    }

    /// A plugin has only the environment that its runtime sets.
    fn prepare(&self, command: &mut Command) {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }
}
