//! Reads resolv.conf(5) into the result's `dns`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::Dns;

/// Larger than any resolver configuration. A device file could be endless.
const MAX_BYTES: u64 = 64 << 10;

/// Reads the file in `resolvConf`.
///
/// # Errors
/// [`code::IO_FAILURE`] with the path.
pub(crate) fn read(path: &Path) -> Result<Dns, CniError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(parse(&String::from_utf8_lossy(&bytes))),
        Err(error) => {
            let msg = format!("ipam.resolvConf: cannot read {}: {error}", path.display());
            Err(CniError::new(code::IO_FAILURE, msg))
        }
    }
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(keyword) = words.next() else { continue };
        let mut values = words.map(str::to_owned).peekable();
        if values.peek().is_none() {
            continue;
        }
        // A comment starts with none of these keywords.
        match keyword {
            "nameserver" => dns.nameservers.extend(values.next()),
            "domain" => dns.domain = values.next(),
            "search" => dns.search.extend(values),
            "options" => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_resolver_reads() {
        let dns = parse(
            "# a comment\n; nameserver 1.1.1.1\nnameserver 10.0.0.53\n  nameserver\t2001:db8::53 x\n\
             domain example.org\nsearch a b\nsearch c\noptions ndots:2 edns0\nnameserver\n",
        );
        assert_eq!(dns.nameservers, ["10.0.0.53", "2001:db8::53"]);
        assert_eq!(dns.domain.as_deref(), Some("example.org"));
        assert_eq!(dns.search, ["a", "b", "c"]);
        assert_eq!(dns.options, ["ndots:2", "edns0"]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn names_the_file_that_is_missing() {
        let error = read(Path::new("/nonexistent/resolv.conf")).unwrap_err();
        assert_eq!(error.code, code::IO_FAILURE);
        assert!(error.msg.contains("/nonexistent/resolv.conf"), "{}", error.msg);
    }
}
