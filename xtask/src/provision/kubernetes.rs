//! Kubernetes, built with Debian's Go from Debian's source package, which contains all its dependencies. etcd
//! comes as a package. This Kubernetes is years old, but it uses CNI plugins as a new one does.

use super::{apt, once, only_entry, release, unpack};
use crate::command::{output, run};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs that are built.
const PROGRAMS: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];

/// The compiler that the package is built with, and its library.
const GO: [&str; 2] = ["golang-1.19-go", "golang-1.19-src"];

/// Where a GOPATH has Kubernetes.
const IN_GOPATH: &str = "src/k8s.io/kubernetes";

/// The folder with Kubernetes' programs and etcd.
pub(crate) fn kubernetes() -> Result<PathBuf> {
    once("kubernetes", |dir| {
        let etcd = dir.join("etcd-server");
        unpack(&apt::download(&["etcd-server".to_owned()], &[])?, &etcd)?;
        move_to(&etcd.join("usr/bin/etcd"), &dir.join("etcd"))?;
        fs::remove_dir_all(&etcd).with_context(|| format!("cannot remove {}", etcd.display()))?;
        let build = Build::prepare(workspace::rig().join("kubernetes.build"))?;
        build.describe()?;
        build.programs(dir)?;
        // Source, toolchain and the compiler's cache take more than a gigabyte.
        fs::remove_dir_all(&build.dir).with_context(|| format!("cannot remove {}", build.dir.display()))
    })
}

/// A folder with the toolchain in `go` and the source in a GOPATH.
struct Build {
    dir: PathBuf,
    go: PathBuf,
}

impl Build {
    fn prepare(dir: PathBuf) -> Result<Build> {
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
        }
        let source = dir.join(IN_GOPATH);
        fs::create_dir_all(&source).with_context(|| format!("cannot make {}", source.display()))?;
        unpack(&apt::download(&GO.map(str::to_owned), &[])?, &dir.join("go"))?;
        let libraries = dir.join("go/usr/lib");
        let go = libraries.join(only_entry(&libraries)?);
        let package = apt::download_source("kubernetes", &release::own_sources()?)?;
        // Debian's patches only change kubectl's output, and need parts of dpkg that this machine may lack.
        let archive = with_ending(&package, ".orig.tar.gz")?;
        let mut tar = Command::new("tar");
        run(tar.arg("-xzf").arg(archive).arg("-C").arg(&source).arg("--strip-components=1"))?;
        fs::remove_dir_all(&package).with_context(|| format!("cannot remove {}", package.display()))?;
        Ok(Build { dir, go })
    }

    fn source(&self) -> PathBuf {
        self.dir.join(IN_GOPATH)
    }

    /// A program that is run in the source with the toolchain's variables.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.source()).env("PWD", self.source());
        command.env("GOROOT", &self.go).env("GOPATH", &self.dir).env("GOFLAGS", "").env("CGO_ENABLED", "0");
        command.env("GO111MODULE", "off").env("GOCACHE", self.dir.join("cache"));
        command
    }

    /// Generates the one package that is not in the source: the schema of the API's types.
    fn describe(&self) -> Result<()> {
        let generator = self.dir.join("openapi-gen");
        let package = "k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen";
        run(self.command(&self.go.join("bin/go")).args(["build", "-o"]).arg(&generator).arg(package))?;
        let packages: Vec<String> =
            self.described()?.into_iter().map(|folder| format!("k8s.io/kubernetes/{folder}")).collect();
        let mut command = self.command(&generator);
        command.args(["--logtostderr", "-i", &packages.join(","), "-O", "zz_generated.openapi"]);
        command.args(["-p", "k8s.io/kubernetes/pkg/generated/openapi"]);
        command.args(["-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt", "-r"]);
        output(command.arg(self.dir.join("violations"))).map(|_| ())
    }

    /// The folders whose types have the tag for this schema. The package's Makefile finds them in the same
    /// way.
    fn described(&self) -> Result<BTreeSet<String>> {
        let mut folders = BTreeSet::new();
        for (root, prefix) in [("", ""), ("staging/src/", "vendor/")] {
            let mut grep = Command::new("grep");
            grep.current_dir(self.source().join(root)).args(["-rl", "--include=*.go", "+k8s:openapi-gen="]);
            for file in output(grep.arg(if root.is_empty() { "pkg" } else { "k8s.io" }))?.lines() {
                let folder = Path::new(file).parent().unwrap_or(Path::new("")).display();
                folders.insert(format!("{prefix}{folder}"));
            }
        }
        // Examples, and code about the tag itself.
        folders.retain(|folder| {
            !["code-generator", "sample-apiserver", "generat"].iter().any(|part| folder.contains(part))
        });
        Ok(folders)
    }

    fn programs(&self, to: &Path) -> Result<()> {
        eprintln!("building Kubernetes, which takes some minutes ...");
        let version = "k8s.io/kubernetes/vendor/k8s.io/component-base/version";
        let linker =
            format!("-s -w -X {version}.gitVersion=v1.20.2 -X {version}.gitMajor=1 -X {version}.gitMinor=20");
        let mut command = self.command(&self.go.join("bin/go"));
        command.args(["build", "-trimpath", "-tags", "providerless", "-ldflags", &linker, "-o"]).arg(to);
        run(command.args(PROGRAMS.map(|name| format!("./cmd/{name}"))))?;
        for name in PROGRAMS {
            ensure!(to.join(name).is_file(), "the build made no {name}");
        }
        Ok(())
    }
}

/// The only file of a folder with this ending.
fn with_ending(dir: &Path, ending: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ending) {
            return Ok(path);
        }
    }
    anyhow::bail!("no {ending} in {}", dir.display())
}

fn move_to(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}
