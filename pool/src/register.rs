//! The register of a node: which machine it is, and under which epoch it holds addresses.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::block::VERSION;
use crate::name::Name;
use crate::value::{self, Object, Unreadable};

/// The value of a node's register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    /// The machine: a number that its agent drew at its first start. Names are given to other machines, and
    /// cloned images share the machine's id.
    pub instance: String,
    /// The boot that wrote the register.
    pub boot: String,
    /// Goes up whenever the node finds its register not as it left it. Entries of blocks name it.
    pub epoch: u32,
    /// Goes up with each write by the node. A store that was restored shows an older one.
    pub seq: u64,
    /// What others may assume.
    pub state: State,
    /// The last epoch that was called lost, under which the node lives no longer. 0 if none was.
    pub lost: u32,
    /// The last epoch that an operator called off for good. 0 if none was.
    pub gone: u32,
    /// How long the node may go on giving leased addresses after a confirmation. None: without end, so only
    /// an operator who knows that the machine is off may call it lost. It never gets shorter, since the node
    /// may not have heard of that.
    pub give_for: Option<Duration>,
    /// The pools of the node's networks, each with the last [`Document::restored`] that all of them have
    /// caught up with.
    ///
    /// [`Document::restored`]: crate::document::Document::restored
    pub pools: BTreeMap<Name, u32>,
}

/// What others may assume of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It gives its addresses to pods.
    Live,
    /// Somebody had evidence that it is lost: its leased addresses become suspect after the wait.
    Lost {
        /// The node or operator that said so.
        by: Name,
    },
    /// An operator said that it is off for good: its home addresses become suspect too.
    Gone {
        /// The node or operator that said so.
        by: Name,
    },
}

impl Register {
    /// Reads a value.
    ///
    /// # Errors
    /// Anything that [`Register::to_json`] does not write, apart from spaces and unknown keys.
    pub fn parse(bytes: &[u8]) -> Result<Register, Unreadable> {
        value::parse(bytes, Register::from_json)
    }

    /// Reads the value's JSON object.
    ///
    /// # Errors
    /// See [`Register::parse`].
    pub fn from_json(value: &Value) -> Result<Register, Unreadable> {
        let object = Object::of(value)?;
        let (instance, boot) = (object.identity("instance")?, object.boot()?);
        let (epoch, seq) = (object.epoch(1)?, object.count("seq")?);
        let words = [("live", None), ("lost", Some(false)), ("gone", Some(true))];
        let state = match object.word("state", &words)? {
            None => State::Live,
            Some(false) => State::Lost { by: object.name("by")? },
            Some(true) => State::Gone { by: object.name("by")? },
        };
        let (lost, gone) = (object.past_epoch("lost")?, object.past_epoch("gone")?);
        let give_for = object.maybe_seconds("giveFor", 1)?;
        let pools = object.numbers("pools")?;
        Ok(Register { instance, boot, epoch, seq, state, lost, gone, give_for, pools })
    }

    /// The value as JSON: `{"v": 1, "instance": "…", "boot": "…", "epoch": 3, "seq": 118, "state": "lost",
    /// "by": "node-02"}`.
    pub fn to_json(&self) -> Value {
        let Register { instance, boot, epoch, seq, state, lost, gone, give_for, pools } = self;
        let (state, by) = match state {
            State::Live => ("live", None),
            State::Lost { by } => ("lost", Some(by)),
            State::Gone { by } => ("gone", Some(by)),
        };
        let mut value = json!({
            "v": VERSION, "instance": instance, "boot": boot, "epoch": epoch, "seq": seq, "state": state,
        });
        if let Some(by) = by {
            value["by"] = by.as_str().into();
        }
        for (key, epoch) in [("lost", lost), ("gone", gone)].into_iter().filter(|(_, epoch)| **epoch > 0) {
            value[key] = (*epoch).into();
        }
        if let Some(give_for) = give_for {
            value["giveFor"] = give_for.as_secs().into();
        }
        if !pools.is_empty() {
            let pools = pools.iter().map(|(pool, restored)| (pool.to_string(), (*restored).into()));
            value["pools"] = Value::Object(pools.collect());
        }
        value
    }

    /// The register after somebody called the node lost, or off for good. It is written by compare-and-swap:
    /// the node may write it at the same time. None if the register says that much already. What the node was
    /// promised stays, so nobody takes its addresses before the wait. **Without `giveFor` there is no wait:
    /// the node must be off.**
    pub fn marked(&self, state: State) -> Option<Register> {
        let more = match (&self.state, &state) {
            (_, State::Live) | (State::Gone { .. }, _) | (State::Lost { .. }, State::Lost { .. }) => false,
            (State::Live | State::Lost { .. }, _) => true,
        };
        more.then(|| Register { state, ..self.clone() })
    }

    /// The last epoch that the node was called lost under, so that others may take what it holds under it.
    pub fn last_lost(&self) -> u32 {
        if self.state == State::Live { self.lost } else { self.epoch }
    }

    /// The last epoch under which an operator called it off for good.
    pub fn last_gone(&self) -> u32 {
        if matches!(self.state, State::Gone { .. }) { self.epoch } else { self.gone }
    }

    /// Whether the node may hold addresses of a pool that the pool's restored store does not show: it is not
    /// off for good, has a network with this pool, and has not caught up with the pool's last
    /// [`Document::restored`]. Such a pool must stay closed.
    ///
    /// [`Document::restored`]: crate::document::Document::restored
    pub fn is_behind(&self, pool: &Name, restored: u32) -> bool {
        !matches!(self.state, State::Gone { .. })
            && self.pools.get(pool).is_some_and(|caught_up| *caught_up < restored)
    }

