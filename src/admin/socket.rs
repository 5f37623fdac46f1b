//! The unix socket's file: made for its owner alone, replaced when nobody answers, removed at the
//! end.
//!
//! Start at [`open_socket`]. Which path is asked for is not decided here.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use socket2::{Domain, SockAddr, Type};

/// A listening socket and its file, which goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: only our own file is removed.
    file: (u64, u64),
    /// Another process has it now.
    left: AtomicBool,
}

/// Listens at `path` with mode 0600, in a folder that is made (0700) where it is missing.
///
/// # Errors
/// `AddrInUse` when somebody answers there; `AlreadyExists` when the path is no socket.
pub fn open_socket(path: &Path) -> io::Result<Socket> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    require_free(path)?;
    // Between bind and chmod a socket has the mode that the umask leaves. So it is bound where
    // only its owner can reach it, and moved into place finished, which also replaces a dead one.
    let cradle = Cradle::make(folder)?;
    let bound = cradle.0.join("s");
    let listener = UnixListener::bind(&bound)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&bound, fs::Permissions::from_mode(0o600))?;
    let file = identity(&bound)?;
    fs::rename(&bound, path)?;
    Ok(Socket { listener, path: path.to_owned(), file, left: AtomicBool::new(false) })
}

/// Goes on with a socket that another process has opened at `path`.
pub fn adopt_socket(listener: UnixListener, path: &Path) -> io::Result<Socket> {
    listener.set_nonblocking(true)?;
    Ok(Socket { listener, path: path.to_owned(), file: identity(path)?, left: AtomicBool::new(false) })
}

impl Socket {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the file to the process that listens there now.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Another handle on the listening socket.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.left.load(Ordering::Relaxed) && identity(&self.path).is_ok_and(|file| file == self.file) {
            // Gone in between is as good.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Nothing at the path, or a socket that nobody listens on.
fn require_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            let message = format!("{} exists and is not a socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Ok(_) => {}
    }
    // Not blocking: a process that hangs with a full backlog is there all the same.
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => {
            let message = format!("{} is in use: another process answers there", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// A folder for the moment of binding. Its name is short, for a socket's path may have 107 bytes.
struct Cradle(PathBuf);

impl Cradle {
    fn make(folder: &Path) -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!(".{}.{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let cradle = Self(folder.join(name));
        // What a process of the same number left behind goes. If it is not ours, create fails.
        cradle.clear();
        fs::DirBuilder::new().mode(0o700).create(&cradle.0)?;
        Ok(cradle)
    }

    fn clear(&self) {
        let _ = fs::remove_file(self.0.join("s"));
        let _ = fs::remove_dir(&self.0);
    }
}

impl Drop for Cradle {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// A folder of this test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pintle-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_file_is_its_owners_alone_and_goes_with_the_socket() {
        let folder = Folder::new("mode");
        let path = folder.0.join("run/pintle/admin.sock");
        let socket = open_socket(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_that_nobody_answers_on_is_replaced() {
        let folder = Folder::new("stale");
        let path = folder.0.join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let _socket = open_socket(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(folder.names(), ["admin.sock"]);
    }

    #[test]
    fn a_socket_that_answers_is_in_use() {
        let folder = Folder::new("busy");
        let path = folder.0.join("admin.sock");
        let _first = open_socket(&path).unwrap();
        assert_eq!(open_socket(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = Folder::new("file");
        let path = folder.0.join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert_eq!(open_socket(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_that_was_handed_over_keeps_its_file_until_its_new_owner_goes() {
        let folder = Folder::new("handed");
        let path = folder.0.join("admin.sock");
        let first = open_socket(&path).unwrap();
        let second = adopt_socket(first.listener().unwrap(), &path).unwrap();
        first.leave();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert_eq!(folder.names(), [""; 0]);
    }

    #[test]
    fn a_successors_file_is_not_removed() {
        let folder = Folder::new("successor");
        let path = folder.0.join("admin.sock");
        let first = open_socket(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = open_socket(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
    }
}
