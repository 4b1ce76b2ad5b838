//! What every CNI plugin binary does around its verbs: environment, stdin, log, stdout, exit code.
//!
//! This is the only crate that writes a plugin's stdout. It writes exactly one JSON document or nothing
//! (CNI 1.1, section 2, "CNI operations"): the result of an ADD, the answer to VERSION, or an error.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::process::{self, ExitCode};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cni_conf::cni::env::{Command, Environment};
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::version::Version;
use cni_conf::request::Request;
use serde_json::{Value, json};

pub mod draft;
pub mod lock;
mod logger;
mod stdout;
pub mod timestamp;

// musl's allocator returns memory to the kernel with every large free. A plugin that lives for two
// milliseconds keeps it instead.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// The largest configuration that is accepted, in bytes. Real ones have a few thousand, `prevResult`
/// included.
pub const MAX_STDIN: u64 = 4 << 20;

/// Runs one request. Returns the result's JSON for ADD, `None` for the verbs without output.
pub type Run = fn(&Request) -> Result<Option<Value>, CniError>;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The verb. None if `CNI_COMMAND` is none.
    pub command: Option<Command>,
    /// The number of the error, if it failed.
    pub error: Option<u32>,
    /// How long it took, from the start of `main` to the answer.
    pub took: Duration,
}

/// Is told how a call ended, after the answer.
pub type Note = fn(&Ended);

/// Runs a command line with these arguments: writes to `out`, and returns the exit code. An error of `out`
/// means that the reader has closed the pipe.
pub type CommandLine = fn(words: &[String], out: &mut dyn Write) -> io::Result<u8>;

/// An error, and the CNI version to report it in.
type VersionedError = (CniError, Version);

/// The document to print, and the ADD request that it answers.
type Answered = (Option<Value>, Option<Request>);

/// The version of the configuration, once it is known. The panic hook uses it.
static VERSION: OnceLock<Version> = OnceLock::new();

/// The whole `main` of a plugin. `about` is one line such as `vlan-bridge 0.1.0`.
///
/// Answers VERSION, `--version` and `--help`. Anything else without `CNI_COMMAND` is an error. Calls with
/// `CNI_COMMAND` are noted.
pub fn plugin_main(about: &str, run: Run, note: Note) -> ExitCode {
    main_with(about, run, None, note)
}

/// The `main` of a plugin that also has a command line. A call without `CNI_COMMAND` whose first argument
/// does not begin with a dash goes to `tool`. Calls are not noted.
pub fn plugin_main_with_tool(about: &str, run: Run, tool: CommandLine) -> ExitCode {
    main_with(about, run, Some(tool), |_| ())
}

/// The whole `main` of a program that is not a plugin.
pub fn tool_main(tool: CommandLine) -> ExitCode {
    run_command_line(tool, &arguments())
}

/// Stdout, for a tool that draws on a terminal. A plugin prints one document, and nothing by this.
pub fn terminal_output() -> io::Stdout {
    io::stdout()
}

/// The command-line arguments without the program's name.
fn arguments() -> Vec<String> {
    env::args_os().skip(1).map(|word| word.to_string_lossy().into()).collect()
}

fn main_with(about: &str, run: Run, tool: Option<CommandLine>, note: Note) -> ExitCode {
    let begun = Instant::now();
    if env::var_os("CNI_COMMAND").is_none_or(|command| command.is_empty()) {
        let words = arguments();
        return match tool.filter(|_| words.first().is_some_and(|word| !word.starts_with('-'))) {
            Some(tool) => run_command_line(tool, &words),
            None => print_usage(about, tool.is_some()),
        };
    }
    let noted = move |error| {
        let verb = env::var_os("CNI_COMMAND").unwrap_or_default();
        let command = verb.to_str().and_then(Command::parse);
        note(&Ended { command, error, took: begun.elapsed() });
    };
    report_panics_as_json(move || noted(Some(code::INTERNAL)));
    let ended = finish(answer(|name| env::var_os(name), stdin(), run), run);
    noted(ended.err());
    exit_code(ended)
}

