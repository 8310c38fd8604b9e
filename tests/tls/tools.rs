//! A broker that speaks TLS, and files for certificates.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

use lepus::broker::Broker;
use lepus::{ConnectOptions, Tls};

pub(crate) async fn broker() -> Broker {
    Broker::options().tls().start().await.unwrap()
}

/// Options that trust the broker.
pub(crate) fn trusting(broker: &Broker) -> ConnectOptions {
    ConnectOptions::new(&broker.tls_url()).unwrap().tls(Tls::new().ca_pem(broker.ca_pem()))
}

/// A folder of a test, which goes with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lepus-tls-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Writes a file; where it is, as it stands in a URI.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        shown(&path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
