//! How this program was started, so that it can be started again: by path, since what stands there
//! may be a newer one by then.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program whose whole purpose is to run Pintle.
#[derive(Clone, Debug)]
pub struct Program {
    /// The name it was called by, with its folder where that was named.
    called: PathBuf,
    /// Where it was found at the start. Asked later the system would name a file that a package
    /// manager has deleted since, or the old end of a link.
    found: Option<PathBuf>,
    arguments: Vec<OsString>,
}

impl Program {
    /// This one. To be asked at the start, before files are replaced.
    pub fn this() -> Self {
        let mut words = std::env::args_os();
        let called = PathBuf::from(words.next().unwrap_or_default());
        let named = called.components().count() > 1;
        Self {
            called: if named { std::path::absolute(&called).unwrap_or(called) } else { called },
            found: std::env::current_exe().ok(),
            arguments: words.collect(),
        }
    }

    /// The same words again, to the file that stands there now, or to `instead`.
    pub fn again(&self, instead: Option<&Path>) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let binary = instead.map_or_else(|| self.binary(std::env::split_paths(&path)), Path::to_owned);
        let mut command = Command::new(binary);
        command.args(&self.arguments);
        command
    }

    /// As a shell would find it now, or else where it was at the start.
    fn binary(&self, mut folders: impl Iterator<Item = PathBuf>) -> PathBuf {
        let now = match self.called.is_absolute() {
            true => Some(self.called.clone()),
            false => folders.find_map(|folder| Some(folder.join(&self.called)).filter(|path| path.is_file())),
        };
        now.filter(|path| path.is_file())
            .or_else(|| self.found.clone())
            .unwrap_or_else(|| self.called.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_by_the_name_it_was_called_by() {
        let folder = std::env::temp_dir().join(format!("pintle-program-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("pintle");
        let program = |called: &Path| Program {
            called: called.to_owned(),
            found: Some("/where/it/was".into()),
            arguments: Vec::new(),
        };
        let path = || [PathBuf::from("/nowhere"), folder.clone()].into_iter();
        assert_eq!(program(&file).binary(path()), Path::new("/where/it/was"));
        std::fs::write(&file, "").unwrap();
        assert_eq!(program(&file).binary(path()), file);
        assert_eq!(program(Path::new("pintle")).binary(path()), file);
        assert_eq!(program(Path::new("other")).binary(path()), Path::new("/where/it/was"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
