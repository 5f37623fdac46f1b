//! Where a Pintle's admin door is found when nobody says: the one list that the server opens and
//! the command line tries.
//!
//! Start at [`sockets`]. What the file says about `[admin]` belongs to `config`.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The conventional TCP address: reads, and writes with a token.
pub const TCP: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9900));

/// The conventional socket paths, best first. The server opens the first that it can write.
pub fn sockets() -> Vec<PathBuf> {
    sockets_for(std::env::var_os("XDG_RUNTIME_DIR").as_deref(), &std::env::temp_dir(), user())
}

fn sockets_for(runtime_dir: Option<&OsStr>, temporary: &Path, user: u32) -> Vec<PathBuf> {
    let runtime_dir = runtime_dir.map(Path::new).filter(|dir| dir.is_absolute());
    let folders = [
        Some(PathBuf::from("/run/pintle")),
        runtime_dir.map(|dir| dir.join("pintle")),
        Some(temporary.join(format!("pintle-{user}"))),
    ];
    folders.into_iter().flatten().map(|folder| folder.join("admin.sock")).collect()
}

/// Makes the socket's folder, for this user alone, where it does not exist; refuses one that
/// [`verify`] refuses.
pub fn prepare(socket: &Path) -> io::Result<()> {
    if let Some(folder) = socket.parent()
        && let Err(error) = DirBuilder::new().mode(0o700).create(folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    verify(socket)
}

/// Refuses a socket whose folder a stranger could have made: in a shared temporary directory
/// anybody can be first to use our name. Elsewhere the owner of the directory above decides who
/// keeps a socket there, such as a service user in `/run/pintle`.
pub fn verify(socket: &Path) -> io::Result<()> {
    let folder = match socket.parent().ok_or(io::ErrorKind::NotFound)? {
        here if here.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    let shared = folder.parent().is_some_and(|above| fs::metadata(above).is_ok_and(|above| writable(&above)));
    let folder = fs::symlink_metadata(folder)?;
    let ours = folder.is_dir() && [user(), 0].contains(&folder.uid()) && !writable(&folder);
    if ours || !shared {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can write the folder it is in"))
    }
}

/// Whether others than the owner can put something there.
fn writable(folder: &fs::Metadata) -> bool {
    folder.mode() & 0o022 != 0
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A folder of one test's own, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pintle-places-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("a fresh folder");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_machines_place_comes_before_the_users() {
        let places = sockets_for(Some(OsStr::new("/run/user/7")), Path::new("/tmp"), 7);
        let expected =
            ["/run/pintle/admin.sock", "/run/user/7/pintle/admin.sock", "/tmp/pintle-7/admin.sock"];
        assert_eq!(places, expected.map(PathBuf::from));
    }

    #[test]
    fn an_unset_or_relative_runtime_directory_is_no_place() {
        for runtime_dir in [None, Some(OsStr::new("")), Some(OsStr::new("run"))] {
            assert_eq!(sockets_for(runtime_dir, Path::new("/tmp"), 7).len(), 2, "{runtime_dir:?}");
        }
    }

    #[test]
    fn a_folder_is_made_for_the_user_alone() {
        let scratch = Scratch::new("made");
        let socket = scratch.0.join("pintle/admin.sock");
        prepare(&socket).unwrap();
        assert_eq!(fs::metadata(scratch.0.join("pintle")).unwrap().mode() & 0o777, 0o700);
        prepare(&socket).unwrap();
    }

    #[test]
    fn a_socket_in_the_current_folder_is_as_good_as_one_with_a_path() {
        assert_eq!(verify(Path::new("admin.sock")).map_err(|error| error.kind()), Ok(()));
    }

    #[test]
    fn in_a_shared_directory_a_folder_that_others_can_write_or_that_is_a_link_is_refused() {
        let scratch = Scratch::new("refused");
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let (folder, link) = (scratch.0.join("folder"), scratch.0.join("link"));
        fs::create_dir(&folder).unwrap();
        symlink(&folder, &link).unwrap();
        let verdict = |folder: &Path| verify(&folder.join("admin.sock")).map_err(|error| error.kind());

        mode(&scratch.0, 0o1777);
        mode(&folder, 0o777);
        assert_eq!(verdict(&folder), Err(io::ErrorKind::PermissionDenied));
        mode(&folder, 0o700);
        assert_eq!(verdict(&folder), Ok(()));
        assert_eq!(verdict(&link), Err(io::ErrorKind::PermissionDenied));
        mode(&scratch.0, 0o755);
        assert_eq!(verdict(&link), Ok(()));
    }
}
