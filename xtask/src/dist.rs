//! `cargo xtask dist`: the files of a release.

use crate::oci::{self, Content, File, Image};
use crate::product::{self, Libc};
use crate::{provision, sbom, workspace};
use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The architectures of a release.
pub(crate) const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The binaries' folder in the image. They find each other because they share it.
const IN_IMAGE: &str = "opt/vlan-bridge";

/// Every node pulls the image, maybe all at once.
const LARGEST_IMAGE: usize = 15 << 20;

/// The files of the archive beside the binaries.
const DOCUMENTS: [&str; 6] = ["CHANGELOG.md", "LICENSE", "README.md", "deploy", "docs", "examples"];

/// Runs the verb.
pub(crate) fn main() -> Result<ExitCode> {
    for path in make()? {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes all files again and returns them.
fn make() -> Result<Vec<PathBuf>> {
    let dir = workspace::target().join("dist");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let own = std::env::consts::ARCH;
    let libc = Libc::best();
    let mut made = pack(&dir, own, &product::build(libc)?)?;
    let mut triples = vec![libc.triple()];
    for arch in ARCHITECTURES.into_iter().filter(|arch| *arch != own) {
        let built =
            provision::cross_compiler(arch).and_then(|compiler| product::cross_build(arch, &compiler));
        match built {
            Ok(binaries) => {
                made.extend(pack(&dir, arch, &binaries)?);
                triples.push(product::cross_triple(arch));
            }
            Err(error) => eprintln!("left out: {arch}: {error:#}"),
        }
    }
    let bill = serde_json::to_string_pretty(&sbom::make(VERSION, &triples)?)? + "\n";
    made.push(write(&dir, &format!("vlan-bridge-{VERSION}.cdx.json"), bill.as_bytes())?);
    let mut sums = String::new();
    for path in &made {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        sums += &format!("{}  {}\n", oci::hex_sha256(&bytes), file_name(path));
    }
    made.push(write(&dir, "SHA256SUMS", sums.as_bytes())?);
    Ok(made)
}

/// The archive and the image of one architecture.
fn pack(dir: &Path, arch: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    let name = name(VERSION, arch);
    let image = write(dir, &format!("{name}.oci.tar"), &image(arch, folder)?)?;
    let mut files = binaries(folder, &name)?;
    for document in DOCUMENTS {
        collect(&workspace::root().join(document), &format!("{name}/{document}"), &mut files)?;
    }
    let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
    packed.write_all(&oci::archive(&files)?).context("cannot compress")?;
    let archive = write(dir, &format!("{name}.tar.gz"), &packed.finish().context("cannot compress")?)?;
    Ok(vec![archive, image])
}

/// The name of an architecture's files, without their endings.
pub(crate) fn name(version: &str, arch: &str) -> String {
    format!("vlan-bridge-{version}-linux-{arch}")
}

/// The image of a folder of binaries, as in a release.
pub(crate) fn image(arch: &str, folder: &Path) -> Result<Vec<u8>> {
    let image = Image {
        name: &format!("localhost/vlan-bridge:{VERSION}"),
        arch,
        entrypoint: &[&format!("/{IN_IMAGE}/vlan-bridgectl")],
        labels: json!({"org.opencontainers.image.version": VERSION}),
        files: &binaries(folder, IN_IMAGE)?,
    };
    let bytes = image.archive()?;
    ensure!(bytes.len() < LARGEST_IMAGE, "an image of {} bytes: 15 MiB is the limit", bytes.len());
    Ok(bytes)
}

/// The binaries, to be put below `there`.
fn binaries(folder: &Path, there: &str) -> Result<Vec<File>> {
    let read = |name: &&str| {
        if *name == product::IPAM {
            let content = Content::LinkTo(format!("{there}/{}", product::BINARIES[0]));
            return Ok(File { path: format!("{there}/{name}"), mode: 0o755, content });
        }
        let path = folder.join(name);
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(File { path: format!("{there}/{name}"), mode: 0o755, content: Content::Bytes(content) })
    };
    product::BINARIES.iter().map(read).collect()
}

/// A file, or every file of a folder in the order of their names, to be put at `there`.
fn collect(here: &Path, there: &str, files: &mut Vec<File>) -> Result<()> {
    let cannot = || format!("cannot read {}", here.display());
    if !here.is_dir() {
        let content = fs::read(here).with_context(cannot)?;
        files.push(File { path: there.to_owned(), mode: 0o644, content: Content::Bytes(content) });
        return Ok(());
    }
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(here).with_context(cannot)? {
        names.push(entry.with_context(cannot)?.path());
    }
    names.sort();
    names.iter().try_for_each(|path| collect(path, &format!("{there}/{}", file_name(path)), files))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
