//! A client of `/metrics` that takes OpenMetrics' text format strictly.

use crate::Namespace;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a scrape may take. Prometheus waits as long unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer of HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status and the header fields.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Sends a request over a connection, and reads all of the answer.
    #[track_caller]
    pub fn of(mut stream: impl Read + Write, method: &str, path: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the server answers in time");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        Answer { head: head.to_owned(), body: body.to_owned() }
    }

    /// The status.
    pub fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

/// What `/metrics` says.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// The type of each metric.
    pub types: BTreeMap<String, String>,
    /// The value of each sample: its name, and its labels as they are written.
    pub samples: BTreeMap<(String, String), f64>,
}

impl Scrape {
    /// Asks over TCP, from a node.
    #[track_caller]
    pub fn over_tcp(from: &Namespace, address: &str) -> Scrape {
        Scrape::parse(&Answer::of(connect(from, address), "GET", "/metrics"))
    }

    /// Asks over a unix socket.
    #[track_caller]
    pub fn over_unix(path: &Path) -> Scrape {
        let stream = UnixStream::connect(path).expect("the agent listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit can be set");
        Scrape::parse(&Answer::of(stream, "GET", "/metrics"))
    }

    /// The value of a sample, by the labels that it has at least, such as `kind="nat"`. Several add up.
    pub fn value(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let wanted = self.samples.iter().filter(|((of, has), _)| {
            let has: Vec<&str> = split_labels(has);
            of == name && labels.iter().all(|label| has.contains(label))
        });
        wanted.map(|(_, value)| *value).reduce(|sum, value| sum + value)
    }

    /// The names of all samples.
    pub fn names(&self) -> BTreeSet<&str> {
        self.samples.keys().map(|(name, _)| name.as_str()).collect()
    }

    #[track_caller]
    fn parse(answer: &Answer) -> Scrape {
        assert_eq!(answer.status(), "200", "{answer:?}");
        let of_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(answer.head.lines().any(|line| line == of_type), "{}", answer.head);
        let text = answer.body.strip_suffix("# EOF\n").expect("the text ends with EOF");
        let mut scrape = Scrape::default();
        let mut family = String::new();
        for line in text.lines() {
            match line.strip_prefix("# ").map(|line| line.splitn(3, ' ').collect::<Vec<_>>()).as_deref() {
                Some(["HELP", name, _]) => {
                    family = (*name).to_owned();
                }
                Some(["TYPE", name, of_type]) => {
                    assert_eq!(*name, family, "the help comes before the type");
                    let before = scrape.types.insert(family.clone(), (*of_type).to_owned());
                    assert_eq!(before, None, "{name} is declared twice");
                }
                Some(_) => panic!("{line}"),
                None => scrape.take(&family, line),
            }
        }
        scrape.check_histograms();
        scrape
    }

    fn take(&mut self, family: &str, line: &str) {
        let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (name, labels) = match key.split_once('{') {
            Some((name, labels)) => {
                (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("no end of labels: {line}")))
            }
            None => (key, ""),
        };
        let suffixes: &[&str] = match self.types.get(family).map(String::as_str) {
            Some("counter") => &["_total"],
            Some("gauge") => &[""],
            Some("info") => &["_info"],
            Some("histogram") => &["_bucket", "_sum", "_count"],
            other => panic!("{line}: after a family of type {other:?}"),
        };
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line}: in family {family}"));
        assert!(suffixes.contains(&suffix), "{line}: of family {family}");
        for label in split_labels(labels) {
            let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(!name.is_empty() && name.chars().all(is_name), "{line}");
            assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(value >= 0.0, "{line}");
        let before = self.samples.insert((name.to_owned(), labels.to_owned()), value);
        assert_eq!(before, None, "{line}: a second value");
    }

    /// The last class of a histogram counts everything.
    fn check_histograms(&self) {
        for (family, _) in self.types.iter().filter(|(_, of_type)| *of_type == "histogram") {
            let counts = self.samples.iter().filter(|((name, _), _)| *name == format!("{family}_count"));
            for ((_, labels), count) in counts {
                let last = self.value(&format!("{family}_bucket"), &[labels, "le=\"+Inf\""]);
                assert_eq!(last, Some(*count), "{family} {labels}");
            }
        }
    }
}

/// Labels of which no value has a comma.
fn split_labels(labels: &str) -> Vec<&str> {
    labels.split(',').filter(|label| !label.is_empty()).collect()
}

/// Connects to an address of a node, from there.
#[track_caller]
pub fn connect(from: &Namespace, address: &str) -> TcpStream {
    let stream = from.enter(|| TcpStream::connect(address)).expect("the agent listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit can be set");
    stream
}
