//! The generated files on disk: writes them, or compares them with what is there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::emit::MARKER;
use crate::error::Error;

/// Generated code by file name.
pub(crate) type Files = BTreeMap<String, String>;

/// Writes the files that differ and removes generated ones that are no longer made.
pub(crate) fn write(directory: &Path, files: &Files) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(Error::file(directory))?;
    for (name, code) in files {
        let path = directory.join(name);
        if read(&path)?.as_deref() != Some(code.as_bytes()) {
            fs::write(&path, code).map_err(Error::file(&path))?;
        }
    }
    for path in surplus(directory, files)? {
        if path.is_file() && read(&path)?.is_some_and(|code| code.starts_with(MARKER.as_bytes())) {
            fs::remove_file(&path).map_err(Error::file(&path))?;
        }
    }
    Ok(())
}

/// Fails with the names of files that are stale, missing or not generated.
pub(crate) fn check(directory: &Path, files: &Files) -> Result<(), Error> {
    let mut differences = Vec::new();
    for (name, code) in files {
        let path = directory.join(name);
        match read(&path)? {
            None => differences.push(format!("missing: {}", path.display())),
            Some(found) if found != code.as_bytes() => differences.push(format!("stale: {}", path.display())),
            Some(_) => {}
        }
    }
    for path in surplus(directory, files)? {
        differences.push(format!("surplus: {}", path.display()));
    }
    if differences.is_empty() { Ok(()) } else { Err(Error::Differs(differences)) }
}

/// What the directory holds besides the generated files.
fn surplus(directory: &Path, files: &Files) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file(directory)(error)),
    };
    let names: Result<Vec<OsString>, _> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let mut names = names.map_err(Error::file(directory))?;
    names.retain(|name| name.to_str().is_none_or(|name| !files.contains_key(name)));
    names.sort();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path)(error)),
    }
}
