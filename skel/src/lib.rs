//! What every CNI plugin binary of ours does around its verbs: environment, stdin, stdout, exit code.

use std::io::{Read, Write};
use std::process::ExitCode;

use cni_conf::cni::env::{Command, Environment};
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::version::Version;
use cni_conf::request::Request;
use serde_json::Value;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Carries out one call of a plugin.
pub fn plugin_main(_about: &str, run: fn(&Request) -> Result<Option<Value>, CniError>) -> ExitCode {
    let mut stdin = Vec::new();
    let outcome = Environment::parse(|name| std::env::var_os(name)).and_then(|env| {
        std::io::stdin()
            .read_to_end(&mut stdin)
            .map_err(|e| CniError::new(code::IO_FAILURE, e.to_string()))?;
        let request = Request::parse(env, stdin.clone())?;
        if request.env.command == Command::Version {
            let versions: Vec<&str> = Version::ALL.iter().map(|version| version.as_str()).collect();
            return Ok(Some(serde_json::json!({"cniVersion": "1.1.0", "supportedVersions": versions})));
        }
        run(&request)
    });
    let (document, exit) = match outcome {
        Ok(document) => (document, ExitCode::SUCCESS),
        Err(e) => (Some(e.to_json(Request::version_for_errors(&stdin))), ExitCode::FAILURE),
    };
    if let Some(document) = document {
        let _ = writeln!(std::io::stdout(), "{document}");
    }
    exit
}
