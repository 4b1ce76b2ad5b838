//! What an ADD asks of the node's agent, and what it hears: lines of JSON on a unix socket. The plugin
//! believes the agent nothing but that a second look is worth it. Addresses come from the grants alone.

use std::net::IpAddr;

use serde_json::{Value, json};

/// The longest line in bytes, with its end.
pub const LONGEST_LINE: usize = 4096;
/// The version of the lines.
const VERSION: u64 = 1;
/// The longest explanation. It leaves room for escapes.
const LONGEST_TEXT: usize = 1000;
/// How many addresses and sets a question names at most.
const MOST: usize = 64;

/// The first line on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The network.
    pub network: String,
    /// Whether the ADD waits for answers. Otherwise it only says that addresses were given or freed.
    pub wait: bool,
    /// The range sets that found nothing.
    pub sets: Vec<usize>,
    /// Requested addresses that are not granted.
    pub addresses: Vec<IpAddr>,
}

/// A line from the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Something was granted or confirmed: look again.
    Look,
    /// Nothing can be had now, and why. The ADD may go on waiting.
    Dry(String),
}

/// A line that does not follow the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotALine(String);

impl Question {
    /// Reads a line.
    ///
    /// # Errors
    /// Anything that [`Question::to_line`] does not write, apart from unknown keys.
    pub fn parse(line: &[u8]) -> Result<Question, NotALine> {
        let value = object(line)?;
        let network = value["network"].as_str().filter(|name| !name.is_empty());
        let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
        let address = |value: &Value| value.as_str()?.parse().ok();
        Ok(Question {
            network: network.ok_or_else(|| wrong(&value, "network"))?.to_owned(),
            wait: value["wait"].as_bool().ok_or_else(|| wrong(&value, "wait"))?,
            sets: list(&value, "sets", number)?,
            addresses: list(&value, "addresses", address)?,
        })
    }

    /// `{"v":1,"network":"vlan136","wait":true,"sets":[0],"addresses":["172.20.56.77"]}` and a line feed.
    pub fn to_line(&self) -> String {
        let Question { network, wait, sets, addresses } = self;
        let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        format!(
            "{}\n",
            json!({"v": VERSION, "network": network, "wait": wait, "sets": sets, "addresses": addresses})
        )
    }
}

impl Reply {
    /// Reads a line.
    ///
    /// # Errors
    /// Anything that [`Reply::to_line`] does not write, apart from unknown keys.
    pub fn parse(line: &[u8]) -> Result<Reply, NotALine> {
        let value = object(line)?;
        match (&value["look"], &value["dry"]) {
            (Value::Bool(true), Value::Null) => Ok(Reply::Look),
            (Value::Null, Value::String(why)) => Ok(Reply::Dry(shortened(why))),
            _ => Err(wrong(&value, "look")),
        }
    }

    /// `{"v":1,"look":true}` or `{"v":1,"dry":"pool vlan136: ..."}`, and a line feed.
    pub fn to_line(&self) -> String {
        let value = match self {
            Reply::Look => json!({"v": VERSION, "look": true}),
            Reply::Dry(why) => json!({"v": VERSION, "dry": shortened(why)}),
        };
        format!("{value}\n")
    }
}

/// A line's object, if it has the version that this release reads.
fn object(line: &[u8]) -> Result<Value, NotALine> {
    if line.len() > LONGEST_LINE {
        return Err(NotALine(format!("a line of more than {LONGEST_LINE} bytes")));
    }
    let value: Value =
        serde_json::from_slice(line).map_err(|error| NotALine(format!("not JSON: {error}")))?;
    if value["v"] == VERSION { Ok(value) } else { Err(wrong(&value, "v")) }
}

fn list<T>(value: &Value, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, NotALine> {
    let values = value[key].as_array().filter(|values| values.len() <= MOST);
    let read = values.and_then(|values| values.iter().map(read).collect());
    read.ok_or_else(|| wrong(value, key))
}

fn wrong(value: &Value, key: &str) -> NotALine {
    NotALine(format!("{key}: {} is not what this release reads", shortened(&value[key].to_string())))
}

fn shortened(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let question = Question {
            network: "vlan136".into(),
            wait: true,
            sets: vec![0, 1],
            addresses: vec!["172.20.56.77".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        };
        assert_eq!(Question::parse(question.to_line().as_bytes()), Ok(question));
        for answer in [Reply::Look, Reply::Dry("pool vlan136: \"full\"".into())] {
            assert_eq!(Reply::parse(answer.to_line().as_bytes()), Ok(answer));
        }
        let long = Reply::Dry("\u{1}\n\"".repeat(5000));
        assert!(long.to_line().len() < LONGEST_LINE);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |line: &str| Question::parse(line.as_bytes()).unwrap_err().to_string();
        assert!(error("{").starts_with("not JSON"));
        assert!(error("[1]").starts_with("v: null"));
        assert!(error(r#"{"v":2}"#).starts_with("v: 2"));
        assert!(error(r#"{"v":1,"network":""}"#).starts_with("network: \"\""));
        let rest = r#""v":1,"network":"a","wait":false,"sets":[]"#;
        assert!(error(&format!("{{{rest},\"addresses\":[\"x\"]}}")).starts_with("addresses: [\"x\"]"));
        assert!(error(&" ".repeat(LONGEST_LINE + 1)).contains("more than 4096 bytes"));
        for line in [r#"{"v":1}"#, r#"{"v":1,"look":false}"#, r#"{"v":1,"look":true,"dry":"x"}"#] {
            assert!(Reply::parse(line.as_bytes()).is_err(), "{line}");
        }
    }
}
