//! The `CNI_*` environment variables (CNI 1.1, section 2, "Parameters").

use std::ffi::OsString;
use std::path::PathBuf;

use super::args::CniArgs;
pub use super::command::Command;
use super::error::{CniError, code};
use crate::ifname;

/// The longest container ID that is accepted. The specification has no limit. File systems do: 255 bytes for
/// a name.
pub const MAX_CONTAINER_ID: usize = 200;

/// The environment of one call, checked. Variables that the verb does not use are left empty and not checked.
/// For example, libcni sends GC and STATUS with empty container variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`
    pub command: Command,
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_NETNS`: a path. It is empty if the namespace is already gone (DEL).
    pub netns: String,
    /// `CNI_IFNAME`
    pub ifname: String,
    /// `CNI_ARGS`
    pub args: CniArgs,
    /// `CNI_PATH`: where to look for delegates.
    pub path: Vec<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: let `CNI_NETNS` be the plugin's own namespace.
    pub netns_override: bool,
    /// Invalid variables that DEL ignored, for the log.
    pub ignored: Vec<String>,
}

impl Environment {
    /// Reads the variables through `get`. An empty value counts as absent.
    ///
    /// DEL ignores an invalid `CNI_ARGS` or `CNI_NETNS`, because a failed DEL leaks. It does not need
    /// `CNI_ARGS`, and finds its attachment without `CNI_NETNS`.
    ///
    /// # Errors
    /// [`code::INVALID_ENVIRONMENT`]. The message names all missing variables, or the invalid variable and
    /// its value.
    pub fn parse(get: impl Fn(&str) -> Option<OsString>) -> Result<Environment, CniError> {
        let text = |name: &str| -> Result<String, CniError> {
            get(name)
                .unwrap_or_default()
                .into_string()
                .map_err(|raw| invalid(format!("{name}: {raw:?} is not UTF-8")))
        };
        let verb = text("CNI_COMMAND")?;
        let Some(command) = Command::parse(&verb) else {
            let right = "one of ADD, DEL, CHECK, GC, STATUS, VERSION";
            return Err(invalid(match verb.as_str() {
                "" => format!("missing environment variables: CNI_COMMAND ({right})"),
                _ => format!("CNI_COMMAND: {verb:?} is not a verb: {right}"),
            }));
        };
        let missing: Vec<&str> = command
            .required()
            .iter()
            .copied()
            .filter(|name| get(name).is_none_or(|value| value.is_empty()))
            .collect();
        if !missing.is_empty() {
            return Err(invalid(format!("missing environment variables: {}", missing.join(", "))));
        }
        let mut env = Environment {
            command,
            container_id: String::new(),
            netns: String::new(),
            ifname: String::new(),
            args: CniArgs::default(),
            path: get("CNI_PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default(),
            netns_override: false,
            ignored: Vec::new(),
        };
        if matches!(command, Command::Add | Command::Del | Command::Check) {
            env.container_id = text("CNI_CONTAINERID")?;
            check_container_id(&env.container_id)?;
            env.ifname = text("CNI_IFNAME")?;
            ifname::check("CNI_IFNAME", &env.ifname)
                .map_err(|error| error.with_code(code::INVALID_ENVIRONMENT))?;
            env.netns = env.or_without(text("CNI_NETNS"))?;
            let flag = env.or_without(text("CNI_NETNS_OVERRIDE"))?;
            env.netns_override = flag == "1" || flag.eq_ignore_ascii_case("true");
            env.args = env.or_without(text("CNI_ARGS").and_then(|args| CniArgs::parse(&args)))?;
        }
        Ok(env)
    }

    /// The value of a variable. DEL gets none if the value is invalid.
    fn or_without<T: Default>(&mut self, value: Result<T, CniError>) -> Result<T, CniError> {
        match value {
            Err(error) if self.command == Command::Del => {
                self.ignored.push(error.msg);
                Ok(T::default())
            }
            value => value,
        }
    }
}

/// Whether a string is a network name or container ID: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`. Such a string is also
/// a safe file name: it has no slash, is not `..` and does not begin with a dot.
pub fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn check_container_id(id: &str) -> Result<(), CniError> {
    if id.len() > MAX_CONTAINER_ID {
        let head: String = id.chars().take(20).collect();
        return Err(invalid(format!(
            "CNI_CONTAINERID: {head:?}… has {} bytes: at most {MAX_CONTAINER_ID} are allowed",
            id.len()
        )));
    }
    if !is_identifier(id) {
        return Err(invalid(format!(
            "CNI_CONTAINERID: {id:?} is not a container id: a letter or digit, then letters, digits, '_', '.' and '-'"
        )));
    }
    Ok(())
}

