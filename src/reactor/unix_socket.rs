//! A listening socket in the file system, for processes of this host.
//!
//! Who may use it, its permission bits say, from the moment that it is there. A socket that a process has left behind is replaced; one
//! that somebody listens at is not, and nothing else is. Called once per listener, before the shards accept.

use std::fs;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::Socket;

/// A listening, non-blocking socket at `path` with those permission bits.
pub fn listen_unix(path: &Path, mode: u32) -> io::Result<Socket> {
    remove_left(path)?;
    // It is made beside its place, where nobody knows it, so that it is never there with other permissions than those.
    let beside = beside(path);
    let explain = |error: io::Error| {
        let cure = "the directory must be there, and writable for the user that the broker runs as (RuntimeDirectory= in a unit)";
        io::Error::new(error.kind(), format!("cannot listen on {}: {error}: {cure}", path.display()))
    };
    remove_left(&beside)?;
    let listener = UnixListener::bind(&beside).map_err(explain)?;
    let placed = fs::set_permissions(&beside, fs::Permissions::from_mode(mode))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| fs::rename(&beside, path));
    if let Err(error) = placed {
        let _gone_or_not_ours = fs::remove_file(&beside);
        return Err(explain(error));
    }
    Ok(Socket(listener.into_raw_fd()))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Removes a socket that nobody listens at.
fn remove_left(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let refuse = |cause: &str| {
        let text = format!("cannot listen on {}: {cause}", path.display());
        Err(io::Error::new(io::ErrorKind::AddrInUse, text))
    };
    if !kind.is_socket() {
        return refuse("something else than a socket is there; remove it, or choose another path");
    }
    match UnixStream::connect(path) {
        Ok(_) => refuse("another process listens there; stop it, or choose another path"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_socket_has_its_permissions_and_takes_connections() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mqtt.sock");
        listen_unix(&path, 0o640).unwrap();
        assert_eq!(bits(&path), 0o640);
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_a_process_has_left_is_replaced_and_what_somebody_uses_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mqtt.sock");
        let first = listen_unix(&path, 0o600).unwrap();
        let error = listen_unix(&path, 0o600).unwrap_err();
        assert!(error.to_string().contains("another process listens there"), "{error}");
        crate::reactor::calls::close(first);
        listen_unix(&path, 0o660).unwrap();
        assert_eq!(bits(&path), 0o660);
    }

    #[test]
    fn what_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mqtt.sock");
        fs::write(&path, "a letter").unwrap();
        let error = listen_unix(&path, 0o600).unwrap_err();
        assert!(error.to_string().contains("something else than a socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"a letter");
        let error = listen_unix(Path::new("/nowhere/at/all"), 0o600).unwrap_err();
        assert!(error.to_string().contains("the directory must be there"), "{error}");
    }
}
