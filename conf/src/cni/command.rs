//! The verbs of the specification (CNI 1.1, section 2, "CNI operations").

/// The verb that the runtime asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach the container to the network.
    Add,
    /// Detach it.
    Del,
    /// Say whether the attachment is still as ADD left it.
    Check,
    /// Release everything that belongs to no listed attachment.
    Gc,
    /// Say whether an ADD would work now.
    Status,
    /// Name the supported versions.
    Version,
}

impl Command {
    /// The verb as `CNI_COMMAND` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::Check => "CHECK",
            Command::Gc => "GC",
            Command::Status => "STATUS",
            Command::Version => "VERSION",
        }
    }

    /// The verb with this spelling.
    pub fn parse(text: &str) -> Option<Command> {
        use Command::{Add, Check, Del, Gc, Status, Version};
        [Add, Del, Check, Gc, Status, Version].into_iter().find(|command| command.as_str() == text)
    }

    /// Variables without which this verb cannot work.
    pub(super) fn required(self) -> &'static [&'static str] {
        match self {
            Command::Add | Command::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Command::Gc | Command::Status => &["CNI_PATH"],
            Command::Version => &[],
        }
    }
}