fn exit_code(ended: Result<(), u32>) -> ExitCode {
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Stdin, unless it is a terminal: nobody types a configuration.
fn stdin() -> Box<dyn Read> {
    let stdin = io::stdin();
    if stdin.is_terminal() { Box::new(io::empty()) } else { Box::new(stdin.lock()) }
}

/// Runs one call: from the environment and stdin to the document to print.
fn answer(
    get: impl Fn(&str) -> Option<OsString>,
    stdin: impl Read,
    run: Run,
) -> Result<Answered, VersionedError> {
    let env = Environment::parse(get);
    let stdin = match (read_config(stdin), &env) {
        (Ok(stdin), _) => stdin,
        (Err(_), Err(env_error)) => return Err((env_error.clone(), Version::NEWEST)),
        (Err(error), Ok(_)) => return Err((error, Version::NEWEST)),
    };
    let env = env.map_err(|error| (error, Request::version_for_errors(&stdin)))?;
    if env.command == Command::Version {
        return Ok((Some(versions(&stdin)), None));
    }
    let version = Request::version_for_errors(&stdin);
    VERSION.get_or_init(|| version);
    let outcome = Request::parse(env, stdin).and_then(|request| {
        start_log(&request)?;
        for ignored in &request.env.ignored {
            log::warn!("{ignored}");
        }
        let document = run(&request).inspect_err(|error| log::error!("{error} (code {})", error.code))?;
        let added = (request.env.command == Command::Add).then_some(request);
        Ok((document, added))
    });
    outcome.map_err(|error| (error, version))
}

/// Reads the configuration, at most [`MAX_STDIN`] bytes of it.
fn read_config(stdin: impl Read) -> Result<Vec<u8>, CniError> {
    let mut bytes = Vec::new();
    stdin
        .take(MAX_STDIN + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CniError::new(code::IO_FAILURE, format!("stdin: cannot read: {error}")))?;
    if bytes.len() as u64 > MAX_STDIN {
        let msg = format!("stdin: the network configuration is larger than {MAX_STDIN} bytes");
        return Err(CniError::new(code::DECODING_FAILURE, msg));
    }
    Ok(bytes)
}

/// The answer to VERSION (CNI 1.1, section 2, "VERSION").
fn versions(stdin: &[u8]) -> Value {
    let asked = Request::version_asked(stdin).unwrap_or_else(|| Version::NEWEST.as_str().to_owned());
    json!({"cniVersion": asked, "supportedVersions": Version::ALL.map(Version::as_str)})
}

/// Starts the log. Wrong settings are an error, except for DEL and GC, which must not fail on them.
fn start_log(request: &Request) -> Result<(), CniError> {
    match request.log_settings() {
        Ok(settings) => logger::start(&settings, &request.env),
        Err(error) if matches!(request.env.command, Command::Del | Command::Gc) => {
            logger::start(&Default::default(), &request.env);
            log::warn!("{error}");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Prints the document, if there is one, and returns the number of the error if the call failed. If the
/// result of an ADD cannot be printed, the ADD is undone.
fn finish(outcome: Result<Answered, VersionedError>, run: Run) -> Result<(), u32> {
    let (document, added, ended) = match outcome {
        Ok((document, added)) => (document, added, Ok(())),
        Err((error, version)) => (Some(error.to_json(version.as_str())), None, Err(error.code)),
    };
    let printed = document.map_or(Ok(()), |document| stdout::print(&document));
    match (printed, added) {
        (Ok(()), _) => return ended,
        (Err(error), None) => log::error!("stdout: cannot write: {error}"),
        (Err(error), Some(added)) => {
            log::error!("stdout: cannot write the result: {error}: undoing the ADD");
            undo(added, run);
        }
    }
    Err(ended.err().unwrap_or(code::IO_FAILURE))
}

/// Undoes an ADD with a DEL.
fn undo(mut request: Request, run: Run) {
    request.env.command = Command::Del;
    if let Err(error) = run(&request) {
        log::error!("undoing the ADD: {error} (code {}): a later DEL removes the rest", error.code);
    }
}

/// Runs the command line of a program.
fn run_command_line(tool: CommandLine, words: &[String]) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match stdout::check().and_then(|()| tool(words, &mut out)).and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "stdout: cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers a call without `CNI_COMMAND`: `--version`, `--help`, or an error.
fn print_usage(about: &str, has_tool: bool) -> ExitCode {
    let name = about.split(' ').next().unwrap_or_default();
    let more = if has_tool { format!("\n\nBy hand: {name} help") } else { String::new() };
    let help = format!(
        "{about}\nCNI versions: {}\n\nA CNI plugin: container runtimes call it with CNI_COMMAND and the other CNI_* \
         variables in the\nenvironment and a network configuration on stdin.{more}",
        Version::list()
    );
    let word = env::args_os().nth(1);
    let print = |text: &str| {
        let printed = stdout::check().and_then(|()| writeln!(io::stdout(), "{text}"));
        ExitCode::from(u8::from(printed.is_err()))
    };
    match word.as_ref().and_then(|word| word.to_str()) {
        Some("--version" | "-V") => print(about),
        Some("--help" | "-h") => print(&help),
        _ => {
            // With stderr closed, nobody can read it.
            let _ = writeln!(io::stderr(), "{help}");
            if io::stdin().is_terminal() {
                return ExitCode::FAILURE;
            }
            let missing = Environment::parse(|_| None).map(|_| (None, None));
            exit_code(finish(missing.map_err(|error| (error, Version::NEWEST)), |_| Ok(None)))
        }
    }
}

/// Makes a panic reach the runtime as an error document. It is noted after that.
fn report_panics_as_json(noted: impl Fn() + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        log::error!("{panic}");
        let error = CniError::new(code::INTERNAL, format!("the plugin has a defect: {panic}"));
        let version = VERSION.get().copied().unwrap_or(Version::NEWEST);
        let _ = stdout::print(&error.to_json(version.as_str()));
        noted();
        process::exit(1);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"cniVersion": "1.0.0", "name": "n"}"#;

    /// Calls a plugin that answers ADD with its network's name and refuses everything else.
    fn call(verb: &str, stdin: impl Read) -> Result<Option<Value>, VersionedError> {
        let get = |name: &str| match name {
            "CNI_COMMAND" => Some(verb.into()),
            "CNI_CONTAINERID" => Some("c1".into()),
            "CNI_IFNAME" => Some("eth0".into()),
            "CNI_PATH" => Some("/opt/cni/bin".into()),
            "CNI_NETNS" => Some("/run/netns/c1".into()),
            _ => None,
        };
        let answered = answer(get, stdin, |request| match request.env.command {
            Command::Add => Ok(Some(request.name.clone().into())),
            Command::Del => Ok(None),
            _ => Err(CniError::new(code::CHECK_FAILED, "refused")),
        });
        answered.map(|(document, added)| {
            assert_eq!(added.is_some(), verb == "ADD");
            document
        })
    }

    #[test]
    fn passes_the_plugins_answer_on() {
        assert_eq!(call("ADD", CONFIG.as_bytes()), Ok(Some("n".into())));
        assert_eq!(call("DEL", CONFIG.as_bytes()), Ok(None));
        let refused = CniError::new(code::CHECK_FAILED, "refused");
        assert_eq!(call("CHECK", CONFIG.as_bytes()), Err((refused, Version::V1_0_0)));
    }

    #[test]
    fn answers_version_itself() {
        let all = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        for (stdin, asked) in [("", "1.1.0"), ("{}", "1.1.0"), (r#"{"cniVersion":"0.4.0"}"#, "0.4.0")] {
            let expected = json!({"cniVersion": asked, "supportedVersions": all});
            assert_eq!(call("VERSION", stdin.as_bytes()), Ok(Some(expected)));
        }
    }

    #[test]
    fn errors_speak_the_configs_version() {
        let version = |verb: &str, stdin: &str| call(verb, stdin.as_bytes()).unwrap_err().1;
        assert_eq!(version("GC", CONFIG), Version::V1_0_0);
        assert_eq!(version("ADD", r#"{"cniVersion": "0.4.0"}"#), Version::V0_4_0);
        assert_eq!(version("NONSENSE", CONFIG), Version::V1_0_0);
        assert_eq!(version("ADD", r#"{"cniVersion": "9.0.0", "name": "n"}"#), Version::V1_1_0);
        assert_eq!(version("ADD", "{"), Version::V1_1_0);
    }

    #[test]
    fn stops_reading_at_the_limit() {
        struct Endless(u64);
        impl Read for &mut Endless {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                buf.fill(b' ');
                self.0 += buf.len() as u64;
                Ok(buf.len())
            }
        }
        let mut endless = Endless(0);
        let (error, _) = call("ADD", &mut endless).unwrap_err();
        assert_eq!(error.code, code::DECODING_FAILURE);
        assert!(error.msg.contains("4194304 bytes"), "{}", error.msg);
        assert!(endless.0 <= MAX_STDIN + 1, "{}", endless.0);
        let mut config = CONFIG.as_bytes().to_vec();
        config.resize(MAX_STDIN as usize, b' ');
        assert!(call("ADD", &config[..]).is_ok());
    }

    #[test]
    fn wrong_log_settings_fail_an_add_but_not_a_del() {
        let config = r#"{"cniVersion": "1.0.0", "name": "n", "logLevel": "loud"}"#;
        assert_eq!(call("ADD", config.as_bytes()).unwrap_err().0.code, code::INVALID_CONFIG);
        assert_eq!(call("DEL", config.as_bytes()), Ok(None));
    }
}