fn invalid(msg: String) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, msg)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    const ADD: &[(&str, &str)] = &[
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni"),
    ];

    /// `ADD` with some variables replaced.
    fn parse(changes: &[(&str, &str)]) -> Result<Environment, CniError> {
        Environment::parse(|name| {
            let find =
                |list: &[(&str, &str)]| list.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            find(changes).or_else(|| find(ADD)).map(OsString::from)
        })
    }

    #[test]
    fn reads_an_add() {
        let env = parse(&[("CNI_NETNS_OVERRIDE", "True"), ("CNI_ARGS", "IP=10.0.0.9")]).unwrap();
        assert_eq!(
            (env.command, env.container_id.as_str(), env.ifname.as_str()),
            (Command::Add, "c1", "eth0")
        );
        assert_eq!(env.netns, "/run/netns/c1");
        assert_eq!(env.path, [PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")]);
        assert!(env.netns_override);
        assert_eq!(env.args.ip.len(), 1);
    }

    #[test]
    fn names_every_missing_variable() {
        let check = |verb: &str, expected: &str| {
            let error = Environment::parse(|name| (name == "CNI_COMMAND").then(|| verb.into())).unwrap_err();
            assert_eq!(error.code, code::INVALID_ENVIRONMENT);
            assert_eq!(error.msg, format!("missing environment variables: {expected}"));
        };
        check("ADD", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH");
        check("CHECK", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH");
        check("DEL", "CNI_CONTAINERID, CNI_IFNAME, CNI_PATH");
        check("GC", "CNI_PATH");
        check("STATUS", "CNI_PATH");
        check("", "CNI_COMMAND (one of ADD, DEL, CHECK, GC, STATUS, VERSION)");
        assert!(Environment::parse(|name| (name == "CNI_COMMAND").then(|| "VERSION".into())).is_ok());
        assert!(parse(&[("CNI_NETNS", "")]).unwrap_err().msg.ends_with(": CNI_NETNS"));
    }

    #[test]
    fn refuses_bad_values() {
        let check = |name: &str, value: &str| {
            let error = parse(&[(name, value)]).unwrap_err();
            assert_eq!(error.code, code::INVALID_ENVIRONMENT, "{name}={value}");
            assert!(error.msg.starts_with(name), "{name}={value}: {}", error.msg);
        };
        check("CNI_COMMAND", "add");
        for id in ["../x", "a/b", "-a", ".a", "a b", "ä", &"a".repeat(201)] {
            check("CNI_CONTAINERID", id);
        }
        for name in ["a/b", "..", ".", "a b", "a:b", "a\tb", "a\u{7f}b", "sixteen-bytes-xx"] {
            check("CNI_IFNAME", name);
        }
        check("CNI_ARGS", "nonsense");
        assert!(parse(&[("CNI_CONTAINERID", &"a".repeat(200)), ("CNI_IFNAME", "fifteen-bytes-x")]).is_ok());
    }

    #[test]
    fn names_the_variable_that_is_not_utf8() {
        for name in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"] {
            let error = Environment::parse(|asked| {
                let plain = ADD.iter().find(|(n, _)| *n == asked).map(|(_, v)| OsString::from(v));
                if asked == name { Some(OsString::from_vec(vec![0xff])) } else { plain }
            })
            .unwrap_err();
            assert_eq!(error.code, code::INVALID_ENVIRONMENT);
            assert!(error.msg.starts_with(name), "{}", error.msg);
        }
    }

    #[test]
    fn del_needs_neither_a_netns_nor_sane_arguments() {
        let env = parse(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", ""), ("CNI_ARGS", "nonsense")]).unwrap();
        assert_eq!((env.netns.as_str(), env.args), ("", CniArgs::default()));
        assert_eq!(env.ignored.len(), 1, "{:?}", env.ignored);
    }

    #[test]
    fn del_goes_on_without_a_netns_that_is_no_text() {
        let env = Environment::parse(|asked| match asked {
            "CNI_COMMAND" => Some("DEL".into()),
            "CNI_NETNS" | "CNI_NETNS_OVERRIDE" => Some(OsString::from_vec(vec![b'/', 0xff])),
            _ => ADD.iter().find(|(name, _)| *name == asked).map(|(_, value)| OsString::from(value)),
        })
        .unwrap();
        assert_eq!((env.netns.as_str(), env.netns_override), ("", false));
        assert!(env.ignored[0].starts_with("CNI_NETNS: \"/\\xFF\" is not UTF-8"), "{:?}", env.ignored);
        assert!(env.ignored[1].starts_with("CNI_NETNS_OVERRIDE"), "{:?}", env.ignored);
    }

    #[test]
    fn gc_and_status_do_not_look_at_the_container() {
        for verb in ["GC", "STATUS"] {
            let odd = [
                ("CNI_COMMAND", verb),
                ("CNI_CONTAINERID", "../x"),
                ("CNI_IFNAME", "a/b"),
                ("CNI_ARGS", "x"),
            ];
            assert_eq!(parse(&odd).unwrap().container_id, "");
        }
    }
}
