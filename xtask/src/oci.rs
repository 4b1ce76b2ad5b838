//! An OCI image of one layer (image-spec 1.0), as the archive of an image layout that runtimes import. Making
//! it needs no registry and no daemon, and the same content gives the same bytes.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use tar::{Builder, EntryType, Header};

/// A file: its relative path, its mode and its content.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) content: Content,
}

/// The content of a file.
pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// A hard link to an earlier file.
    LinkTo(String),
}

/// An image from scratch.
pub(crate) struct Image<'a> {
    /// Its whole name, tag included.
    pub(crate) name: &'a str,
    /// Rust's name of the architecture.
    pub(crate) arch: &'a str,
    pub(crate) entrypoint: &'a [&'a str],
    pub(crate) labels: Value,
    pub(crate) files: &'a [File],
}

impl Image<'_> {
    /// The archive of the layout.
    pub(crate) fn archive(&self) -> Result<Vec<u8>> {
        let layer = archive(self.files)?;
        let config = json!({
            "architecture": architecture(self.arch),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/bin"], "Labels": self.labels},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let kind = |part: &str| format!("application/vnd.oci.image.{part}");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind("manifest.v1+json"),
            "config": descriptor(&kind("config.v1+json"), &config),
            "layers": [descriptor(&kind("layer.v1.tar"), &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor(&kind("manifest.v1+json"), &manifest);
        // containerd reads the first. podman and others read the second.
        entry["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name,
        });
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
        let mut files = vec![
            File {
                path: "oci-layout".into(),
                mode: 0o644,
                content: Content::Bytes(br#"{"imageLayoutVersion":"1.0.0"}"#.into()),
            },
            File { path: "index.json".into(), mode: 0o644, content: Content::Bytes(index) },
        ];
        for blob in [manifest, config, layer] {
            let path = format!("blobs/sha256/{}", hex_sha256(&blob));
            files.push(File { path, mode: 0o644, content: Content::Bytes(blob) });
        }
        archive(&files)
    }
}

/// A tar archive of files that belong to root and have time 0. Their folders are added automatically.
pub(crate) fn archive(files: &[File]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let mut folders: Vec<&str> = Vec::new();
    for File { path, mode, content } in files {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if !folders.contains(&folder) {
                folders.push(folder);
                let path = format!("{folder}/");
                append(&mut builder, EntryType::Directory, &path, 0o755, &Content::Bytes(Vec::new()))?;
            }
        }
        let kind = match content {
            Content::Bytes(_) => EntryType::Regular,
            Content::LinkTo(_) => EntryType::Link,
        };
        append(&mut builder, kind, path, *mode, content)?;
    }
    builder.into_inner().context("cannot end an archive")
}

fn append(
    builder: &mut Builder<Vec<u8>>,
    kind: EntryType,
    path: &str,
    mode: u32,
    content: &Content,
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let added = match content {
        Content::Bytes(bytes) => {
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, &bytes[..])
        }
        Content::LinkTo(other) => builder.append_link(&mut header, path, other),
    };
    added.with_context(|| format!("cannot archive {path}"))
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_sha256(bytes))
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
}

/// The name of an architecture in Go and OCI.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(content: &[u8]) -> Vec<u8> {
        let files = [File { path: "bin/a".into(), mode: 0o755, content: Content::Bytes(content.into()) }];
        let image = Image {
            name: "localhost/a:1",
            arch: "x86_64",
            entrypoint: &["/bin/a"],
            labels: json!({}),
            files: &files,
        };
        image.archive().unwrap_or_else(|error| panic!("{error:#}"))
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        assert_eq!(image(b"one"), image(b"one"));
        assert_ne!(image(b"one"), image(b"two"));
    }

    #[test]
    fn sums_are_those_of_sha256sum() {
        assert_eq!(hex_sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
