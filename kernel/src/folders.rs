//! Changes in folders, as the kernel announces them (inotify(7)).

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Folders whose files are watched.
#[derive(Debug)]
pub struct FolderWatch {
    inotify: Inotify,
}

impl FolderWatch {
    /// Watches folders from now on. A file that is written, replaced or removed is a change.
    ///
    /// # Errors
    /// A folder that does not exist, or the limit `fs.inotify.max_user_instances`.
    pub fn of<'a>(folders: impl IntoIterator<Item = &'a Path>) -> io::Result<FolderWatch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF;
        for folder in folders {
            inotify.add_watch(folder, changes)?;
        }
        Ok(FolderWatch { inotify })
    }

    /// Waits for a change, at most this long.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut descriptors = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, limit) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_replaced_file_is_a_change() {
        let folder = std::env::temp_dir().join(format!("vlan-bridge-folders-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("draft"), "a").unwrap();
        let began = Instant::now();
        let watch = FolderWatch::of([folder.as_path()]).unwrap();
        watch.wait(Duration::from_millis(1)).unwrap();
        fs::rename(folder.join("draft"), folder.join("list")).unwrap();
        watch.wait(LONG).unwrap();
        let watch = FolderWatch::of([folder.as_path()]).unwrap();
        fs::write(folder.join("list"), "b").unwrap();
        watch.wait(LONG).unwrap();
        assert!(began.elapsed() < LONG);
        fs::remove_dir_all(&folder).unwrap();
        assert!(FolderWatch::of([folder.as_path()]).is_err());
    }
}