    /// Whether the node lives under this epoch.
    pub fn lives(&self, epoch: u32) -> bool {
        self.epoch == epoch && self.state == State::Live
    }
}

/// What this machine knows of its register: what it wrote last. The file is on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// See [`Register::instance`].
    pub instance: String,
    /// The epoch written last. 0 before the first.
    pub epoch: u32,
    /// The first epoch of this machine. What the store grants under earlier ones was another machine's, which
    /// had the same name.
    pub since: u32,
    /// The sequence number written last.
    pub seq: u64,
}

impl Identity {
    /// Reads the file.
    ///
    /// # Errors
    /// Anything that [`Identity::to_json`] does not write, apart from spaces and unknown keys.
    pub fn parse(bytes: &[u8]) -> Result<Identity, Unreadable> {
        value::parse(bytes, |value| {
            let object = Object::of(value)?;
            let (instance, epoch) = (object.identity("instance")?, object.epoch(0)?);
            Ok(Identity { instance, epoch, since: object.past_epoch("since")?, seq: object.count("seq")? })
        })
    }

    /// The file as JSON: `{"v": 1, "instance": "…", "epoch": 3, "since": 1, "seq": 118}`.
    pub fn to_json(&self) -> Value {
        let Identity { instance, epoch, since, seq } = self;
        let mut value = json!({"v": VERSION, "instance": instance, "epoch": epoch, "seq": seq});
        if *since > 0 {
            value["since"] = (*since).into();
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTER: &str = concat!(
        r#"{"boot":"6a1f0c6e-54f1-4b5c-9f0e-2f6f6d1b8c11","by":"node-02","epoch":3,"#,
        r#""instance":"00112233445566778899aabbccddeeff","seq":118,"state":"lost","v":1}"#,
    );

    #[test]
    fn a_register_and_an_identity_are_read_as_they_are_written() {
        let gone = REGISTER.replace("lost", "gone");
        let live = REGISTER.replace("lost", "live").replace(r#""by":"node-02","#, "");
        for register in [REGISTER, &gone, &live] {
            assert_eq!(Register::parse(register.as_bytes()).unwrap().to_json().to_string(), *register);
        }
        let identity = r#"{"epoch":0,"instance":"00112233445566778899aabbccddeeff","seq":0,"v":1}"#;
        assert_eq!(Identity::parse(identity.as_bytes()).unwrap().to_json().to_string(), identity);
    }

    #[test]
    fn a_node_is_behind_until_it_has_caught_up_or_is_off() {
        let text = REGISTER.replace(r#","seq""#, r#","pools":{"p":1,"q":0},"seq""#);
        let found = Register::parse(text.as_bytes()).unwrap();
        assert_eq!(found.to_json().to_string(), text);
        let [p, q, other] = ["p", "q", "other"].map(|name| Name::new(name).unwrap());
        assert!(!found.is_behind(&p, 1) && found.is_behind(&p, 2) && found.is_behind(&q, 1));
        assert!(!found.is_behind(&other, 9), "it has no network with this pool");
        let off = found.marked(State::Gone { by: other }).unwrap();
        assert!(!off.is_behind(&p, 2));
        assert!(Register::parse(text.replace(":0}", ":-1}").as_bytes()).is_err());
    }

    #[test]
    fn a_mark_only_says_more() {
        let by = || Name::new("b").unwrap();
        let (lost, gone) = (State::Lost { by: by() }, State::Gone { by: by() });
        let found = Register::parse(REGISTER.as_bytes()).unwrap();
        let live = Register { state: State::Live, lost: 1, ..found.clone() };
        let marked = live.marked(lost.clone()).unwrap();
        assert_eq!((marked.last_lost(), marked.last_gone(), marked.seq), (3, 0, live.seq));
        assert_eq!(marked.marked(lost.clone()), None);
        let off = marked.marked(gone.clone()).unwrap();
        assert_eq!((off.last_lost(), off.last_gone(), off.epoch), (3, 3, 3));
        assert_eq!((off.marked(lost), off.marked(gone), live.marked(State::Live)), (None, None, None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |from: &str, to: &str| {
            assert!(REGISTER.contains(from));
            Register::parse(REGISTER.replace(from, to).as_bytes()).unwrap_err().to_string()
        };
        assert_eq!(error(":1}", ":2}"), "v: 2 is not 1, the version that this release reads");
        assert_eq!(error(r#","v":1"#, ""), "v is missing: must be a number from 0 to 18446744073709551615");
        assert_eq!(
            error("ff\"", "FF\"").split_once(" is ").unwrap().1,
            "not 32 lower-case hexadecimal digits"
        );
        assert!(error("ff\"", "f\"").ends_with("is not 32 lower-case hexadecimal digits"));
        assert_eq!(
            error("6a1f0c6e-", "6a1f0c6e"),
            r#"boot: "6a1f0c6e54f1-4b5c-9f0e-2f6f6d1b8c11" is not a UUID in lower case"#
        );
        assert_eq!(error(":3,", ":0,"), "epoch: 0 is not a number from 1 to 2147483647");
        assert_eq!(error(":118,", ":-1,"), "seq: -1 is not a number from 0 to 9007199254740991");
        assert_eq!(error("lost", "dead"), r#"state: "dead" is not one of live, lost, gone"#);
        assert!(error(r#""by":"node-02","#, "").starts_with("by is missing: must be a name of letters"));
        assert!(error("node-02", "a/b").starts_with(r#"by: "a/b" is not a name of letters"#));
        let error = |register: &[u8]| Register::parse(register).unwrap_err().to_string();
        assert!(error(b"{").starts_with("not JSON: EOF"));
        assert_eq!(error(b"[1]"), "[1] is not a JSON object");
    }
}
